"""The journal on disk: one file a day and host, one line an operation, one `write` a line.

    <log_dir>/journal/2026-11-22-<host>-0001.jsonl   segments, shared by the host's processes

Nothing here takes a lock that another writer could hold, buffers, or starts a thread, so that a
line is whole and out at once under threads, signal handlers, finalisers, forks and kills.
"""

from __future__ import annotations

import _thread
import errno
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter_ns

from msgspec import Struct

from instrument import _kept
from instrument._account import Account
from instrument._clean import (
    LINE_BYTES,
    encode_lines,
    encoded,
    encoded_mended,
    encoded_shortened,
)
from instrument._clock import format_timestamp
from instrument._files import (
    OpenFile,
    close,
    ends_whole,
    is_open,
    is_same,
    make_private_directory,
    open_locked,
    size_of,
)
from instrument._guard import belongs_to_program
from instrument.operation import DroppedLine, OperationLine

__all__ = ["Journal"]

SEGMENT_BYTES = 64 * 1024**2
NEAR_BYTES = 1024**2
LOOK_EVERY_NS = 1_000_000_000
SLOW_WRITE_NS = 1_000_000
KEPT_FOR_NS = 30_000_000_000
MOST_SLOW_IN_A_ROW = 3
SLOW_AMONG = 16
_VANISHES_AT_MOST = 8
# what other writers may have added since, by far
_TAIL_BYTES = 1024**2
# other lines begin with their type
_OPERATION = b'{"timestamp":'
_SEGMENT_NAME = re.compile(r"(\d{4}-\d\d-\d\d)-(.+)-(\d{4,})\.jsonl")

Report = Callable[[str, str], None]
Seconds = Callable[[], float]
Nanoseconds = Callable[[], int]


