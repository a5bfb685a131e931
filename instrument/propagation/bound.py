"""`propagate(fn)`: a callable that runs in the session and operation of the moment."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any, TypeVar

from instrument import context
from instrument._kinds import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from instrument._processes import Portable, portable, scope_of
from instrument.context import Scope, bind_to_context
from instrument.errors import ConfigurationTypeError
from instrument.wrappers import in_scope

__all__ = ["propagate"]

F = TypeVar("F", bound=Callable[..., Any])


def propagate(fn: F) -> F:
    """Return `fn` bound to the session and operation that are current now.

    In another thread it runs in a snapshot of this context; pickled to another process it takes
    the session and the parent operation along, and it pickles if `fn` does. Coroutine and
    generator functions keep their kind, and are bound in each of their steps.

    Raises `ConfigurationError` if `fn` cannot be called.
    """
    if not callable(fn):
        raise ConfigurationTypeError("propagate: fn", fn, "a callable")
    bound: Any = Bound(fn)
    current = context.scope.get()
    is_in_session = current is not None and current.session.id
    bound.bind(
        fn,
        current.elsewhere() if current is not None and is_in_session else None,
        None if _stepwise(fn) is not None else bind_to_context(fn),
    )
    return bound  # type: ignore[no-any-return]  # it is called as fn is


class Bound(partial[Any]):
    """A partial of nothing, so that `inspect` sees the kind of the function inside."""

    def bind(
        self, fn: Callable[..., Any], around: Scope | None, run: Callable[..., Any] | None
    ) -> None:
        """Run `fn` by `run`, or else inside of `around`; `fn` and `around` are what pickles."""
        update_wrapper(self, fn)
        self._fn = fn  # of a partial, `func` would be the function inside
        self._around = around
        if run is None:
            run = fn if around is None else in_scope(_stepwise(fn) or fn, self._enter)
        self._run = run

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._run(*args, **kwargs)

    def __reduce__(self) -> Any:
        around = self._around
        return _rebound, (self._fn, None if around is None else portable(around))

    def _enter(self, outer: Scope | None) -> Scope:
        around = self._around
        assert around is not None
        return Scope(around.session, outer, around.parent, around.parent_id)


def _rebound(fn: Callable[..., Any], around: Portable | None) -> Bound:
    bound = Bound(fn)
    bound.bind(fn, None if around is None else scope_of(around), None)
    return bound


def _stepwise(fn: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the coroutine or generator function that `fn` is, or is called by."""
    for found in (fn, getattr(fn, "__call__", fn)):  # noqa: B004 - the method itself is wanted
        if iscoroutinefunction(found) or isgeneratorfunction(found) or isasyncgenfunction(found):
            return found
    return None
