"""The rule of a budget's ledger: what its records mean, the same to everyone who reads them.

`r` reserve if it fits, `f` reserve in any case, `s` settle, `u` give back, `l` other limits, `h` a
session that was refused, `n` a name for a number: `\\nr,<id>,<tokens>,<nanodollars>,<ns>;`
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from instrument._clean import whole_text

__all__ = [
    "LONGEST_NAME",
    "NOTHING",
    "Amounts",
    "Header",
    "Held",
    "Kind",
    "Name",
    "State",
    "cut",
    "encoded_name",
    "filled",
    "is_foreign",
    "name_of",
    "number_of",
    "replayed",
    "whole_records",
]

GENERATION_BYTES = 256 * 1024
LONGEST_NAME = 200
_UNLIMITED = 1 << 62
_KEPT_AT_MOST = 256


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

    def after(self, state: State) -> Header:
        """Return what the next generation begins with."""
        told: dict[str, Any] = {
            "spent": Amounts(state.operations, state.tokens, state.nanodollars, state.nanoseconds),
            "refused": state.refused,
            "kinds": state.kinds,
            "hit": state.hit,
        }
        return replace(self.limited(state.limits), **told)


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

    @classmethod
    def of(cls, header: Header) -> State:
        """Return the state that a generation begins with."""
        spent = header.spent
        return cls(
            filled(header.limits),
            spent.operations,
            spent.tokens,
            spent.nanodollars,
            spent.nanoseconds,
            header.refused,
            header.kinds,
            header.hit,
        )

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

    def settled(self, held: Held, used: Held, number: str, unpriced: int) -> State:
        """Return the state with what a call of a kind used in the place of what it held."""
        tokens, nanodollars, nanoseconds = used
        kinds, old = self.kinds, self.kinds.get(number)
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
        return State(
            self.limits,
            self.operations,
            self.tokens + tokens - held[0],
            self.nanodollars + nanodollars - held[1],
            self.nanoseconds + nanoseconds - held[2],
            self.refused,
            kinds,
            self.hit,
        )

    def refusing(self) -> State:
        """Return the state with another call refused."""
        return replace(self, refused=self.refused + 1)

    def may_name(self, number: str) -> bool:
        """Tell whether a kind has no name yet, and there is room for one."""
        return number not in self.kinds and len(self.kinds) < _KEPT_AT_MOST


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


def whole_records(data: bytes, room: int) -> tuple[bytes, bool]:
    """Return the whole records that begin within `room` bytes, and whether others are behind."""
    if len(data) > room:
        end = data.find(b"\n", max(room, 0))
        if end >= 0:
            return data[:end], True
    if data.endswith(b";"):
        return data, False
    # somebody's write that is under way, or torn for good
    return data[: max(data.rfind(b"\n"), 0)], False


def _reserve(state: State, fields: list[bytes]) -> tuple[State, bool]:
    reserved = state.reserved(int(fields[2]), int(fields[3]), int(fields[4]))
    return (state.refusing(), False) if reserved is None else (reserved, True)


def _force(state: State, fields: list[bytes]) -> tuple[State, bool]:
    return state.plus(1, int(fields[2]), int(fields[3]), int(fields[4])), True


def _give_back(state: State, fields: list[bytes]) -> tuple[State, bool]:
    return state.plus(-1, -int(fields[2]), -int(fields[3]), -int(fields[4])), True


def _settle(state: State, fields: list[bytes]) -> tuple[State, bool]:
    held = int(fields[2]), int(fields[3]), int(fields[4])
    used = int(fields[5]), int(fields[6]), int(fields[7])
    return state.settled(held, used, fields[8].decode(), int(fields[9])), True


def _name(state: State, fields: list[bytes]) -> tuple[State, bool]:
    service, operation, model = msgspec.json.decode(b",".join(fields[3:]))
    if len(state.kinds) >= _KEPT_AT_MOST:
        return state, True
    kinds = {fields[2].decode(): Kind(service, operation, model), **state.kinds}
    return replace(state, kinds=kinds), True


def _limit(state: State, fields: list[bytes]) -> tuple[State, bool]:
    limits = tuple(int(field) if field else None for field in fields[2:])
    return replace(state, limits=filled(limits)), True


def _mark(state: State, fields: list[bytes]) -> tuple[State, bool]:
    session_id = fields[2].decode()
    if session_id in state.hit or len(state.hit) >= _KEPT_AT_MOST:
        return state, True
    return replace(state, hit=(*state.hit, session_id)), True


_STEPS: dict[bytes, Callable[[State, list[bytes]], tuple[State, bool]]] = {
    b"r": _reserve,
    b"f": _force,
    b"u": _give_back,
    b"s": _settle,
    b"n": _name,
    b"l": _limit,
    b"h": _mark,
}
_TORN = re.compile(rb"(?:[%b](?:,[^\0-\x1f]*)?)?" % b"".join(_STEPS))


def is_foreign(state: State, piece: bytes) -> bool:
    """Tell whether what stands between newlines is neither a record nor torn."""
    if not piece.endswith(b";"):
        return not _TORN.fullmatch(piece)
    fields = piece[:-1].split(b",")
    try:
        _STEPS[fields[0]](state, fields)
    except (KeyError, IndexError, ValueError):
        return True
    return False


def encoded_name(name: Name) -> bytes:
    """Return a name as its record has it."""
    told = msgspec.json.encode([name.service, name.operation, name.model])
    # a semicolon is the end of a record
    return told.replace(b";", b"\\u003b")


def filled(limits: tuple[int | None, ...]) -> tuple[int, int, int, int]:
    """Return limits with a number for those that there are not."""
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
