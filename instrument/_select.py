"""Operations out of the view `operations`, in start order: as rows of DuckDB, or as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from duckdb import DuckDBPyRelation

from instrument._costs import quoted
from instrument._gather import Reading
from instrument._recent import recent
from instrument._wanted import Wanted, condition

__all__ = ["copy_to_parquet", "selected"]


def selected(reading: Reading, asked: Wanted, form: Callable[[DuckDBPyRelation], _Table]) -> _Table:
    """Return the rows of what is asked for in another form, which `form` makes of a relation."""
    with recent(reading, asked.since) as (connection, table):
        query, params = _query(table, asked)
        return form(connection.sql(query, params=params))


def copy_to_parquet(reading: Reading, asked: Wanted, path: Path) -> None:
    """Write the operations that are asked for as one Parquet file, compressed with zstd."""
    target = f"{quoted(str(path))} (format parquet, compression zstd)"
    with recent(reading, asked.since) as (connection, table):
        query, params = _query(table, asked)
        connection.execute(f"copy ({query}) to {target}", params)


def _query(table: str, asked: Wanted) -> tuple[str, dict[str, Any]]:
    where, params = condition(asked)
    return f"select * from {table} where {where} order by {_START_ORDER}", params


_Table = TypeVar("_Table")
_START_ORDER = "timestamp, coalesce(operation_id, '')"
