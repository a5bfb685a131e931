"""The view `operations` in DuckDB, over the journal's own files wherever DuckDB can read them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import msgspec
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from instrument._begun import Begun
from instrument._costs import cost_of, quoted
from instrument._gather import Reading
from instrument._lines import AMOUNTS, COUNTS, OTHER_TYPES, OUTCOMES, operation_of
from instrument._scan import MAX_LINE_BYTES, Source, scan
from instrument.errors import QueryError, reject_type
from instrument.operation import MAX_COUNT, Operation
from instrument.pricing import Key, Pricing

__all__ = ["Params", "database", "has_repeats", "keys_of", "rows_of", "run"]

Params = Sequence[Any] | Mapping[str, Any] | None


@contextmanager
def database(
    reading: Reading, since: datetime | None = None, *, extra: bool = True
) -> Iterator[DuckDBPyConnection]:
    """Open a database in memory with the view `operations`; raises `QueryError`.

    With `since`, files that were last written to before are passed over. Without `extra`, that
    column may be empty, which saves the look for keys that nobody knows.
    """
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    with tempfile.TemporaryDirectory(prefix="instrument-") as scratch:
        connection.execute(f"set temp_directory = {quoted(scratch)}")
        try:
            sources = [each for each in reading.sources if each.reaches(since)]
            _define_view(connection, reading, sources, Path(scratch) / "read.jsonl", extra)
            yield connection
        except duckdb.Error as error:
            _look_again_if_vanished(reading.sources)
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
    scratch: Path,
    extra: bool,
) -> None:
    """Define `operations`; what DuckDB cannot read, or cannot know, stands in the file `scratch`.

    A file with a single odd line is read by `scan` as a whole, so that no line counts twice.
    """
    named = {str(each.path.absolute()): each for each in sources}
    readable = [path for path in named if _can_be_named(path)]
    odd = (named.keys() - set(readable)) | _looked_at(connection, readable, extra)
    begun = Begun()
    with scratch.open("wb") as file:
        for line in scan([each for path, each in named.items() if path in odd], reading.skipped):
            begun.add(line)
            if line.head.is_operation:
                _write(file, operation_of(line.data))
    _look_at(connection, [str(scratch)])
    unended = _unended(connection)
    with scratch.open("ab") as file:
        where = None if odd else [named[path] for path in {path for path, _ in unended}]
        ids = begun.left_ids() | {begins for _, begins in unended}
        for operation in reading.interrupted(ids, where):
            _write(file, operation)
    plain = [path for path in readable if path not in odd]
    once = _ONCE if _has_doubles(connection) else ""
    cost = _cost(reading.pricing, keys_of(connection))
    connection.execute(
        f"create view operations as select * replace ({cost})"
        f" from (select {_COLUMNS} from {_lines([*plain, scratch])} where {_IS_OPERATION} {once})"
    )


def _looked_at(connection: DuckDBPyConnection, paths: list[str], extra: bool) -> set[str]:
    """Fill the table `looks`; return the files with something that only `scan` understands."""
    connection.execute(f"create table looks as select {_LOOKS} from {_lines([os.devnull])}")
    odd = set(_each_that_fails(lambda some: _look_at(connection, some), paths))
    found = connection.execute("select distinct filename from looks where not is_plain").fetchall()
    odd |= {path for (path,) in found}
    if extra:
        odd |= _with_odd_keys(connection, paths)
    connection.execute("delete from looks where filename in (select unnest($1))", [sorted(odd)])
    return odd


def _look_at(connection: DuckDBPyConnection, paths: list[str]) -> None:
    connection.execute(f"insert into looks select {_LOOKS} from {_lines(paths)}")


def _each_that_fails(task: Callable[[list[str]], None], paths: list[str]) -> Iterator[str]:
    """Do a task on all the files at once, or where that fails on each; yield those that fail."""
    if not paths:
        return
    try:
        task(paths)
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except duckdb.Error:
        if len(paths) == 1:
            yield from paths
            return
        for path in paths:
            yield from _each_that_fails(task, [path])


def _with_odd_keys(connection: DuckDBPyConnection, paths: list[str]) -> set[str]:
    """Find the files with lines that are no objects, or name a key twice or an unknown one."""
    odd: set[str] = set()

    def look(some: list[str]) -> None:
        query = "select distinct filename, json_keys(json) from read_ndjson_objects"
        for path, keys in connection.execute(f"{query}({_files(some)})").fetchall():
            if not keys or len(set(keys)) < len(keys) or set(keys) - _KNOWN:
                odd.add(path)

    odd.update(_each_that_fails(look, paths))
    return odd


def _has_doubles(connection: DuckDBPyConnection) -> bool:
    """Tell whether any operation stands in the log twice."""
    query = "select 1 from looks where ends is not null group by ends having count(*) > 1 limit 1"
    return bool(connection.execute(query).fetchall())


def _unended(connection: DuckDBPyConnection) -> list[tuple[str, str]]:
    """Return the file and id of each operation that has begun and has no other line."""
    query = """
        select filename, begins from looks where begins is not null
        and not exists (select 1 from looks as other where other.ends = hash(looks.begins))
        and not exists (select 1 from looks as other where other.voids = looks.begins)
    """
    return connection.execute(query).fetchall()


def has_repeats(connection: DuckDBPyConnection) -> bool:
    """Tell whether any response is reported twice in a session, which few logs have."""
    query = """
        select 1 from looks where response is not null
        group by response having count(*) > 1 limit 1
    """
    return bool(connection.execute(query).fetchall())


def keys_of(connection: DuckDBPyConnection) -> list[Key]:
    """Return what the rates of the operations depend on."""
    query = "select distinct provider, service, model from looks where model is not null"
    return sorted(connection.execute(query).fetchall(), key=str)


def _cost(pricing: Pricing, keys: list[Key]) -> str:
    """Return the columns of the cost: what was given, else the list price."""
    listed = cost_of(pricing, keys)
    source = f"case when {listed} is not null then 'list' end"
    if pricing.replaces:
        return f"{listed} as cost_usd, {source} as cost_source"
    return (
        f"coalesce(cost_usd, {listed}) as cost_usd,"
        f" coalesce(case when cost_usd is null then {source} end, cost_source) as cost_source"
    )


def _lines(paths: Sequence[str | Path]) -> str:
    """Return the table of the lines as they stand; an unreadable one is a row of nulls.

    Values are text until they are converted, because that never fails.
    """
    columns = dict.fromkeys([*_KEYS, "type"], "VARCHAR") | {"metadata": "JSON", "extra": "JSON"}
    return f"read_json({_files(paths)}, format = 'newline_delimited', columns = {columns})"


def _files(paths: Sequence[str | Path]) -> str:
    names = ", ".join(quoted(os.path.abspath(path)) for path in paths)
    return (
        f"[{names}], ignore_errors = true, filename = true, compression = 'none',"
        f" hive_partitioning = false, maximum_object_size = {MAX_LINE_BYTES}"
    )


def _can_be_named(path: str) -> bool:
    """Tell whether DuckDB takes a path as it stands: not as a pattern, and as UTF-8."""
    return not set(path) & set("*?[{") and path.isprintable()


def _look_again_if_vanished(sources: list[Source]) -> None:
    for each in sources:
        if not each.may_vanish:
            each.path.stat()


def _write(file: BinaryIO, operation: Operation | None) -> None:
    if operation is not None:
        file.write(msgspec.json.encode(operation) + b"\n")


def _column(name: str) -> str:
    number = f"try_cast({name} as double)"
    if name in COUNTS:
        whole = f"{number} between 0 and {MAX_COUNT} and {number} = floor({number})"
        count = f"case when {whole} then {number}::bigint end"
        return f"{count if name != 'v' else f'coalesce(nullif({count}, 0), 1)'} as {name}"
    amount = f"case when {number} between 0 and {MAX_COUNT} then {number} end"
    if name == "duration_seconds":
        return f"coalesce({amount}, 0) as {name}"
    return f"{amount} as {name}" if name in AMOUNTS else _TEXTS.get(name, name)


_TIMESTAMP = (
    r"[1-9]\d{3}-\d\d-\d\d[T ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
    r"(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?"
)
_KEYS = [name for name in Operation.__struct_fields__ if name != "extra"]
_KNOWN = {*_KEYS, "type", "run"}
_SUCCESS = (
    "coalesce(case lower(success) when 'true' then true when '1' then true when 'false' then false"
    " when '0' then false end, error_type is null)"
)
_OUTCOME = (
    f"case when outcome in {OUTCOMES} then outcome when {_SUCCESS} then 'ok' else 'error' end"
)
_TEXTS = {
    "timestamp": "try_cast(timestamp as timestamptz) as timestamp",
    "session_id": "coalesce(session_id, '') as session_id",
    "success": f"({_OUTCOME}) in ('ok', 'partial') as success",
    "outcome": f"{_OUTCOME} as outcome",
    "metadata": "case when json_type(metadata) = 'OBJECT' then metadata else '{}' end as metadata",
    "extra": "coalesce(extra, '{}') as extra",
}
_IS_OPERATION = (
    f"service is not null and operation is not null and timestamp is not null"
    f" and (type is null or type not in {OTHER_TYPES})"
)
_ONCE = "qualify operation_id is null or row_number() over (partition by operation_id) = 1"
# the recorder's own form needs no look at the form of the rest
_HAS_MOMENT = (
    f"(length(timestamp) = 27 and timestamp[27] = 'Z' and timestamp[11] = 'T'"
    f" or regexp_full_match(timestamp, '{_TIMESTAMP}'))"
    " and try_cast(timestamp as timestamptz) is not null"
)
_LOOKS = f"""
    filename,
    coalesce(type is null and service is not null and operation is not null and {_HAS_MOMENT}
             or type = 'session' or type in ('begin', 'void') and operation_id is not null, false)
        as is_plain,
    case when {_IS_OPERATION} and operation_id is not null then hash(operation_id) end as ends,
    case when type = 'begin' then operation_id end as begins,
    case when type = 'void' then operation_id end as voids,
    case when {_IS_OPERATION} and response_id is not null
              and coalesce(tokens, input_tokens, output_tokens, cost_usd) is not null
         then hash(session_id, response_id) end as response,
    case when {_IS_OPERATION} then provider end as provider,
    case when {_IS_OPERATION} then service end as service,
    case when {_IS_OPERATION} then model end as model
"""
_COLUMNS = ", ".join(map(_column, Operation.__struct_fields__))
