"""Files of this user's alone, opened and locked in such a way that nobody waits."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

from msgspec import Struct

from instrument._guard import belongs_to_program

try:
    import fcntl
    import resource
except ImportError:  # Windows, where nothing is recorded
    fcntl = resource = None  # type: ignore[assignment]  # every caller is behind a check for the platform

__all__ = [
    "IS_SUPPORTED",
    "OpenFile",
    "bytes_between",
    "close",
    "ends_whole",
    "is_open",
    "is_same",
    "is_there",
    "lock",
    "make_private_directory",
    "open_appending",
    "open_locked",
    "open_private",
    "open_regular",
    "read_regular",
    "scratch_prefix",
    "size_of",
    "write_private",
]

IS_SUPPORTED = fcntl is not None


_LOOKS_AT_TAIL = 5
_LOOK_AGAIN_SECONDS = 0.0005


class OpenFile(Struct, frozen=True):
    """An open file; `device` and `inode` tell whether descriptor and path are still it."""

    descriptor: int
    path: Path
    device: int
    inode: int


def make_private_directory(path: Path) -> None:
    """Make `path` and what is missing above it, for this user alone, whatever the umask."""
    missing = []
    while not _is_directory(path):
        missing.append(path)
        if path == path.parent:
            break
        path = path.parent
    for place in reversed(missing):
        try:
            os.mkdir(place, 0o700)
            os.chmod(place, 0o700)
        except FileExistsError:
            if not _is_directory(place):
                raise


def open_private(path: Path, flags: int) -> int:
    """Open a file, made if it is missing, that this user can read and write whatever the umask.

    Raises `OSError` for what is no regular file.
    """
    descriptor = open_regular(path, flags | os.O_CREAT)
    try:
        if os.fstat(descriptor).st_mode & 0o600 != 0o600:
            os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_regular(path: Path, flags: int) -> int:
    """Open a file without waiting; raise `OSError` for what is no regular file, as a FIFO."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, "not a regular file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def bytes_between(path: Path, begin: int, end: int) -> bytes:
    """Return what stands between two offsets of a file, as far as it reaches."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.pread(descriptor, end - begin, begin)
    finally:
        os.close(descriptor)


def read_regular(path: Path) -> bytes:
    """Return what a file holds, in the same way."""
    with open(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read()


def write_private(path: Path, data: bytes) -> None:
    """Write a whole file of this user's alone; raise `OSError` where it does not all fit."""
    descriptor = open_private(path, os.O_WRONLY | os.O_TRUNC)
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(descriptor)


def scratch_prefix() -> str:
    """Return what this process's directories begin with, among temporary files."""
    return f"instrument-{os.getpid()}-"


def lock(descriptor: int, *, exclusive: bool) -> None:
    """Lock the file without waiting; on a file system without locks, do nothing.

    Raises `BlockingIOError` where another descriptor's lock is in the way.
    """
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if belongs_to_program(error):
            raise


def open_locked(path: Path, *, exclusive: bool) -> OpenFile:
    """Open a file, made if it is missing, under a lock for which nobody waits.

    Raises `BlockingIOError` where another's lock is in the way, `OSError` for what is no file.
    """
    for _ in range(_OPENED_AT_MOST):
        file = _open_once(path, exclusive=exclusive)
        if is_there(file):
            break
        close(file)
    return file


def open_appending(path: Path) -> OpenFile:
    """Open a file that is there to read it, and to write at its end; raise `OSError` for others."""
    return _opened(_moved_up(open_regular(path, os.O_RDWR | os.O_APPEND)), path)


def _open_once(path: Path, *, exclusive: bool) -> OpenFile:
    file = _opened(_moved_up(open_private(path, os.O_RDWR | os.O_APPEND)), path)
    try:
        lock(file.descriptor, exclusive=exclusive)
    except BaseException:
        os.close(file.descriptor)
        raise
    return file


def _opened(descriptor: int, path: Path) -> OpenFile:
    try:
        found = os.fstat(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return OpenFile(descriptor, path, found.st_dev, found.st_ino)


def _moved_up(descriptor: int) -> int:
    """Move a descriptor up, so that one closed behind our back is not soon somebody's file."""
    lowest = min(_HIGH, _soft_limit() * 3 // 4)
    try:
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
    except OSError as error:
        if belongs_to_program(error):
            raise
        return descriptor
    os.close(descriptor)
    return high


_HIGH = 8192
# A file that is renamed away again and again, or has another inode at each look, must not hold us.
_OPENED_AT_MOST = 8


def _soft_limit() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit if limit != resource.RLIM_INFINITY else _HIGH * 2


def close(file: OpenFile) -> None:
    """Close the file, unless its descriptor has become another's."""
    if is_open(file):
        os.close(file.descriptor)


def is_open(file: OpenFile) -> bool:
    """Tell whether the descriptor still is this file."""
    try:
        return is_same(file, os.fstat(file.descriptor))
    except OSError as error:
        if belongs_to_program(error):
            raise
        return False


def is_there(file: OpenFile) -> bool:
    """Tell whether the path still is this file."""
    try:
        return is_same(file, os.stat(file.path))
    except OSError as error:
        if belongs_to_program(error):
            raise
        return False


def is_same(file: OpenFile, found: os.stat_result) -> bool:
    """Tell whether what was found is this file."""
    return found.st_ino == file.inode and found.st_dev == file.device


def size_of(file: OpenFile) -> int:
    """Return the size in bytes."""
    return os.fstat(file.descriptor).st_size


def ends_whole(file: OpenFile) -> bool:
    """Tell whether the file ends in a newline, or is empty, or is just being written to.

    A line that another process is writing shows in pieces, so that a torn one is one that stays.
    """
    size = size_of(file)
    for _ in range(_LOOKS_AT_TAIL):
        if size == 0 or os.pread(file.descriptor, 1, size - 1) in (b"\n", b""):
            return True
        _await_writers(file)
        before, size = size, size_of(file)
        if size != before:
            return True
    return False


def _await_writers(file: OpenFile) -> None:
    """Wait until a write that is under way has ended, which may have lost the processor."""
    try:
        # takes the inode's lock, as a write does, and lasts no longer than ours is going to
        os.utime(file.descriptor)
    except OSError as error:
        if belongs_to_program(error):
            raise
    time.sleep(_LOOK_AGAIN_SECONDS)


def _is_directory(path: Path) -> bool:
    # not Path.is_dir, which would swallow a timeout that a signal handler raises
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        if belongs_to_program(error):
            raise
        return False
