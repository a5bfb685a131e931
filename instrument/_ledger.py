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

`r` reserve if it fits, `f` reserve in any case, `s` settle, `u` give back, `l` other limits, `h` a
session that was refused, `n` a name for a number: `\\nr,<id>,<tokens>,<nanodollars>,<ns>;`
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from instrument._clean import whole_text
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

__all__ = [
    "LONGEST_NAME",
    "NOTHING",
    "Amounts",
    "Header",
    "Held",
    "Kind",
    "Ledger",
    "Name",
    "State",
    "cut",
    "foreign_records",
    "is_begun",
    "name_of",
    "number_of",
    "read_ledger",
    "remove_ledger",
]

GENERATION_BYTES = 256 * 1024
LOOK_EVERY_NS = 1_000_000_000
LONGEST_NAME = 200
_CHUNK_BYTES = 1 << 16
_TRIES = 16
_UNLIMITED = 1 << 62
_KEPT_AT_MOST = 256
_OPEN_AT_MOST = 128
_NUMBERS_KEPT = 64


class Amounts(Struct, frozen=True, array_like=True, gc=False):
    """Operations, tokens, billionths of a US dollar, and nanoseconds."""

    operations: int = 0
    tokens: int = 0
    nanodollars: int = 0
    nanoseconds: int = 0


Held = tuple[int, int, int]
"""Tokens, billionths of a US dollar, and nanoseconds that a call holds while it runs."""

NOTHING: Held = (0, 0, 0)


class Kind(Struct, frozen=True, array_like=True):
    """What operations of one kind came to that have ended; `unpriced`: how many had no price
    and are not in `nanodollars`.
    """

    service: str
    operation: str
    model: str | None
    operations: int = 0
    tokens: int = 0
    nanodollars: int = 0
    nanoseconds: int = 0
    unpriced: int = 0


class Name(Struct, frozen=True, gc=False):
    """A kind of operations as a ledger has it, and the `number` that stands for it in records."""

    number: str
    service: str
    operation: str
    model: str | None