class Journal:
    """Appends lines to the day's segment, and notices when that was deleted, moved or grew full.

    `report(what, where)` hears of what went wrong, and may be called often; `grown(size)` hears,
    at most once, that the log holds more than `max_bytes`. `clock` gives Unix seconds,
    `monotonic_ns` what `append` is told. What is untold in the `account` is told after the next
    line that can be written.
    """

    def __init__(
        self,
        log_dir: Path,
        *,
        fsync: bool,
        max_bytes: int,
        report: Report,
        grown: Callable[[int], None],
        account: Account | None = None,
        clock: Seconds = time.time,
        monotonic_ns: Nanoseconds = perf_counter_ns,
    ) -> None:
        self._directory = log_dir / "journal"
        self._fsync = fsync
        self._max_bytes = max_bytes
        self._report = report
        self._grown = grown
        self._account = account or Account()
        self._clock = clock
        self._monotonic_ns = monotonic_ns
        self._segment: OpenFile | None = None
        self._retired: list[OpenFile] = []
        self._torn = False
        self._is_due = False
        self._plain_until_ns = 0
        self._look_at_ns = 0
        self._retry_at_ns = 0
        self._keep_until_ns = 0
        self._keep_not_before_ns = 0
        self._slow_in_a_row = 0
        self._slow_at = -SLOW_AMONG
        # of all segments but the one that is written to
        self._bytes_elsewhere = 0
        self._is_near = False
        self._told_size = False

    def write(self, line: Struct, now_ns: int) -> None:  # noqa: C901 - calls let signals in
        """Append one line; count the operation that it tells of, written or not.

        `now_ns` is monotonic. Safe to call from threads, signal handlers and finalisers: what a
        handler raises meanwhile goes on to the program, with the line written once.
        """
        is_operation = type(line) is OperationLine
        written = False
        try:
            try:
                data = encode_lines([line])
            except Exception as error:
                data = encoded_mended(line, error)
            if len(data) > LINE_BYTES:
                data = encoded_shortened(line)
            segment = self._segment
            if segment is None or now_ns >= self._plain_until_ns:
                written = self.append(data, now_ns)
            else:
                # nothing is due
                try:
                    count = os.write(segment.descriptor, data)
                except OSError as error:
                    written = self._not_written(error, segment, data, now_ns)
                else:
                    written = count == len(data) or self._cut_short(segment, len(data) - count)
                    if _thread._count() and self._monotonic_ns() - now_ns > SLOW_WRITE_NS:
                        self._keep(now_ns)
        except BaseException:
            try:  # here, for in a call of ours a second one could come before it
                written = self._is_written(line, now_ns)
            except BaseException:
                written = self._is_written(line, now_ns)
                raise
            raise
        finally:
            # without a call, in which a signal handler could come between writing and counting
            if is_operation:
                if written:
                    self._account.recorded_count += 1
                else:
                    self._account.dropped_count += 1
                    self._account.untold_count += 1

    def append(self, line: bytes, now_ns: int) -> bool:
        """Hand `line`, which ends in a newline, to the kernel; return whether it took all of it.

        Does what is due besides.
        """
        if now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + LOOK_EVERY_NS
            self._look(now_ns)
            self._is_due, self._plain_until_ns = True, 0
        segment = self._segment or self._open(now_ns)
        if segment is None:
            return False
        is_due = self._is_due
        data = b"\n" + line if is_due and self._torn else line
        try:
            keeping = now_ns < self._keep_until_ns
            written = (self._kept if keeping else os.write)(segment.descriptor, data)
        except OSError as error:
            return self._not_written(error, segment, line, now_ns)
        if written != len(data):
            return self._cut_short(segment, len(data) - written)
        # threading.active_count() takes a lock that a signal handler may have interrupted
        if _thread._count() and not keeping and self._monotonic_ns() - now_ns > SLOW_WRITE_NS:
            self._keep(now_ns)
        if self._fsync:
            self._sync(segment)
        if is_due:
            self._see_to_the_rest(line, now_ns, closed_torn=data is not line)
        if self._is_near:
            self._see_size(_file_size(segment.path))
        # without a call, in which another thread could find that more is due
        is_plain = not self._is_due and not self._is_near and not self._fsync
        if is_plain and self._keep_until_ns <= now_ns:
            self._plain_until_ns = self._look_at_ns
        return True

    def _is_written(self, line: Struct, now_ns: int) -> bool:
        """Write a line if that has not been done; tell whether it stands there."""
        data = encoded(line)
        return self.holds(data) or self.append(data, now_ns)

    def holds(self, line: bytes) -> bool:
        """Tell whether `line`, in whose `append` an exception came up, was written all the same."""
        segment = self._segment
        if segment is None or not is_open(segment):
            return False
        tail = max(_TAIL_BYTES, 2 * len(line))
        # without its newline, which a full disk may have had no room for
        return line[:-1] in os.pread(segment.descriptor, tail, max(0, size_of(segment) - tail))

    def forget(self) -> None:
        """Let go of the descriptors without unlocking: in a forked child they are the parent's."""
        for segment in (self._segment, *self._retired):
            if segment is not None:
                close(segment)
        self._segment, self._retired = None, []

    def __del__(self) -> None:
        with suppress(Exception):  # the interpreter may be half gone
            self.forget()

    def _not_written(self, error: OSError, segment: OpenFile, line: bytes, now_ns: int) -> bool:
        if belongs_to_program(error):
            raise error
        if error.errno == errno.EBADF:
            if self._segment is segment:
                self._segment = None
            return self.append(line, now_ns)
        # another process may have been cut short there, which a look at the file's end tells
        self._look_at_ns = self._plain_until_ns = now_ns
        self._failed(error.strerror or str(error), segment.path)
        return False

    def _cut_short(self, segment: OpenFile, missing: int) -> bool:
        """Have what there is of a line closed before the next; tell whether it can be read."""
        self._torn = self._is_due = True
        self._plain_until_ns = 0
        self._failed("the line was cut short (is the disk full?)", segment.path)
        lacks_its_newline_alone = missing == 1
        if lacks_its_newline_alone and self._fsync:
            self._sync(segment)
        return lacks_its_newline_alone

    def _failed(self, what: str, where: str | Path) -> None:
        self._account.reason = what
        self._report(what, str(where))

    def _see_to_the_rest(self, line: bytes, now_ns: int, *, closed_torn: bool) -> None:
        """Do what is due once a line could be written: after a look, and after a failure."""
        if closed_torn:
            self._torn = False
        # a look is no part of what an operation costs
        looked = now_ns + LOOK_EVERY_NS == self._look_at_ns
        is_sampled = not looked and line.startswith(_OPERATION)
        if is_sampled:
            self._account.sample(self._monotonic_ns() - now_ns)
        # another thread may have torn a line meanwhile
        self._is_due = self._torn or not is_sampled
        if self._account.untold_count:
            self._tell_dropped(now_ns)

    def _tell_dropped(self, now_ns: int) -> None:
        """Leave a line about what could not be written; where that fails too, after a later one."""
        account, line, told = self._account, None, False
        # no call in between, so that nothing else can take the same ones
        count, account.untold_count = account.untold_count, 0
        if not count:
            return
        try:
            line = self._about(count)
            told = self.append(line, now_ns)
        except BaseException:
            try:
                told = line is not None and self.holds(line)
            except BaseException:  # as in `write`
                told = line is not None and self.holds(line)
                raise
            raise
        finally:
            if not told:
                account.untold_count += count

    def _about(self, count: int) -> bytes:
        timestamp = format_timestamp(int(self._clock() * 1e9))
        return encode_lines([DroppedLine(timestamp, count, self._account.reason, os.getpid())])

    def _keep(self, now_ns: int) -> None:
        """Keep the interpreter's lock in the next writes, if waiting for it makes them slow.

        One alone may have lost the processor: a second one among a few was waiting.
        """
        before, self._slow_at = self._slow_at, self._account.recorded_count
        if self._slow_at - before < SLOW_AMONG and now_ns >= self._keep_not_before_ns:
            _kept.load()
            self._keep_until_ns, self._plain_until_ns = now_ns + KEPT_FOR_NS, 0

    def _kept(self, descriptor: int, data: bytes) -> int:
        """Write with the lock kept; not again soon if the disk is slow, for the others waited."""
        began_ns = self._monotonic_ns()
        written = _kept.write(descriptor, data)
        if self._monotonic_ns() - began_ns <= SLOW_WRITE_NS:
            self._slow_in_a_row = 0
            return written
        # one alone may have lost the processor meanwhile
        self._slow_in_a_row += 1
        if self._slow_in_a_row >= MOST_SLOW_IN_A_ROW:
            self._keep_until_ns, self._keep_not_before_ns = 0, began_ns + KEPT_FOR_NS
        return written

    def _sync(self, segment: OpenFile) -> None:
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
            close(each)
        segment = self._segment
        if segment is None:
            return
        is_todays = segment.path.name.startswith(self._today())
        if (
            now_ns < self._keep_until_ns
            and is_todays
            and _kept.is_unchanged(segment, self._unremarkable_bytes())
        ):
            return
        found: os.stat_result | None = None
        try:
            found = os.stat(segment.path)
        except OSError as error:
            if belongs_to_program(error):
                raise
        if not is_open(segment) or found is None or not is_same(segment, found):
            self._segment = None
            self._retired.append(segment)
        elif found.st_size >= SEGMENT_BYTES or not is_todays:
            self._open(now_ns)
        else:
            self._torn = self._torn or not ends_whole(segment)
            self._see_size(found.st_size)

    def _open(self, now_ns: int) -> OpenFile | None:
        if now_ns < self._retry_at_ns:
            return None
        try:
            segment = self._open_segment()
        except OSError as error:
            if belongs_to_program(error):
                raise
            self._retry_at_ns = now_ns + LOOK_EVERY_NS
            self._failed(error.strerror or str(error), error.filename or self._directory)
            return None
        before, self._segment = self._segment, segment
        if before is not None:
            # a thread may be about to write through it, so it is closed at the next look
            self._retired.append(before)
        return segment

    def _open_segment(self) -> OpenFile:
        for _ in range(_VANISHES_AT_MOST):
            with suppress(FileNotFoundError):  # the directory went between the two
                return self._open_in(self._directory)
        return self._open_in(self._directory)

    def _open_in(self, directory: Path) -> OpenFile:
        make_private_directory(directory)
        day = self._today()
        number = self._latest(day)
        while True:
            path = directory / f"{day}-{_host()}-{number:04d}.jsonl"
            segment = _open_shared(path)
            if segment is not None:
                self._torn = not ends_whole(segment)
                self._is_due, self._plain_until_ns = True, 0
                return segment
            number += 1

    def _latest(self, day: str) -> int:
        """Return the number of the segment to write to."""
        number, size, total = 1, 0, 0
        for path in _segment_paths(self._directory.parent):
            bytes_here = _file_size(path)
            total += bytes_here
            name = _SEGMENT_NAME.fullmatch(path.name)
            if name is None or name.group(1) != day or name.group(2) != _host():
                continue
            if int(name.group(3)) >= number:
                number, size = int(name.group(3)), bytes_here
        is_full = size >= SEGMENT_BYTES
        here = 0 if is_full else size
        self._bytes_elsewhere = total - here
        self._see_size(here)
        return number + 1 if is_full else number

    def _unremarkable_bytes(self) -> int:
        """Return up to which size of the segment there is nothing to do about it."""
        if self._told_size:
            return SEGMENT_BYTES - 1
        return min(SEGMENT_BYTES - 1, self._max_bytes - self._bytes_elsewhere - NEAR_BYTES)

    def _see_size(self, here: int) -> None:
        """Tell once that the log is too large; near that, its size is looked at for every line."""
        if self._told_size:
            return
        size = self._bytes_elsewhere + here
        self._told_size = size > self._max_bytes
        self._is_near = not self._told_size and self._max_bytes - size < NEAR_BYTES
        if self._told_size:
            self._grown(size)

    def _today(self) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(self._clock()))


def _segment_paths(log_dir: Path) -> list[Path]:
    """Return the journal's segments in the order of their names; none where there is no journal."""
    try:
        names = os.listdir(log_dir / "journal")
    except OSError as error:
        if belongs_to_program(error):
            raise
        return []
    return [log_dir / "journal" / name for name in sorted(names) if name.endswith(".jsonl")]


def _open_shared(path: Path) -> OpenFile | None:
    """Open a segment under a shared lock; `None` where it is no file, or is being compacted."""
    try:
        return open_locked(path, exclusive=False)
    except (BlockingIOError, IsADirectoryError):
        return None


def _file_size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        if belongs_to_program(error):
            raise
        return 0


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", os.uname().nodename)[:64] or "host"
