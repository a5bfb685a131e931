"""What was spent of one budget, on record for every process that shares it.

<log_dir>/budgets/<name>/<generation>

A generation is a header, the state so far as JSON, and records behind it that all processes append,
each in one `write`. A record is let in or refused by what stands before it, by a rule that gives
the same answer to everyone who reads, so that nobody locks and nobody waits: whoever wants to spend
appends a reservation and reads on until it meets it; there is nothing to read where the file's
position says that nobody wrote before it. What a process reserved and never settled, because it
died, stays spent. Records that begin behind a generation's end do not count: their writers go on to
the next one, whose header is the state at that end. Of those that are over, empty files stay for a
while, so that whoever comes late makes none of them anew.
"""

from __future__ import annotations

import errno
import os
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter_ns

import msgspec
from msgspec import Struct

from instrument._clock import new_id, new_number
from instrument._files import (
    OpenFile,
    close,
    is_open,
    is_there,
    make_private_directory,
    open_appending,
    read_regular,
    write_private,
)
from instrument._guard import belongs_to_program
from instrument._ledger_records import (
    Header,
    Held,
    Name,
    State,
    encoded_name,
    filled,
    is_foreign,
    replayed,
    whole_records,
)

__all__ = ["Ledger", "foreign_records", "is_begun", "read_ledger", "remove_ledger"]

LOOK_EVERY_NS = 1_000_000_000
_CHUNK_BYTES = 1 << 16
_TRIES = 16
_OPEN_AT_MOST = 128
_NUMBERS_KEPT = 64


class Opened:
    """An open file that closes itself once nobody can be about to write to it any more.

    Unless it `is_lost`: the program has closed it, and its number may be that of the one in its
    place, which is the same file.
    """

    __slots__ = ("descriptor", "file", "is_lost")

    def __init__(self, file: OpenFile) -> None:
        self.file = file
        self.descriptor = file.descriptor
        self.is_lost = False

    def __del__(self) -> None:
        with suppress(Exception):  # the interpreter may be half gone
            if not self.is_lost:
                close(self.file)


class At(Struct, frozen=True, gc=False):
    """The generation that is written to, as far as it was read: up to `offset`.

    Records that begin behind `end` do not count.
    """

    opened: Opened
    number: int
    header: Header
    end: int
    offset: int
    state: State

    def after(self, length: int, state: State) -> At:
        return At(self.opened, self.number, self.header, self.end, self.offset + length, state)


