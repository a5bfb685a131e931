"""Time as the journal writes it, and ids that no other process draws."""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections.abc import Iterator
from typing import Protocol

__all__ = ["Clock", "Ids", "format_timestamp", "new_id", "new_number", "new_session_id", "reseed"]

_SECOND_NS = 1_000_000_000
# two hex digits are put together with the rest in half the time that formatting all takes
_HEX = tuple(f"{number:02x}" for number in range(256))
_DIGITS = tuple(f"{number:03}" for number in range(1000))
_LAST_DIGITS = tuple(f"{each}Z" for each in _DIGITS)


class Clock(Protocol):
    """Where time comes from: the module `time`, but for tests."""

    def time_ns(self) -> int: ...
    def perf_counter_ns(self) -> int: ...


class Ids(Protocol):
    """Where ids come from: this module, but for tests."""

    def new_id(self) -> str: ...
    def new_session_id(self) -> str: ...


def new_id() -> str:
    """Return 16 hex digits: a random start of this process, counted up."""
    start, numbers, starts = _ids
    number = next(numbers)
    if number < 256:
        return start + _HEX[number]
    _go_on(starts)
    return new_id()


def new_number() -> int:
    """Return a number below 2**63: a random start of this process, counted up."""
    return next(_numbers)


def new_session_id() -> str:
    """Return `session_<unix seconds>_<8 hex>`."""
    return f"session_{int(time.time())}_{os.urandom(4).hex()}"


def reseed() -> None:
    """Draw new starts, so that a forked child does not repeat its parent's ids and numbers."""
    global _numbers
    # 62 bits: counting up, ids stay at 16 digits, and numbers C integers
    start, number = (each >> 2 for each in struct.unpack("QQ", os.urandom(16)))
    _go_on(itertools.count(start >> 8), start & 0xFF)
    _numbers = itertools.count(number)


def _go_on(starts: Iterator[int], number: int = 0) -> None:
    """Take the next start, which nobody else gets who comes here meanwhile."""
    global _ids
    _ids = (f"{next(starts):014x}", itertools.count(number), starts)


def format_timestamp(unix_ns: int) -> str:
    """Return ISO 8601 in UTC with microseconds and `Z`."""
    global _second
    start_ns, text = _second
    passed_ns = unix_ns - start_ns
    if passed_ns < _SECOND_NS and passed_ns >= 0:  # in one chain, it would take longer
        # a format with a width takes three times as long
        return f"{text}{_DIGITS[passed_ns // 1_000_000]}{_LAST_DIGITS[passed_ns // 1000 % 1000]}"
    seconds = unix_ns // _SECOND_NS
    _second = (seconds * _SECOND_NS, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds)))
    return format_timestamp(unix_ns)


_ids: tuple[str, Iterator[int], Iterator[int]]
_numbers: Iterator[int]
reseed()
_second = (0, "1970-01-01T00:00:00.")
