"""What another process is given, so that it goes on in the session and writes to the same log."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from instrument import _config, context
from instrument.context import Scope, SessionIdentity, run_in

__all__ = ["Carried", "carrying", "handed_to_child"]

Identity = tuple[str, str | None, str | None, str | None]


class Carried:
    """A scope that pickles: the session's identity, the parent operation's id and the log."""

    def __init__(self, scope: Scope) -> None:
        session = scope.session
        self.identity: Identity = (session.id, session.name, session.parent_id, session.trace_id)
        self.parent_id = scope.parent_id
        self.log_dir = _config.given_log_dir()

    def scope(self) -> Scope:
        """Return the same in the process where it was unpickled."""
        _config.hand_on(self.log_dir)
        return Scope(SessionIdentity(*self.identity), parent_id=self.parent_id)


class Carrying:
    """A callable that runs inside of what was current where it was made, in whatever process."""

    def __init__(self, fn: Callable[..., Any], carried: Carried) -> None:
        update_wrapper(self, fn)
        self._fn = fn
        self._carried = carried

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return run_in(self._carried.scope(), self._fn, *args, **kwargs)

    def __reduce__(self) -> Any:
        return Carrying, (self._fn, self._carried)


class HandedToChild:
    """Makes scope and settings current where it is unpickled: at the start of a child process."""

    def __init__(self, carried: Carried | None, log_dir: str | None) -> None:
        self._given = carried, log_dir

    def __reduce__(self) -> Any:
        settings = _config.given_beside_log_dir()
        redact = settings.pop("redact", None)
        return _enter, (*self._given, settings, None if redact is None else _pickled(redact))


def carrying(fn: Callable[..., Any], scope: Scope) -> Carrying:
    """Return `fn` bound to `scope`; it pickles if `fn` does."""
    return Carrying(fn, Carried(scope))


def handed_to_child(scope: Scope | None) -> HandedToChild | None:
    """Return what a child process that is not forked unpickles at its start, if anything."""
    log_dir = _config.given_log_dir()
    if scope is None and log_dir is None and not _config.given_beside_log_dir():
        return None
    return HandedToChild(None if scope is None else Carried(scope), log_dir)


def withheld(field: str, value: Any) -> None:
    """Stand in for a `redact` that does not cross to another process: nothing is shown."""


def _pickled(redact: Any) -> bytes:
    import pickle  # loaded, for this is being pickled

    try:
        return pickle.dumps(redact)
    except Exception:  # whatever its own pickling raises
        return pickle.dumps(withheld)


def _unpickled(redact: bytes) -> Any:
    import pickle  # loaded, as above

    try:
        return pickle.loads(redact)
    except Exception:  # it stands in a module that is another one here
        return withheld


def _enter(
    carried: Carried | None, log_dir: str | None, settings: dict[str, Any], redact: bytes | None
) -> None:
    if redact is not None:
        settings["redact"] = _unpickled(redact)
    if settings:
        _config.take_over(settings)
    _config.hand_on(log_dir)
    if carried is not None:
        context.scope.set(carried.scope())
