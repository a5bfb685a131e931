"""OpenTelemetry beside us, in programs that have loaded it themselves.

Operations follow the trace of its current span, and the session stands in its baggage. Nothing is
ever detached by token, which fails, and says so, where a block ends in another context.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from instrument import carrier, context
from instrument._guard import belongs_to_program
from instrument._loading import when_loaded
from instrument.context import Scope, SessionIdentity

__all__ = ["watch"]

_SESSION = "session.id"


class Entry:
    """A session in the baggage: the context `before` it and `inside`, and the entry around it.

    `waits` says that it is in a generator which stands still.
    """

    def __init__(self, before: Any, inside: Any, outer: Entry | None) -> None:
        self.before = before
        self.inside = inside
        self.outer = outer
        self.over = False
        self.waits = False

    def still_before(self) -> Any:
        """Return what was current before this and all around it that ended meanwhile."""
        found = self
        while found.outer is not None and found.outer.over:
            found = found.outer
        self.outer = None  # or else a chain of tasks would hold all of them
        return found.before


class OpenTelemetry:
    """Is `context.beside` once the program has loaded `opentelemetry.trace`."""

    def __init__(self, trace: ModuleType) -> None:
        self._trace: Any = trace
        self._context: Any = import_module("opentelemetry.context")
        self._baggage: Any = import_module("opentelemetry.baggage")
        self._entries: WeakKeyDictionary[Scope, Entry] = WeakKeyDictionary()
        self._session = Scope(SessionIdentity(""))

    def began(self, operation: Any) -> None:
        span = self._span()
        if span is None:
            if operation.parent is not None:
                operation.trace_id = operation.parent.trace_id
            return
        operation.trace_id = f"{span.trace_id:032x}"
        if operation.parent_id is None:
            operation.parent_id = f"{span.span_id:016x}"

    def trace_id(self) -> str | None:
        span = self._span()
        return None if span is None else f"{span.trace_id:032x}"

    def traceparent(self) -> str | None:
        span = self._span()
        if span is None:
            return None
        return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"

    def session(self) -> Scope | None:
        try:
            session_id = self._baggage.get_baggage(_SESSION)
        except Exception as error:
            _not_ours(error)
            return None
        if session_id == self._session.session.id:
            return self._session
        if not carrier.is_session_id(session_id):
            return None
        self._session = found = Scope(SessionIdentity(session_id))
        return found

    def entered(self, scope: Scope) -> None:
        if scope not in self._entries:
            self._enter(scope)

    def left(self, scope: Scope) -> None:
        entry = self._entries.get(scope)
        if entry is None or entry.over:
            return
        entry.over = True
        try:
            if self._context.get_current() is entry.inside:
                self._context.attach(entry.still_before())
        except Exception as error:
            _not_ours(error)

    def resumed(self, inside: Scope | None) -> Any:
        try:
            before = self._context.get_current()
        except Exception as error:
            _not_ours(error)
            return None
        for scope, entry in reversed(list(self._entered_around(inside))):
            if entry.waits:
                self._enter(scope)
        return before

    def suspended(self, inside: Scope | None, before: Any) -> None:
        try:
            for _, entry in self._entered_around(inside):
                found = self._context.get_current()
                if found is before:
                    return
                if found is entry.inside:
                    self._context.attach(entry.before)
                    entry.waits = True
        except Exception as error:
            _not_ours(error)

    def _enter(self, scope: Scope) -> None:
        try:
            before = self._context.get_current()
            inside = self._baggage.set_baggage(_SESSION, scope.session.id, before)
            self._context.attach(inside)
            self._entries[scope] = Entry(before, inside, self._around(scope, before))
        except Exception as error:
            _not_ours(error)

    def _around(self, scope: Scope, before: Any) -> Entry | None:
        """Return the entry that left `before` current."""
        _, entry = next(self._entered_around(scope.outer), (None, None))
        return entry if entry is not None and entry.inside is before else None

    def _entered_around(self, found: Scope | None) -> Iterator[tuple[Scope, Entry]]:
        """Yield the entered sessions from here on outwards, those that are over included."""
        while found is not None:
            entry = self._entries.get(found)
            if entry is not None:
                yield found, entry
            found = found.outer

    def _span(self) -> Any:
        """Return the context of the current span, `None` outside of every one."""
        try:
            span = self._trace.get_current_span().get_span_context()
            return span if span.is_valid else None
        except Exception as error:
            _not_ours(error)
            return None


def watch() -> None:
    """Go side by side with OpenTelemetry from when the program has loaded it."""
    when_loaded("opentelemetry.trace", _loaded)


def _loaded(trace: ModuleType) -> None:
    try:
        context.beside = OpenTelemetry(trace)
    except Exception as error:  # of another version, or only a part of it
        _not_ours(error)


def _not_ours(error: Exception) -> None:
    """Let go of what a context or span of somebody else's make raised."""
    if belongs_to_program(error, in_callback=True):
        raise error
