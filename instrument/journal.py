"""The journal on disk: one file a day and host, one line an operation, one `write` a line.

    <log_dir>/journal/2026-11-22-<host>-0001.jsonl   segments, shared by the host's processes
    <log_dir>/run/<run>.lock                         one for each process that may be slow

Nothing here takes a lock that another writer could hold, buffers, or starts a thread, so that a
line is whole and out at once under threads, signal handlers, finalisers, forks and kills.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from instrument._guard import belongs_to_program

try:
    import fcntl
    import resource
except ImportError:  # Windows, where nothing is recorded
    fcntl = resource = None  # type: ignore[assignment]  # every caller is behind a check for the platform

__all__ = ["IS_SUPPORTED", "Journal", "RunLock", "is_alive", "segment_paths"]

IS_SUPPORTED = fcntl is not None

SEGMENT_BYTES = 64 * 1024**2
LOOK_EVERY_NS = 1_000_000_000
# what other writers may have added since, by far
_TAIL_BYTES = 1024**2
_SEGMENT_NAME = re.compile(r"(\d{4}-\d\d-\d\d)-(.+)-(\d{4,})\.jsonl")

Report = Callable[[str, str], None]
Clock = Callable[[], float]


class Segment(Struct, frozen=True):
    """An open segment; `device` and `inode` tell whether descriptor and path are still it."""

    descriptor: int
    path: Path
    day: str
    device: int
    inode: int


class Journal:
    """Appends lines to the day's segment, and notices when that was deleted, moved or grew full.

    `report(what, where)` hears of what went wrong, and may be called often; `grown(size)` hears,
    at most once, that the log holds more than `max_bytes`. `clock` gives Unix seconds.
    """

    def __init__(
        self,
        log_dir: Path,
        *,
        fsync: bool,
        max_bytes: int,
        report: Report,
        grown: Callable[[int], None],
        clock: Clock = time.time,
    ) -> None:
        self._directory = log_dir / "journal"
        self._fsync = fsync
        self._max_bytes = max_bytes
        self._report = report
        self._grown = grown
        self._clock = clock
        self._segment: Segment | None = None
        self._retired: list[Segment] = []
        self._torn = False
        self._look_at_ns = 0
        self._retry_at_ns = 0
        self._told_size = False

    def append(self, line: bytes, now_ns: int) -> bool:
        """Hand `line`, which ends in a newline, to the kernel; return whether it took all of it.

        `now_ns` is monotonic. Safe to call from threads, signal handlers and finalisers.
        """
        if now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + LOOK_EVERY_NS
            self._look(now_ns)
        segment = self._segment or self._open(now_ns)
        if segment is None:
            return False
        closes_torn = self._torn
        data = b"\n" + line if closes_torn else line
        try:
            written = os.write(segment.descriptor, data)
        except OSError as error:
            return self._not_written(error, segment, line, now_ns)
        if written != len(data):
            return self._cut_short(segment, written)
        if closes_torn:
            self._torn = False
        if self._fsync:
            self._sync(segment)
        return True

    def holds(self, line: bytes) -> bool:
        """Tell whether `line`, in whose `append` an exception came up, was written all the same."""
        segment = self._segment
        if segment is None or not _is_open(segment):
            return False
        tail = max(_TAIL_BYTES, 2 * len(line))
        return line in os.pread(segment.descriptor, tail, max(0, _size(segment) - tail))

    def forget(self) -> None:
        """Let go of the descriptors without unlocking: in a forked child they are the parent's."""
        for segment in (self._segment, *self._retired):
            if segment is not None:
                _close(segment)
        self._segment, self._retired = None, []

    def __del__(self) -> None:
        with suppress(Exception):  # the interpreter may be half gone
            self.forget()

    def _not_written(self, error: OSError, segment: Segment, line: bytes, now_ns: int) -> bool:
        if belongs_to_program(error):
            raise error
        if error.errno == errno.EBADF:
            if self._segment is segment:
                self._segment = None
            return self.append(line, now_ns)
        # another process may have been cut short there, which a look at the file's end tells
        self._look_at_ns = now_ns
        self._report(error.strerror or str(error), str(segment.path))
        return False

    def _cut_short(self, segment: Segment, written: int) -> bool:
        if written:
            self._torn = True
        self._report("the line was cut short (is the disk full?)", str(segment.path))
        return False

    def _sync(self, segment: Segment) -> None:
        try:
            os.fsync(segment.descriptor)
        except OSError as error:
            if belongs_to_program(error):
                raise
            self._report(f"not synced: {error.strerror}", str(segment.path))

    def _look(self, now_ns: int) -> None:
        """Compare descriptor and path; take another segment where they part, or it is time to."""
        retired, self._retired = self._retired, []
        for each in retired:
            _close(each)
        segment = self._segment
        if segment is None:
            return
        found: os.stat_result | None = None
        try:
            found = os.stat(segment.path)
        except OSError as error:
            if belongs_to_program(error):
                raise
        if not _is_open(segment) or found is None or not _is_same(segment, found):
            self._segment = None
            self._retired.append(segment)
        elif found.st_size >= SEGMENT_BYTES or segment.day != self._today():
            self._open(now_ns)
        else:
            self._torn = self._torn or not _ends_whole(segment.descriptor, found.st_size)

    def _open(self, now_ns: int) -> Segment | None:
        if now_ns < self._retry_at_ns:
            return None
        try:
            segment = self._open_segment()
        except OSError as error:
            if belongs_to_program(error):
                raise
            self._retry_at_ns = now_ns + LOOK_EVERY_NS
            self._report(error.strerror or str(error), str(error.filename or self._directory))
            return None
        before, self._segment = self._segment, segment
        if before is not None:
            # a thread may be about to write through it, so it is closed at the next look
            self._retired.append(before)
        return segment

    def _open_segment(self) -> Segment:
        make_private_directory(self._directory)
        day = self._today()
        number = self._latest(day)
        while True:
            path = self._directory / f"{day}-{_host()}-{number:04d}.jsonl"
            segment = _open_shared(path, day)
            if segment is not None:
                self._torn = not _ends_whole(segment.descriptor, _size(segment))
                return segment
            number += 1

    def _latest(self, day: str) -> int:
        """Return the number of the segment to write to."""
        number, size, total = 1, 0, 0
        for path in segment_paths(self._directory.parent):
            bytes_here = _file_size(path)
            total += bytes_here
            name = _SEGMENT_NAME.fullmatch(path.name)
            if name is None or name.group(1) != day or name.group(2) != _host():
                continue
            if int(name.group(3)) >= number:
                number, size = int(name.group(3)), bytes_here
        if total > self._max_bytes and not self._told_size:
            self._told_size = True
            self._grown(total)
        return number + 1 if size >= SEGMENT_BYTES else number

    def _today(self) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(self._clock()))