class Header(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a generation begins with.

    `limits` has `None` where there is none. `within` names the ledgers of the budgets around it,
    `hit` names the sessions of which a call was refused.
    """

    v: int = 1
    name: str
    session_id: str | None = None
    per: str | None = None
    since: str | None = None
    on_exceed: str = "raise"
    within: tuple[str, ...] = ()
    limits: tuple[int | None, int | None, int | None, int | None]
    spent: Amounts = Amounts()
    refused: int = 0
    kinds: dict[str, Kind] = {}
    hit: tuple[str, ...] = ()
    generation_bytes: int = GENERATION_BYTES

    def limited(self, limits: tuple[int, int, int, int]) -> Header:
        """Return the same with other limits."""
        first, second, third, fourth = (None if each == _UNLIMITED else each for each in limits)
        return replace(self, limits=(first, second, third, fourth))


class State(Struct, frozen=True, gc=False):
    """What the records so far come to."""

    limits: tuple[int, int, int, int]
    operations: int = 0
    tokens: int = 0
    nanodollars: int = 0
    nanoseconds: int = 0
    refused: int = 0
    kinds: dict[str, Kind] = {}
    hit: tuple[str, ...] = ()

    def reserved(self, tokens: int, nanodollars: int, nanoseconds: int) -> State | None:
        """Return the state with another call, which takes 1 at least of each; `None`: too much."""
        of_operations, of_tokens, of_nanodollars, of_nanoseconds = self.limits
        if (
            self.operations >= of_operations
            or self.tokens + (tokens or 1) > of_tokens
            or self.nanodollars + (nanodollars or 1) > of_nanodollars
            or self.nanoseconds + (nanoseconds or 1) > of_nanoseconds
        ):
            return None
        return self.plus(1, tokens, nanodollars, nanoseconds)

    def lacks(self, *held: int) -> int | None:
        """Return which limit another call would be beyond, if any."""
        spent = self.tokens, self.nanodollars, self.nanoseconds
        wanted = [had + (more or 1) for had, more in zip(spent, held, strict=True)]
        beyond = zip((self.operations + 1, *wanted), self.limits, strict=True)
        return next((which for which, (sum_, most) in enumerate(beyond) if sum_ > most), None)

    def plus(self, operations: int, tokens: int, nanodollars: int, nanoseconds: int) -> State:
        """Return the state with so much more spent."""
        return State(
            self.limits,
            self.operations + operations,
            self.tokens + tokens,
            self.nanodollars + nanodollars,
            self.nanoseconds + nanoseconds,
            self.refused,
            self.kinds,
            self.hit,
        )


class Opened:
    """An open file that closes itself once nobody can be about to write to it any more."""

    __slots__ = ("descriptor", "file")

    def __init__(self, file: OpenFile) -> None:
        self.file = file
        self.descriptor = file.descriptor

    def __del__(self) -> None:
        with suppress(Exception):  # the interpreter may be half gone
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
            if at is None or not is_open(at.opened.file) or not is_there(at.opened.file):
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
            self._at = at.after(len(record), _refused(at.state))
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
        known = at.state.kinds
        if name.number not in known and len(known) < _KEPT_AT_MOST:
            self._post(b"\nn,%x,%b,%b;" % (new_number(), name.number.encode(), _told(name)))
            at = self.now()
        end = b"%b,%d;" % (name.number.encode(), unpriced)
        record = b"\ns,%x,%d,%d,%d,%d,%d,%d,%b" % (number, *held, *used, end)
        is_next = self._put(at, record)
        if is_next:
            state, _ = _settle(at.state, held, used, name.number, unpriced)
            self._at = at.after(len(record), state)
        else:
            self._found(at, record, is_written=is_next is not None)

    def limit(self, limits: tuple[int | None, ...]) -> None:
        """Have these limits from now on, if they are others."""
        if _limits(limits) != self.caught_up().limits:
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
            whole, is_over = _whole(data, at.end - at.offset)
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
            header, number = _header_of(before), before.number + 1
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
            _make(self.directory, latest, _header_of(at))
            for number in _numbers(self.directory):
                if number < at.number:
                    _leave_behind(_path(self.directory, number), at.number - number)
        self._at = self._opened(None)


def replayed(state: State, data: bytes, record: bytes) -> tuple[State, bool | None]:
    """Return the state after all records in `data`, and whether `record`, if met, was let in."""
    met = None
    for piece in data.split(b"\n"):
        if piece.endswith(b";"):  # others are torn
            fields = piece[:-1].split(b",")
            try:
                state, let_in = _STEPS[fields[0]](state, fields)
            except (KeyError, IndexError, ValueError):  # nothing that we wrote
                continue
            if piece == record:
                met = let_in
    return state, met


def _whole(data: bytes, room: int) -> tuple[bytes, bool]:
    """Return the whole records that begin within `room` bytes, and whether others are behind."""
    if len(data) > room:
        cut = data.find(b"\n", max(room, 0))
        if cut >= 0:
            return data[:cut], True
    if data.endswith(b";"):
        return data, False
    # somebody's write that is under way, or torn for good
    return data[: max(data.rfind(b"\n"), 0)], False


def _settle(state: State, held: Held, used: Held, number: str, unpriced: int) -> tuple[State, bool]:
    tokens, nanodollars, nanoseconds = used
    kinds, old = state.kinds, state.kinds.get(number)
    if old is not None:
        kind = Kind(
            old.service,
            old.operation,
            old.model,
            old.operations + 1,
            old.tokens + tokens,
            old.nanodollars + (0 if unpriced else nanodollars),
            old.nanoseconds + nanoseconds,
            old.unpriced + unpriced,
        )
        kinds = {**kinds, number: kind}
    spent = State(
        state.limits,
        state.operations,
        state.tokens + tokens - held[0],
        state.nanodollars + nanodollars - held[1],
        state.nanoseconds + nanoseconds - held[2],
        state.refused,
        kinds,
        state.hit,
    )
    return spent, True


def _reserve_told(state: State, fields: list[bytes]) -> tuple[State, bool]:
    reserved = state.reserved(int(fields[2]), int(fields[3]), int(fields[4]))
    return (_refused(state), False) if reserved is None else (reserved, True)


def _refused(state: State) -> State:
    return replace(state, refused=state.refused + 1)


def _force(state: State, fields: list[bytes]) -> tuple[State, bool]:
    return state.plus(1, int(fields[2]), int(fields[3]), int(fields[4])), True


def _give_back(state: State, fields: list[bytes]) -> tuple[State, bool]:
    return state.plus(-1, -int(fields[2]), -int(fields[3]), -int(fields[4])), True


def _settle_told(state: State, fields: list[bytes]) -> tuple[State, bool]:
    held = int(fields[2]), int(fields[3]), int(fields[4])
    used = int(fields[5]), int(fields[6]), int(fields[7])
    return _settle(state, held, used, fields[8].decode(), int(fields[9]))


def _name(state: State, fields: list[bytes]) -> tuple[State, bool]:
    service, operation, model = msgspec.json.decode(b",".join(fields[3:]))
    if len(state.kinds) >= _KEPT_AT_MOST:
        return state, True
    kinds = {fields[2].decode(): Kind(service, operation, model), **state.kinds}
    return replace(state, kinds=kinds), True


def _limit(state: State, fields: list[bytes]) -> tuple[State, bool]:
    limits = tuple(int(field) if field else None for field in fields[2:])
    return replace(state, limits=_limits(limits)), True


def _mark(state: State, fields: list[bytes]) -> tuple[State, bool]:
    session_id = fields[2].decode()
    if session_id in state.hit or len(state.hit) >= _KEPT_AT_MOST:
        return state, True
    return replace(state, hit=(*state.hit, session_id)), True


_STEPS: dict[bytes, Callable[[State, list[bytes]], tuple[State, bool]]] = {
    b"r": _reserve_told,
    b"f": _force,
    b"u": _give_back,
    b"s": _settle_told,
    b"n": _name,
    b"l": _limit,
    b"h": _mark,
}


_TORN = re.compile(rb"(?:[%b](?:,[^\0-\x1f]*)?)?" % b"".join(_STEPS))


def _told(name: Name) -> bytes:
    told = msgspec.json.encode([name.service, name.operation, name.model])
    # a semicolon is the end of a record
    return told.replace(b";", b"\\u003b")


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
    whole, _ = _whole(records, header.generation_bytes)
    return header, replayed(state, whole, b"")[0]


def is_begun(directory: Path) -> bool:
    """Tell whether there is any generation, as nobody's who was killed before the first."""
    return _latest(directory) is not None


def foreign_records(directory: Path) -> int:
    """Count what is neither a record nor torn, as killed processes leave it; as `read_ledger`."""
    _, state, records = _read(directory)
    return sum(_is_foreign(state, piece) for piece in records.split(b"\n"))


def _is_foreign(state: State, piece: bytes) -> bool:
    if not piece.endswith(b";"):
        return not _TORN.fullmatch(piece)
    fields = piece[:-1].split(b",")
    try:
        _STEPS[fields[0]](state, fields)
    except (KeyError, IndexError, ValueError):
        return True
    return False


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
    spent = header.spent
    return (
        len(first),
        header,
        State(
            _limits(header.limits),
            spent.operations,
            spent.tokens,
            spent.nanodollars,
            spent.nanoseconds,
            header.refused,
            header.kinds,
            header.hit,
        ),
    )


def _header_of(at: At) -> Header:
    state = at.state
    told: dict[str, Any] = {
        "spent": Amounts(state.operations, state.tokens, state.nanodollars, state.nanoseconds),
        "refused": state.refused,
        "kinds": state.kinds,
        "hit": state.hit,
    }
    return replace(at.header.limited(state.limits), **told)


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


def _limits(limits: tuple[int | None, ...]) -> tuple[int, int, int, int]:
    first, second, third, fourth = (_UNLIMITED if each is None else each for each in limits)
    return first, second, third, fourth


@lru_cache(maxsize=4096)
def name_of(service: str, operation: str, model: str | None) -> Name:
    """Return how a kind of operations is named, whatever its names are."""
    service, operation, model = cut(service), cut(operation), model and cut(model)
    return Name(number_of(service, operation, model), service, operation, model)


def cut(name: str) -> str:
    """Return a name as the ledger has it."""
    return whole_text(name[:LONGEST_NAME])


def number_of(service: str, operation: str, model: str | None) -> str:
    """Return what stands for a kind of operation in the records."""
    told = "\0".join((service, operation, model or "")).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(told, digest_size=6).hexdigest()


_opened_last: deque[weakref.ref[Ledger]] = deque()
