"""System calls that do not give up the interpreter's lock.

Each takes a few microseconds; beside a thread that computes, winning the lock back takes 5 ms.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from instrument._files import OpenFile
from instrument._guard import belongs_to_program
from instrument._loading import importing

__all__ = ["is_unchanged", "load", "write"]

# a longer write would keep the other threads waiting
_SHORT_BYTES = 64 * 1024
_STAT_BYTES = 256


class Libc:
    """The C library's functions; `knows_stat` says that its `struct stat` is what we think."""

    def __init__(self) -> None:
        import ctypes  # few milliseconds, which a program without threads need not spend

        self._ctypes: Any = ctypes
        library = ctypes.PyDLL(None)
        self.write = library.write
        self.write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
        self.write.restype = ctypes.c_ssize_t
        self._pread = library.pread
        self._pread.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64)
        self._pread.restype = ctypes.c_ssize_t
        self._library = library
        self.knows_stat = self._is_as_expected()

    def stat(self, file: int | Path) -> tuple[int, int, int] | None:
        """Return device, inode and size, as 64-bit Linux lays them out; `None` if there is none."""
        found = self._ctypes.create_string_buffer(_STAT_BYTES)
        if isinstance(file, int):
            failed = self._library.fstat(file, found)
        else:
            failed = self._library.stat(os.fsencode(file), found)
        if failed:
            return None
        device, inode, size = (
            int.from_bytes(found.raw[at : at + 8], "little") for at in (0, 8, 48)
        )
        return device, inode, size

    def ends_in_newline(self, descriptor: int, size: int) -> bool:
        last = self._ctypes.create_string_buffer(1)
        return bool(self._pread(descriptor, last, 1, size - 1) == 1 and last.raw == b"\n")

    def _is_as_expected(self) -> bool:
        try:
            place = os.stat(__file__)
            return self.stat(Path(__file__)) == (place.st_dev, place.st_ino, place.st_size)
        except (AttributeError, OSError) as error:  # of a C library without these names
            if belongs_to_program(error):
                raise
            return False


def load() -> None:
    """Have what is needed loaded before it is timed."""
    global _libc
    if _libc is not None:
        return
    try:
        with importing:
            _libc = Libc()
    except (ImportError, AttributeError, OSError) as error:
        if belongs_to_program(error):
            raise


def write(descriptor: int, data: bytes) -> int:
    """Write as `os.write` does."""
    if _libc is not None and len(data) <= _SHORT_BYTES:
        written = int(_libc.write(descriptor, data, len(data)))
        if written >= 0:
            return written
    # raises what was wrong
    return os.write(descriptor, data)


def is_unchanged(file: OpenFile, most_bytes: int) -> bool:
    """Tell whether descriptor and path are still this file, whole and not above `most_bytes`.

    `False` where that is not known.
    """
    if _libc is None or not _libc.knows_stat:
        return False
    opened, named = _libc.stat(file.descriptor), _libc.stat(file.path)
    ours = (file.device, file.inode)
    if opened is None or named is None or not ours == opened[:2] == named[:2]:
        return False
    size = opened[2]
    if size > most_bytes:
        return False
    return size == 0 or _libc.ends_in_newline(file.descriptor, size)


_libc: Libc | None = None
