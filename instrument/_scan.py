"""The files of a log, and their lines in the order they were written."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from instrument._lines import Head, decode_head, decode_heads, moment_of, salvage

__all__ = [
    "ALWAYS",
    "BLOCK_BYTES",
    "SEGMENT_NAME",
    "Line",
    "Skipped",
    "SkippedLine",
    "Source",
    "beginning",
    "blocks",
    "last_line",
    "needle",
    "scan",
    "sources_of",
]

BLOCK_BYTES = 64 * 1024  # beyond 128 kB, every buffer costs fresh pages from the kernel
MAX_LINE_BYTES = 16 * 1024**2
MAX_NEEDLES = 64  # beyond it, decoding every line is faster than searching for so many
LONGEST_NEEDLE = 1_000
KEPT_SKIPPED_LINES = 100
CLOCK_ERROR = timedelta(days=1)
ALWAYS = datetime.min.replace(tzinfo=UTC)
Search = Callable[[bytes, int], int]
SEGMENT_NAME = re.compile(r"(\d{4}-\d\d-\d\d)-(.+)-(\d{4,})\.jsonl")


class Source(Struct, frozen=True):
    """One file of a log directory; `writer` is the host that wrote a segment, else empty.

    `written_at` is when it was last written to. `may_vanish` says that it is read as empty once it
    is gone, because no other listing follows. What stands before `begin` is in the archive.
    """

    path: Path
    log_dir: Path
    writer: str
    written_at: datetime = datetime.max.replace(tzinfo=UTC)
    may_vanish: bool = False
    begin: int = 0

    def reaches(self, since: datetime | None) -> bool:
        """Tell whether a line of it may be from `since` or later, by a clock that erred a day."""
        return since is None or since - self.written_at <= CLOCK_ERROR


class Line(Struct, gc=False):
    """A line that is one of ours; that of a void line is of what it withdraws, or `ALWAYS`."""

    source: Source
    head: Head
    moment: datetime
    data: bytes


class SkippedLine(NamedTuple):
    """A line that could not be read, in whole or in part."""

    path: Path
    offset: int
    reason: str


class Skipped:
    """Counts the lines that could not be read, and keeps the first hundred."""

    def __init__(self) -> None:
        self.count = 0
        self.lines: list[SkippedLine] = []

    def add(self, source: Source, offset: int, reason: str) -> None:
        self.count += 1
        if len(self.lines) < KEPT_SKIPPED_LINES:
            self.lines.append(SkippedLine(source.path, offset, reason))

    def merge(self, other: Skipped) -> None:
        self.count += other.count
        self.lines = (self.lines + other.lines)[:KEPT_SKIPPED_LINES]


def sources_of(log_dirs: Iterable[Path], *, may_vanish: bool = False) -> list[Source]:
    """List the regular `*.jsonl` files, each once even if it is reached by several paths."""
    found: dict[tuple[int, int], Source] = {}
    for log_dir in log_dirs:
        for directory in (log_dir, log_dir / "journal"):
            for path in sorted(_names(directory), key=_age):
                _admit(path, log_dir, found, may_vanish)
    return list(found.values())


def needle(text: str) -> bytes | None:
    """Return the bytes that every line holding `text` as a JSON string contains.

    `None` where there are none such: text that writers escape in different ways, or that could
    stand in the log as a number.
    """
    if len(text) > LONGEST_NEEDLE or not _PLAIN.fullmatch(text):
        return None
    return b'"%b"' % text.encode()


def beginning(text: str) -> bytes | None:
    """Return the bytes that every line holding a JSON string that begins with `text` contains."""
    return b'"%b' % text.encode() if _PLAIN_BEGINNING.fullmatch(text) else None


def scan(
    sources: Iterable[Source],
    skipped: Skipped,
    needles: Sequence[bytes | None] | None = None,
    *,
    begin: int = 0,
    end: int | None = None,
) -> Iterator[Line]:
    """Yield the lines that contain one of `needles` (without them: all), file by file, in order.

    `begin` and `end` are offsets of lines between which each file is read. What is no line of ours
    goes to `skipped`.
    Raises `FileNotFoundError` for a file that vanished.
    """
    searched = _searchable(needles)
    for source in sources:
        for offset, block in blocks(source, skipped, max(begin, source.begin), end):
            found = _hits(block, searched) if searched else _lines(block)
            for start, data, head in found:
                if head is None:
                    yield from _salvaged(source, offset + start, data, skipped)
                    continue
                moment = moment_of(head.timestamp) or _no_moment(head)
                if moment is not None and head.is_whole():
                    yield Line(source, head, moment, data)
                else:
                    skipped.add(source, offset + start, _fault(moment))


def last_line(source: Source) -> bytes:
    """Return the last line of a file, as far as its last block holds it."""
    try:
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    try:
        start = max(0, os.fstat(descriptor).st_size - BLOCK_BYTES)
        return os.pread(descriptor, BLOCK_BYTES, start).rstrip(b"\n").rpartition(b"\n")[2]
    finally:
        os.close(descriptor)


_PLAIN = re.compile(
    r"(?=.*[A-Za-z_~:])(?!(?:true|false|null|[-0-9.]+[eE][-0-9]+|-?(?i:nan|inf|infinity))$)"
    r"[A-Za-z0-9._~:-]+"
)


_PLAIN_BEGINNING = re.compile(r"[A-Za-z_~:][A-Za-z0-9._~:-]*")


def _names(directory: Path) -> list[Path]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [directory / name for name in names if name.endswith(".jsonl")]


def _age(path: Path) -> tuple[str, int, str]:
    name = SEGMENT_NAME.fullmatch(path.name)
    return (name.group(1), int(name.group(3)), path.name) if name else ("", 0, path.name)


def _admit(
    path: Path, log_dir: Path, found: dict[tuple[int, int], Source], may_vanish: bool
) -> None:
    try:
        status = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return
        raise
    if stat.S_ISREG(status.st_mode):
        name = SEGMENT_NAME.fullmatch(path.name)
        writer = name.group(2) if name else ""
        written_at = _written_at(status.st_mtime, name.group(1) if name else "")
        source = Source(path, log_dir, writer, written_at, may_vanish)
        found.setdefault((status.st_dev, status.st_ino), source)


def _written_at(seconds: float, day: str) -> datetime:
    moment = _moment(seconds)
    if moment.isoformat() >= day:
        return moment
    with suppress(ValueError):  # no such day
        return datetime.fromisoformat(day).replace(tzinfo=UTC)  # by a clock that is ahead of ours
    return moment


def _moment(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)


def _searchable(needles: Sequence[bytes | None] | None) -> Search | None:
    """Return what finds the next of the needles in a block from a place on, or -1."""
    if not needles or len(needles) > MAX_NEEDLES or None in needles:
        return None
    searched = [each for each in needles if each is not None]
    if len(searched) == 1:
        return lambda block, start: block.find(searched[0], start)
    pattern = re.compile(b"|".join(map(re.escape, sorted(searched))))

    def search(block: bytes, start: int) -> int:
        found = pattern.search(block, start)
        return -1 if found is None else found.start()

    return search


def blocks(
    source: Source, skipped: Skipped, begin: int = 0, end: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield runs of whole lines with their offsets, up to what the file held when it was opened.

    Read and never mapped: a writer that truncates a mapped file would kill this process.
    """
    try:
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if source.may_vanish:
            return
        raise
    try:
        size = os.fstat(descriptor).st_size
        yield from _whole_lines(descriptor, source, skipped, begin, min(size, end or size))
    finally:
        os.close(descriptor)


