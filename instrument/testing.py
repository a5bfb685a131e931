"""For tests of programs that use `instrument`: a log, time and ids of their own."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, overload

from instrument import _clock, _config, carrier, context
from instrument.errors import ConfigurationError, ConfigurationTypeError
from instrument.log import UsageLog
from instrument.operation import Operation, SessionStats

__all__ = ["CapturedOperations", "CountingIds", "FakeClock", "capture"]

_VARIABLES = ("INSTRUMENT_DIR", *carrier.HANDED_DOWN)
_START = datetime(2026, 1, 1, tzinfo=UTC)
_END_NS = 253_402_300_800_000_000_000  # the year 10000, which timestamps cannot hold
_MOST_SECONDS = _END_NS // 10**9
_SECONDS = "a number of seconds from 0, or a timedelta, that ends before the year 10000"


class FakeClock:
    """A clock that stands still until `tick` moves it, for `capture(clock=...)`.

    It begins at `start`, an aware datetime, and counts microseconds. Any thread may read and move
    it; `tick` also serves as the `sleep` of what is tested. A process forked meanwhile goes on
    with a copy.
    Raises `ConfigurationError` for a `start` without a zone.
    """

    def __init__(self, start: datetime = _START) -> None:
        if not isinstance(start, datetime):
            raise ConfigurationTypeError("FakeClock start", start, "an aware datetime")
        if start.utcoffset() is None:
            raise ConfigurationError("FakeClock start", start, "an aware datetime: tzinfo=UTC")
        self._now_ns = _nanoseconds(start - datetime.fromtimestamp(0, UTC))
        self._lock = threading.Lock()

    def tick(self, seconds: float | timedelta) -> None:
        """Let time pass. Raises `ConfigurationError` for what would turn it back."""
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float, timedelta)):
            raise ConfigurationTypeError("tick", seconds, _SECONDS)
        passed = seconds if isinstance(seconds, timedelta) else _passed(seconds)
        with self._lock:
            after_ns = self._now_ns + _nanoseconds(passed)
            if not self._now_ns <= after_ns < _END_NS:
                raise ConfigurationError("tick", seconds, _SECONDS)
            self._now_ns = after_ns

    def now(self) -> datetime:
        """Return what time it is: aware, in UTC."""
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self._now_ns // 1000)

    def time_ns(self) -> int:
        """Return what time it is, in nanoseconds since 1970, as `time.time_ns` does."""
        return self._now_ns

    def perf_counter_ns(self) -> int:
        """Return the same: nobody sets this clock, so it is monotonic too."""
        return self._now_ns

    def __repr__(self) -> str:
        return f"<FakeClock {self.now().isoformat()}>"


class CountingIds:
    """Ids in the order in which they are asked for, for `capture(ids=...)`.

    Operations are 0000000000000001, 0000000000000002, ...; sessions, the ambient one included, are
    session_0_00000001, session_0_00000002, ... Threads that begin at once are counted in the order
    in which they happen to come. A process forked meanwhile draws ids as always, so that none is
    there twice.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._operations = itertools.count(1)
        self._sessions = itertools.count(1)

    def new_id(self) -> str:
        """Return the id of the next operation."""
        return f"{next(self._operations):016d}" if self._is_here() else _clock.new_id()

    def new_session_id(self) -> str:
        """Return the id of the next session."""
        if not self._is_here():
            return _clock.new_session_id()
        return f"session_0_{next(self._sessions):08d}"

    def _is_here(self) -> bool:
        return os.getpid() == self._pid


class CapturedOperations(Sequence[Operation]):
    """The operations finished since `capture()`, in start order: a sequence that grows.

    `log` is the captured log, for everything else that can be asked of one. It lives as long as
    this object, after the block too.
    """

    def __init__(self, log_dir: Path) -> None:
        self.log: UsageLog = UsageLog(log_dir)
        self.log_dir: Path = log_dir
        weakref.finalize(self, _remove, log_dir, os.getpid())

    @overload
    def __getitem__(self, index: int) -> Operation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Operation]: ...
    def __getitem__(self, index: int | slice) -> Operation | Sequence[Operation]:
        return self.log.operations()[index]

    def __len__(self) -> int:
        return len(self.log.operations())

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.log.operations())  # one reading, where the mixin's would read for each

    def __eq__(self, other: object) -> bool:
        return list(self) == other if isinstance(other, list) else self is other

    def __repr__(self) -> str:
        return f"<CapturedOperations {list(self)!r}>"

    def stats(self, session_id: str) -> SessionStats:
        """Return what the captured operations of a session come to."""
        return self.log.stats(session_id)


@contextmanager
def capture(
    *, clock: FakeClock | None = None, ids: CountingIds | None = None, **settings: Any
) -> Iterator[CapturedOperations]:
    """Record into a log of its own until the block ends, in all threads and child processes.

    Yields the operations as a sequence that grows, and that stays after the block.

    - `clock`: tells the time to what is recorded: timestamps, durations, the journal's days, the
      ambient session's end; and to what is asked of a log inside the block (`recent`, `since` ago,
      `running`). By default the one in force: the system's, or that of a block around this one.
    - `ids`: gives operations and sessions their ids; by default as with `clock`.
    - `settings` are those of `configure`, for the time of the block.

    A session that the program is in stays around; one that the environment hands down, and the
    recording of the test run (`pytest --instrument`), are not around what is captured.

    An operation keeps to the end the clock that it began with. Not of this clock are: processes
    that are started (but for forks, which have a copy), what waits for a lock, the modification
    times of files, from which the duration of an interrupted operation and the age of a run lock
    are known, and the program's own `time`. Not of these ids are pids and names of files.
    Raises `ConfigurationError` for another kind of `clock` or `ids`.
    """
    if clock is not None and not isinstance(clock, FakeClock):
        raise ConfigurationTypeError("capture clock", clock, "a FakeClock()")
    if ids is not None and not isinstance(ids, CountingIds):
        raise ConfigurationTypeError("capture ids", ids, "a CountingIds()")
    log_dir = Path(tempfile.mkdtemp(prefix="instrument-capture-"))
    captured = CapturedOperations(log_dir)
    before = {name: os.environ.get(name) for name in _VARIABLES}
    try:
        sources: dict[str, Any] = {"clock": clock, "ids": ids}
        with (
            _outside(),
            _config.override(log_dir=log_dir, **sources, **{"enabled": True, **settings}),
        ):
            os.environ["INSTRUMENT_DIR"] = str(log_dir)
            for name in carrier.HANDED_DOWN:
                os.environ.pop(name, None)
            yield captured
    finally:
        for name, value in before.items():
            _put_back(name, value)


@contextmanager
def _outside() -> Iterator[None]:
    """Step out of the recording of the test run until the block ends."""
    around = context.scope.get()
    if around is None or around is not context.backdrop:
        yield
        return
    context.stay_outside()
    try:
        yield
    finally:
        if context.scope.get() is None:
            context.scope.set(around)
            if context.beside is not None:
                context.beside.entered(around.elsewhere())


def _passed(seconds: float) -> timedelta:
    if not 0 <= seconds < _MOST_SECONDS:
        raise ConfigurationError("tick", seconds, _SECONDS)
    return timedelta(seconds=seconds)  # to the microsecond, as timestamps are


def _nanoseconds(passed: timedelta) -> int:
    return passed // timedelta(microseconds=1) * 1000


def _remove(log_dir: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a fork, which may end before we do
        shutil.rmtree(log_dir, ignore_errors=True)


def _put_back(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
