"""Time as the journal writes it, and ids that no other process draws."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from typing import Protocol

__all__ = ["Clock", "Ids", "format_timestamp", "new_id", "new_session_id", "reseed"]

_MICROSECONDS = 1_000_000


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
    return "%016x" % next(_ids)  # noqa: UP031 - an f-string takes twice as long here


def new_session_id() -> str:
    """Return `session_<unix seconds>_<8 hex>`."""
    return f"session_{int(time.time())}_{os.urandom(4).hex()}"


def reseed() -> None:
    """Draw a new start, so that a forked child does not repeat its parent's ids."""
    global _ids
    _ids = _fresh_ids()


def format_timestamp(unix_ns: int) -> str:
    """Return ISO 8601 in UTC with microseconds and `Z`."""
    global _second
    start_us, text = _second
    microseconds = unix_ns // 1000 - start_us
    if 0 <= microseconds < _MICROSECONDS:
        return "%s%06dZ" % (text, microseconds)  # noqa: UP031 - as above
    seconds = unix_ns // 1_000_000_000
    _second = (seconds * _MICROSECONDS, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds)))
    return format_timestamp(unix_ns)


def _fresh_ids() -> Iterator[int]:
    # 62 bits, so that counting up stays in C integers of 64 bits
    return itertools.count(int.from_bytes(os.urandom(8), "big") >> 2)


_ids = _fresh_ids()
_second = (0, "1970-01-01T00:00:00.")
