"""The log in DuckDB, over the journal's own files wherever DuckDB can read them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection, DuckDBPyRelation
from msgspec import Struct

from instrument._archived import table_of
from instrument._begun import Begun
from instrument._costs import priced, quoted, rates_table
from instrument._databases import interruptible, opened, scratch_directory, shared
from instrument._gather import Reading
from instrument._lines import operation_of
from instrument._looks import UNENDED, Looks, keys_of
from instrument._scan import Skipped, Source, scan
from instrument._snapshot import Archived
from instrument._typed import TypedLooks, copied, read
from instrument._zones import Zone, joined, zones
from instrument.errors import QueryError, reject_type
from instrument.operation import Operation

__all__ = ["Params", "View", "database", "finished", "interrupted_in", "rows_of", "run", "told"]

MOST_COPIED = 256 * 1024**2
MOST_TYPED = 32 * 1024**2

Params = Sequence[Any] | Mapping[str, Any] | None


class View(Struct, frozen=True):
    """A log in a database: tables, as SQL, of its operations with cost and `saved` beside it.

    `fresh` has those of the journal alone, `charged` all; without prices these are `journal` and
    `bare`.
    """

    connection: DuckDBPyConnection
    journal: str
    fresh: str
    charged: str
    bare: str
    columns: Sequence[str] = ()
    parts: Sequence[Archived] = ()

    def of_days(self, days: Collection[date]) -> str:
        """Return `bare` with only what is archived of some days (UTC)."""
        names = {str(each) for each in days}
        parts = [each for each in self.parts if each.part.day in names]
        return _with_archived(self.journal, self.columns, parts)

    @property
    def operations(self) -> str:
        """The table that users know."""
        return f"(select * exclude (saved) from {self.charged})"


@contextmanager
def database(
    reading: Reading,
    since: datetime | None = None,
    columns: Sequence[str] | None = None,
    *,
    is_own: bool = False,
) -> Iterator[View]:
    """Open a database in memory with a log in it; raises `QueryError`.

    With `since`, files that were last written to before are passed over. With `columns` no others
    are needed, and only for sums: files are read once if possible, the parts of tokens may be 0
    where they are unknown, and metadata missing where no price depends on it. With `is_own` the
    database is nobody else's; else what is not temporary in it stays for the next question.
    """
    with _connected(reading, is_own=is_own) as (connection, scratch):
        sources = [each for each in reading.sources if each.reaches(since)]
        yield _view(connection, reading, sources, since, scratch, columns)


@contextmanager
def finished(
    reading: Reading, sources: Sequence[Source], columns: Sequence[str]
) -> Iterator[tuple[DuckDBPyConnection, str | None]]:
    """Give the table of what ended in these files, with cost and `saved`, and all of it billed.

    There is none where only `scan` understands a line, or an operation or a response stands twice
    in them and in the archive.
    """
    paths = [str(each.path.absolute()) for each in sources]
    parts = reading.snapshot.parts
    with _connected(reading) as (connection, _):
        looks = Looks(connection, paths, columns)
        table = None
        if all(map(_can_be_named, paths)) and not looks.fill(paths):
            rows, kept = looks.operations(paths, parts, reading.archive)
            if kept == columns:
                rates = rates_table(connection, reading.pricing, keys_of(connection))
                is_detailed = looks.have_details(paths)
                table = f"({priced(rows, reading.pricing, rates, is_detailed=is_detailed)})"
        yield connection, table


@contextmanager
def _connected(
    reading: Reading, *, is_own: bool = False
) -> Iterator[tuple[DuckDBPyConnection, Path]]:
    """Give a connection and a directory for what stands in files meanwhile."""
    with scratch_directory() as scratch, ExitStack() as stack:
        if is_own:
            connection = opened()
            connection.execute(f"set temp_directory = {quoted(scratch)}")
        else:
            connection = stack.enter_context(shared())
        with told(reading):
            yield connection, Path(scratch)


@contextmanager
def told(reading: Reading) -> Iterator[None]:
    """Say what DuckDB objects to as `QueryError`; raise `FileNotFoundError` if a file vanished."""
    try:
        with interruptible():
            yield
    except duckdb.Error as error:
        _look_again_if_vanished(reading)
        raise QueryError(str(error)) from error


def run(reading: Reading, query: str, params: Params) -> DuckDBPyRelation:
    """Run `query` over the view `operations` of what `reading` found; its rows are in memory."""
    if not isinstance(query, str):
        reject_type("query", query, "SQL as text")
    with database(reading, is_own=True) as view:
        view.connection.execute(f"create view operations as from {view.operations}")
        return rows_of(view.connection, query, params)


def rows_of(connection: DuckDBPyConnection, query: str, params: Params) -> DuckDBPyRelation:
    """Return the rows of a query, in memory; the files may grow or go before the caller looks."""
    relation: Any = connection.sql(query, params=params)
    if relation is None:
        raise QueryError("the statement gives no rows: use SELECT")
    run_once = getattr(relation, "materialize", None) or relation.execute
    rows: DuckDBPyRelation = run_once()
    return rows


def _view(
    connection: DuckDBPyConnection,
    reading: Reading,
    sources: list[Source],
    since: datetime | None,
    scratch: Path,
    columns: Sequence[str] | None,
) -> View:
    """Look at the log and define its tables.

    What DuckDB cannot read, or cannot know, stands in files in `scratch`. A file with a single
    odd line is read by `scan` as a whole, so that no line counts twice.
    """
    healed, unended = str(scratch / "healed.jsonl"), str(scratch / "unended.jsonl")
    typed = _typed(connection, sources, since, scratch) if columns is None else None
    named = dict(_pieces(sources, since, scratch)) if typed is None else typed
    # what stands before `begin` of a file counts in the archive
    readable = [
        path
        for path, each in named.items()
        if _can_be_named(path) and not (each.begin and _is_whole(path, each))
    ]
    if typed is None:
        looks = Looks(connection, [*readable, healed, unended], columns)
        odd = (named.keys() - set(readable)) | looks.fill(readable)
    else:
        looks, odd = TypedLooks(connection, [*named, unended]), set()
    begun = Begun()
    if odd:
        lines = _healed([named[path] for path in named if path in odd], reading.skipped, begun)
        looks.add_operations(healed, lines)
    looks.add_operations(unended, _interrupted(connection, reading, begun, named, odd))
    parts = [each for each in reading.snapshot.parts if each.part.reaches(since, None)]
    whole = [path for path in readable if path not in odd]
    rows, kept = looks.operations(whole, parts, reading.archive)
    rates = rates_table(connection, reading.pricing, keys_of(connection))
    is_detailed = looks.have_details(whole)
    fresh = f"({priced(rows, reading.pricing, rates, is_detailed=is_detailed)})"
    journal = f"({rows})"
    if not parts:
        return View(connection, journal, fresh, fresh, journal)
    archived = _archived(kept, parts)
    charged = f"(from {fresh} union all by name {priced(archived, reading.pricing, rates)})"
    bare = _with_archived(journal, kept, parts)
    return View(connection, journal, fresh, charged, bare, kept, parts)


def _typed(
    connection: DuckDBPyConnection,
    sources: Sequence[Source],
    since: datetime | None,
    scratch: Path,
) -> dict[str, Source] | None:
    """Read what is wanted of the sources with types, and name copies of it; `None`: not possible.

    Copies, because nobody has looked at what others append meanwhile.
    """
    named: dict[str, Source] = {}
    longest, left = 0, MOST_TYPED
    if sum(map(_size, sources)) > (MOST_TYPED if since is None else MOST_COPIED):
        return None
    for number, source in enumerate(sources):
        path = scratch / f"typed-{number}.jsonl"
        try:
            most = copied(source, since, path, left)
        except FileNotFoundError:
            if not source.may_vanish:
                raise
            continue
        if most is None:
            return None
        named[str(path.absolute())] = source
        longest, left = max(longest, most), left - path.stat().st_size
    return named if read(connection, [*map(Path, named)], longest) else None


def _pieces(
    sources: Sequence[Source], since: datetime | None, scratch: Path
) -> Iterator[tuple[str, Source]]:
    """Yield what to read of each source: its file, or a copy of the rest where most is older."""
    for number, source in enumerate(sources):
        path = source.path
        if since is not None and _size(source) <= MOST_COPIED:
            found = zones(source)
            fresh = [each for each in found if each.reaches(since)]
            if 2 * len(fresh) < len(found):
                path = scratch / f"piece-{number}.jsonl"
                _copy(source, fresh, path)
        yield str(path.absolute()), source


def _copy(source: Source, found: Sequence[Zone], path: Path) -> None:
    with path.open("wb") as target:
        try:
            with source.path.open("rb") as file:
                for each in joined(found):
                    file.seek(each.begin)
                    target.write(file.read(each.end - each.begin))
        except FileNotFoundError:
            if not source.may_vanish:
                raise


def _size(source: Source) -> int:
    try:
        return source.path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_whole(path: str, source: Source) -> bool:
    """Tell whether a file to read is the source itself."""
    return path == str(source.path.absolute())


def _archived(columns: Sequence[str], parts: Sequence[Archived]) -> str:
    return f"select {', '.join(columns)} from {table_of(parts)}"


def _with_archived(table: str, columns: Sequence[str], parts: Sequence[Archived]) -> str:
    return f"(from {table} union all by name {_archived(columns, parts)})" if parts else table


def _healed(sources: list[Source], skipped: Skipped, begun: Begun) -> Iterator[Operation | None]:
    for line in scan(sources, skipped):
        begun.add(line)
        if line.head.is_operation:
            yield operation_of(line.data)


def _interrupted(
    connection: DuckDBPyConnection,
    reading: Reading,
    begun: Begun,
    named: dict[str, Source],
    odd: set[str],
) -> list[Operation]:
    if not odd:
        whole = {path for path, each in named.items() if _is_whole(path, each)}
        return interrupted_in(connection, reading, named, whole)
    unended = connection.execute(UNENDED).fetchall()
    return reading.interrupted(begun.left_ids() | {begins for _, begins, *_ in unended})


def interrupted_in(
    connection: DuckDBPyConnection,
    reading: Reading,
    named: Mapping[Any, Source],
    whole: Collection[Any],
) -> list[Operation]:
    """Return what was interrupted of what the table `looks` leaves open in files that it names.

    It has all lines of those that are `whole`.
    """
    unended = connection.execute(UNENDED).fetchall()
    if not unended:
        return []
    query = "select distinct file from looks where pid in (select unnest($1))"
    seen = connection.execute(query, [[pid for _, _, pid, _ in unended]]).fetchall()
    silent = {*whole} - {name for (name,) in seen}
    # of several beginnings the last
    where = {begins: named[name] for name, begins, *_ in unended}
    return reading.interrupted(where, where, frozenset(named[each] for each in silent))


def _can_be_named(path: str) -> bool:
    """Tell whether DuckDB takes a path as it stands: not as a pattern, and as UTF-8."""
    return not set(path) & set("*?[{") and path.isprintable()


def _look_again_if_vanished(reading: Reading) -> None:
    for source in reading.sources:
        if not source.may_vanish:
            source.path.stat()
    reading.snapshot.check_archives()
