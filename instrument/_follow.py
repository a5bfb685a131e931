"""Operations as they finish: the lines that come to a log from now on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from instrument._lines import operation_of
from instrument._scan import Skipped, Source, scan, sources_of
from instrument._wanted import Wanted
from instrument.operation import Operation

__all__ = ["Follower"]


class Follower:
    """Remembers how far each file has been read; what stands there at the start is passed over."""

    def __init__(self, log_dirs: Callable[[], tuple[Path, ...]], asked: Wanted) -> None:
        self._log_dirs = log_dirs
        self._asked = asked
        self._read: dict[tuple[int, int], int] = {}
        for source in self._sources():
            with suppress(FileNotFoundError):
                status = source.path.stat()
                self._read[status.st_dev, status.st_ino] = status.st_size

    def new(self) -> Iterator[Operation]:
        """Yield the operations whose lines have been completed since the last look."""
        for source in self._sources():
            with suppress(FileNotFoundError):
                yield from self._new_in(source)

    def _sources(self) -> list[Source]:
        return sources_of(self._log_dirs(), may_vanish=True)

    def _new_in(self, source: Source) -> Iterator[Operation]:
        status = source.path.stat()
        key = (status.st_dev, status.st_ino)
        begin = self._read.get(key, 0)
        if status.st_size < begin:
            begin = 0  # somebody has emptied the file
        end = _end_of_lines(source.path, begin, status.st_size)
        self._read[key] = end
        for line in scan([source], Skipped(), begin=begin, end=end) if end > begin else ():
            if line.head.is_operation and self._asked.takes(line.head, line.moment):
                operation = operation_of(line.data)
                if operation is not None:
                    yield operation


def _end_of_lines(path: Path, begin: int, end: int) -> int:
    """Return where the last whole line before `end` ends; a line being written waits."""
    with path.open("rb") as file:
        position = end
        while position > begin:
            start = max(begin, position - 65536)
            found = os.pread(file.fileno(), position - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            position = start
    return begin
