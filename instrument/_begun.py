"""Operations that began and have no line of their own: running ones, and interrupted ones."""

from __future__ import annotations

import os
import re
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from instrument._lines import end_of, operation_of, record_of
from instrument._scan import ALWAYS, Line, Skipped, Source, needle, scan
from instrument.operation import Operation
from instrument.run_lock import is_alive

__all__ = ["Begun", "confirmed", "interrupted", "is_withdrawn", "living", "running"]


class Signs(Protocol):
    """What else has signs of life of processes: the archive."""

    def of_processes(
        self, log_dir: Path, writer: str, pid: int, since: datetime
    ) -> Iterable[tuple[datetime, float, str | None]]:
        """Yield start, seconds and run of what a process number of a host did, in start order."""


class Begun:
    """Follows begin, void and operation lines, in any order and any number of passes.

    Of an operation that was withdrawn and then began after all, the latest beginning counts.
    """

    def __init__(self) -> None:
        self._open: dict[str, Line] = {}
        self._void: set[tuple[str, datetime]] = set()
        # 8 bytes for each operation, because most logs hold far more of them than of begin lines
        self._ended = array("q")

    def add(self, line: Line) -> None:
        operation_id = line.head.operation_id
        if operation_id is None:
            return
        if line.head.is_operation:
            self._ended.append(hash(operation_id))
            if self._open:
                self._open.pop(operation_id, None)
        elif line.head.type == "begin":
            known = self._open.get(operation_id, line)
            self._open[operation_id] = line if line.moment >= known.moment else known
        elif line.head.type == "void":
            self._void.add((operation_id, line.moment))

    def left(self) -> list[Line]:
        """Return the begin lines that nothing met so far has ended or withdrawn."""
        return [self._open[each] for each in self.left_ids()]

    def left_ids(self) -> set[str]:
        ended = self.ended(self._open)
        return {
            each
            for each, line in self._open.items()
            if each not in ended and not is_withdrawn(self._void, each, line.moment)
        }

    def ended(self, operation_ids: Collection[str]) -> set[str]:
        """Return those of the operations that have ended."""
        asked = {hash(each) for each in operation_ids}
        found = asked.intersection(self._ended) if asked else asked
        return {each for each in operation_ids if hash(each) in found}


def is_withdrawn(
    void: Collection[tuple[str, datetime]], operation_id: str, moment: datetime
) -> bool:
    """Tell whether void lines of these moments take back that an operation began at one."""
    return (operation_id, moment) in void or (operation_id, ALWAYS) in void


def confirmed(sources: list[Source], operation_ids: Collection[str]) -> list[Line]:
    """Return the begin lines of those operations that nothing in the log ends or withdraws."""
    if not operation_ids:
        return []
    begun = Begun()
    for line in scan(sources, Skipped(), [needle(each) for each in operation_ids]):
        if line.head.operation_id in operation_ids:
            begun.add(line)
    return begun.left()


def living(lines: Iterable[Line]) -> list[Line]:
    """Return the begin lines whose process still holds its `run/<run>.lock`."""
    alive, _ = _told_apart(lines)
    return [each.line for each in alive]


def running(lines: Iterable[Line], now: datetime) -> list[Operation]:
    """Return the operations that these begin lines of living processes stand for."""
    return [_Begin.of(line).operation("running", now) for line in lines]


def interrupted(
    sources: list[Source], lines: Iterable[Line], archive: Signs | None
) -> list[Operation]:
    """Return the operations among these whose process has died.

    Their duration ends at the process's last sign of life.
    """
    _, dead = _told_apart(lines)
    signs = _last_signs(sources, dead, archive)
    return [each.operation("interrupted", signs[each.operation_id]) for each in dead]


def _told_apart(lines: Iterable[Line]) -> tuple[list[_Begin], list[_Begin]]:
    lives: dict[tuple[Path, str], bool] = {}
    present: dict[Path, set[str]] = {}
    alive: list[_Begin] = []
    dead: list[_Begin] = []
    for line in lines:
        begin = _Begin.of(line)
        log_dir = line.source.log_dir
        if log_dir not in present:
            present[log_dir] = _locks_in(log_dir)
        key = (log_dir, begin.run)
        if key not in lives:
            lives[key] = begin.run in present[log_dir] and is_alive(log_dir, begin.run)
        (alive if lives[key] else dead).append(begin)
    return alive, dead


def _locks_in(log_dir: Path) -> set[str]:
    """Name the runs that have a lock file: most processes that ever wrote have none left."""
    with suppress(OSError):
        return {name.removesuffix(".lock") for name in os.listdir(log_dir / "run")}
    return set()


