"""How files of the archive are made: in bounded memory, whole, and for this user alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from duckdb import DuckDBPyConnection

from instrument._costs import quoted
from instrument._databases import opened
from instrument._files import make_private_directory, open_private
from instrument.archive import sync_directory

__all__ = ["connected", "copy", "file", "put"]

MEMORY = "300MB"


def connected(scratch: Path) -> DuckDBPyConnection:
    """Return a database in memory that goes on in files in `scratch` where that is not enough."""
    connection = opened()
    for option, value in (
        ("memory_limit", MEMORY),
        ("temp_directory", str(scratch)),
        ("threads", str(_processors())),
    ):
        connection.execute(f"set {option} = {quoted(value)}")
    return connection


def file(
    connection: DuckDBPyConnection,
    query: str,
    scratch: Path,
    target: Path,
    more: str = "",
    facts: Mapping[str, Any] | None = None,
) -> int:
    """Put the rows of a query in their place for good; return the size in bytes.

    Until then they are in `scratch`; `more` and `facts` are as in `copy`.
    """
    unfinished = scratch / "rows.parquet"
    copy(connection, query, unfinished, more, facts)
    return put(unfinished, target)


def copy(
    connection: DuckDBPyConnection,
    query: str,
    target: Path,
    more: str = "",
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the rows of a query as Parquet; `facts` go into its own metadata, `more` to DuckDB."""
    # made before, because DuckDB would let others read it
    os.close(open_private(target, os.O_WRONLY | os.O_TRUNC))
    # the usual level takes a quarter longer, for files that are not smaller
    options = ["format parquet", "compression zstd", "compression_level 1", "use_tmp_file false"]
    if more:
        options.append(more)
    if facts is not None:
        told = quoted(msgspec.json.encode(facts).decode())
        options.append(f"kv_metadata {{instrument: {told}}}")
    connection.execute(f"copy ({query}) to {quoted(str(target))} ({', '.join(options)})")


def put(path: Path, target: Path) -> int:
    """Put a file in its place for good; return its size in bytes."""
    make_private_directory(target.parent)
    with path.open("rb") as file:
        os.fchmod(file.fileno(), 0o600)
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
    path.replace(target)
    sync_directory(target.parent)
    return size


def _processors() -> int:
    """Return how many processors this process may use, which DuckDB does not ask."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
