"""The view `operations` in DuckDB, over the journal's own files wherever DuckDB can read them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import msgspec
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from instrument._begun import Begun
from instrument._gather import Reading
from instrument._lines import AMOUNTS, COUNTS, OTHER_TYPES, OUTCOMES, operation_of
from instrument._scan import MAX_LINE_BYTES, Source, scan
from instrument.errors import QueryError, reject_type
from instrument.operation import MAX_COUNT, Operation

__all__ = ["run"]

Params = Sequence[Any] | Mapping[str, Any] | None


def run(reading: Reading, query: str, params: Params) -> DuckDBPyRelation:
    """Run `query` over the view `operations` of what `reading` found; its rows are in memory."""
    if not isinstance(query, str):
        reject_type("query", query, "SQL as text")
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    with tempfile.TemporaryDirectory(prefix="instrument-") as scratch:
        try:
            _define_view(connection, reading, Path(scratch) / "read.jsonl")
            return _rows(connection, query, params)
        except duckdb.Error as error:
            _look_again_if_vanished(reading.sources)
            raise QueryError(str(error)) from error


def _rows(connection: DuckDBPyConnection, query: str, params: Params) -> DuckDBPyRelation:
    relation: Any = connection.sql(query, params=params)
    if relation is None:
        raise QueryError("the statement gives no rows: use SELECT")
    # the files may grow or go before the caller looks, so the rows are fetched here
    run_once = getattr(relation, "materialize", None) or relation.execute
    rows: DuckDBPyRelation = run_once()
    return rows


def _define_view(connection: DuckDBPyConnection, reading: Reading, scratch: Path) -> None:
    """Define `operations`; what DuckDB cannot read, or cannot know, stands in the file `scratch`.

    A file with a single odd line is read by `scan` as a whole, so that no line counts twice.
    """
    odd = _odd_sources(connection, reading.sources)
    plain = [each.path for each in reading.sources if each not in odd]
    begun = Begun()
    with scratch.open("wb") as file:
        for line in scan(odd, reading.skipped):
            begun.add(line)
            if line.head.is_operation:
                _write(file, operation_of(line.data))
    doubled, unended = _repeated(connection, [*plain, scratch])
    with scratch.open("ab") as file:
        for operation in reading.interrupted(begun.left_ids() | unended):
            _write(file, operation)
    once = "qualify operation_id is null or row_number() over (partition by operation_id) = 1"
    connection.execute(
        f"create view operations as select {_COLUMNS} from {_lines([*plain, scratch])}"
        f" where {_IS_OPERATION} {once if doubled else ''}"
    )


def _odd_sources(connection: DuckDBPyConnection, sources: list[Source]) -> list[Source]:
    """Find the files that hold something else than lines that both readers understand alike."""
    named = {str(each.path.absolute()): each for each in sources}
    odd = [each for path, each in named.items() if not _can_be_named(path)]
    readable = [path for path in named if _can_be_named(path)]
    return odd + [named[path] for path in _odd_paths(connection, readable)]


def _odd_paths(connection: DuckDBPyConnection, paths: list[str]) -> set[str]:
    if not paths:
        return set()
    try:
        return _with_odd_keys(connection, paths) | _with_odd_values(connection, paths)
    except duckdb.Error:
        if len(paths) == 1:
            return set(paths)
        return {odd for path in paths for odd in _odd_paths(connection, [path])}


def _with_odd_keys(connection: DuckDBPyConnection, paths: list[str]) -> set[str]:
    """Find the files with lines that are no objects, or name a key twice or an unknown one."""
    found = connection.execute(
        f"select distinct filename, json_keys(json) from read_ndjson_objects({_files(paths)})"
    ).fetchall()
    return {
        path for path, keys in found if not keys or len(set(keys)) < len(keys) or set(keys) - _KNOWN
    }


def _with_odd_values(connection: DuckDBPyConnection, paths: list[str]) -> set[str]:
    whole = (
        f"type is null and service is not null and operation is not null"
        f" and regexp_full_match(timestamp, '{_TIMESTAMP}')"
        " and try_cast(timestamp as timestamptz) is not null"
    )
    found = connection.execute(
        f"select filename from {_lines(paths)} where not coalesce({whole} or type = 'session'"
        f" or type in ('begin', 'void') and operation_id is not null, false) group by filename"
    ).fetchall()
    return {path for (path,) in found}


def _repeated(connection: DuckDBPyConnection, paths: Sequence[Path]) -> tuple[bool, set[str]]:
    """Tell whether any operation stands in the log twice, and which ones began without an end."""
    found = connection.execute(
        f"select operation_id, count(*) filter ({_IS_OPERATION}) as times"
        f" from {_lines(paths)} where operation_id is not null and type is distinct from"
        " 'session' and type is distinct from 'void' group by operation_id having times <> 1"
    ).fetchall()
    return any(times > 1 for _, times in found), {each for each, times in found if times == 0}


def _lines(paths: Sequence[str | Path]) -> str:
    """Return the table of the lines as they stand; an unreadable one is a row of nulls.

    Values are text until they are converted, because that never fails.
    """
    columns = dict.fromkeys([*_KEYS, "type"], "VARCHAR") | {"metadata": "JSON", "extra": "JSON"}
    return f"read_json({_files(paths)}, format = 'newline_delimited', columns = {columns})"


def _files(paths: Sequence[str | Path]) -> str:
    names = ", ".join(_quoted(os.path.abspath(path)) for path in paths)
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


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _column(name: str) -> str:
    number = f"try_cast({name} as double)"
    if name in COUNTS:
        whole = f"{number} between 0 and {MAX_COUNT} and {number} = floor({number})"
        count = f"case when {whole} then {number}::bigint end"
        return f"{count if name != 'v' else f'coalesce({count}, 1)'} as {name}"
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
_COLUMNS = ", ".join(map(_column, Operation.__struct_fields__))
