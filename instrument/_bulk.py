"""What whole files of the journal come to, all at once through DuckDB."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection
from msgspec import Struct

from instrument._databases import shared
from instrument._days import ADDED, DAY, NEEDED, OF_DAY, added_up, charged, errors_added_up, sums
from instrument._figures import Figures, Group, Key
from instrument._gather import Reading
from instrument._looks import UNENDED
from instrument._scan import ALWAYS, Source
from instrument._sql import finished

__all__ = ["Bulk", "bulk", "hashes"]

_BY = ("day", "service", "model")


class Bulk(Struct):
    """Groups of what finished, and hashes of the ids and of the responses that are reported.

    `begun` has the operations that nothing in these files ends, with the moment and the file of
    each; `void` what was withdrawn, with the moment of its beginning.
    """

    groups: dict[Key, Group]
    ids: array[int]
    responses: array[int]
    begun: dict[str, tuple[datetime, Path]]
    void: set[tuple[str, datetime]]


def bulk(reading: Reading, sources: Sequence[Source]) -> Bulk | None:
    """Return what these files come to; `None` where it is not sums alone, or a line is odd."""
    with finished(reading, sources, NEEDED) as (connection, table):
        if table is None:
            return None
        unended = connection.execute(UNENDED).fetchall()
        begun = {each: (placed, Path(path)) for path, each, _, placed in unended}
        voids = connection.execute("select voids, placed from looks where voids is not null")
        void = {(each, placed or ALWAYS) for each, placed in voids.fetchall()}
        groups = _groups(connection, table)
        ids, responses = (_ordered(connection, name) for name in ("ends", "response"))
        return Bulk(groups, ids, responses, begun, void)


def hashes(names: Sequence[tuple[str, ...]]) -> list[int]:
    """Return the hashes that DuckDB has of ids, or of sessions and responses."""
    if not names:
        return []
    columns = [[*each] for each in zip(*names, strict=True)]
    lists = ", ".join(f"unnest(${place}::varchar[])" for place in range(1, len(columns) + 1))
    with shared() as connection:
        rows = connection.execute(f"select hash({lists})", columns).fetchall()
    return [found for (found,) in rows]


def _groups(connection: DuckDBPyConnection, table: str) -> dict[Key, Group]:
    rows = charged(table, "true", "true")
    connection.execute(f"create temp table summed as {sums(rows, DAY)}")
    errors: dict[Key, Counter[str]] = defaultdict(Counter)
    for *values, error_type, count in connection.execute(errors_added_up(_SUMMED, _BY)).fetchall():
        errors[_key(values)][error_type] = count
    query = (
        f"select {DAY} as day, service, model, list_sort(list(duration_seconds)) from {table}"
        " group by all"
    )
    seconds = {_key(values): found for *values, found in connection.execute(query).fetchall()}
    found = connection.execute(added_up(_SUMMED, _BY, OF_DAY, ADDED)).fetchall()
    figures = {_key(row[: len(_BY)]): Figures(*row[len(_BY) :]) for row in found}
    return {
        key: Group(each, errors[key], array("d", seconds[key])) for key, each in figures.items()
    }


def _key(values: Sequence[Any]) -> Key:
    day, service, model = values
    return day, service, model


def _ordered(connection: DuckDBPyConnection, name: str) -> array[int]:
    query = f"select list_sort(list({name})) from looks where {name} is not null"
    ((found,),) = connection.execute(query).fetchall()
    return array("Q", found or ())


_SUMMED = "select * from summed"
