"""What the archive holds, asked through DuckDB, as the lines that a journal would have."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec
from duckdb import DuckDBPyConnection

from instrument._costs import quoted
from instrument._databases import cursor, interruptible
from instrument._lines import decode_head, moment_of
from instrument._scan import Line, Source
from instrument._snapshot import Archived, Snapshot
from instrument._wanted import Wanted, condition
from instrument.archive import archive_dir
from instrument.errors import ArchiveError
from instrument.operation import Operation

__all__ = ["Archive", "days_in", "escaped", "files_of", "table_of"]

FETCHED_AT_ONCE = 10_000
LINE_BYTES = 500
MOST_MARKS = 64
MOST_EXTENTS = 1000
MOST_ANSWERS = 32
MOST_ROWS = 5_000


class Archive:
    """The archived part of one or several logs, as one reading found it."""

    def __init__(self, found: Snapshot) -> None:
        self._found = found
        self._parts = found.parts
        self._sessions = [
            archive_dir(log_dir) / path
            for log_dir, manifest in found.manifests.items()
            for path in manifest.sessions
        ]
        # without one of its files, who is where is asked of the operations themselves
        self._lacks_sessions = any(each.parent.name == "sessions" for each in found.gone)
        self._cursor = cursor()
        self._rows: dict[frozenset[str], list[Any]] = {}

    def lines(self, wanted: Wanted, limit: int | None = None) -> Iterator[Line]:
        """Yield the operations that are wanted, or of these the newest `limit`, newest first."""
        parts = self.parts(wanted)
        if not parts:
            return
        where, params = condition(wanted)
        newest = "" if limit is None else f"{_NEWEST_FIRST} limit {limit}"
        query = f"select {_LINE} from {table_of(parts)} where {where} {newest}"
        yield from self._lines(query, params)

    def parts(self, wanted: Wanted) -> list[Archived]:
        """Return the files that may hold what is wanted."""
        found = [each for each in self._parts if each.part.reaches(wanted.since, wanted.until)]
        if wanted.sessions is None or not found:
            return found
        spans = self._spans(wanted.sessions)
        return [
            each
            for each in found
            if any(each.part.overlaps(*span) and each.part.may_hold(name) for name, *span in spans)
        ]

    def days(self, prices: str | None = None) -> list[Path]:
        """Return the files of what the days came to, that of days without operations included.

        With `prices`, if they are about all of the operations and their costs by that price list.
        """
        manifests = self._found.manifests.values()
        if sum(len(each.parts) for each in manifests) != len(self._parts):
            return []
        files = [
            archive_dir(log_dir) / manifest.days
            for log_dir, manifest in self._found.manifests.items()
            if manifest.days is not None and prices in (None, manifest.prices)
        ]
        is_behind = any(each.unsummed for each in manifests) or len(files) < len(manifests)
        return [] if prices is not None and is_behind else files

    def dates(self) -> set[date]:
        """Return the days that there are files of operations of."""
        return {date.fromisoformat(each.part.day) for each in self._parts}

    def weights(self, wanted: Wanted, slot: timedelta) -> dict[int, int]:
        """Return about how many bytes of lines start in each slot of time, counted from 1970."""
        parts = self.parts(wanted)
        if not parts:
            return {}
        where, params = condition(wanted)
        seconds = int(slot.total_seconds())
        query = (
            f"select cast(floor(extract(epoch from timestamp) / {seconds}) as bigint) as slot,"
            f" count(*) * {LINE_BYTES} from {table_of(parts)} where {where} group by slot"
        )
        return dict(self._ask(query, params).fetchall())

    def children(self, sessions: Collection[str]) -> set[str]:
        """Return the sessions whose parent is among these."""
        query = (
            "select distinct session_id from {}"
            " where session_id <> '' and parent_session_id in ({})"
        )
        return {name for (name,) in self._of_sessions(query, sessions)}

    def responses(self, sessions: Collection[str]) -> list[tuple[str, str]]:
        """Return session and response id of the responses that these sessions have here."""
        spans = self._spans(sessions)
        names = [name for name, *_ in spans]
        parts = self.parts(Wanted(sessions=frozenset(names))) if names else []
        if not parts:
            return []
        query = (
            f"select distinct session_id, response_id from {table_of(parts)}"
            " where response_id is not null and session_id in (select unnest($names))"
        )
        return self._ask(query, {"names": names}).fetchall()

    def has_any_of(
        self, operation_ids: Sequence[str], span: tuple[datetime, datetime] | None
    ) -> bool:
        """Tell whether any of these operations, which began between two moments, is archived."""
        parts = [each for each in self._parts if span is not None and each.part.overlaps(*span)]
        if not parts or span is None:
            return False
        query = (
            f"select 1 from {table_of(parts)} where timestamp between $first and $last"
            " and operation_id in (select unnest($ids)) limit 1"
        )
        params = {"first": span[0], "last": span[1], "ids": operation_ids}
        return bool(self._ask(query, params).fetchall())

    def rows(self, query: str, params: Mapping[str, Any] | None = None) -> list[Any]:
        """Return the rows of a query over files of the archive."""
        return self._ask(query, params).fetchall()

    def remembered_rows(
        self, query: str, params: Mapping[str, Any], files: Sequence[Path]
    ) -> list[Any]:
        """Do the same for few rows, which this process remembers for as long as the files stay.

        `files` are those that the query reads, none of which is ever written to again.
        """
        key = (query, *sorted(params.items()), *map(_mark, files))
        found = _answers.get(key)
        if found is None:
            found = self.rows(query, params)
            if len(_answers) >= MOST_ANSWERS:
                _answers.clear()
            if len(found) <= MOST_ROWS:
                _answers[key] = found
        return found

    def entries(self, sessions: Collection[str]) -> list[tuple[str, datetime, Any, Any]]:
        """Return who entered these sessions: id, moment, name and parent."""
        return [
            (session_id, entered_at, name, parent_id)
            for session_id, _, _, entered_at, name, parent_id in self._rows_of(sessions)
            if entered_at is not None
        ]

    def latest(
        self, wanted: Wanted, prefix: str, limit: int | None, floor: datetime | None
    ) -> Iterator[tuple[str, datetime]]:
        """Yield sessions in which something wanted began at `floor` or later, with its moment."""
        params: dict[str, Any] = {"prefix": prefix, "floor": floor}
        begins = "session_id <> '' and starts_with(session_id, $prefix)"
        fresh = "($floor is null or moment >= $floor)"
        if floor is not None and wanted == Wanted() and not self._lacks_sessions:
            ends = (self._extent(each).last for each in self._sessions)
            if all(each is None or each < floor for each in ends):
                return
        sessions = self._table_of_sessions(self._sessions)
        if not sessions:
            return
        if wanted == Wanted():
            tables = [f"(select session_id, last_at as moment from {sessions})"]
        else:
            where, given = condition(wanted)
            params |= given
            parts = self.parts(wanted)
            tables = [
                f"(select session_id, timestamp as moment from {table_of(parts)} where {where})"
                if parts
                else ""
            ]
            if _asks_only_when(wanted):
                seen = f"(select session_id, last_at as timestamp from {sessions} where {_EMPTY})"
                tables.append(f"(select session_id, timestamp as moment from {seen} where {where})")
        rows = " union all ".join(f"from {table}" for table in tables if table)
        if not rows:
            return
        ranked = (
            f"select session_id, max(moment) as moment from ({rows}) where {begins} and {fresh}"
            " group by session_id"
            + ("" if limit is None else f" order by moment desc, session_id desc limit {limit}")
        )
        yield from self._ask(ranked, params).fetchall()

    def operation_ids(self) -> Iterator[str]:
        """Yield the ids of all operations."""
        if self._parts:
            query = (
                f"select operation_id from {table_of(self._parts)} where operation_id is not null"
            )
            answer = self._ask(query, None)
            while rows := answer.fetchmany(FETCHED_AT_ONCE):
                yield from (name for (name,) in rows)

    def ended(self, begun: Iterable[Line]) -> set[str]:
        """Return the ids among these begin lines whose operations are in the archive."""
        ids = {line.head.operation_id: line.moment for line in begun}
        if not ids:
            return set()
        span = min(ids.values()), max(ids.values())
        parts = [each for each in self._parts if each.part.overlaps(*span)]
        if not parts:
            return set()
        query = (
            f"select operation_id from {table_of(parts)} where timestamp between $first and $last"
            " and operation_id in (select unnest($ids))"
        )
        params = {"first": span[0], "last": span[1], "ids": [*ids]}
        return {name for (name,) in self._ask(query, params).fetchall()}

    def of_processes(
        self, log_dir: Path, writer: str, pid: int, since: datetime
    ) -> Iterator[tuple[datetime, float, str | None]]:
        """Yield start, seconds and run of what a process number of a host did, in start order."""
        parts = [each for each in self.parts(Wanted(since=since)) if each.log_dir == log_dir]
        if not parts:
            return
        query = (
            f"select timestamp, duration_seconds, run from {table_of(parts)}"
            " where timestamp >= $since and pid = $pid and host = $writer order by timestamp"
        )
        params = {"since": since, "pid": pid, "writer": writer}
        yield from self._ask(query, params).fetchall()

    def _spans(self, sessions: Collection[str]) -> list[tuple[str, datetime, datetime]]:
        """Return between which starts these sessions have something in the archive."""
        spans: dict[str, tuple[datetime, datetime]] = {}
        for session_id, first, last, *_ in self._rows_of(sessions):
            if first is not None:
                known = spans.get(session_id, (first, last))
                spans[session_id] = min(known[0], first), max(known[1], last)
        return [(name, *span) for name, span in spans.items()]

    def _rows_of(self, sessions: Collection[str]) -> list[Any]:
        """Return what the archive says of these sessions, which a reading asks for once."""
        asked = frozenset(sessions)
        if asked not in self._rows:
            query = (
                "select session_id, first_at, last_at, entered_at, session_name, parent_session_id"
                " from {} where session_id in ({})"
            )
            names = sorted(asked)
            files = [each for each in self._sessions if self._extent(each).may_hold(names)]
            self._rows = {asked: self._of_sessions(query, sessions, files)}
        return self._rows[asked]

    def _extent(self, file: Path) -> _Extent:
        """Return what a file of sessions reaches over, which is looked up once in a process."""
        file = file.absolute()
        found = _extents.get(file)
        if found is None:
            query = "select max(last_at), min(session_id), max(session_id)"
            ((last, *ids),) = self._ask(f"{query} from {files_of([file])}", None).fetchall()
            if len(_extents) >= MOST_EXTENTS:
                _extents.clear()
            found = _extents[file] = _Extent(last, *ids)
        return found

    def _of_sessions(
        self, query: str, sessions: Collection[str], files: Sequence[Path] | None = None
    ) -> list[Any]:
        table = self._table_of_sessions(self._sessions if files is None else files)
        if not table or not sessions:
            return []
        names = sorted(sessions)
        if len(names) > MOST_MARKS:
            return self._ask(query.format(table, "select unnest(?)"), [names]).fetchall()
        # which DuckDB compares with what it knows of each part of a file
        return self._ask(query.format(table, ", ".join("?" * len(names))), names).fetchall()

    def _table_of_sessions(self, files: Sequence[Path]) -> str:
        """Return the table of what these files say of sessions; none where there is nothing."""
        if not self._lacks_sessions or not self._parts:
            return files_of(files) if files else ""
        tables = [f"from {files_of(files)}"] if files else []
        tables.append(_SESSIONS.format(table_of(self._parts)))
        return f"({' union all by name '.join(tables)})"

    def _lines(self, query: str, params: Mapping[str, Any]) -> Iterator[Line]:
        answer = self._ask(query, params)
        while rows := answer.fetchmany(FETCHED_AT_ONCE):
            for text, extra, host in rows:
                yield _line(text, extra, host or "")

    def _ask(self, query: str, params: Any) -> DuckDBPyConnection:
        try:
            with interruptible():
                return self._cursor.cursor().execute(query, params)
        except duckdb.Error as error:
            self._found.check_archives()
            raise ArchiveError(str(error)) from error


class _Extent(NamedTuple):
    """The last moment and the first and the last id in a file of sessions, if it has any."""

    last: datetime | None
    first_session: str | None
    last_session: str | None

    def may_hold(self, ascending: Sequence[str]) -> bool:
        if self.first_session is None or self.last_session is None:
            return False
        place = bisect_left(ascending, self.first_session)
        return place < len(ascending) and ascending[place] <= self.last_session


def table_of(parts: Iterable[Archived]) -> str:
    """Return the table of the operations in these files."""
    return files_of([each.path for each in parts])


def files_of(paths: Iterable[Path]) -> str:
    """Return the table of the rows in these files."""
    return f"read_parquet([{_listed(paths)}], hive_partitioning = false)"


def days_in(paths: Iterable[Path]) -> str:
    """Return the table of what days came to in these files, which may be of several versions."""
    return f"read_parquet([{_listed(paths)}], hive_partitioning = false, union_by_name = true)"


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(quoted(escaped(path)) for path in paths)


def escaped(path: Path) -> str:
    """Return a pattern that names nothing but this path."""
    return _PATTERNS.sub(r"[\g<0>]", str(path.absolute()))


def _mark(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return str(file), status.st_ino, status.st_mtime_ns


def _asks_only_when(wanted: Wanted) -> bool:
    return wanted == Wanted(since=wanted.since, until=wanted.until)


def _line(text: str, extra: str, host: str) -> Line:
    data = text.encode()
    if extra != "{}":
        data = msgspec.json.encode(msgspec.json.decode(data) | msgspec.json.decode(extra))
    head = decode_head(data)
    moment = moment_of(head.timestamp)
    assert moment is not None
    return Line(_written_by(host), head, moment, data)


@lru_cache(maxsize=1000)
def _written_by(host: str) -> Source:
    return Source(Path(), Path(), host)


_PATTERNS = re.compile(r"[*?\[]")
_answers: dict[tuple[Any, ...], list[Any]] = {}
_extents: dict[Path, _Extent] = {}  # no name of a file is ever used again
_EMPTY = "operation_count = 0"  # entered, or begun and withdrawn
_SESSIONS = """
    select session_id, parent_session_id, min(timestamp) as first_at, max(timestamp) as last_at,
           count(*) as operation_count, null::timestamptz as entered_at,
           null::varchar as session_name
    from {} group by session_id, parent_session_id
"""
_NEWEST_FIRST = "order by timestamp desc, coalesce(operation_id, '') desc"
_FORMS = {"timestamp": "strftime(timestamp, '%Y-%m-%dT%H:%M:%S.%fZ')"}
_LINE = "cast(json_object({}) as varchar), extra, host".format(
    ", ".join(
        f"'{name}', {_FORMS.get(name, name)}"
        for name in Operation.__struct_fields__
        if name != "extra"
    )
)
