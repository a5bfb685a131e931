"""What is current while the garbage collector runs, on Python 3.11.

There a collection begins inside any allocation, those of `ContextVar.set` and `copy_context`
included, which then go on with variables to which they hold no reference. A finaliser that sets
one meanwhile frees them, and the process dies of SIGSEGV. (Since 3.12 a collection begins between
two instructions.) So, while one runs, what its thread makes current is kept here, and no context
is written to.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextvars import ContextVar, Token
from functools import partial
from itertools import repeat
from threading import get_ident
from typing import Any, NamedTuple

from instrument import context
from instrument.context import Scope

__all__ = ["forget_other_threads", "watch"]


class Kept(NamedTuple):
    """What is current, instead of what the context says."""

    scope: Scope | None
    instead_of: Scope | None


class KeptToken(NamedTuple):
    """What to go back to."""

    scope: Scope | None


class StandIn:
    """In the place of the context variable `context.scope` while the garbage collector runs.

    `collecting` is the thread that collects, 0 for none; the others' calls go to the variable.
    What a collection left current, other than it found it, is made so at the thread's next call;
    until then this stays in place. `afterwards` is what is in place after the collection.
    """

    def __init__(self, variable: ContextVar[Scope | None]) -> None:
        self.collecting = 0
        self.afterwards: Any = variable
        self._variable = variable
        self._kept: dict[int, Kept] = {}

    def get(self) -> Scope | None:
        thread = get_ident()
        kept = self._kept.get(thread)
        if kept is None:
            return self._variable.get()
        if thread == self.collecting:
            return kept.scope
        if self._variable.get() is kept.instead_of:
            self._variable.set(kept.scope)
        self._forget(thread)
        return self._variable.get()

    def set(self, value: Scope | None) -> Token[Scope | None] | KeptToken:
        before = self.get()
        if get_ident() != self.collecting:
            return self._variable.set(value)
        self._keep(value)
        return KeptToken(before)

    def reset(self, token: Token[Scope | None] | KeptToken) -> None:
        """Go back; raise `ValueError` where collection and context are not those of `set`."""
        is_collecting = get_ident() == self.collecting
        if isinstance(token, KeptToken) is not is_collecting:
            raise ValueError("the garbage collector ran at one of set and reset alone")
        if isinstance(token, KeptToken):
            self._keep(token.scope)
        else:
            self._variable.reset(token)

    def forget_other_threads(self) -> None:
        for thread in self._kept.keys() - {get_ident()}:
            self._forget(thread)
        if self.collecting not in (0, get_ident()):
            self.collecting, context.scope = 0, self.afterwards

    def _keep(self, value: Scope | None) -> None:
        instead_of = self._variable.get()
        if value is instead_of:
            self._forget(get_ident())
        else:
            self._kept[get_ident()] = Kept(value, instead_of)
            self.afterwards = self

    def _forget(self, thread: int) -> None:
        self._kept.pop(thread, None)
        if not self._kept:
            self.afterwards = self._variable


_stand_in = StandIn(context.scope)


def _done_in_c(*steps: Iterator[None]) -> property:
    """Return an attribute that takes one of each of `steps` when somebody gets it."""
    return property(partial(next, zip(*steps, strict=False)))


def _setting(target: Any, name: str, values: Iterator[Any]) -> Iterator[None]:
    return map(setattr, repeat(target), repeat(name), values)


class _Phases:
    """Has what happens at the two ends of a collection as attributes, for the collector to get.

    All of it is done in C: what a signal handler raises in a callback that is written in Python
    is lost to the program, and there the signals are handled that came during the collection.
    """

    start = _done_in_c(
        _setting(_stand_in, "collecting", iter(get_ident, None)),
        _setting(context, "scope", repeat(_stand_in)),
    )
    stop = _done_in_c(
        _setting(context, "scope", map(getattr, repeat(_stand_in), repeat("afterwards"))),
        _setting(_stand_in, "collecting", repeat(0)),
    )


def watch() -> None:
    """Have the garbage collector tell when it runs, where that matters."""
    if sys.version_info < (3, 12):
        gc.callbacks.append(partial(getattr, _Phases()))


def forget_other_threads() -> None:
    """Go on in a forked child, where no other thread is left to end its collection."""
    _stand_in.forget_other_threads()
