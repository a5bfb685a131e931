"""The operations that come to log directories while tests run, from whatever process."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from instrument._lines import operation_of
from instrument.operation import Operation

__all__ = ["Arrivals"]

_OURS = b'"service":"pytest"'
_OTHER_TYPES = b'{"type":'
_DAY_SECONDS = 86_400
# within which a directory may get another file without getting another time
_TICK_NS = 100_000_000


class Arrivals:
    """Follows the log directories that it is told of; what stood there before is passed over.

    The tests' own operations, of the service `pytest`, are left out.
    """

    def __init__(self) -> None:
        self._tails: dict[Path, _Tail] = {}

    def watch(self, log_dir: Path) -> None:
        """Follow a directory from now on, if it is not followed yet."""
        if log_dir not in self._tails:
            self._tails[log_dir] = _Tail(log_dir)

    @property
    def several(self) -> bool:
        """Whether more than one directory is followed."""
        return len(self._tails) > 1

    def only(self, log_dirs: Collection[Path | None]) -> None:
        """Follow no other directories any more."""
        self._tails = {each: tail for each, tail in self._tails.items() if each in log_dirs}

    def new(self) -> list[Operation]:
        """Return the operations whose lines were written since the last call."""
        found: list[Operation] = []
        for tail in self._tails.values():
            for data in tail.new():
                # most often nothing else was written, which is told without looking at each line
                if data.count(_OURS) != data.count(b"\n"):
                    found += _operations_in(data)
        return found


class _Tail:
    """How far the files of one log directory have been read."""

    def __init__(self, log_dir: Path) -> None:
        self._directories = [_Directory(log_dir), _Directory(log_dir / "journal")]
        self._read: dict[str, int] = {}
        oldest = time.time() - _DAY_SECONDS
        for path in self._listed():
            with suppress(OSError):
                status = os.stat(path)
                # nobody goes on with a segment of another day
                self._read[path] = status.st_size if status.st_mtime > oldest else -1

    def new(self) -> list[bytes]:
        """Return the whole lines that were written to each file since the last call."""
        found: list[bytes] = []
        for path in self._listed():
            begin = self._read.setdefault(path, 0)
            if begin >= 0:
                found.append(self._lines(path, begin))
        return found

    def _listed(self) -> list[str]:
        return [path for directory in self._directories for path in directory.files()]

    def _lines(self, path: str, begin: int) -> bytes:
        try:
            size = os.stat(path).st_size
            if size == begin:
                return b""
            begin = 0 if size < begin else begin  # emptied by somebody
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            data = os.pread(descriptor, size - begin, begin)
        finally:
            os.close(descriptor)
        end = data.rfind(b"\n") + 1  # a line that is being written waits
        self._read[path] = begin + end
        return data[:end]


class _Directory:
    """The journal's files in a directory, which is read again when that has changed."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._changed_ns = 0
        self._is_sure = False
        self._files: list[str] = []

    def files(self) -> list[str]:
        try:
            changed_ns = os.stat(self._path).st_mtime_ns
            if not self._is_sure or changed_ns != self._changed_ns:
                self._is_sure = time.time_ns() - changed_ns > _TICK_NS
                self._changed_ns = changed_ns
                names = os.listdir(self._path)
                self._files = [f"{self._path}/{each}" for each in names if each.endswith(".jsonl")]
        except OSError:
            self._files = []
        return self._files


def _operations_in(data: bytes) -> list[Operation]:
    found = (operation_of(line) for line in data.split(b"\n") if _may_be_wanted(line))
    return [each for each in found if each is not None]


def _may_be_wanted(line: bytes) -> bool:
    return bool(line) and _OURS not in line and not line.startswith(_OTHER_TYPES)
