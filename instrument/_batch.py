"""The lines of some segments as a table in DuckDB, and the files of the archive made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import duckdb
import msgspec
from msgspec.structs import replace

from instrument._archived import files_of
from instrument._costs import quoted
from instrument._filing import connected, file, put
from instrument._scan import MAX_LINE_BYTES, Source
from instrument._survey import Survey, rewritten
from instrument._typed import COLUMNS, FORMS, has_large_numbers, lines_in
from instrument.archive import FORMAT, Manifest, Part, Segment, present
from instrument.operation import Operation

__all__ = ["REPORTED", "Batch", "between"]

ROW_GROUP = 20_480  # so that unpacking the rows of one session costs milliseconds
MOST_SESSION_FILES = 8
NAME_CHARACTERS = 128


class Batch:
    """Segments that go into the archive together, as files called `name`; a context manager.

    Nothing that counts is changed before a manifest names the files.
    """

    def __init__(
        self,
        directory: Path,
        scratch: Path,
        name: str,
        segments: Sequence[Segment],
    ) -> None:
        self._directory = directory
        self._scratch = scratch
        self._name = name
        self._facts: dict[str, Any] = {"v": FORMAT, "batch": name, "segments": segments}
        self._damaged: list[str] = []
        self._other: list[bytes] = []
        self._database = connected(scratch)

    def __enter__(self) -> Self:
        declared = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        self._database.execute(f"create table lines ({declared}, host varchar)")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._database.close()

    def fill(
        self,
        segments: Sequence[tuple[Source, Survey]],
        interrupted: Mapping[str, Sequence[Operation]],
        before: Manifest,
    ) -> None:
        """Put in what the segments hold and what of it was interrupted, each operation once."""
        try:
            self._load(segments, anew=False)
            if has_large_numbers(self._database, "lines"):
                raise duckdb.InvalidInputException("numbers that are too large")
        except duckdb.Error:
            # something that DuckDB reads in another way than we do
            self._database.execute("delete from lines")
            self._load(segments, anew=True)
        for host, operations in interrupted.items():
            path = self._scratch / "interrupted.jsonl"
            path.write_bytes(msgspec.json.Encoder().encode_lines(operations))
            self._read([path], host, MAX_LINE_BYTES)
        if self._rows(_DOUBLES):
            self._database.execute(_DROP_DOUBLES)
        self._drop_known(before)
        self._database.execute(f"create table runs as {_RUNS}")
        self._database.execute(f"create view operations as {_OPERATIONS}")

    def write(self, before: Manifest) -> Manifest:
        """Write the files; return the manifest that counts them in."""
        days = self._rows(_DAYS)
        repeats = self._repeats(before, days)
        parts = (*before.parts, *(replace(each, repeats=repeats) for each in self._parts(days)))
        return replace(
            before,
            parts=parts,
            unsummed=tuple(
                sorted({*before.unsummed, *(each.day for each in parts[len(before.parts) :])})
            ),
            segments=(*before.segments, *self._facts["segments"]),
            sessions=self._sessions(before),
            damaged=(*before.damaged, *self._damaged),
            other=(*before.other, *map(msgspec.Raw, self._other)),
        )

    def _load(self, segments: Sequence[tuple[Source, Survey]], *, anew: bool) -> None:
        self._damaged, self._other = [], []
        for host in sorted({source.writer for source, _ in segments}):
            here = [each for each in segments if each[0].writer == host]
            paths = [self._readable(*each, anew=anew) for each in here]
            is_known = paths == [source.path for source, _ in here]
            longest = max(found.longest for _, found in here) if is_known else MAX_LINE_BYTES
            self._read(paths, host, longest)
            for source, found in here:
                if not anew and source.path.stat().st_size != found.size:
                    raise duckdb.InvalidInputException("somebody appends who takes no lock")

    def _readable(self, source: Source, found: Survey, *, anew: bool) -> Path:
        """Return a file that holds what counts of a segment as the recorder would write it."""
        if found.is_plain and not source.begin and not anew:
            return source.path
        target = self._scratch / source.path.name
        rest = self._scratch / f"{source.path.name}.damaged"
        with target.open("wb") as lines, rest.open("wb") as damaged:
            self._other += rewritten(source, found.size, lines, damaged)
        if rest.stat().st_size:
            name = f"damaged/{self._name}-{source.path.name}"
            put(rest, self._directory / name)
            self._damaged.append(name)
        return target

    def _read(self, paths: Sequence[Path], host: str, longest: int) -> None:
        """Put in the lines of some files, none of which is longer than so many bytes."""
        lines = lines_in(paths, longest)
        self._database.execute(f"insert into lines select *, $1 from {lines}", [host])

    def _drop_known(self, before: Manifest) -> None:
        """Leave out operations that are in the archive already."""
        query = "select min(timestamp), max(timestamp) from lines where type is null"
        ((first, last),) = self._rows(query)
        near = [] if first is None else self._between(before, first, last)
        if near:
            files = files_of(near)
            self._database.execute(
                "delete from lines where type is null and operation_id in (select operation_id"
                f" from {files} where timestamp between $first and $last)",
                {"first": first, "last": last},
            )

    def _repeats(self, before: Manifest, days: list[Any]) -> bool:
        """Tell whether any response is reported twice in a session that has operations here."""
        if self._rows(_REPEATED):
            return True
        parts = self._parts_with_sessions(before, days)
        if not parts:
            return False
        reported = "response_id is not null and session_id in (select session_id from spanning)"
        known = f"select session_id, response_id from {files_of(parts)} where {reported}"
        return bool(self._rows(f"{known} intersect {REPORTED} limit 1"))

    def _parts_with_sessions(self, before: Manifest, days: list[Any]) -> list[Path]:
        """Return the files that may report responses of our sessions, which become `spanning`."""
        if not before.sessions or not days:
            return []
        lowest, highest = min(each[4] for each in days), max(each[5] for each in days)
        known = files_of(self._directory / each for each in before.sessions)
        # the files are ordered by session: most of their parts are passed over
        self._database.execute(
            f"create table spanning as select session_id, min(first_at) as first_at,"
            f" max(last_at) as last_at from {known} where operation_count > 0"
            f" and session_id between {quoted(lowest)} and {quoted(highest)}"
            " and session_id in (select session_id from operations where response_id is not null)"
            " group by session_id"
        )
        ((first, last),) = self._rows("select min(first_at), max(last_at) from spanning")
        return [] if first is None else self._between(before, first, last)

    def _between(self, before: Manifest, first: datetime, last: datetime) -> list[Path]:
        """Return the files that may have operations of a time, and that nobody has deleted."""
        found = [each for each in before.parts if each.overlaps(first, last)]
        return [self._directory / each.path for each in present(self._directory, found)]

    def _parts(self, days: list[Any]) -> Iterator[Part]:
        for day, count, first, last, first_session, last_session in days:
            name = f"date={day}/{self._name}.parquet"
            # which DuckDB compares with what it knows of each part of the table, as it does no day
            moments = [f"timestamptz {quoted(each.isoformat())}" for each in (first, last)]
            query = (
                f"select * from operations where timestamp between {' and '.join(moments)}"
                " order by timestamp, operation_id"
            )
            size = self._copy(query, name)
            yield Part(
                name,
                count,
                size,
                first,
                last,
                *between(first_session, last_session),
            )

    def _sessions(self, before: Manifest) -> tuple[str, ...]:
        if not self._other and not self._rows(_ANY_SESSION):
            return before.sessions
        # should the manifest be lost, it is made anew from what the files say
        self._facts |= {"other": [*map(msgspec.Raw, self._other)], "known": before.other}
        name = f"sessions/{self._name}.parquet"
        if len(before.sessions) < MOST_SESSION_FILES:
            self._copy(f"{_SESSIONS} order by session_id", name)
            return (*before.sessions, name)
        files = files_of(self._directory / each for each in before.sessions)
        self._copy(
            f"select * from ({_SESSIONS} union all by name from {files}) order by session_id", name
        )
        return (name,)

    def _copy(self, query: str, name: str) -> int:
        """Write the rows of a query to a file of the archive; return its size in bytes."""
        target, more = self._directory / name, f"row_group_size {ROW_GROUP}"
        return file(self._database, query, self._scratch, target, more, self._facts)

    def _rows(self, query: str) -> list[Any]:
        return self._database.execute(query).fetchall()


def between(first: str, last: str) -> tuple[str, str]:
    """Return short texts between which all is, in the order of code points, that is between two."""
    cut = last[:NAME_CHARACTERS]
    return first[:NAME_CHARACTERS], cut if cut == last else f"{cut}\U0010ffff"


_RUNS = "select operation_id, any_value(run) as run from lines where type = 'begin' group by 1"
_OPERATIONS = (
    "select "
    + ", ".join(f"{FORMS[name]} as {name}" for name in Operation.__struct_fields__)
    + ", runs.run as run, host from lines left join runs using (operation_id) where type is null"
)
_DOUBLES = """
    select 1 from lines where type is null and operation_id is not null
    group by operation_id having count(*) > 1 limit 1
