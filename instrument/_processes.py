"""What another process is given by whoever starts it: session, operation, trace and settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from instrument import _config, context
from instrument.context import Gate, Scope, SessionIdentity, lineage, run_in

__all__ = ["Portable", "at_start", "carrying", "handed_to_child", "portable", "scope_of"]

Portable = tuple[str, str | None, str | None, str, str | None, Gate | None]
"""A scope that pickles: the session's id, name and parent, the trace, the parent operation, and the
gate of its budgets."""


def portable(scope: Scope) -> Portable:
    """Return what takes `scope`, as `elsewhere` gives it, to another process."""
    session = scope.session
    parent_id, trace_id = lineage(session, scope.parent, scope.parent_id)
    return session.id, session.name, session.parent_id, trace_id, parent_id, session.gate


def scope_of(found: Portable) -> Scope:
    """Return the same scope in the process where it arrived."""
    session_id, name, around_id, trace_id, parent_id, gate = found
    session = SessionIdentity(session_id, name, around_id, trace_id)
    session.gate = gate
    return Scope(session, parent_id=parent_id)


class Carrying:
    """A callable that runs where it was made in all but the process: there, inside of `scope`.

    `settings` are those of the program when the work was handed over, packed.
    """

    def __init__(self, fn: Callable[..., Any], scope: Portable | None, settings: bytes) -> None:
        update_wrapper(self, fn)
        self._fn = fn
        self._scope = scope
        self._settings = settings

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        _follow(self._settings)
        if self._scope is None:
            return self._fn(*args, **kwargs)
        return run_in(scope_of(self._scope), self._fn, *args, **kwargs)

    def __reduce__(self) -> Any:
        return Carrying, (self._fn, self._scope, self._settings)


class HandedToChild:
    """Makes scope and settings current where it is unpickled: at the start of a child process."""

    def __init__(self, scope: Portable | None, settings: bytes) -> None:
        self._given = scope, settings, tuple(_at_start.items())

    def __reduce__(self) -> Any:
        return _begin_child, self._given


def carrying(fn: Callable[..., Any], scope: Scope | None) -> Callable[..., Any]:
    """Return `fn` bound to `scope` and the settings in force, if there are any; pickles if it does.

    What was told once is told for ever: a pool's worker may have settings that are no longer.
    """
    settings = _packed_settings()
    if scope is None and not settings:
        return fn
    return Carrying(fn, None if scope is None else portable(scope), settings)


def handed_to_child(scope: Scope | None) -> HandedToChild | None:
    """Return what a child process that is not forked unpickles at its start, if anything."""
    settings = _packed_settings()
    if scope is None and not settings and not _at_start:
        return None
    return HandedToChild(None if scope is None else portable(scope), settings)


def at_start(do: Callable[[Any], None], argument: Any) -> None:
    """Have children that are not forked call `do` with `argument` first; both have to pickle."""
    _at_start[do] = argument


def withheld(field: str, value: Any) -> None:
    """Stand in for a `redact` that does not cross to another process: nothing is shown."""


def _packed_settings() -> bytes:
    global _packed
    if _packed is None:
        _packed = _pack(_config.told())
    return _packed


def _pack(told: dict[str, Any]) -> bytes:
    import pickle  # loaded, for this goes to another process

    try:
        redact = pickle.dumps(told.get("redact"))
    except Exception:  # whatever its own pickling raises
        redact = pickle.dumps(withheld)
    return pickle.dumps({**told, "redact": redact})


def _unpack(settings: bytes) -> dict[str, Any]:
    import pickle  # loaded, as above

    told: dict[str, Any] = pickle.loads(settings) if settings else {"redact": pickle.dumps(None)}
    try:
        redact = pickle.loads(told.pop("redact"))
    except Exception:  # it stands in a module that is another one here
        redact = withheld
    return told if redact is None else {**told, "redact": redact}


def _follow(settings: bytes, *, at_start: bool = False) -> None:
    """Go on with these settings, if they are not those of the work before.

    At a process's first work others follow them, too, for nobody may have asked for any yet.
    """
    global _followed
    this = os.getpid(), settings
    if _followed != this:
        _config.hand_on(_unpack(settings), at_start=at_start)
        _followed = this


def _begin_child(
    scope: Portable | None, settings: bytes, first: tuple[tuple[Callable[[Any], None], Any], ...]
) -> None:
    _follow(settings, at_start=True)
    for do, argument in first:
        do(argument)
    if scope is not None:
        context.enter_session(scope_of(scope))


def _told() -> None:
    global _packed
    _packed = None


_packed: bytes | None = b""
"""The settings as workers are told them: nothing as long as nobody asked for any."""

_followed: tuple[int, bytes] | None = None
_at_start: dict[Callable[[Any], None], Any] = {}
_config.on_change(_told)
