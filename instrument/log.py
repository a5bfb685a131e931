"""Reading the log: what was called, what it used, and what a session came to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, tzinfo
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from instrument._config import settings
from instrument._doctor import examined
from instrument._follow import Follower
from instrument._gather import Reading
from instrument._grouped import summed_in_session
from instrument._health import health
from instrument._iterate import iterate
from instrument._lines import operation_of
from instrument._outputs import is_special, put_whole
from instrument._premises import Finding, not_there
from instrument._scan import Skipped, SkippedLine, last_line, sources_of
from instrument._skew import in_call_order
from instrument._spending import forget_ledgers, states
from instrument._stats import SessionFacts, session_stats
from instrument._wanted import (
    Filters,
    Wanted,
    check_limit,
    check_text,
    grouping,
    moment_of_filter,
    wanted,
)
from instrument.budget import BudgetState
from instrument.errors import (
    ConfigurationError,
    FormatError,
    MissingDependencyError,
    QueryError,
    reject_type,
)
from instrument.operation import Health, Operation, SessionStats, SummaryRow
from instrument.pricing import Pricing, usual

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]
    import polars
    import pyarrow  # type: ignore[import-untyped]
    from duckdb import DuckDBPyRelation

    from instrument._recovery import Recovered
    from instrument.compaction import Compaction
    from instrument.retention import Pruned

__all__ = ["Filters", "Finding", "Health", "SessionReport", "SkippedLine", "SummaryRow", "UsageLog"]

RELISTINGS = 50  # a compaction that goes on removes files for as long as it finds any
FORMAT = 1
_Answer = TypeVar("_Answer")


class SessionReport(Struct, frozen=True):
    """One session from one reading: what it came to, and its operations, running ones last.

    Both include the sessions that descend from it. `hosts` says by operation id which host recorded
    it, as far as that is known.
    """

    stats: SessionStats
    operations: list[Operation]
    hosts: dict[str, str] = msgspec.field(default_factory=dict)


class UsageLog:
    """The log of one or several directories, read as it is at each call.

    `paths` are log directories; without any, the configured one. A directory that does not exist
    is an empty log. Reading creates nothing, waits for nobody and leaves the ambient session
    alone. One object may be used from several threads.
    """

    def __init__(self, *paths: str | os.PathLike[str]) -> None:
        self._paths = [_directory(path) for path in paths]
        self._skipped = Skipped()
        self._pricing: Pricing | None = None

    def __repr__(self) -> str:
        return f"UsageLog({', '.join(repr(str(path)) for path in self.paths)})"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The log directories that a query would read now."""
        return tuple(self._paths) or (settings().log_dir,)

    @property
    def pricing(self) -> Pricing:
        """The prices with which the log is read."""
        return self._pricing or usual(settings().prices)

    def repriced(
        self, *, as_of: datetime | timedelta | None = None, model: str | None = None
    ) -> UsageLog:
        """Return the same log at other list prices, in place of what providers said of the cost.

        `as_of`: the prices of that moment for every call, an aware datetime or a timedelta that
        means ago; `model`: what all calls would have cost on that model. Raises
        `ConfigurationError`.
        """
        check_text("model", model)
        other = UsageLog(*self._paths)
        moment = moment_of_filter("as_of", as_of)
        other._pricing = Pricing(settings().prices, as_of=moment, model=model)
        return other

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
        asked = wanted(
            session,
            service=service,
            operation=operation,
            model=model,
            outcome=outcome,
            since=since,
            until=until,
        )
        check_limit(limit)
        return self._ask(lambda reading: _operations(reading, session, asked, limit, children))

    def correlate(self, session_id: str) -> list[Operation]:
        """List the operations of one session across all paths, in start order.

        No operation stands before the one that called it, though the clock of its host may say
        so: then it follows its caller, its timestamp as it was recorded.
        """
        asked = wanted(_session_id(session_id))
        return self._ask(lambda reading: in_call_order(reading.operations(asked), reading.hosts))

    def iterate(
        self, session: str | None = None, **filters: Unpack[Filters]
    ) -> Iterator[Operation]:
        """Yield what `operations` lists, in the same order, in memory that does not grow with it.

        The files are read when the first one is asked for. Raises as `operations` does.
        """
        return iterate(self._read_for_iterating, wanted(session, **filters), RELISTINGS)

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

    def sessions(self, limit: int | None = 20, **filters: Unpack[Filters]) -> list[SessionStats]:
        """Sum up the newest sessions, newest first; `None`: all.

        The newest is the one in which an operation began last, or which was entered last. Each
        has its own operations only, not those of its children; one that was entered and in which
        nothing was recorded has zero operations. Filters choose the sessions in which such an
        operation began, and sum up all of their operations.
        """
        check_limit(limit)
        asked = wanted(**filters)
        return self._ask(lambda reading: _sessions(reading, limit, asked))

    def find_sessions(
        self, prefix: str = "", *, limit: int | None = None, **filters: Unpack[Filters]
    ) -> list[str]:
        """List the ids of sessions that begin with `prefix`, in the order of `sessions`."""
        check_limit(limit)
        check_text("prefix", prefix)
        asked = wanted(**filters)
        return self._ask(lambda reading: reading.session_ids(prefix, limit, asked))

    def stats(self, session_id: str, children: bool = True) -> SessionStats:
        """Sum up one session, with all that descend from it unless `children` is false.

        A session that the log does not know gives zero operations. A response that several
        operations report (`response_id`) is charged once, to the first.
        """
        _session_id(session_id)
        return self._ask(lambda reading: _stats(reading, session_id, children))

    def report(self, session_id: str, **filters: Unpack[Filters]) -> SessionReport:
        """Return one session's stats and operations, with its children and what still runs.

        Takes the filters of `operations`.
        """
        _session_id(session_id)
        asked = wanted(**filters)
        return self._ask(lambda reading: _report(reading, session_id, asked))

    def summary(
        self,
        by: str | Iterable[str] = ("service", "model"),
        *,
        session: str | None = None,
        zone: tzinfo = UTC,
        **filters: Unpack[Filters],
    ) -> list[SummaryRow]:
        """Sum up groups of operations, in the order of the keys that they are grouped by.

        `by` takes `service`, `model`, `day`, `week`, `month` (of the start, in `zone`), `session`,
        `operation` and `outcome`; nothing gives one row for all. A response that several
        operations of a session report (`response_id`) is charged once, to the first. `session`
        includes the sessions that descend from it.

        Raises `ConfigurationError` for an unknown key, and as `operations` does.
        """
        keys = grouping(by)
        _reject_unless_zone(zone)
        if session is not None:
            operations = self.operations(session, children=True, **filters)
            return summed_in_session(operations, keys, zone, self.pricing)
        return self._summed((keys,), wanted(**filters), zone)[0]

    def overview(
        self, by: str | Iterable[str], *, zone: tzinfo = UTC, **filters: Unpack[Filters]
    ) -> tuple[SummaryRow | None, list[SummaryRow]]:
        """Return the sum of all operations, and `summary(by)`, from one reading.

        The sum is `None` where there are no operations. Raises as `summary` does.
        """
        groups, asked = grouping(by), wanted(**filters)
        _reject_unless_zone(zone)
        total, rows = self._summed(((), groups), asked, zone)
        return next(iter(total), None), rows

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

    def to_arrow(self, session: str | None = None, **filters: Unpack[Filters]) -> pyarrow.Table:
        """Return operations as an Arrow table, a column for each attribute, in start order.

        Takes the filters of `operations`. Raises `MissingDependencyError` without pyarrow.
        """
        _needs("pyarrow", "to_arrow()")
        return self._selected(wanted(session, **filters), lambda rows: rows.to_arrow_table())

    def to_pandas(self, session: str | None = None, **filters: Unpack[Filters]) -> pandas.DataFrame:
        """Return the same as a pandas data frame. Raises `MissingDependencyError` without it."""
        _needs("pandas", "to_pandas()")
        frame: pandas.DataFrame = self._selected(wanted(session, **filters), lambda rows: rows.df())
        return frame

    def to_polars(self, session: str | None = None, **filters: Unpack[Filters]) -> polars.DataFrame:
        """Return the same as a polars data frame. Raises `MissingDependencyError` without it."""
        _needs("polars", "to_polars()")
        _needs("pyarrow", "to_polars()")
        frame: polars.DataFrame = self._selected(wanted(session, **filters), lambda rows: rows.pl())
        return frame

    def write_parquet(
        self, path: str | os.PathLike[str], session: str | None = None, **filters: Unpack[Filters]
    ) -> None:
        """Write operations to a Parquet file, a column for each attribute, in start order.

        An existing file is replaced when the new one is whole. Takes the filters of `operations`.
        Raises `QueryError` where it cannot be written.
        """
        from instrument._select import copy_to_parquet  # it loads duckdb

        target, asked = Path(path), wanted(session, **filters)
        if is_special(target):
            raise QueryError(f"{target} is no regular file, which Parquet needs")
        with ExitStack() as stack:
            try:
                unfinished = stack.enter_context(put_whole(target))
            except OSError as error:
                raise QueryError(f"cannot write {target}: {error}") from error
            self._ask(lambda reading: copy_to_parquet(reading, asked, unfinished))

    def compact(
        self,
        *,
        all: bool = False,  # noqa: A002 - the name of the command's option
        advance: Callable[[float], None] = lambda size: None,
    ) -> Compaction:
        """Move closed segments of the journal into the archive, about eleven times smaller.

        Closed are those of past days (UTC), and those that a later one of their day has followed;
        with `all` also those that a process may go on with. What a process has open stays, and
        what an operation that still runs began in. Answers stay the same. `advance` hears how
        many more bytes are done. Killing it at any moment loses nothing.

        Raises `ArchiveError` where another process is at it, or the archive cannot be written.
        """
        from instrument.compaction import Compaction, compact  # it loads duckdb

        total, pricing = Compaction(), usual(settings().prices)
        for path in self.paths:
            total += compact(path, pricing, all_segments=all, advance=advance)
        return total

    def prune(
        self,
        older_than: datetime | timedelta,
        *,
        keep_summary: bool = False,
        advance: Callable[[float], None] = lambda size: None,
    ) -> Pruned:
        """Remove for good what began before a moment, an aware datetime or a timedelta ago.

        Whole days (UTC) go, those sessions in which nothing happened later, and what was spent of
        budgets of which nobody spent since; closed segments are compacted before. With
        `keep_summary` the sums of these days stay, by service and model, and `summary` goes on to
        count them in. `advance` hears how many more bytes are compacted.

        Raises `ConfigurationError`, and `ArchiveError` as `compact` does.
        """
        from instrument.retention import Pruned, prune  # it loads duckdb

        before = moment_of_filter("older_than", older_than)
        if before is None:
            reject_type("older_than", older_than, "an aware datetime, or a timedelta meaning ago")
        self.compact(advance=advance)
        total = Pruned()
        for path in self.paths:
            total += prune(path, before, keep_summary=keep_summary)
            forget_ledgers(path, before)
        return total

    def follow(
        self, session: str | None = None, *, poll_seconds: float = 0.25, **filters: Unpack[Filters]
    ) -> Iterator[Operation]:
        """Yield operations as they finish, from now on, for ever; waits for them meanwhile.

        Takes the filters of `operations`. New files and directories are noticed.
        """
        asked = wanted(session, **filters)
        follower = Follower(lambda: self.paths, asked, lambda one: self.pricing.apply(one))
        return _followed(follower, poll_seconds)

    def budgets(self, *, refused: str | None = None, limit: int | None = None) -> list[BudgetState]:
        """Return how budgets stand: named ones in their latest period, then the newest sessions'.

        `refused`: those alone that refused a call of this session. `limit` is for sessions'.
        """
        return [
            found for path in self.paths for found in states(path, refused=refused, limit=limit)
        ]

    def health(self) -> Health:
        """Tell how recording goes: what was recorded, what was lost, and what it costs.

        Most of it is about this process; what all processes have told of losses is in the log.
        """
        return self._ask(lambda reading: health(reading, self.paths))

    def doctor(
        self, *, fix: bool = False, advance: Callable[[float], None] = lambda size: None
    ) -> list[Finding]:
        """Examine each directory: damage, losses, interrupted operations, clock, files and disk.

        With `fix`, orphaned run locks that nothing needs any more are removed, and the manifest
        of an archive that was lost or damaged is made anew from the files beside it, as are files
        of sessions and days that are gone; nothing else is ever changed. `advance` hears how many
        more bytes have been read.
        """
        found: list[Finding] = []
        for path in self.paths:
            if not path.is_dir():
                found.append(not_there(path))
                continue
            log = UsageLog(path)
            found += examined(
                path,
                log._ask,
                log.check_format,
                max_bytes=settings().max_bytes,
                fix=fix,
                recover=log._recover,
                advance=advance,
            )
        return found

    def _recover(self) -> Recovered | None:
        from instrument._recovery import recover  # it loads duckdb

        (log_dir,) = self._paths
        return recover(log_dir, Pricing(settings().prices))

    def check_format(self) -> None:
        """Raise `FormatError` for a log that a newer version has written to."""
        for source in sources_of(self.paths, may_vanish=True):
            operation = operation_of(last_line(source))
            if operation is not None and operation.v > FORMAT:
                raise FormatError(
                    f"{source.path} is of format {operation.v}, and this version reads up to"
                    f" {FORMAT}: pip install -U instrument-kit"
                )

    def _summed(
        self, groupings: Sequence[Sequence[str]], asked: Wanted, zone: tzinfo
    ) -> list[list[SummaryRow]]:
        from instrument._summary import summed  # it loads duckdb

        return self._ask(lambda reading: summed(reading, groupings, asked, zone))

    def _selected(self, asked: Wanted, form: Callable[[DuckDBPyRelation], _Answer]) -> _Answer:
        from instrument._select import selected  # it loads duckdb

        return self._ask(lambda reading: selected(reading, asked, form))

    def _read_for_iterating(self, is_last: bool) -> Reading:
        reading = Reading(self.paths, self.pricing, may_vanish=is_last)
        self._skipped = reading.skipped
        return reading

    def _ask(self, question: Callable[[Reading], _Answer]) -> _Answer:
        """Answer from one listing of the files; where one vanished meanwhile, from another."""
        for again in reversed(range(RELISTINGS)):
            reading = Reading(self.paths, self.pricing, may_vanish=not again)
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
    reading: Reading, session: str | None, asked: Wanted, limit: int | None, children: bool
) -> list[Operation]:
    if session is not None and children:
        return reading.family(session, asked, limit)
    return reading.operations(asked, limit)


