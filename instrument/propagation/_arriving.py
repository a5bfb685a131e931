"""The session that arrives with a request, for servers that run it piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from instrument import context
from instrument.context import Scope
from instrument.propagation._harmless import harmless
from instrument.propagation.headers import extract
from instrument.wrappers import SessionSteps

__all__ = ["Parts", "Stepwise", "arriving", "entry_in", "inside"]


def arriving(headers: Any) -> extract:
    """Return `extract(headers)`, whatever they are. Never raises."""
    with harmless:
        return extract(headers)
    return extract(())


def inside(headers: Any) -> Scope | None:
    """Return what would be current inside `extract(headers)`, `None` without a session.

    Never raises.
    """
    with harmless, arriving(headers) as session:
        found = context.scope.get()
        return None if session is None or found is None else found.elsewhere()
    return None


def entry_in(found: Scope) -> Callable[[Scope | None], Scope]:
    """Return what makes for each call a scope like `found`, inside of what is current there."""
    return partial(_entry, found)


def _entry(found: Scope, outer: Scope | None) -> Scope:
    return Scope(found.session, outer, None, found.parent_id)


class Stepwise(SessionSteps):
    """Runs calls inside of a scope, and leaves nothing of it behind between them."""

    __slots__ = ()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self.enter()
        try:
            return function(*arguments)
        finally:
            self.leave()


class Parts:
    """Iterates over the parts of a response, each of which is made in a step."""

    def __init__(self, response: Iterable[Any], steps: Stepwise) -> None:
        self._response = response
        self._steps = steps
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = self._steps.run(iter, self._response)
        return self._steps.run(next, self._iterator)

    def close(self) -> None:
        close = getattr(self._response, "close", None)
        if close is not None:
            self._steps.run(close)
