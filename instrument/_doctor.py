"""A log examined: what happened to it, and whether a person has to do something about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from instrument import _config
from instrument._files import close, open_locked
from instrument._gather import Reading, start_order
from instrument._health import Dropped, ours
from instrument._lines import end_of, operation_of, record_of
from instrument._premises import EXAMPLES, Finding, premises
from instrument._scan import Line, Source, scan
from instrument._snapshot import Snapshot
from instrument._spending import DamagedLedger, damaged_ledgers
from instrument._wanted import Wanted
from instrument.archive import archive_dir, read_manifest
from instrument.errors import ArchiveError, FormatError, ManifestError
from instrument.operation import Operation
from instrument.run_lock import is_alive

if TYPE_CHECKING:
    from instrument._recovery import Recovered

__all__ = ["Advance", "Finding", "examined"]

RECENT = timedelta(days=1)
CLOCK_TOLERANCE = timedelta(seconds=60)
NEWEST = 5
Advance = Callable[[float], None]


def examined(
    log_dir: Path,
    ask: Callable[[Callable[[Reading], Examination]], Examination],
    check_format: Callable[[], None],
    *,
    max_bytes: int,
    fix: bool,
    recover: Callable[[], Recovered | None],
    advance: Advance,
) -> list[Finding]:
    """Return what each check finds in a log directory that exists.

    `ask` has a question answered by a reading of it. With `fix`, orphaned run locks that nothing
    needs are removed, and `recover` makes a lost manifest anew. What happened over a day ago is a
    note at most.
    """
    told, found = _Findings(log_dir), []
    try:
        found += premises(log_dir, max_bytes)
        check_format()
        recovered = recover() if fix else None
        seen = ask(lambda reading: Examination(reading, advance))
    except ManifestError as error:
        return [*found, told.unreadable("archive", error, None)]
    except (ArchiveError, FormatError) as error:
        return [*found, told.unreadable("format", error, None)]
    except OSError as error:
        return [*found, told.unreadable("readable", error, "let this user read it")]
    return [
        *found,
        told.readable(),
        told.interrupted(seen.interrupted),
        told.damaged(seen),
        told.archive(seen, recovered),
        told.dropped(seen.dropped),
        told.clock(seen.clock),
        told.locks(seen, fix=fix),
        told.budgets(damaged_ledgers(log_dir)),
    ]


class Jump(Struct, frozen=True):
    """A line that was written at `at` by its host's clock, after one written at `after`."""

    path: str
    after: datetime
    at: datetime


class Clock:
    """Finds the lines of each segment at which its host's clock had been set back, or was ahead."""

    def __init__(self, now: datetime) -> None:
        self.count = 0
        self.jumps: list[Jump] = []
        self.last_at: datetime | None = None
        self._ahead = now + CLOCK_TOLERANCE
        self._source: Source | None = None
        self._latest = now

    def add(self, line: Line) -> None:
        at = _written_at(line) if line.source.writer else None
        if at is None:
            return
        if line.source is not self._source:
            self._source, self._latest = line.source, min(at, self._ahead)
        is_back = self._latest - at > CLOCK_TOLERANCE
        if is_back or at > self._ahead >= self._latest:
            self.count += 1
            self.last_at = at if self.last_at is None else max(self.last_at, at)
            if len(self.jumps) < EXAMPLES:
                self.jumps.append(Jump(str(line.source.path), self._latest, at))
        self._latest = at if is_back else max(self._latest, at)


class _Ending(Struct):
    duration_seconds: float = 0.0
    pid: int | None = None


_decode_ending = msgspec.json.Decoder(_Ending).decode


def _written_at(line: Line) -> datetime | None:
    """Return when a recorder wrote the line by its own clock; `None` where that is not known."""
    if not line.head.is_operation:
        return None if line.head.type == "void" else line.moment
    try:
        ending = _decode_ending(line.data)
        # what was imported has the times of another log, and no process
        if ending.pid is not None:
            return line.moment + timedelta(seconds=ending.duration_seconds)
    except (ValueError, OverflowError):
        pass
    return None


