"""Operations as they finish: the lines that come to a log from now on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from instrument._lines import operation_of
from instrument._scan import BLOCK_BYTES, Skipped, Source, scan, sources_of
from instrument._wanted import Wanted
from instrument.operation import Operation

__all__ = ["Follower"]


MARK_BYTES = 64


class Place(NamedTuple):
    """How far a file has been read: up to `end`, before which it held `mark`.

    An inode that was deleted is soon another file's; the mark tells.
    """

    end: int
    mark: bytes
    size: int
    written_at_ns: int


class Follower:
    """Remembers how far each file has been read; what stands there at the start is passed over."""

    def __init__(
        self,
        log_dirs: Callable[[], tuple[Path, ...]],
        asked: Wanted,
        priced: Callable[[Operation], Operation],
    ) -> None:
        self._log_dirs = log_dirs
        self._asked = asked
        self._priced = priced
        self._places: dict[tuple[int, int], Place] = {}
        for source in self._sources():
            with suppress(FileNotFoundError):
                self._look(source)

    def new(self) -> Iterator[Operation]:
        """Yield the operations whose lines have been completed since the last look."""
        for source in self._sources():
            with suppress(FileNotFoundError):
                yield from self._new_in(source)

    def _sources(self) -> list[Source]:
        return sources_of(self._log_dirs(), may_vanish=True)

    def _new_in(self, source: Source) -> Iterator[Operation]:
        begin, end = self._look(source)
        for line in scan([source], Skipped(), begin=begin, end=end) if end > begin else ():
            if line.head.is_operation and self._asked.takes(line.head, line.moment):
                operation = operation_of(line.data)
                if operation is not None:
                    yield self._priced(operation)

    def _look(self, source: Source) -> tuple[int, int]:
        """Return from where to where whole lines have come to a file since the last look."""
        status = source.path.stat()
        key = (status.st_dev, status.st_ino)
        before = self._places.get(key)
        if before is not None and before[2:] == (status.st_size, status.st_mtime_ns):
            return before.end, before.end
        with source.path.open("rb") as file:
            descriptor, size = file.fileno(), status.st_size
            is_same = before is not None and _mark(descriptor, before.end) == before.mark
            # emptied by somebody, or another file
            begin = before.end if before is not None and is_same else 0
            end = _end_of_lines(descriptor, begin, size)
            self._places[key] = Place(end, _mark(descriptor, end), size, status.st_mtime_ns)
        return begin, end


def _mark(descriptor: int, end: int) -> bytes:
    begin = max(0, end - MARK_BYTES)
    return os.pread(descriptor, end - begin, begin)


def _end_of_lines(descriptor: int, begin: int, end: int) -> int:
    """Return where the last whole line before `end` ends; a line being written waits."""
    position = end
    while position > begin:
        start = max(begin, position - BLOCK_BYTES)
        found = os.pread(descriptor, position - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return begin