def _stats(reading: Reading, session_id: str, children: bool) -> SessionStats:
    asked = Wanted(sessions=frozenset([session_id]))
    operations = _operations(reading, session_id, asked, None, children)
    return session_stats(
        session_id, operations, _facts(reading, session_id, operations), reading.pricing.saved
    )


def _sessions(reading: Reading, limit: int | None, asked: Wanted) -> list[SessionStats]:
    return [
        session_stats(
            session_id, operations, _facts(reading, session_id, operations), reading.pricing.saved
        )
        for session_id, operations in reading.latest_sessions(limit, asked).items()
    ]


def _report(reading: Reading, session_id: str, asked: Wanted) -> SessionReport:
    finished = reading.family(session_id, asked, None)
    stats = session_stats(
        session_id, finished, _facts(reading, session_id, finished), reading.pricing.saved
    )
    sessions = {session_id, *(each.session_id for each in finished)}
    running = reading.running_among(replace(asked, sessions=frozenset(sessions)))
    return SessionReport(stats, finished + running, reading.hosts())


def _reject_unless_zone(zone: object) -> None:
    if not isinstance(zone, tzinfo):
        reject_type("zone", zone, 'a tzinfo: UTC, or ZoneInfo("Asia/Tokyo")')


def _followed(follower: Follower, poll_seconds: float) -> Iterator[Operation]:
    while True:
        yield from follower.new()
        time.sleep(poll_seconds)


def _summed(reading: Reading, session_id: str, operations: Sequence[Operation]) -> SessionStats:
    facts = _facts(reading, session_id, operations)
    return session_stats(session_id, operations, facts, reading.pricing.saved)


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


def _session_id(session_id: str) -> str:
    if not isinstance(session_id, str):
        reject_type("session_id", session_id, "the id of a session, as text")
    return session_id


def _needs(module: str, what: str) -> None:
    if find_spec(module) is None:
        raise MissingDependencyError(module, what)


def _directory(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        reject_type("path", path, "the path of a log directory, as text or a pathlib.Path")
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise ConfigurationError("path", path, "the path of a log directory")
    directory = Path(path).expanduser()
    if directory.exists() and not directory.is_dir():
        raise ConfigurationError("path", str(path), "the path of a log directory")
    return directory