class _Begin(Struct, frozen=True):
    line: Line
    record: dict[str, Any]
    operation_id: str
    run: str
    pid: Any

    @classmethod
    def of(cls, line: Line) -> _Begin:
        record = record_of(line.data)
        run = record.get("run")
        safe = run if isinstance(run, str) and _RUN.fullmatch(run) else ""
        return cls(line, record, line.head.operation_id or "", safe, record.get("pid"))

    def operation(self, outcome: str, until: datetime) -> Operation:
        seconds = max(0.0, (until - self.line.moment).total_seconds())
        record = {key: value for key, value in self.record.items() if key not in ("type", "run")}
        told = {"success": False, "duration_seconds": seconds, "outcome": "interrupted"}
        operation = operation_of(msgspec.json.encode(record | told))
        assert operation is not None  # a begin line has all that an operation needs
        return msgspec.structs.replace(operation, outcome=outcome)

    def lock_touched_at(self) -> datetime:
        """Return when the process last touched its lock file; without one, when this began."""
        path = self.line.source.log_dir / "run" / f"{self.run}.lock"
        with suppress(OSError, ValueError, OverflowError):
            if self.run:
                return datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return self.line.moment


def _last_signs(
    sources: list[Source], dead: list[_Begin], archive: Signs | None
) -> dict[str, datetime]:
    """Find the latest moment at which each process that died is known to have lived."""
    lives: dict[tuple[object, ...], dict[str, _Life]] = defaultdict(dict)
    for begin in dead:
        if isinstance(begin.pid, int):
            runs = lives[_process(begin.line, begin.pid)]
            runs.setdefault(begin.run, _Life(begin)).begun[begin.operation_id] = begin.line.moment
    found = [life for runs in lives.values() for life in runs.values()]
    if archive is not None:
        for life in found:
            life.see_archived(archive)
    for line in _lines_of_processes(sources, found):
        record = record_of(line.data)
        for life in lives.get(_process(line, record.get("pid")), {}).values():
            life.see(line, record)
    seen = {each: moment for life in found for each, moment in life.last_signs().items()}
    return {each.operation_id: each.lock_touched_at() for each in dead} | seen


def _lines_of_processes(sources: list[Source], lives: list[_Life]) -> Iterator[Line]:
    searched = [b'"pid":%d' % pid for pid in {life.pid for life in lives}]
    places = {life.source.log_dir for life in lives}
    first = min((life.began_at() for life in lives), default=None)
    here = [each for each in sources if each.log_dir in places and each.reaches(first)]
    found = scan(here, Skipped(), searched) if searched else ()
    return (line for line in found if line.head.type != "void")


def _process(line: Line, pid: object) -> tuple[object, ...]:
    # hosts that share a directory number their processes independently
    return (line.source.log_dir, line.source.writer, pid if isinstance(pid, int) else None)


class _Life:
    """Sees the lines of one process number after operations of one process of it began.

    `begun` says when each of them did. What is seen counts for all that began before it, of which
    a full disk may leave thousands.
    """

    def __init__(self, begin: _Begin) -> None:
        self.source = begin.line.source
        self.pid: int = begin.pid
        self.begun: dict[str, datetime] = {}
        self._run = begin.run
        self._gone_at: datetime | None = None
        self._last: dict[str, datetime] = {}
        # the operations that began, and the latest sign between each and the next
        self._open: list[tuple[str, datetime | None]] = []

    def began_at(self) -> datetime:
        return min(self.begun.values())

    def see_archived(self, archive: Signs) -> None:
        """See what the archive has of the process; it says by `run` whose the number was."""
        waiting = sorted(self.begun.items(), key=lambda each: each[1])
        place = 0
        rows = archive.of_processes(
            self.source.log_dir, self.source.writer, self.pid, self.began_at()
        )
        for start, seconds, run in rows:
            while place < len(waiting) and waiting[place][1] <= start:
                self._open.append((waiting[place][0], None))
                place += 1
            if run is not None and run != self._run:
                self._gone_at = start
                break
            self._saw(start + timedelta(seconds=seconds))
        self._end()

    def see(self, line: Line, record: dict[str, Any]) -> None:
        is_begin = line.head.type == "begin"
        if is_begin and record.get("run") != self._run:
            self._end()  # the number has gone to another process
        elif self._open and (self._gone_at is None or line.moment < self._gone_at):
            self._saw(_end_of(line))
        operation_id = line.head.operation_id
        if is_begin and operation_id in self.begun:
            self._open.append((operation_id, None))

    def last_signs(self) -> dict[str, datetime]:
        """Return the last sign of life after each operation's beginning, where there is one."""
        self._end()
        return self._last

    def _saw(self, moment: datetime) -> None:
        operation_id, last = self._open[-1]
        self._open[-1] = operation_id, moment if last is None else max(last, moment)

    def _end(self) -> None:
        """Let what was seen after each count for those that began before."""
        latest: datetime | None = None
        for operation_id, moment in reversed(self._open):
            latest = max(filter(None, (latest, moment)), default=None)
            if latest is not None:
                self._last[operation_id] = max(latest, self._last.get(operation_id, latest))
        self._open.clear()


def _end_of(line: Line) -> datetime:
    operation = operation_of(line.data) if line.head.is_operation else None
    return end_of(operation) if operation else line.moment


_RUN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
