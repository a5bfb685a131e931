"""Which runs of lines a question can pass over, as this process remembers of files it has read.

A zone says of a run of some 64 kB which start is the latest in it and of which sessions it has
lines. Journals only grow, so that it holds for as long as the file does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from instrument._files import bytes_between
from instrument._scan import BLOCK_BYTES, Skipped, Source, blocks

__all__ = ["Zone", "identity_of", "joined", "known_zones", "stamp_of", "zones"]

MOST_ZONES = 4096  # of 256 MB of lines, about 20 MB
MOST_SESSIONS = 256  # of a zone, which has 150 lines as the recorder writes them


class Zone(Struct, frozen=True, gc=False):
    """Lines between two offsets: their latest start, and the sessions and parents they name.

    `None` means unknown: where a line is not as the recorder writes it, anything may be in a zone.
    `is_plain` says whether DuckDB can read all of them, once somebody has looked.
    """

    begin: int
    end: int
    last: str | None = None
    sessions: frozenset[str | None] | None = None
    is_plain: bool | None = None

    def reaches(self, since: datetime | None) -> bool:
        """Tell whether something in it may have begun at `since` or later."""
        return since is None or self.last is None or self.last >= stamp_of(since)

    def may_name(self, sessions: Iterable[str]) -> bool:
        return self.sessions is None or not self.sessions.isdisjoint(sessions)


def zones(source: Source) -> list[Zone]:
    """Return the zones of a whole file, in their order; what is new in it is read for that.

    Raises `FileNotFoundError` for a file that vanished.
    """
    known = _remembered(source)
    found = [] if known is None else [*known.zones]
    kept, skipped = len(found), Skipped()
    last = b""
    for begin, block in blocks(source, skipped, found[-1].end if found else source.begin):
        zone = _zone(begin, block)
        found.append(zone if len(found) < MOST_ZONES else replace(zone, sessions=None))
        if len(block) * 2 >= BLOCK_BYTES and block.endswith(b"\n") and kept == len(found) - 1:
            # a shorter one at the end is looked at again, when it has grown
            kept, last = len(found), block
    if last and not skipped.count and kept <= MOST_ZONES:
        _remember(source, found[:kept], zlib.crc32(last))
    return found


def known_zones(source: Source) -> list[Zone]:
    """Return what is known of a file's zones without a look at the rest, which follows as one."""
    known = _remembered(source)
    if known is None:
        return [Zone(source.begin, _EVERYTHING)]
    return [*known.zones, Zone(known.zones[-1].end, _EVERYTHING)]


def joined(found: Iterable[Zone]) -> Iterator[Zone]:
    """Put zones that follow each other together, so that they are read as one."""
    run: Zone | None = None
    for each in found:
        if run is not None and run.end == each.begin:
            run = Zone(run.begin, each.end)
            continue
        if run is not None:
            yield run
        run = each
    if run is not None:
        yield run


def stamp_of(moment: datetime) -> str:
    """Return a moment in UTC as the recorder writes it, which is ordered as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class _Stamp(Struct, gc=False):
    timestamp: str | None = None
    session_id: str | None = None
    parent_session_id: str | None = None
    type: str | None = None


class _Known(Struct, frozen=True):
    """The zones of a file from its beginning on, and the sum of the last one's bytes."""

    zones: tuple[Zone, ...]
    sum: int


def _zone(begin: int, block: bytes) -> Zone:
    end = begin + len(block)
    try:
        stamps = _decode(block)
    except (ValueError, RecursionError):
        return Zone(begin, end)
    # some void lines have no time
    starts = [each.timestamp or "" for each in stamps if each.timestamp or each.type != "void"]
    if not starts or not all(len(each) == 27 and each[10] + each[26] == "TZ" for each in starts):
        return Zone(begin, end)
    # old lines without a session are of the one without a name
    sessions = {each.session_id or "" for each in stamps}
    sessions |= {each.parent_session_id or "" for each in stamps}
    return Zone(
        begin, end, max(starts), frozenset(sessions) if len(sessions) <= MOST_SESSIONS else None
    )


def _remembered(source: Source) -> _Known | None:
    key = identity_of(source)
    known = None if key is None else _files.get(key)
    if known is None:
        return None
    last = known.zones[-1]
    try:
        same = zlib.crc32(bytes_between(source.path, last.begin, last.end)) == known.sum
    except FileNotFoundError:
        return None
    return known if same else None


def _remember(source: Source, found: list[Zone], sum_of_last: int) -> None:
    key = identity_of(source)
    if key is None:
        return
    _files.pop(key, None)
    _files[key] = _Known(tuple(found), sum_of_last)
    while sum(len(each.zones) for each in [*_files.values()]) > MOST_ZONES and len(_files) > 1:
        _files.pop(next(iter(_files)), None)


def identity_of(source: Source) -> tuple[int, int, int] | None:
    """Return what tells a file from others, and where it begins to count; `None`: it is gone."""
    try:
        status = source.path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, source.begin


_EVERYTHING = 2**62
_files: dict[tuple[int, int, int], _Known] = {}
_decode = msgspec.json.Decoder(_Stamp).decode_lines
