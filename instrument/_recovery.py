"""A manifest that was lost, damaged or put back, made anew from what the files say themselves.

So it is where files of sessions or of days are gone, which are made anew from the operations.

The Parquet files of a batch name the segments that it was made of. A batch of which the journal
still holds every segment is left to the journal, for its files may be those of a compaction that
was killed; segments are removed only after a manifest has named all files of their batch. So each
operation counts once, and a recovery that is killed is begun anew.

What files do not tell: whether some were deleted, and what a prune that was killed had not yet
removed. Files of versions that did not write it down tell nothing of dropped records.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path

import duckdb
import msgspec
from duckdb import DuckDBPyConnection
from msgspec import Raw, Struct

from instrument._archived import files_of
from instrument._batch import REPORTED, between
from instrument._facts import Facts, facts_of, held_alone, is_in_journal
from instrument._filing import connected, file
from instrument.archive import (
    FORMAT,
    NOTHING,
    Manifest,
    Part,
    Segment,
    archive_dir,
    cut_short,
    files_in,
    missing_sums,
    present,
    read_manifest,
    write_manifest,
)
from instrument.compaction import holding, scratch_in, sum_up, tidy
from instrument.errors import ManifestError
from instrument.pricing import Pricing

__all__ = ["Recovered", "recover"]


class Recovered(Struct, frozen=True):
    """What a manifest was made anew of.

    `unreadable` are files that nothing could be made of, where they are now: among the damaged.
    """

    files: int
    operations: int
    unreadable: tuple[str, ...]


def recover(log_dir: Path, pricing: Pricing) -> Recovered | None:
    """Make the manifest of an archive anew if it is lost, damaged or too old; else `None`.

    Or if a file is damaged, or sessions, or what days came to, are gone.

    Raises `ArchiveError` where another process changes the archive or it cannot be written, and
    `FormatError` for the files of a newer version.
    """
    if not _is_lost(log_dir):
        return None
    with holding(log_dir) as directory:
        if not _is_lost(log_dir):
            return None
        name = secrets.token_hex(8)
        with scratch_in(directory) as scratch, connected(scratch) as database:
            remains = _Remains(log_dir, directory, scratch, database)
            manifest = remains.manifest(name)
        write_manifest(log_dir, manifest)
        tidy(directory, manifest)
        sum_up(log_dir, pricing)
    count = sum(each.operations for each in manifest.parts)
    return Recovered(len(manifest.parts), count, tuple(remains.unreadable))


def _is_lost(log_dir: Path) -> bool:
    try:
        directory, manifest = archive_dir(log_dir), read_manifest(log_dir)
        # of what is damaged none of the others can be asked
        return (
            any(cut_short(directory, manifest, may_be_gone=True))
            or bool(missing_sums(directory, manifest))
            or bool(held_alone(directory, manifest))
        )
    except ManifestError:
        return True


def _known(log_dir: Path) -> Manifest:
    with suppress(ManifestError):
        return read_manifest(log_dir)
    return NOTHING


class _Remains:
    """The files of an archive without a manifest."""

    def __init__(
        self, log_dir: Path, directory: Path, scratch: Path, database: DuckDBPyConnection
    ) -> None:
        self._log_dir = log_dir
        self._directory = directory
        self._scratch = scratch
        self._database = database
        self.unreadable: list[str] = []
        database.execute(f"create table rows_of ({_ROWS})")
        self._files = {place: self._readable(place) for place in ("date=*", "sessions", "days")}

    def manifest(self, name: str) -> Manifest:
        """Return a manifest of what counts; the sessions get a new file of that name."""
        told = [*self._files["date=*"].values(), *self._files["sessions"].values()]
        batches = {each.batch: each.segments for each in told if each.segments}
        left = self._left_to_journal(batches)
        gone = {path for each in told for path in each.gone}
        parts = self._parts(
            path
            for path, each in self._files["date=*"].items()
            if each.batch not in left and path not in gone
        )
        lines = (
            line
            for each in told
            for line in (*each.known, *(each.other if each.batch not in left else ()))
        )
        known = _known(self._log_dir)
        other = _once(chain(known.other, lines))
        counted = {each for batch in batches.keys() - left for each in batches[batch]}
        return Manifest(
            # those that are gone may be put back
            parts=(*parts, *({*known.parts} - {*present(self._directory, known.parts)})),
            segments=tuple(sorted(counted, key=lambda each: (each.name, each.size))),
            sessions=self._sessions(name, other),
            days=self._newest_days(),
            unsummed=tuple(sorted({each.day for each in parts})),
            damaged=(*self._damaged(left), *self.unreadable),
            other=other,
        )

    def _readable(self, place: str) -> dict[str, Facts]:
        """Return what the files there say; put away those that cannot be read."""
        found = {}
        for path in files_in(self._directory):
            if path.suffix != ".parquet" or not path.parent.match(place):
                continue
            name = path.relative_to(self._directory).as_posix()
            try:
                found[name] = facts_of(self._database, path)
                if place == "date=*":
                    self._database.execute(_ROWS_OF.format(files_of([path])), {"file": name})
            except (duckdb.Error, ValueError):
                found.pop(name, None)
                self._put_away(path)
        return found

    def _put_away(self, path: Path) -> None:
        """Keep a file that cannot be read where no reader and no compaction minds it."""
        target = self._directory / "damaged" / f"{path.stem}-{path.parent.name}.parquet"
        target.parent.mkdir(mode=0o700, exist_ok=True)
        path.replace(target)
        self.unreadable.append(target.relative_to(self._directory).as_posix())

    def _left_to_journal(self, batches: dict[str, tuple[Segment, ...]]) -> set[str]:
        """Return the batches of which the journal holds all, and will have it read."""
        named = {each for segments in batches.values() for each in segments}
        held = {each for each in named if is_in_journal(self._log_dir, each)}
        summed = {name for each in self._files["days"].values() for name in each.summed}
        left = {
            name
            for name, segments in batches.items()
            if held.issuperset(segments) and name not in summed
        }
        while True:
            counted = {each for name in batches.keys() - left for each in batches[name]} & held
            hidden = {
                name
                for name in left
                if any(_hides(each, segment) for segment in batches[name] for each in counted)
            }
            if not hidden:
                return left
            left -= hidden

    def _parts(self, names: Iterable[str]) -> tuple[Part, ...]:
        self._database.execute("create table counted (file varchar)")
        for name in names:
            self._database.execute("insert into counted values (?)", [name])
        found = self._database.execute(_PARTS).fetchall()
        repeated = self._repeated([row[0] for row in found])
        return tuple(
            Part(
                path,
                operations,
                (self._directory / path).stat().st_size,
                first,
                last,
                *between(first_session, last_session),
                repeats=path in repeated,
            )
            for path, operations, first, last, first_session, last_session in found
        )

    def _repeated(self, names: list[str]) -> set[str]:
        """Return the files that have operations of sessions in which a response is told twice."""
        if not names:
            return set()
        table = files_of(self._directory / each for each in names)
        self._database.execute(f"create view operations as select * from {table}")
        query = (
            "select distinct file from rows_of where session_id in (select session_id from"
            f" ({REPORTED}) group by session_id, response_id having count(*) > 1)"
        )
        return {name for (name,) in self._database.execute(query).fetchall()}

    def _sessions(self, name: str, other: tuple[Raw, ...]) -> tuple[str, ...]:
        """Write the sessions of what counts, and those in which nothing was recorded."""
        query = _SESSIONS
        if names := self._files["sessions"]:
            table = files_of(self._directory / each for each in names)
            query += f" union all by name select distinct * from {table} where operation_count = 0"
        is_empty = not self._database.execute(f"{query} limit 1").fetchall()
        if is_empty and not other:
            return ()
        target = f"sessions/{name}.parquet"
        file(
            self._database,
            f"select * from ({query}) order by session_id",
            self._scratch,
            self._directory / target,
            facts={"v": FORMAT, "known": other},
        )
        return (target,)

    def _newest_days(self) -> str | None:
        """Return the file of what days came to; that of days with operations is made anew."""
        return max(
            self._files["days"],
            key=lambda name: ((self._directory / name).stat().st_mtime_ns, name),
            default=None,
        )

    def _damaged(self, left: set[str]) -> list[str]:
        found = [path for path in files_in(self._directory) if path.parent.name == "damaged"]
        names = [path.relative_to(self._directory).as_posix() for path in found]
        return [
            name
            for name in names
            if name not in self.unreadable and not any(f"/{each}-" in name for each in left)
        ]


def _hides(counted: Segment, segment: Segment) -> bool:
    """Tell whether readers pass over a segment in the journal because of one that counts."""
    return counted.name == segment.name and counted.size >= segment.size


def _once(lines: Iterable[Raw]) -> tuple[Raw, ...]:
    # a manifest has them in several lines each
    return tuple(map(Raw, dict.fromkeys(msgspec.json.format(each, indent=-1) for each in lines)))


_ROWS = (
    "file varchar, session_id varchar, parent_session_id varchar, first_at timestamptz,"
    " last_at timestamptz, operation_count bigint"
)
_ROWS_OF = """
    insert into rows_of
    select $file, session_id, parent_session_id, min(timestamp), max(timestamp), count(*)
    from {} group by session_id, parent_session_id
"""
_PARTS = """
    select file, sum(operation_count)::bigint, min(first_at), max(last_at), min(session_id),
           max(session_id)
    from rows_of semi join counted using (file) group by file order by file
"""
_SESSIONS = """
    select session_id, parent_session_id, min(first_at) as first_at, max(last_at) as last_at,
           sum(operation_count)::bigint as operation_count, null::timestamptz as entered_at,
           null::varchar as session_name, null::json as metadata
    from rows_of semi join counted using (file) group by session_id, parent_session_id
"""
