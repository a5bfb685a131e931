"""OpenTelemetry beside us, in programs that have loaded it themselves.

Operations follow the trace of its current span, and the session stands in its baggage. Nothing is
ever detached by token, which fails, and says so, where a block ends in another context.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from instrument import _config, carrier, context
from instrument._guard import belongs_to_program
from instrument._loading import when_loaded
from instrument.context import Entered, Scope, SessionIdentity

__all__ = ["session_beside", "watch"]

_SESSION = "session.id"
_ENTRY = "instrument.entry"
_LOADED_FIRST = ("opentelemetry.baggage", "opentelemetry.trace")


class Entry:
    """A session in the baggage: the context `before` it and `inside`, and the entry around it.

    `waits` says that it is in a generator which stands still, `gone` that what still has it as
    current does so only because nobody can reach it.
    """

    def __init__(self, before: Any, session_id: str, outer: Entry | None) -> None:
        self.before = before
        self.inside: Any = None
        self.session_id = session_id
        self.outer = outer
        self.over = False
        self.waits = False
        self.gone = False

    def still_before(self) -> Any:
        """Return what was current before this and all around it that ended meanwhile."""
        found = self
        while found.outer is not None and found.outer.over:
            found = found.outer
        self.outer = None  # or else a chain of tasks would hold all of them
        return found.before


class OpenTelemetry:
    """Is `context.beside` once the program has loaded OpenTelemetry."""

    def __init__(self) -> None:
        self._trace: Any = import_module("opentelemetry.trace")
        self._context: Any = import_module("opentelemetry.context")
        self._baggage: Any = import_module("opentelemetry.baggage")
        self._entries: WeakKeyDictionary[Scope, Entry] = WeakKeyDictionary()
        self._session = Scope(SessionIdentity(""))
        self._outer, _ = carrier.outer_trace(os.environ)
        self._spanless: Any = None  # the latest context in which no span was

    def began(self, operation: Any) -> None:
        span = self._span()
        if span is not None:
            operation.parent_id, operation.trace_id = self._below(span, operation.parent_id)
        elif operation.parent is not None:
            operation.trace_id = operation.parent.trace_id

    def lineage(self, parent_id: str | None) -> tuple[str, str] | None:
        span = self._span()
        return None if span is None else self._below(span, parent_id)

    def traceparent(self) -> str | None:
        span = self._span()
        if span is None:
            return None
        return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"

    def session(self) -> Scope | None:
        try:
            session_id = self._baggage.get_baggage(_SESSION)
            is_gone = self._is_gone(session_id)
        except Exception as error:
            _not_ours(error)
            return None
        if is_gone or not carrier.is_session_id(session_id):
            return None
        if session_id != self._session.session.id:
            self._session = Scope(SessionIdentity(session_id))
        return self._session

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

    def gave_way(self, scope: Scope) -> None:
        entry = self._entries.get(scope)
        if entry is not None:
            entry.gone = True

    def stay_outside(self) -> None:
        try:
            self._context.attach(self._baggage.remove_baggage(_SESSION))
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
            around = self._around(scope, before)
            entry = Entry(before, scope.session.id, around)
            inside = self._context.set_value(_ENTRY, entry, before)
            entry.inside = self._baggage.set_baggage(_SESSION, entry.session_id, inside)
            self._context.attach(entry.inside)
            self._entries[scope] = entry
        except Exception as error:
            _not_ours(error)

    def _is_gone(self, session_id: object) -> bool:
        """Tell whether it was an entry of ours that put the session there, and it is gone."""
        entry = self._context.get_value(_ENTRY)
        return isinstance(entry, Entry) and entry.gone and entry.session_id == session_id

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

    def _below(self, span: Any, parent_id: str | None) -> tuple[str, str]:
        """Return the ids of parent and trace of what is called below `parent_id` in a span."""
        if parent_id is None or parent_id == self._outer:
            parent_id = f"{span.span_id:016x}"
        return parent_id, f"{span.trace_id:032x}"

    def _span(self) -> Any:
        """Return the context of the current span, `None` outside of every one."""
        try:
            current = self._context.get_current()
            if current is self._spanless:
                return None
            span = self._trace.get_current_span(current).get_span_context()
            if span.is_valid:
                return span
            self._spanless = current
            return None
        except Exception as error:
            _not_ours(error)
            return None


def watch() -> None:
    """Go side by side with OpenTelemetry from when the program has loaded it."""
    global _watching
    if not _watching:
        _watching = True
        for module in _LOADED_FIRST:
            when_loaded(module, _loaded)


def session_beside() -> Scope | None:
    """Return the session in the baggage, before the first operation too."""
    if context.beside is None and not sys.modules.keys().isdisjoint(_LOADED_FIRST):
        watch()
    return None if context.beside is None else context.beside.session()


def _loaded(module: ModuleType) -> None:
    try:
        found = OpenTelemetry()
    except Exception as error:  # of another version, or only a part of it
        _not_ours(error)
        return
    if context.beside is None:
        context.beside = found
        for scope in reversed(_sessions_here()):
            found.entered(scope)


def _sessions_here() -> list[Scope]:
    """Return the sessions that were entered here before anybody traced, innermost first."""
    scope, found = context.scope.get(), []
    while scope is not None:
        if type(scope) in (Scope, Entered) and not scope.left:
            found.append(scope)
        scope = scope.outer
    return found


def _not_ours(error: Exception) -> None:
    """Let go of what a context or span of somebody else's make raised."""
    if belongs_to_program(error, in_callback=True):
        raise error


_watching = False
_config.on_change(watch)