class Ledger:
    """The ledger of one budget. Any thread, signal handler and fork may use it at any time.

    `opening` makes the header of a ledger that does not exist; without one that is an error. All
    methods raise `OSError` where the ledger cannot be read or written.
    """

    def __init__(
        self, directory: Path, opening: Callable[[], Header] | None, *, fsync: bool = False
    ) -> None:
        self.directory = directory
        self.opening = opening
        self._fsync = fsync
        self._at: At | None = None
        self._look_at_ns = 0

    def now(self) -> At:
        """Return the generation as far as it is known; look once a second whether it is there."""
        at = self._at
        now_ns = perf_counter_ns()
        if at is None or now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + LOOK_EVERY_NS
            if at is not None and not is_open(at.opened.file):
                at.opened.is_lost = True
            if at is None or at.opened.is_lost or not is_there(at.opened.file):
                at = self._at = self._opened(at)
        return at

    def open(self) -> State:
        """See to it that the ledger exists; return its state as far as it is known."""
        return self.now().state

    def header(self) -> Header:
        """Return what the ledger was opened with."""
        return self.now().header

    def caught_up(self) -> State:
        """Return the state with all records that are there now."""
        while True:
            at, _, is_over = self._read_on(self.now(), b"")
            if not is_over:
                return at.state
            self._go_on(at)

    def reserve(self, held: Held) -> int | None:
        """Reserve for a call; return the reservation's number, or `None` where it does not fit."""
        number = new_number()
        tokens, nanodollars, nanoseconds = held
        record = b"\nr,%x,%d,%d,%d;" % (number, tokens, nanodollars, nanoseconds)
        at = self._at or self.now()
        is_next = self._put(at, record)
        if not is_next:
            let_in = self._found(at, record, is_written=is_next is not None)
            return number if let_in else None
        state = at.state.reserved(tokens, nanodollars, nanoseconds)
        if state is None:
            self._at = at.after(len(record), at.state.refusing())
            return None
        # as `after` does it
        end = at.offset + len(record)
        self._at = At(at.opened, at.number, at.header, at.end, end, state)
        return number

    def reserve_anyway(self, held: Held) -> int:
        """Reserve for a call whether it fits or not; return the reservation's number."""
        number = new_number()
        self._post(b"\nf,%x,%d,%d,%d;" % (number, *held))
        return number

    def give_back(self, number: int, held: Held) -> None:
        """Take a reservation back, of a call that never started."""
        self._post(b"\nu,%x,%d,%d,%d;" % (number, *held))

    def settle(self, number: int, held: Held, used: Held, name: Name, *, unpriced: int) -> None:
        """Put what a call used in the place of what it had reserved."""
        at = self.now()
        if at.state.may_name(name.number):
            self._post(b"\nn,%x,%b,%b;" % (new_number(), name.number.encode(), encoded_name(name)))
            at = self.now()
        end = b"%b,%d;" % (name.number.encode(), unpriced)
        record = b"\ns,%x,%d,%d,%d,%d,%d,%d,%b" % (number, *held, *used, end)
        is_next = self._put(at, record)
        if is_next:
            state = at.state.settled(held, used, name.number, unpriced)
            self._at = at.after(len(record), state)
        else:
            self._found(at, record, is_written=is_next is not None)

    def limit(self, limits: tuple[int | None, ...]) -> None:
        """Have these limits from now on, if they are others."""
        if filled(limits) != self.caught_up().limits:
            told = ",".join("" if each is None else str(each) for each in limits)
            self._post(b"\nl,%x,%b;" % (new_number(), told.encode()))

    def mark(self, session_id: str) -> None:
        """Note that a call of this session was refused."""
        if session_id not in self.now().state.hit:
            self._post(b"\nh,%x,%b;" % (new_number(), session_id.encode()))

    def _post(self, record: bytes) -> bool:
        """Append a record; return whether it was let in."""
        at = self._at or self.now()
        return self._found(at, record, is_written=self._put(at, record) is not None)

    def _put(self, at: At, record: bytes) -> bool | None:
        """Append a record; tell whether it is the next one behind those that `at` knows of.

        `None`: it was not written, for the program closed the file behind our back.
        """
        descriptor = at.opened.descriptor
        try:
            if os.write(descriptor, record) != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._fsync:
                os.fsync(descriptor)
            # Where the last write through this descriptor ended: ours, or a later one of another
            # thread or a fork. Then it is farther, and so it is if others wrote before.
            end = os.lseek(descriptor, 0, os.SEEK_CUR)
        except OSError as error:
            if belongs_to_program(error) or error.errno != errno.EBADF:
                raise
            at.opened.is_lost = True
            self._at = None
            return None
        return end - at.offset == len(record) and at.offset < at.end

    def _found(self, at: At, record: bytes, *, is_written: bool) -> bool:
        """Read on from `at` to a record; return whether it was let in.

        It is written again where it is behind the generation's end.
        """
        for _ in range(_TRIES):
            if is_written:
                at, met, _ = self._read_on(at, record[1:])
                if met is not None:
                    return met
                self._go_on(at)
            at = self._at or self.now()
            is_written = self._put(at, record) is not None
        raise OSError(errno.EIO, "the records of a budget's ledger get lost", str(self.directory))

    def _read_on(self, at: At, record: bytes) -> tuple[At, bool | None, bool]:
        """Read what others wrote, up to `record` at least.

        Return where that leads to, whether the record was let in (`None`: it was not met), and
        whether the generation is over.
        """
        met, is_over = None, False
        while not is_over:
            data = os.pread(at.opened.descriptor, _CHUNK_BYTES, at.offset)
            whole, is_over = whole_records(data, at.end - at.offset)
            state, found = replayed(at.state, whole, record)
            met = found if met is None else met
            at = at.after(len(whole), state)
            if len(data) < _CHUNK_BYTES or not whole:
                break
        self._at = at
        return at, met, is_over

    def _opened(self, before: At | None) -> At:
        """Open the latest generation; one that was deleted goes on from what is known of it."""
        for _ in range(_TRIES):
            number = _latest(self.directory)
            if number is None:
                # and look again: others may have gone on from one of that number long ago
                self._make_first(before)
                continue
            try:
                found = _open(self.directory, number)
            except FileNotFoundError:  # the next one took its place
                continue
            self._rest_of_others()
            return found
        raise FileNotFoundError(errno.ENOENT, "the ledger vanishes", str(self.directory))

    def _rest_of_others(self) -> None:
        """Let those ledgers close their file that opened it longest ago; they open it anew."""
        _opened_last.append(weakref.ref(self))
        while len(_opened_last) > _OPEN_AT_MOST:
            other = _opened_last.popleft()()
            if other is not None and other is not self:
                other._at = None

    def _make_first(self, before: At | None) -> None:
        if before is not None:
            header, number = before.header.after(before.state), before.number + 1
        elif self.opening is not None:
            header, number = self.opening(), 1
        else:
            raise FileNotFoundError(
                errno.ENOENT, "the budget's ledger is gone", str(self.directory)
            )
        _make(self.directory, number, header)

    def _go_on(self, at: At) -> None:
        """Go on to the next generation, made by whoever comes first."""
        if self._at is not at:
            return  # another thread was there before
        latest = _latest(self.directory)
        if latest is None or latest <= at.number:
            latest = at.number + 1
            _make(self.directory, latest, at.header.after(at.state))
            for number in _numbers(self.directory):
                if number < at.number:
                    _leave_behind(_path(self.directory, number), at.number - number)
        self._at = self._opened(None)