class RunLock:
    """The lock file that this process holds while it lives, so that others can tell."""

    def __init__(self, log_dir: Path, run: str, report: Report) -> None:
        self.run = run
        self._path = log_dir / "run" / f"{run}.lock"
        self._report = report
        self._segment: Segment | None = None
        self._look_at_ns = 0

    def hold(self, now_ns: int) -> None:
        """See to it that the file is there and locked; looks at most once a second."""
        if now_ns < self._look_at_ns:
            return
        self._look_at_ns = now_ns + LOOK_EVERY_NS
        try:
            self._hold()
        except OSError as error:
            if belongs_to_program(error):
                raise
            self._report(error.strerror or str(error), str(self._path))

    def forget(self) -> None:
        """Let go of the descriptor without unlocking: in a forked child it is the parent's."""
        if self._segment is not None:
            _close(self._segment)
        self._segment = None

    def __del__(self) -> None:
        with suppress(Exception):  # the interpreter may be half gone
            self.release()

    def release(self) -> None:
        """Remove the file: what it stands for has ended in good order."""
        if self._segment is not None and _is_open(self._segment):
            self._path.unlink(missing_ok=True)
        self.forget()

    def _hold(self) -> None:
        held = self._segment
        if held is not None and _is_open(held) and _is_there(held):
            os.utime(held.descriptor)
            return
        make_private_directory(self._path.parent)
        before, self._segment = held, _open_locked(self._path, "", exclusive=True)
        if before is not None:
            _close(before)


def is_alive(log_dir: Path, run: str) -> bool:
    """Tell whether the process that holds `run/<run>.lock` lives. Takes no lock that it keeps."""
    try:
        descriptor = os.open(log_dir / "run" / f"{run}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        if belongs_to_program(error):
            raise
        return False
    try:
        lock(descriptor, exclusive=False)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def segment_paths(log_dir: Path) -> list[Path]:
    """Return the journal's segments in the order of their names; none where there is no journal."""
    try:
        names = os.listdir(log_dir / "journal")
    except OSError as error:
        if belongs_to_program(error):
            raise
        return []
    return [log_dir / "journal" / name for name in sorted(names) if name.endswith(".jsonl")]


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
    """Open a file, made if it is missing, that this user can read and write whatever the umask."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode) and mode & 0o600 != 0o600:
            os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


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


def _open_shared(path: Path, day: str) -> Segment | None:
    """Open a segment under a shared lock; `None` where it is no file, or is being compacted."""
    try:
        return _open_locked(path, day, exclusive=False)
    except (BlockingIOError, IsADirectoryError):
        return None


def _open_locked(path: Path, day: str, *, exclusive: bool) -> Segment:
    for _ in range(_OPENED_AT_MOST):
        segment = _open_once(path, day, exclusive=exclusive)
        if _is_there(segment):
            break
        _close(segment)
    return segment


def _open_once(path: Path, day: str, *, exclusive: bool) -> Segment:
    descriptor = _moved_up(open_private(path, os.O_RDWR | os.O_APPEND | os.O_NONBLOCK))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "not a regular file", str(path))
        lock(descriptor, exclusive=exclusive)
    except BaseException:
        os.close(descriptor)
        raise
    return Segment(descriptor, path, day, found.st_dev, found.st_ino)


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


def _close(segment: Segment) -> None:
    if _is_open(segment):
        os.close(segment.descriptor)


def _is_open(segment: Segment) -> bool:
    try:
        return _is_same(segment, os.fstat(segment.descriptor))
    except OSError as error:
        if belongs_to_program(error):
            raise
        return False


def _is_there(segment: Segment) -> bool:
    try:
        return _is_same(segment, os.stat(segment.path))
    except OSError as error:
        if belongs_to_program(error):
            raise
        return False


def _is_same(segment: Segment, found: os.stat_result) -> bool:
    return found.st_ino == segment.inode and found.st_dev == segment.device


def _size(segment: Segment) -> int:
    return os.fstat(segment.descriptor).st_size


def _ends_whole(descriptor: int, size: int) -> bool:
    return size == 0 or os.pread(descriptor, 1, size - 1) in (b"\n", b"")


def _file_size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        if belongs_to_program(error):
            raise
        return 0


def _is_directory(path: Path) -> bool:
    # not Path.is_dir, which would swallow a timeout that a signal handler raises
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        if belongs_to_program(error):
            raise
        return False


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", os.uname().nodename)[:64] or "host"
