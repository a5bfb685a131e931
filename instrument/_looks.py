"""What DuckDB has to know of every line before it answers, and the columns that are needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import duckdb
import msgspec
from duckdb import DuckDBPyConnection

from instrument._archived import Archive, days_in, table_of
from instrument._costs import MATTERS, quoted
from instrument._databases import interruptible
from instrument._deep import nests_too_deep
from instrument._lines import AMOUNTS, COUNTS, OTHER_TYPES, OUTCOMES
from instrument._rates import Key
from instrument._snapshot import Archived
from instrument.operation import MAX_COUNT, DroppedLine, Operation

__all__ = [
    "DOUBLES",
    "IS_OPERATION",
    "LOOKS",
    "ONCE",
    "UNENDED",
    "Looks",
    "has_repeats",
    "keys_of",
    "outcome_of",
]

MOST_SEARCHED = 64 * 1024**2
OBJECT_BYTES = 1024**2  # DuckDB divides a file in two of these among processors


class Looks:
    """The table `looks`: what has to be known of every line, and the columns that are needed.

    Without `columns` these are left in the files.
    """

    def __init__(
        self, connection: DuckDBPyConnection, paths: list[str], columns: Sequence[str] | None
    ) -> None:
        self._connection = connection
        self._columns = columns
        kept = [name for name in columns or () if name not in _KEY]
        is_plain = _IS_PLAIN if columns is not None else f"{_IS_PLAIN} and not {_IS_LOOSE}"
        self._expressions = ", ".join(
            [f"{_FILE}, {is_plain} as is_plain", LOOKS, *map(_kept, kept)]
        )
        self._made: list[str] = []
        connection.execute(f"create temp type file as enum ({', '.join(map(quoted, paths))})")
        types = _TYPES | {name: _KEPT.get(name, "VARCHAR") for name in kept}
        declared = ", ".join(f"{name} {kind}" for name, kind in types.items())
        connection.execute(f"create temp table looks ({declared})")

    def fill(self, paths: list[str]) -> set[str]:
        """Look at files; return those with something that only `scan` understands."""
        odd = set(_each_that_fails(self.add, paths))
        odd |= {path for path in paths if nests_too_deep(Path(path))}
        query = "select distinct file from looks where not is_plain"
        odd |= {path for (path,) in self._connection.execute(query).fetchall()}
        if self._columns is None:
            odd |= _with_odd_keys(self._connection, paths)
        if odd:
            query = "delete from looks where cast(file as varchar) in (select unnest($1))"
            self._connection.execute(query, [sorted(odd)])
        return odd

    def add(self, paths: list[str]) -> None:
        self._connection.execute(f"insert into looks {self._select(paths)}")

    def add_operations(self, path: str, operations: Iterable[Operation | None]) -> None:
        """Write operations to a file, and look at them too, if there are any."""
        operations = iter(operations)
        first = next((each for each in operations if each is not None), None)
        if first is None:
            return
        with Path(path).open("wb") as file:
            for each in chain([first], operations):
                if each is not None:
                    file.write(msgspec.json.encode(each) + b"\n")
        self.add([path])
        self._made.append(path)

    def have_details(self, paths: Sequence[str]) -> bool:
        """Tell whether the price of any operation in these files may depend on its metadata."""
        if self._columns is None:
            return _mention_details([*map(Path, [*paths, *self._made])])
        query = "select 1 from looks where metadata is not null limit 1"
        return bool(self._connection.execute(query).fetchall())

    def operations(
        self, paths: list[str], parts: list[Archived], archive: Archive | None
    ) -> tuple[str, Sequence[str]]:
        """Return a query for the operations of the journal, and its columns.

        They are what is kept, where that tells all of them apart; `parts` are the files of the
        archive that are wanted beside them.
        """
        doubles = bool(self._connection.execute(DOUBLES).fetchall())
        self._connection.execute(f"create temp table repeats as {_REPEATS}")
        self._connection.execute(f"create temp table keys as {_KEYS_OF.format('looks')}")
        copied = self._copied(parts)
        if parts and archive is not None:
            self._learn(parts, archive, has_copies=copied is not None)
        if self._columns is not None and not doubles and not has_repeats(self._connection):
            rows = f"select {', '.join(self._columns)} from looks where service is not null"
            return rows, self._columns
        once = ONCE if doubles else ""
        rows = f"{self._rows(paths)} {once}"
        if copied is not None:
            known = f"select 1 from {copied} as known where known.operation_id = fresh.operation_id"
            rows = f"select * from ({rows}) as fresh where not exists ({known})"
        return rows, Operation.__struct_fields__

    def _rows(self, paths: list[str]) -> str:
        """Return a query for the operations in files, and in those that were made."""
        lines = _lines([*paths, *self._made] or [os.devnull])
        return f"select {_COLUMNS} from {lines} where {IS_OPERATION}"

    def _copied(self, parts: list[Archived]) -> str | None:
        """Return the table of the archived operations that stand in the journal too, if any do."""
        ((first, last),) = self._connection.execute(_SPAN).fetchall()
        near = [each for each in parts if first is not None and each.part.overlaps(first, last)]
        if not near:
            return None
        table = f"(select operation_id from {table_of(near)} where timestamp between $1 and $2)"
        query = (
            f"select 1 from {table} where hash(operation_id) in (select ends from looks) limit 1"
        )
        if not self._connection.execute(query, [first, last]).fetchall():
            return None
        return table_of(near)

    def _learn(self, parts: list[Archived], archive: Archive, *, has_copies: bool) -> None:
        """Take into account what is archived: models, and responses that are reported twice."""
        days = archive.days()
        table = f"(select * from {days_in(days)} where level = '')" if days else table_of(parts)
        self._connection.execute(f"insert into keys {_KEYS_OF.format(table)}")
        reported = {name for (name,) in self._connection.execute(_REPORTED).fetchall()}
        repeats = has_copies or any(each.part.repeats for each in parts)
        if repeats or self._reports_any_of(archive.responses(reported)):
            self._connection.execute("insert into repeats values (1)")

    def _reports_any_of(self, responses: list[tuple[str, str]]) -> bool:
        named = "select hash(unnest($1::varchar[]), unnest($2::varchar[]))"
        query = f"select 1 from looks where response in ({named}) limit 1"
        pairs = [[*each] for each in zip(*responses, strict=True)] or [[], []]
        return bool(self._connection.execute(query, pairs).fetchall())

    def _select(self, paths: list[str]) -> str:
        return f"select {self._expressions} from {_lines(paths, ignore_errors=False)}"


def _mention_details(paths: Sequence[Path]) -> bool:
    """Tell whether details may stand in any of these files; of large ones that is not asked."""
    if sum(each.stat().st_size for each in paths) > MOST_SEARCHED:
        return True
    texts = (each.read_bytes() for each in paths)
    return any(text.find(each) >= 0 for text in texts for each in _DETAILS)


def _each_that_fails(task: Callable[[list[str]], None], paths: list[str]) -> Iterator[str]:
    """Do a task on all the files at once, or where that fails on each; yield those that fail."""
    if not paths:
        return
    try:
        with interruptible():
            task(paths)
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
            if not keys or len(set(keys)) < len(keys) or not _are_known(set(keys)):
                odd.add(path)

    odd.update(_each_that_fails(look, paths))
    return odd


def _are_known(keys: set[str]) -> bool:
    return keys <= _KNOWN or keys <= _OF_DROPPED


def outcome_of(success: str) -> str:
    """Return an expression for the outcome, derived from `success` where the line names none."""
    return f"case when outcome in {OUTCOMES} then outcome when {success} then 'ok' else 'error' end"


def has_repeats(connection: DuckDBPyConnection) -> bool:
    """Tell whether any response is reported twice in a session, which few logs have."""
    return bool(connection.execute("from repeats").fetchall())


def keys_of(connection: DuckDBPyConnection) -> list[Key]:
    """Return what the rates of the operations depend on."""
    return sorted(connection.execute("select distinct * from keys").fetchall(), key=str)


def _lines(paths: Sequence[str | Path], *, ignore_errors: bool = True) -> str:
    """Return the table of the lines as they stand; an unreadable one is a row of nulls.

    Without `ignore_errors` it is an error, and so is one that names a key twice, of which DuckDB
    takes the first value and we the last.

    Values are text until they are converted, because that never fails; and that is done here, so
    that it is done once.
    """
    columns = dict.fromkeys([*_KEYS, "type"], "VARCHAR") | {"metadata": "JSON", "extra": "JSON"}
    files = _files(paths, ignore_errors=ignore_errors)
    lines = f"read_json({files}, format = 'newline_delimited', columns = {columns})"
    return f"(select * replace ({_NUMBERS}), {_MOMENT} as moment from {lines})"


def _files(paths: Sequence[str | Path], *, ignore_errors: bool = True) -> str:
    names = ", ".join(quoted(str(path)) for path in paths)
    return (
        f"[{names}], ignore_errors = {ignore_errors}, filename = true, compression = 'none',"
        f" hive_partitioning = false, maximum_object_size = {OBJECT_BYTES}"
    )


def _column(name: str) -> str:
    if name in COUNTS:
        whole = f"{name} between 0 and {MAX_COUNT} and {name} = floor({name})"
        count = f"case when {whole} then {name}::bigint end"
        return f"{count if name != 'v' else f'coalesce(nullif({count}, 0), 1)'} as {name}"
    amount = f"case when {name} between 0 and {MAX_COUNT} then {name} end"
    if name == "duration_seconds":
        return f"coalesce({amount}, 0) as {name}"
    return f"{amount} as {name}" if name in AMOUNTS else _TEXTS.get(name, name)


def _kept(name: str) -> str:
    if name == "metadata":
        return f"case when {MATTERS} then metadata end as metadata"
    if name in _PARTS:
        # what is never null makes the list prices a third cheaper
        return f"coalesce({_column(name).removesuffix(f' as {name}')}, 0) as {name}"
    return _column(name)


_TIMESTAMP = (
    r"[1-9]\d{3}-\d\d-\d\d[T ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
    r"(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?"
)
_KEYS = [name for name in Operation.__struct_fields__ if name != "extra"]
_KNOWN = {*_KEYS, "type", "run"}
# which are no operation's, for that has other keys too
_OF_DROPPED = {*DroppedLine.__struct_fields__, "type"}
# any escape could hide one of the names
_DETAILS = (b"\\u", b'"usage_details"', b'"impossible_usage"')
_KEY = ("provider", "service", "model")
_PARTS = ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
_NUMBERS = ", ".join(f"try_cast({name} as double) as {name}" for name in (*COUNTS, *AMOUNTS))
_MOMENT = "try_cast(timestamp as timestamptz)"
_SUCCESS = (
    "coalesce(case lower(success) when 'true' then true when '1' then true when 'false' then false"
    " when '0' then false end, error_type is null)"
)
_OUTCOME = outcome_of(_SUCCESS)
_TEXTS = {
    "timestamp": "moment as timestamp",
    "session_id": "coalesce(session_id, '') as session_id",
    "success": f"({_OUTCOME}) in ('ok', 'partial') as success",
    "outcome": f"{_OUTCOME} as outcome",
    "metadata": "case when json_type(metadata) = 'OBJECT' then metadata else '{}' end as metadata",
    "extra": "coalesce(extra, '{}') as extra",
}
IS_OPERATION = (
    f"service is not null and operation is not null and timestamp is not null"
    f" and (type is null or type not in {OTHER_TYPES})"
)
ONCE = "qualify operation_id is null or row_number() over (partition by operation_id) = 1"
# the recorder's own form needs no look at the form of the rest
_HAS_MOMENT = (
    "(case when length(timestamp) = 27 and timestamp[27] = 'Z' and timestamp[11] = 'T' then true"
    f" else regexp_full_match(timestamp, '{_TIMESTAMP}') end)"
    " and moment <= timestamptz '9999-12-31 23:59:59.999999+00'"
)
_NO_NUMBER = r"[:\[,]\s*-?(?i:nan|inf|[\d.]+e\+?\d{3})"
# which DuckDB reads, and shows as it stands
_IS_LOOSE = (
    "coalesce(length(metadata) > length('{}')"
    f" and regexp_matches(metadata, {quoted(_NO_NUMBER)}), false)"
)
_FILE = "cast(filename as file) as file"
_IS_PLAIN = f"""
    coalesce(type is null and service is not null and operation is not null and {_HAS_MOMENT}
             or type in ('session', 'dropped')
             or type in ('begin', 'void') and operation_id is not null, false)
