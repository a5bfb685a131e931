"""The view `operations` in DuckDB, over the journal's own files wherever DuckDB can read them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from instrument._archived import opened, table_of
from instrument._begun import Begun
from instrument._costs import make_rates, priced, quoted
from instrument._gather import Reading
from instrument._lines import operation_of
from instrument._looks import UNENDED, Looks, keys_of
from instrument._scan import Skipped, Source, scan
from instrument.errors import QueryError, reject_type
from instrument.operation import Operation

__all__ = ["Params", "database", "rows_of", "run"]

Params = Sequence[Any] | Mapping[str, Any] | None


@contextmanager
def database(
    reading: Reading, since: datetime | None = None, columns: Sequence[str] | None = None
) -> Iterator[DuckDBPyConnection]:
    """Open a database in memory with the view `operations`; raises `QueryError`.

    With `since`, files that were last written to before are passed over. With `columns` no others
    are needed, and only for sums: files are read once if possible, the parts of tokens may be 0
    where they are unknown, and metadata missing where no price depends on it.
    """
    connection = opened()
    with tempfile.TemporaryDirectory(prefix="instrument-") as scratch:
        connection.execute(f"set temp_directory = {quoted(scratch)}")
        try:
            sources = [each for each in reading.sources if each.reaches(since)]
            _define_view(connection, reading, sources, since, Path(scratch), columns)
            yield connection
        except duckdb.Error as error:
            _look_again_if_vanished(reading)
            raise QueryError(str(error)) from error
        except RuntimeError as error:
            # what DuckDB makes of a Ctrl-C that comes while it works
            if str(error) == "Query interrupted":
                raise KeyboardInterrupt from error
            raise


def run(reading: Reading, query: str, params: Params) -> DuckDBPyRelation:
    """Run `query` over the view `operations` of what `reading` found; its rows are in memory."""
    if not isinstance(query, str):
        reject_type("query", query, "SQL as text")
    with database(reading) as connection:
        return rows_of(connection, query, params)


def rows_of(connection: DuckDBPyConnection, query: str, params: Params) -> DuckDBPyRelation:
    """Return the rows of a query, in memory; the files may grow or go before the caller looks."""
    relation: Any = connection.sql(query, params=params)
    if relation is None:
        raise QueryError("the statement gives no rows: use SELECT")
    run_once = getattr(relation, "materialize", None) or relation.execute
    rows: DuckDBPyRelation = run_once()
    return rows


def _define_view(
    connection: DuckDBPyConnection,
    reading: Reading,
    sources: list[Source],
    since: datetime | None,
    scratch: Path,
    columns: Sequence[str] | None,
) -> None:
    """Define `operations`, `charged` with what their cached tokens saved, and `fresh` of these.

    `fresh` are those of the journal alone, `bare` all without prices.

    What DuckDB cannot read, or cannot know, stands in files in `scratch`. A file with a single
    odd line is read by `scan` as a whole, so that no line counts twice.
    """
    named = {str(each.path.absolute()): each for each in sources}
    healed, unended = str(scratch / "healed.jsonl"), str(scratch / "unended.jsonl")
    # what stands before `begin` of a file counts in the archive
    readable = [path for path, each in named.items() if _can_be_named(path) and not each.begin]
    looks = Looks(connection, [*readable, healed, unended], columns)
    odd = (named.keys() - set(readable)) | looks.fill(readable)
    begun = Begun()
    _write(healed, _healed([named[path] for path in named if path in odd], reading.skipped, begun))
    looks.add([healed])
    _write(unended, _interrupted(connection, reading, begun, named, odd))
    looks.add([unended])
    parts = [each for each in reading.snapshot.parts if each.part.reaches(since, None)]
    whole = [path for path in readable if path not in odd]
    rows, kept = looks.operations([*whole, healed, unended], parts, reading.archive)
    make_rates(connection, reading.pricing, keys_of(connection))
    connection.execute(f"create view fresh as {priced(rows, reading.pricing)}")
    everything, bare = "from fresh", rows
    if parts:
        archived = f"select {', '.join(kept)} from {table_of(parts)}"
        everything += f" union all by name {priced(archived, reading.pricing)}"
        bare += f" union all by name {archived}"
    connection.execute(f"create view charged as {everything}")
    connection.execute(f"create view bare as {bare}")
    connection.execute("create view operations as select * exclude (saved) from charged")


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
    unended = connection.execute(UNENDED).fetchall()
    ids = begun.left_ids() | {begins for _, begins, _ in unended}
    if odd:
        return reading.interrupted(ids)
    query = "select distinct file from looks where pid in (select unnest($1))"
    seen = connection.execute(query, [[pid for _, _, pid in unended]]).fetchall()
    silent = named.keys() - {path for (path,) in seen}
    where = {begins: named[path] for path, begins, _ in unended}
    return reading.interrupted(ids, where, frozenset(named[path] for path in silent))


def _can_be_named(path: str) -> bool:
    """Tell whether DuckDB takes a path as it stands: not as a pattern, and as UTF-8."""
    return not set(path) & set("*?[{") and path.isprintable()


def _look_again_if_vanished(reading: Reading) -> None:
    for source in reading.sources:
        if not source.may_vanish:
            source.path.stat()
    reading.snapshot.check_archives()


def _write(path: str, operations: Iterable[Operation | None]) -> None:
    with Path(path).open("wb") as file:
        for operation in filter(None, operations):
            file.write(msgspec.json.encode(operation) + b"\n")
