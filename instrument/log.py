"""Reading the log: what was called, what it used, and what a session came to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from instrument._config import settings
from instrument._gather import Reading, Wanted
from instrument._lines import OUTCOMES
from instrument._scan import Skipped, SkippedLine
from instrument._stats import SessionFacts, session_stats
from instrument.errors import ConfigurationError, reject_type
from instrument.operation import Operation, SessionStats

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

__all__ = ["SkippedLine", "UsageLog"]

RELISTINGS = 5
_Answer = TypeVar("_Answer")


class UsageLog:
    """The log of one or several directories, read as it is at each call.

    `paths` are log directories; without any, the configured one. A directory that does not exist
    is an empty log. Reading creates nothing, waits for nobody and leaves the ambient session
    alone. One object may be used from several threads.
    """

    def __init__(self, *paths: str | os.PathLike[str]) -> None:
        self._paths = [_directory(path) for path in paths]
        self._skipped = Skipped()

    def __repr__(self) -> str:
        return f"UsageLog({', '.join(repr(str(path)) for path in self.paths)})"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The log directories that a query would read now."""
        return tuple(self._paths) or (settings().log_dir,)

    @property
    def skipped_count(self) -> int:
        """How many lines, among those that the last query looked at, were damaged or not ours."""
        return self._skipped.count

    @property
    def skipped(self) -> tuple[SkippedLine, ...]:
        """The first 100 of those lines: `path`, `offset` in bytes, `reason`."""
        return tuple(self._skipped.lines)

    def operations(
        self,
        session: str | None = None,
        *,
        service: str | None = None,
        operation: str | None = None,
        model: str | None = None,
        outcome: str | None = None,
        since: datetime | timedelta | None = None,
        until: datetime | timedelta | None = None,
        limit: int | None = None,
        children: bool = False,
    ) -> list[Operation]:
        """List finished and interrupted operations in start order (`operation_id` breaks ties).

        `since` (included) and `until` (not) bound the start: an aware datetime, or a timedelta
        that means ago. `limit` keeps the newest. `children` adds the sessions that descend from
        `session`. Operations that still run are in `running()`.

        Raises `ConfigurationError` for a naive datetime, an unknown outcome or a negative limit.
        """
        wanted = _wanted(service, operation, model, outcome, since, until)
        _check_text("session", session)
        _check_limit(limit)
        return self._ask(lambda reading: _operations(reading, session, wanted, limit, children))

    def running(self) -> list[Operation]:
        """List the operations that have begun and not ended, and whose process lives.

        Their `outcome` is `running`, `success` is false, and `duration_seconds` is the time so
        far. Only calls whose call site is known to be slow, and first calls, are seen here.
        """
        return self._ask(Reading.running)

    def recent(self, hours: float = 1) -> list[Operation]:
        """List the operations that started in the last `hours`, in start order."""
        if isinstance(hours, bool) or not isinstance(hours, (int, float)):
            reject_type("hours", hours, "a number of hours")
        try:
            ago = timedelta(hours=hours)
        except (OverflowError, ValueError):
            raise ConfigurationError("hours", hours, "a number of hours") from None
        return self.operations(since=ago)

    def errors(self, limit: int | None = 10) -> list[Operation]:
        """List the newest operations whose outcome is `error`, in start order; `None`: all."""
        return self.operations(outcome="error", limit=limit)

    def sessions(self, limit: int | None = 20) -> list[SessionStats]:
        """Sum up the newest sessions, newest first; `None`: all.

        The newest is the one in which an operation began last, or which was entered last. Each
        has its own operations only, not those of its children; one that was entered and in which
        nothing was recorded has zero operations.
        """
        _check_limit(limit)
        return self._ask(lambda reading: _sessions(reading, limit))

    def stats(self, session_id: str, children: bool = True) -> SessionStats:
        """Sum up one session, with all that descend from it unless `children` is false.

        A session that the log does not know gives zero operations. A response that several
        operations report (`response_id`) is charged once, to the first.
        """
        if session_id is None:
            reject_type("session_id", session_id, "the id of a session, as text")
        _check_text("session_id", session_id)
        return self._ask(lambda reading: _stats(reading, session_id, children))

    def sql(
        self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> DuckDBPyRelation:
        """Run a `SELECT` over the view `operations` and return its rows as a DuckDB relation.

        The view has a column for each attribute of `Operation`, finished and interrupted ones:
        `timestamp` is TIMESTAMPTZ in UTC, counts are BIGINT, seconds and dollars DOUBLE,
        `metadata` and `extra` JSON. `params` are bound, never put into the text: a list for `?`
        and `$1`, a mapping for `$name`. The query runs once, here, in a database of its own in
        memory; it may read other files as any DuckDB query may.

        Raises `QueryError` with DuckDB's message.
        """
        from instrument._sql import run  # duckdb takes longer to load than most queries

        return self._ask(lambda reading: run(reading, query, params))

    def _ask(self, question: Callable[[Reading], _Answer]) -> _Answer:
        """Answer from one listing of the files; where one vanished meanwhile, from another."""
        for again in reversed(range(RELISTINGS)):
            reading = Reading(self.paths, may_vanish=not again)
            try:
                answer = question(reading)
            except FileNotFoundError:
                if not again:
                    raise
                continue
            self._skipped = reading.skipped
            return answer
        raise AssertionError


def _operations(
    reading: Reading, session: str | None, wanted: Wanted, limit: int | None, children: bool
) -> list[Operation]:
    if session is None:
        return reading.operations(wanted, limit)
    if children:
        return reading.family(session, wanted, limit)
    return reading.operations(replace(wanted, sessions=frozenset([session])), limit)


def _stats(reading: Reading, session_id: str, children: bool) -> SessionStats:
    operations = _operations(reading, session_id, Wanted(), None, children)
    return session_stats(session_id, operations, _facts(reading, session_id, operations))


def _sessions(reading: Reading, limit: int | None) -> list[SessionStats]:
    return [
        session_stats(session_id, operations, _facts(reading, session_id, operations))
        for session_id, operations in reading.latest_sessions(limit).items()
    ]


def _facts(reading: Reading, session_id: str, operations: Sequence[Operation]) -> SessionFacts:
    """Complete what session lines say by what the session's operations do."""
    facts = SessionFacts()
    for each in operations:
        if each.session_id == session_id:
            facts.learn(each.session_name, each.parent_session_id)
    told = reading.facts.get(session_id)
    if told is not None:
        facts.learn(told.name, told.parent_id)
        facts.entered_at = told.entered_at
    return facts


def _wanted(
    service: str | None,
    operation: str | None,
    model: str | None,
    outcome: str | None,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
) -> Wanted:
    for name, value in (("service", service), ("operation", operation), ("model", model)):
        _check_text(name, value)
    _check_text("outcome", outcome)
    if outcome is not None and outcome not in OUTCOMES:
        raise ConfigurationError("outcome", outcome, f"one of {', '.join(OUTCOMES)}")
    now = datetime.now(UTC)
    return Wanted(
        service=service,
        operation=operation,
        model=model,
        outcome=outcome,
        since=_moment("since", since, now),
        until=_moment("until", until, now),
    )


def _moment(name: str, value: datetime | timedelta | None, now: datetime) -> datetime | None:
    if isinstance(value, timedelta):
        try:
            return now - value
        except OverflowError:
            edge = datetime.min if value > timedelta() else datetime.max
            return edge.replace(tzinfo=UTC)
    if value is None:
        return None
    if not isinstance(value, datetime):
        reject_type(name, value, "an aware datetime, or a timedelta meaning ago")
    if value.utcoffset() is None:
        cure = "an aware datetime, such as datetime.now(UTC) or value.astimezone()"
        raise ConfigurationError(name, value, cure)
    return value


def _check_text(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        reject_type(name, value, "text")


def _check_limit(limit: object) -> None:
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int):
        reject_type("limit", limit, "a whole number, or None for all")
    if limit < 0:
        raise ConfigurationError("limit", limit, "a whole number from 0, or None for all")


def _directory(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        reject_type("path", path, "the path of a log directory, as text or a pathlib.Path")
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise ConfigurationError("path", path, "the path of a log directory")
    directory = Path(path).expanduser()
    if directory.exists() and not directory.is_dir():
        raise ConfigurationError("path", str(path), "the path of a log directory")
    return directory