"""
LOOKS = f"""
    case when {IS_OPERATION} and operation_id is not null then hash(operation_id) end as ends,
    case when {IS_OPERATION} then moment end as began,
    case when type = 'begin' then operation_id end as begins,
    case when type = 'void' then operation_id end as voids,
    case when type in ('begin', 'void') then moment end as placed,
    pid,
    case when {IS_OPERATION} and response_id is not null
              and coalesce(tokens, input_tokens, output_tokens, cost_usd) is not null
         then hash(session_id, response_id) end as response,
    case when {IS_OPERATION} and response_id is not null then session_id end as responding,
    case when {IS_OPERATION} then provider end as provider,
    case when {IS_OPERATION} then service end as service,
    case when {IS_OPERATION} then model end as model
"""
_TYPES = {
    "file": "file",
    "is_plain": "BOOLEAN",
    "ends": "UBIGINT",
    "began": "TIMESTAMPTZ",
    "begins": "VARCHAR",
    "voids": "VARCHAR",
    "placed": "TIMESTAMPTZ",
    "pid": "DOUBLE",
    "response": "UBIGINT",
    "responding": "VARCHAR",
} | dict.fromkeys(_KEY, "VARCHAR")
_KEPT = (
    {"timestamp": "TIMESTAMPTZ", "success": "BOOLEAN", "metadata": "JSON"}
    | dict.fromkeys(COUNTS, "BIGINT")
    | dict.fromkeys(AMOUNTS, "DOUBLE")
)
DOUBLES = "select 1 from looks where ends is not null group by ends having count(*) > 1 limit 1"
_REPEATS = """
    select 1 as found from looks where response is not null
    group by response having count(*) > 1 limit 1
"""
UNENDED = """
    select file, begins, pid, placed from looks where begins is not null
    and not exists (select 1 from looks as other where other.ends = hash(looks.begins))
    and not exists (select 1 from looks as other
                    where other.voids = looks.begins and other.placed = looks.placed)
    and not exists (select 1 from looks as other
                    where other.voids = looks.begins and other.placed is null)
    order by placed
"""
_REPORTED = "select distinct responding from looks where responding is not null"
_KEYS_OF = "select distinct provider, service, model from {} where model is not null"
_SPAN = "select min(began), max(began) from looks"
_COLUMNS = ", ".join(map(_column, Operation.__struct_fields__))