def _whole_lines(
    descriptor: int, source: Source, skipped: Skipped, begin: int, end: int
) -> Iterator[tuple[int, bytes]]:
    want = BLOCK_BYTES
    while begin < end:
        data = os.pread(descriptor, min(want, end - begin), begin)
        whole = (
            data if begin + len(data) >= end or len(data) < want else data[: data.rfind(b"\n") + 1]
        )
        if whole:
            yield begin, whole
            begin, want = begin + len(whole), BLOCK_BYTES
        elif not data:
            return
        elif want < MAX_LINE_BYTES:
            want *= 2
        else:
            skipped.add(source, begin, f"line over {MAX_LINE_BYTES} bytes")
            begin = _after_line(descriptor, begin + len(data))


def _after_line(descriptor: int, position: int) -> int:
    while data := os.pread(descriptor, BLOCK_BYTES, position):
        end = data.find(b"\n")
        if end >= 0:
            return position + end + 1
        position += len(data)
    return position


def _lines(block: bytes) -> Iterator[tuple[int, bytes, Head | None]]:
    heads = decode_heads(block)
    lines = [data for data in block.split(b"\n") if data]
    # as many objects as lines could also be one over two lines and two on one
    apart = block.count(b"}\n{") + 1
    if heads is None or not len(heads) == len(lines) == apart or block[:1] == b"\n":
        yield from _odd_lines(block)
        return
    start = 0
    for data, head in zip(lines, heads, strict=True):
        yield start, data, head
        start += len(data) + 1


def _odd_lines(block: bytes) -> Iterator[tuple[int, bytes, Head | None]]:
    start = 0
    for data in block.split(b"\n"):
        if data:
            yield start, data, _head(data)
        start += len(data) + 1


def _head(data: bytes) -> Head | None:
    try:
        return decode_head(data)
    except (ValueError, RecursionError):
        return None


def _hits(block: bytes, search: Search) -> Iterator[tuple[int, bytes, Head | None]]:
    position = search(block, 0)
    while position >= 0:
        start = block.rfind(b"\n", 0, position) + 1
        stop = block.find(b"\n", position)
        data = block[start : stop if stop >= 0 else len(block)]
        yield start, data, _head(data)
        if stop < 0:
            return
        position = search(block, stop)


def _salvaged(source: Source, offset: int, data: bytes, skipped: Skipped) -> Iterator[Line]:
    if not data.strip():
        return
    records, lost = salvage(data)
    if lost:
        skipped.add(source, offset, "damaged line" if records else "not JSON")
    for record in records:
        head = decode_head(record)
        moment = moment_of(head.timestamp) or _no_moment(head)
        if moment is not None:
            yield Line(source, head, moment, record)
        else:
            skipped.add(source, offset, _fault(moment))


def _no_moment(head: Head) -> datetime | None:
    return ALWAYS if head.type == "void" else None


def _fault(moment: datetime | None) -> str:
    return "no timestamp" if moment is None else "no operation"