def _leave_behind(path: Path, age: int) -> None:
    """Empty a generation that is over, whose number nobody must make anew, however late.

    Who has it open goes on to read it. After many others nobody can be about to make it.
    """
    with suppress(FileNotFoundError):
        if age > _NUMBERS_KEPT:
            os.unlink(path)
        elif os.path.getsize(path):
            temporary = path.with_name(f".{new_id()}.tmp")
            write_private(temporary, b"")
            os.replace(temporary, path)


def read_ledger(directory: Path) -> tuple[Header, State]:
    """Return header and state of a ledger as they are now, without writing anything.

    Raises `OSError` where there is none that can be read.
    """
    header, state, records = _read(directory)
    whole, _ = whole_records(records, header.generation_bytes)
    return header, replayed(state, whole, b"")[0]


def is_begun(directory: Path) -> bool:
    """Tell whether there is any generation, as nobody's who was killed before the first."""
    return _latest(directory) is not None


def foreign_records(directory: Path) -> int:
    """Count what is neither a record nor torn, as killed processes leave it; as `read_ledger`."""
    _, state, records = _read(directory)
    return sum(is_foreign(state, piece) for piece in records.split(b"\n"))


def _read(directory: Path) -> tuple[Header, State, bytes]:
    """Return what the latest generation begins with, and all that is behind."""
    for _ in range(_TRIES):
        number = _latest(directory)
        if number is None:
            break
        try:
            data = read_regular(_path(directory, number))
        except FileNotFoundError:  # the next one took its place
            continue
        if not data:  # another one did
            continue
        length, header, state = _begun(data, directory)
        return header, state, data[length:]
    raise FileNotFoundError(errno.ENOENT, "no ledger of a budget", str(directory))


def remove_ledger(directory: Path) -> None:
    """Remove a ledger; raises `OSError`."""
    for name in os.listdir(directory):
        os.unlink(directory / name)
    os.rmdir(directory)


def _open(directory: Path, number: int) -> At:
    opened = Opened(open_appending(_path(directory, number)))
    data = more = os.pread(opened.descriptor, _CHUNK_BYTES, 0)
    while b"\n" not in data and len(more) == _CHUNK_BYTES:
        more = os.pread(opened.descriptor, _CHUNK_BYTES, len(data))
        data += more
    if not data:
        raise FileNotFoundError(errno.ENOENT, "a generation that is over", str(directory))
    length, header, state = _begun(data, directory)
    return At(opened, number, header, length + header.generation_bytes, length, state)


def _begun(data: bytes, directory: Path) -> tuple[int, Header, State]:
    first = data.partition(b"\n")[0]
    try:
        if not first.endswith(b";"):
            raise ValueError("its first line is torn")
        header = msgspec.json.decode(first[:-1], type=Header)
    except ValueError as error:
        cure = "remove its directory to begin anew"
        raise OSError(
            errno.EINVAL, f"a budget's ledger is damaged ({error}): {cure}", str(directory)
        ) from None
    return len(first), header, State.of(header)


def _make(directory: Path, number: int, header: Header) -> None:
    """Make a generation, unless another process is quicker; then what it made counts."""
    make_private_directory(directory)
    temporary = directory / f".{new_id()}.tmp"
    try:
        write_private(temporary, msgspec.json.encode(header) + b";")
        os.link(temporary, _path(directory, number))
    except FileExistsError:
        pass
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _latest(directory: Path) -> int | None:
    return max(_numbers(directory), default=None)


def _numbers(directory: Path) -> list[int]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [int(name) for name in names if name.isascii() and name.isdigit()]


def _path(directory: Path, number: int) -> Path:
    return directory / f"{number:06d}"


_opened_last: deque[weakref.ref[Ledger]] = deque()