class Examination:
    """One pass over the lines of a log, in memory that does not grow with it.

    `runs` names the run lock of each operation that was interrupted.
    """

    def __init__(self, reading: Reading, advance: Advance) -> None:
        self.dropped = Dropped()
        self.clock = Clock(_config.now())
        self.runs: dict[str, str] = {}
        for line in scan(reading.sources, reading.skipped):
            self.dropped.add(line)
            self.clock.add(line)
            self._begun(line)
            advance(len(line.data) + 1)
        for line in reading.about_log():
            self.dropped.add(line)
        known = reading.interrupted(self.runs)
        if reading.archive is not None:
            found = reading.archive.lines(Wanted(outcome="interrupted"))
            known += filter(None, (operation_of(line.data) for line in found))
        self.interrupted = sorted(known, key=start_order)
        self.archived = reading.snapshot
        self.unnamed = _unnamed(reading.snapshot)
        self.lacks_sums = any(
            each.parent.name in ("sessions", "days") for each in self.archived.gone
        )
        self.skipped = reading.skipped
        self.written_at = {each.path: each.written_at for each in reading.sources}

    def _begun(self, line: Line) -> None:
        operation_id = line.head.operation_id
        if operation_id is None:
            return
        if line.head.type == "begin":
            self.runs[operation_id] = _run_of(line)
        elif self.runs:
            self.runs.pop(operation_id, None)


def _unnamed(found: Snapshot) -> list[Path]:
    """Return files with operations that no manifest names, as where an older one was put back."""
    if not found.manifests:
        return []
    from instrument._facts import held_alone  # it loads duckdb

    unnamed = []
    for log_dir in found.manifests:
        manifest = read_manifest(log_dir)
        alone = held_alone(archive_dir(log_dir), manifest)
        if read_manifest(log_dir) == manifest:  # else by a compaction meanwhile
            unnamed += alone
    return unnamed


def _run_of(line: Line) -> str:
    with suppress(ValueError, RecursionError):
        return str(record_of(line.data).get("run"))
    return ""


