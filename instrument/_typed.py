"""The lines of the journal in DuckDB, read once and with types.

That takes a third of what reading them as text does, and is right where `is_plain` is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection
from msgspec.structs import force_setattr

from instrument._archived import escaped
from instrument._costs import MATTERS, quoted
from instrument._databases import interruptible
from instrument._lines import AMOUNTS, COUNTS, SUCCESSES
from instrument._looks import IS_OPERATION, LOOKS, Looks, outcome_of
from instrument._plain import plain_lines
from instrument._scan import Source
from instrument._zones import Zone, zones
from instrument.operation import Operation

__all__ = ["COLUMNS", "FORMS", "TypedLooks", "copied", "has_large_numbers", "lines_in", "read"]

OBJECT_BYTES = 1024**2  # beyond it, every buffer costs fresh pages from the kernel


def lines_in(paths: Iterable[Path], longest: int, more: str = "") -> str:
    """Return the table of the lines in some files, none of which has more than `longest` bytes.

    Reading it raises `duckdb.Error` for what is no record of ours. `more` is for DuckDB.
    """
    names = ", ".join(quoted(escaped(path)) for path in paths)
    return (
        f"read_json([{names}], format = 'newline_delimited', compression = 'none',"
        f" hive_partitioning = false, maximum_object_size = {max(longest, OBJECT_BYTES)},"
        f" columns = {COLUMNS}{more})"
    )


def read(connection: DuckDBPyConnection, paths: Sequence[Path], longest: int) -> bool:
    """Put the lines of files into the table `typed`; tell whether DuckDB understood them all."""
    declared = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    connection.execute(f"create temp table typed ({declared}, file varchar)")
    try:
        with interruptible():
            if paths:
                _insert(connection, paths, longest)
            is_read = not has_large_numbers(connection, "typed")
    except duckdb.Error:
        is_read = False
    if not is_read:
        connection.execute("drop table typed")
    return is_read


def has_large_numbers(connection: DuckDBPyConnection, table: str) -> bool:
    """Tell whether metadata may hold numbers that are too large, which DuckDB shows as they are."""
    where = f"length(metadata) > length('{{}}') and regexp_matches(metadata, {quoted(_LARGE)})"
    return bool(connection.execute(f"select 1 from {table} where {where} limit 1").fetchall())


class TypedLooks(Looks):
    """Looks at what `read` has put into its table, and leaves it there."""

    def __init__(self, connection: DuckDBPyConnection, paths: list[str]) -> None:
        super().__init__(connection, paths, None)
        self._look("true")

    def add(self, paths: list[str]) -> None:
        made = [*map(Path, paths)]
        _insert(self._connection, made, max(each.stat().st_size for each in made))
        self._look(f"file in ({', '.join(map(quoted, paths))})")

    def have_details(self, paths: Sequence[str]) -> bool:
        # any escape could hide one of the names
        details = f"{MATTERS} or contains(cast(metadata as varchar), '\\u')"
        found = self._connection.execute(f"select 1 from typed where {details} limit 1")
        return bool(found.fetchall())

    def _rows(self, paths: list[str]) -> str:
        columns = ", ".join(f"{form} as {name}" for name, form in FORMS.items())
        return f"select {columns} from typed where {IS_OPERATION}"

    def _look(self, where: str) -> None:
        rows = f"(select *, timestamp as moment from typed where {where})"
        query = f"select cast(file as file) as file, true as is_plain, {LOOKS} from {rows}"
        self._connection.execute(f"insert into looks {query}")


def _insert(connection: DuckDBPyConnection, paths: Sequence[Path], longest: int) -> None:
    connection.execute(f"insert into typed from {lines_in(paths, longest, ', filename = true')}")


def copied(source: Source, since: datetime | None, target: Path, most_bytes: int) -> int | None:
    """Copy the zones of a file that reach a moment; return how many bytes none of them exceeds.

    `None` if they are more than `most_bytes` together, or DuckDB may not read all as we do; what a
    zone is like is remembered with it. Raises `FileNotFoundError` for a file that vanished.
    """
    size = source.path.stat().st_size
    found = zones(source)
    wanted = [each for each in found if each.reaches(since)]
    if not _are_all(found, source.begin, size):
        return None
    if sum(each.end - each.begin for each in wanted) > most_bytes:
        return None
    with source.path.open("rb", buffering=0) as file, target.open("wb") as copy:
        for each in wanted:
            file.seek(each.begin)
            block = file.read(each.end - each.begin)
            if len(block) < each.end - each.begin or not _is_plain(each, block):
                return None
            copy.write(block)
    return max((each.end - each.begin for each in wanted), default=0)


def _are_all(found: Sequence[Zone], begin: int, end: int) -> bool:
    """Tell whether nothing stands between zones, as a line does that is too long to be read."""
    ends = [begin, *(each.end for each in found)]
    begins = [*(each.begin for each in found), end]
    return all(one >= other for one, other in zip(ends, begins, strict=True))


def _is_plain(zone: Zone, block: bytes) -> bool:
    if zone.is_plain is None:
        force_setattr(zone, "is_plain", plain_lines(block) is not None)
    return bool(zone.is_plain)


_TEXTS = [
    name
    for name, kind in Operation.__annotations__.items()
    if name not in (*COUNTS, *AMOUNTS, "timestamp", "success", "metadata", "extra")
]
COLUMNS = (
    {"timestamp": "TIMESTAMPTZ", "success": "BOOLEAN", "metadata": "JSON", "extra": "JSON"}
    | dict.fromkeys([*_TEXTS, "type", "run"], "VARCHAR")
    | dict.fromkeys(COUNTS, "BIGINT")
    | dict.fromkeys(AMOUNTS, "DOUBLE")
)
_OUTCOME = outcome_of("coalesce(success, error_type is null)")
FORMS = {name: name for name in Operation.__struct_fields__} | {
    "session_id": "coalesce(session_id, '')",
    "success": f"({_OUTCOME}) in {SUCCESSES}",
    "outcome": _OUTCOME,
    "duration_seconds": "coalesce(duration_seconds, 0)",
    "metadata": "case when starts_with(metadata::varchar, '{') then metadata else '{}' end",
    "extra": "coalesce(extra, '{}')",
    "v": "coalesce(nullif(v, 0), 1)",
}
"""The columns of an operation, made of those of a line."""
_LARGE = r"[:\[,]\s*-?[\d.]+[eE]\+?\d{3}"