"""
_DROP_DOUBLES = """
    delete from lines where type is null and rowid in (
        select rowid from lines where type is null and operation_id is not null
        qualify row_number() over (
            partition by operation_id order by coalesce(outcome, '') = 'interrupted', rowid) > 1)
"""
REPORTED = """
    select session_id, response_id from operations
    where response_id is not null
          and coalesce(tokens, input_tokens, output_tokens, cost_usd) is not null
"""
_REPEATED = f"{REPORTED} group by session_id, response_id having count(*) > 1 limit 1"
_ANY_SESSION = "select 1 from lines where type is null or type in ('begin', 'session') limit 1"
_DAYS = """
    select cast(timestamp as date) as day, count(*), min(timestamp), max(timestamp),
           min(coalesce(session_id, '')), max(coalesce(session_id, ''))
    from lines where type is null group by day order by day
"""
_SESSIONS = """
    select session_id, parent_session_id, min(timestamp) as first_at, max(timestamp) as last_at,
           count(*) as operation_count, null::timestamptz as entered_at,
           null::varchar as session_name, null::json as metadata
    from operations group by session_id, parent_session_id
    union all
    select session_id, parent_session_id, timestamp, timestamp, 0, timestamp, session_name, metadata
    from lines where type = 'session'
    union all
    select session_id, parent_session_id, timestamp, timestamp, 0, null, null, null
    from lines where type = 'begin'
          and not exists (select 1 from operations as o where o.operation_id = lines.operation_id)
"""
