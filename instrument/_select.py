"""Operations out of the view `operations`, in start order: as rows of DuckDB, or as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from duckdb import DuckDBPyRelation

from instrument._costs import quoted
from instrument._gather import Reading
from instrument._sql import database, rows_of
from instrument._wanted import Wanted, condition

__all__ = ["copy_to_parquet", "selected"]


def selected(reading: Reading, asked: Wanted) -> DuckDBPyRelation:
    """Return the rows of what is asked for, in memory."""
    with database(reading, asked.since) as connection:
        query, params = _query(asked)
        return rows_of(connection, query, params)


def copy_to_parquet(reading: Reading, asked: Wanted, path: Path) -> None:
    """Write the operations that are asked for as one Parquet file, compressed with zstd."""
    query, params = _query(asked)
    target = f"{quoted(str(path))} (format parquet, compression zstd)"
    with database(reading, asked.since) as connection:
        connection.execute(f"copy ({query}) to {target}", params)


def _query(asked: Wanted) -> tuple[str, dict[str, Any]]:
    where, params = condition(asked)
    return f"select * from operations where {where} order by {_START_ORDER}", params


_START_ORDER = "timestamp, coalesce(operation_id, '')"
