"""Operations out of the view `operations`, in start order: as rows of DuckDB, or one by one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
from duckdb import DuckDBPyRelation

from instrument._gather import Reading
from instrument._sql import database, quoted, rows_of, stream
from instrument._wanted import Wanted, condition
from instrument.operation import Operation

__all__ = ["copy_to_parquet", "iterate", "selected"]


def selected(reading: Reading, asked: Wanted) -> DuckDBPyRelation:
    """Return the rows of what is asked for, in memory."""
    with database(reading, asked.since) as connection:
        query, params = _query(asked)
        return rows_of(connection, query, params)


def iterate(reading: Reading, asked: Wanted) -> Iterator[Operation]:
    """Yield the operations that are asked for; what does not fit into memory waits on disk."""
    query, params = _query(asked)
    return map(_operation, stream(reading, query, params, asked.since))


def copy_to_parquet(reading: Reading, asked: Wanted, path: Path) -> None:
    """Write the operations that are asked for as one Parquet file, compressed with zstd."""
    where, params = condition(asked)
    with database(reading, asked.since) as connection:
        connection.execute(
            f"copy (select * from operations where {where} order by {_START_ORDER})"
            f" to {quoted(str(path))} (format parquet, compression zstd)",
            params,
        )


def _query(asked: Wanted) -> tuple[str, dict[str, Any]]:
    where, params = condition(asked)
    return f"select * from operations where {where} order by {_START_ORDER}", params


def _operation(row: tuple[Any, ...]) -> Operation:
    values = dict(zip(Operation.__struct_fields__, row, strict=True))
    for name in ("metadata", "extra"):
        values[name] = msgspec.json.decode(values[name])
    values["timestamp"] = values["timestamp"].astimezone(UTC)
    return Operation(**values)


_START_ORDER = "timestamp, coalesce(operation_id, '')"