class _Findings:
    """Puts into words what an examination saw."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._now = _config.now()

    def unreadable(self, check: str, error: Exception, cure: str | None) -> Finding:
        return self._finding(check, "problem", f"it cannot be examined: {error}", cure)

    def readable(self) -> Finding:
        return self._finding("format", "ok", "this version reads all of its files", None)

    def interrupted(self, found: list[Operation]) -> Finding:
        newest = [
            {
                "timestamp": each.timestamp,
                "service": each.service,
                "operation": each.operation,
                "duration_seconds": each.duration_seconds,
                "session_id": each.session_id,
            }
            for each in reversed(found[-NEWEST:])
        ]
        return self._finding(
            "interrupted",
            "note" if found else "ok",
            f"{_counted(len(found), 'operation')} interrupted: the process died meanwhile"
            if found
            else "no operation was interrupted",
            "`instrument tail --outcome interrupted` lists them" if found else None,
            count=len(found),
            examples=newest,
        )

    def damaged(self, seen: Examination) -> Finding:
        count, lines = seen.skipped.count, seen.skipped.lines
        last_at = max((seen.written_at[each.path] for each in lines), default=None)
        examples = [
            {"path": str(each.path), "offset": each.offset, "reason": each.reason}
            for each in lines[:EXAMPLES]
        ]
        return self._finding(
            "damaged",
            self._level(last_at),
            f"{_counted(count, 'line')} torn, damaged or not ours"
            if count
            else "every line is whole",
            "all others are read; a full disk or another program's writing there does this"
            if count
            else None,
            count=count,
            examples=examples,
        )

    def archive(self, seen: Examination, recovered: Recovered | None) -> Finding:
        found, gone, unnamed = seen.archived, seen.archived.gone, seen.unnamed
        unreadable = recovered.unreadable if recovered else ()
        damaged = [each for one in found.manifests.values() for each in one.damaged]
        count = sum(each.part.operations for each in found.parts)
        message = f"{_counted(count, 'operation')} in {_counted(len(found.parts), 'file')}"
        cure = None
        if unnamed:
            message += f"; {_counted(len(unnamed), 'file')} more that its manifest does not name"
            cure = "if an older one was put back, `instrument doctor --fix` makes it anew"
        elif gone:
            message = f"{_counted(len(gone), 'file')} that the archive counts on deleted or moved"
            cure = "put them back from a backup, under the same names"
            if seen.lacks_sums:
                cure += (
                    "; or `instrument doctor --fix` makes those of sessions and days anew from the"
                    " operations, and what they knew of others is lost"
                )
        elif unreadable:
            message += f"; {_counted(len(unreadable), 'file')} beside them could not be read"
            cure = (
                f"put {', '.join(unreadable)} back from a backup, where they were, delete"
                " manifest.json and repeat `instrument doctor --fix`"
            )
        elif damaged:
            message += f"; damaged lines are kept as they were in {self._log_dir}/archive/damaged"
        if recovered:
            message = f"what it lacked is made anew: {message}"
        return self._finding(
            "archive",
            "problem" if gone or unnamed or unreadable else "note" if recovered else "ok",
            message,
            cure,
            count=count,
            gone=[str(each) for each in gone],
            unnamed=[str(each) for each in unnamed],
            damaged=damaged,
            recovered=recovered is not None,
        )

    def dropped(self, told: Dropped) -> Finding:
        untold = [each for each in ours([self._log_dir]) if each.untold_count]
        count = told.count + sum(each.untold_count for each in untold)
        last_at = self._now if untold else told.last_at
        reason = untold[-1].reason if untold else told.reason
        said = f"{_counted(count, 'operation')} could not be written"
        return self._finding(
            "dropped",
            self._level(last_at),
            (f"{said}: {reason}" if reason else said) if count else "no operation was dropped",
            "mend that, or choose another directory with configure(log_dir=...) or INSTRUMENT_DIR"
            if count
            else None,
            count=count,
            last_at=last_at,
            reason=reason,
        )

    def clock(self, clock: Clock) -> Finding:
        return self._finding(
            "clock",
            self._level(clock.last_at),
            f"{_counted(clock.count, 'clock jump')} of over a minute, or sleep of the host"
            if clock.count
            else "times are in the order in which lines were written",
            "have the host's clock set by NTP; what was recorded keeps its times"
            if clock.count
            else None,
            count=clock.count,
            examples=[msgspec.structs.asdict(each) for each in clock.jumps],
        )

    def locks(self, seen: Examination, *, fix: bool) -> Finding:
        paths = sorted(self._log_dir.glob("run/*.lock"))
        orphans = [each for each in paths if not is_alive(self._log_dir, each.stem)]
        needed = self._needed(seen.interrupted, seen.runs) if orphans else ()
        gone = [each for each in orphans if fix and each.stem not in needed and _is_removed(each)]
        left = [each for each in orphans if each not in gone]
        said = f"{_counted(len(left), 'run lock')} of processes that died; they are harmless"
        if gone:
            said = f"removed {_counted(len(gone), 'orphaned run lock')}, {len(left)} left"
        return self._finding(
            "locks",
            "note" if orphans else "ok",
            said if orphans else "no run lock is orphaned",
            "`instrument doctor --fix` removes those that tell nothing more"
            if left and not fix
            else None,
            held_count=len(paths) - len(orphans),
            orphaned_count=len(left),
            needed_count=len([each for each in left if each.stem in needed]),
            removed_count=len(gone),
            examples=[str(each) for each in left[:EXAMPLES]],
        )

    def budgets(self, damaged: list[DamagedLedger]) -> Finding:
        lost = [each for each in damaged if not each.is_read]
        said = f"{_counted(len(damaged), 'ledger')} of budgets damaged"
        if lost:
            said += "; calls that they should count are refused or go uncounted"
        return self._finding(
            "budgets",
            "problem" if lost else "note" if damaged else "ok",
            said if damaged else "every budget's ledger can be read",
            "; ".join(each.cure for each in damaged[:EXAMPLES]) or None,
            count=len(damaged),
            examples=[{"path": str(each.path), "fault": each.fault} for each in damaged[:EXAMPLES]],
        )

    def _needed(self, interrupted: list[Operation], runs: dict[str, str]) -> Collection[str]:
        """Name the locks that say when an interrupted operation was last alive, or may yet."""
        needed = set()
        for each in interrupted:
            run = runs.get(each.operation_id or "", "")
            with suppress(OSError, ValueError, OverflowError):
                touched = (self._log_dir / "run" / f"{run}.lock").stat().st_mtime
                last_sign = end_of(each)
                is_the_last_sign = abs(last_sign.timestamp() - touched) < 0.001
                if is_the_last_sign or self._now - last_sign < RECENT:
                    needed.add(run)
        return needed

    def _level(self, last_at: datetime | None) -> str:
        """Return `problem` for what last happened today, and `note` for what is longer ago."""
        if last_at is None:
            return "ok"
        return "problem" if self._now - last_at < RECENT else "note"

    def _finding(
        self, check: str, level: str, message: str, cure: str | None, **details: object
    ) -> Finding:
        return Finding(
            check=check,
            level=level,
            message=message,
            cure=cure,
            log_dir=str(self._log_dir),
            details=details,
        )


def _is_removed(path: Path) -> bool:
    """Remove a lock that nobody holds; a process that is just taking it makes another."""
    try:
        held = open_locked(path, exclusive=True)
    except OSError:
        return False
    try:
        os.unlink(path)
    except OSError:
        return False
    finally:
        close(held)
    return True


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
