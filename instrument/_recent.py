"""The journal's latest operations with their prices, as this process remembers them in DuckDB.

Journals only grow, so that a question asked again reads what is new in them; what somebody changes
in a file before its last 64 kB is not noticed. Only lines that the recorder wrote are remembered;
of other logs all is read for each question.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
from duckdb import DuckDBPyConnection
from msgspec import Struct

from instrument._costs import priced, quoted, rates_table
from instrument._databases import lasting, scratch_directory
from instrument._fresh import Identity, Place, ends_of
from instrument._gather import Reading
from instrument._looks import DOUBLES, ONCE, keys_of
from instrument._plain import plain_lines
from instrument._scan import MAX_LINE_BYTES, Skipped, Source, blocks
from instrument._sql import database, interrupted_in, told
from instrument._typed import TypedLooks, read
from instrument._zones import zones

__all__ = ["recent"]

MOST_BYTES = 32 * 1024**2
MOST_LOOKED_AT = 256 * 1024**2
MOST_LOGS = 2


class _Piece(Struct, frozen=True):
    """All that stands in a file between two offsets."""

    source: Source
    begin: int
    end: int


class _Read(Struct, frozen=True):
    """What has been read of a file: from `begin` to a place. In the tables it has a number."""

    number: int
    source: Source
    begin: int
    place: Place


Pieces = Mapping[Identity, _Piece]


class _Recent:
    """A table of operations with cost and `saved`, and one of what else has to be looked at."""

    def __init__(self) -> None:
        name = f"recent_{next(_numbers)}"
        self._rows, self._looks, self._late = f"{name}_rows", f"{name}_looks", f"{name}_late"
        self._files: dict[Identity, _Read] = {}
        self._numbers = count()

    def serves(self, wanted: Pieces) -> bool:
        """Tell whether it is of wanted files, and lacks nothing but what is new in them."""
        size = sum(each.place.end - each.begin for each in self._files.values())
        size += sum(each.end - each.begin for each in self._news(wanted).values())
        both = [(self._files[each], wanted[each]) for each in self._files.keys() & wanted.keys()]
        return (
            len(both) == len(self._files)
            and size <= MOST_BYTES
            and all(old.begin <= new.begin and old.place.end <= new.end for old, new in both)
            and all(old.place == Place.of(new.source, old.place.end) for old, new in both)
        )

    def take(self, reading: Reading, wanted: Pieces, scratch: Path) -> bool:
        """Read what is new; tell whether the recorder wrote all of it."""
        news, found = self._news(wanted), {}
        paths: dict[Path, int] = {}
        longest = 0
        for identity, piece in news.items():
            place = Place.of(piece.source, piece.end)
            known = self._files.get(identity)
            number = next(self._numbers) if known is None else known.number
            begin = piece.begin if known is None else known.begin
            found[identity] = _Read(number, piece.source, begin, place)
            path = scratch / f"{number}.jsonl"
            most = _copied(piece, path)
            if most is None:
                return False
            paths[path] = number
            longest = max(longest, most)
        if not news:
            return True
        with _priced(reading, [*paths], longest) as (connection, rows):
            if rows is None:
                return False
            # each statement is whole or not at all, and after a failure nothing is remembered
            looked = "ends, begins, voids, placed, pid from looks"
            numbers = " ".join(f"when {quoted(str(each))} then {paths[each]}" for each in paths)
            looks = f"select case file {numbers} end as file, {looked}"
            for table, query in ((self._rows, rows), (self._looks, looks)):
                start = f"insert into {table}" if self._files else f"create table {table} as"
                connection.execute(f"{start} {query}")
        self._files |= found
        return True

    def operations(
        self, connection: DuckDBPyConnection, reading: Reading, scratch: Path
    ) -> str | None:
        """Return the table of what ended or was interrupted; `None` where it cannot be made."""
        connection.execute(f"create temp view looks as from {self._looks}")
        table = self._rows
        named = {each.number: each.source for each in self._files.values()}
        whole = {each.number for each in self._files.values() if each.begin == each.source.begin}
        interrupted = interrupted_in(connection, reading, named, whole)
        if interrupted:
            path = scratch / "interrupted.jsonl"
            path.write_bytes(msgspec.json.Encoder().encode_lines(interrupted))
            with _priced(reading, [path], MAX_LINE_BYTES) as (other, rows):
                if rows is None:
                    return None
                other.execute(f"create or replace table {self._late} as {rows}")
            table = f"(from {self._rows} union all from {self._late})"
        if connection.execute(DOUBLES).fetchall():
            table = f"(select * from {table} {ONCE})"
        return f"(select * exclude (saved) from {table})"

    def forget(self) -> None:
        with closing(lasting()) as connection:
            for table in (self._rows, self._looks, self._late):
                connection.execute(f"drop table if exists {table}")

    def _news(self, wanted: Pieces) -> dict[Identity, _Piece]:
        found = {}
        for identity, piece in wanted.items():
            known = self._files.get(identity)
            begin = piece.begin if known is None else known.place.end
            if begin < piece.end:
                found[identity] = _Piece(piece.source, begin, piece.end)
        return found


@contextmanager
def recent(reading: Reading, since: datetime | None) -> Iterator[tuple[DuckDBPyConnection, str]]:
    """Give a database and in it, as SQL, the table of operations that users know.

    With `since`, earlier ones may be missing. Raises `QueryError`, and `FileNotFoundError` for a
    file that vanished.
    """
    wanted = _wanted(reading, since)
    if wanted:
        with (
            scratch_directory() as place,
            told(reading),
            _remembered(reading, wanted, Path(place)) as known,
            closing(lasting()) as connection,
        ):
            table = None if known is None else known.operations(connection, reading, Path(place))
            if table is not None:
                yield connection, table
                return
    with database(reading, since) as view:
        yield view.connection, view.operations


@contextmanager
def _remembered(reading: Reading, wanted: Pieces, scratch: Path) -> Iterator[_Recent | None]:
    """Give what is remembered of what is wanted, brought up to date; `None`: some line is odd."""
    pricing = reading.pricing
    logs = tuple(dict.fromkeys(each.log_dir for each in reading.sources))
    key = pricing.version, pricing.as_of, pricing.model, logs
    # nobody else has it meanwhile, and nobody after a failure
    known = _known.pop(key, None)
    if known is None or not known.serves(wanted):
        if known is not None:
            known.forget()
        known = _Recent()
    gone = [known]
    try:
        if known.take(reading, wanted, scratch):
            yield known
            gone = _remember(key, known)
        else:
            yield None
    finally:
        for each in gone:
            each.forget()


def _remember(key: tuple[Any, ...], recent: _Recent) -> list[_Recent]:
    """Remember one; return those that it takes the place of."""
    gone = [_known.pop(key, None)]
    _known[key] = recent
    gone += [_known.pop(each, None) for each in [*_known][:-MOST_LOGS]]
    return [each for each in gone if each is not None]


def _wanted(reading: Reading, since: datetime | None) -> Pieces | None:
    """Return what may have begun since a moment; `None` where some is archived, or it is much."""
    if any(each.part.reaches(since, None) for each in reading.snapshot.parts):
        return None
    ends = ends_of(each for each in reading.sources if each.reaches(since))
    if ends is None:
        return None
    most = MOST_BYTES if since is None else MOST_LOOKED_AT
    if sum(end - source.begin for source, end in ends.values()) > most:
        return None
    found = {}
    for identity, (source, end) in ends.items():
        begin = next((each.begin for each in zones(source) if each.reaches(since)), end)
        if begin < end:
            found[identity] = _Piece(source, begin, end)
    return found if sum(each.end - each.begin for each in found.values()) <= MOST_BYTES else None


def _copied(piece: _Piece, path: Path) -> int | None:
    """Copy a piece; return how many bytes no line exceeds, or `None`: DuckDB may misread one."""
    skipped, size, longest = Skipped(), 0, 0
    with path.open("wb") as copy:
        for _, block in blocks(piece.source, skipped, piece.begin, piece.end):
            if plain_lines(block) is None:
                return None
            copy.write(block)
            size, longest = size + len(block), max(longest, len(block))
    return longest if size == piece.end - piece.begin and not skipped.count else None


@contextmanager
def _priced(
    reading: Reading, paths: Sequence[Path], longest: int
) -> Iterator[tuple[DuckDBPyConnection, str | None]]:
    """Give a query for the operations in files, with cost and `saved`, and the table `looks`.

    There is no query where DuckDB does not understand a line.
    """
    with closing(lasting()) as connection:
        if not read(connection, paths, longest):
            yield connection, None
            return
        names = [*map(str, paths)]
        looks = TypedLooks(connection, names)
        rows, _ = looks.operations(names, [], None)
        rates = rates_table(connection, reading.pricing, keys_of(connection))
        is_detailed = looks.have_details(names)
        yield connection, priced(rows, reading.pricing, rates, is_detailed=is_detailed)


_numbers = count()
_known: dict[tuple[Any, ...], _Recent] = {}
# a child has no such tables
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_known.clear)
