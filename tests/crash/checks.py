"""What must be true of a log after processes that wrote to it were killed.

The checks read the files by themselves, and compare what the library answers with that. Each
returns what it found wrong, in words.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
from programs import NO_ID
from zygote import Life

from instrument import Operation, SessionStats, UsageLog

Record = dict[str, Any]
PRUNED_DAYS = 30
SETTLED_WITHIN_SECONDS = 5.0
_STARTS = ('{"timestamp":', '{"type":')
_decoder = json.JSONDecoder()


class Acknowledged(NamedTuple):
    """A call that returned, as its process said on the pipe."""

    operation: str
    outcome: str
    session_id: str


class Known:
    """All that is known of one log directory from outside, over the lives of many processes."""

    def __init__(self, log_dir: Path, grave: Path, *, prunes: bool = False) -> None:
        self.prunes = prunes
        self.log_dir = log_dir
        self.grave = grave
        self.acknowledged: dict[str, Acknowledged] = {}
        self.stuck: dict[str, Life] = {}
        self.lost: set[str] = set()
        self.mortal: set[str] = set()
        self.without_id = 0
        self.mortal_without_id = 0
        self.may_be_unacknowledged = 0
        self.deaths = 0
        self.torn = 0
        self._contents: dict[int, bytes] = {}
        self._days_written = 0

    def write_old_days(self, rng: Random) -> None:
        """Write a segment more of each of some past days, of which the oldest may be pruned."""
        directory = self.log_dir / "journal"
        directory.mkdir(parents=True, exist_ok=True)
        self._days_written += 1
        for ago in (2, 10, PRUNED_DAYS + 10, PRUNED_DAYS + 70):
            moment = datetime.now(UTC) - timedelta(days=ago)
            records = [_old(rng, moment + timedelta(milliseconds=n)) for n in range(20)]
            # lines of the original logger have no id by which doubles could be told
            plain = [{k: v for k, v in each.items() if k != "operation_id"} for each in records[:2]]
            path = directory / f"{moment.date()}-old-{self._days_written:04d}.jsonl"
            path.write_bytes(msgspec.json.Encoder().encode_lines(records + plain))
            ids = [each["operation_id"] for each in records]
            self.acknowledged |= dict.fromkeys(ids, Acknowledged("ask", "ok", "old"))
            if self.prunes and ago > PRUNED_DAYS:
                self.mortal.update(ids)
                self.mortal_without_id += len(plain)
            else:
                self.without_id += len(plain)

    def heard(self, life: Life) -> Iterator[str]:
        """Take in what a process said; yield what is wrong with it, or with how it ended."""
        self.deaths += life.kills
        forked = life.said.count("forked")
        self.may_be_unacknowledged += life.plan.options.get("strands", 1) + forked
        for line in life.said:
            sign, words = line[:1], line[1:].split(" ")
            if sign in "+-":
                if words[0] in self.acknowledged:
                    yield f"id {words[0]} drawn twice"
                self.acknowledged[words[0]] = Acknowledged(*words[1:])
            if sign == "-":
                self.lost.add(words[0])
            elif sign == ">":
                self.stuck[words[0]] = life
            elif sign == "!":
                yield line[1:]
        if life.hung:
            yield "a process hung"
        elif not _died_as_planned(life):
            yield f"a process died with status {life.status}"
        if life.errors and not _is_expected(life):
            yield f"a process wrote to stderr: {life.errors[-2_000:]}"

    def write_down(self, path: Path) -> None:
        """Write down what a reader must find from now on."""
        ids = self.acknowledged.keys() - self.lost - self.mortal
        path.write_text(" ".join([*ids, *[NO_ID] * self.without_id]))

    def after_round(self) -> Iterator[str]:
        """Check the files themselves, once no process of ours lives."""
        yield from self._earlier_is_unchanged()
        if path := self._broken_session_file():
            yield f"{path.name} is damaged"
        lines = [line for data in self._contents.values() for line in _lines(data)]
        self.torn = sum(line.is_torn for line in lines)
        # a kill cuts one line short at most, and a full disk one for each that was counted
        if self.torn > self.deaths + 2 * len(self.lost):
            yield f"{self.torn} torn lines after {self.deaths} deaths"
        records = [record for line in lines for record in line.records]
        yield from self._compared([each for each in records if _is_operation(each)])

    def answers(self) -> Iterator[str]:
        """Check what `UsageLog` answers against the files of the journal."""
        log = UsageLog(self.log_dir)
        if not _has_settled(log):
            yield "operations of dead processes are running"
        records = _records_in(self.log_dir / "journal")
        expected = _expected(records)
        found = log.operations()
        if [_row(each) for each in found] != expected:
            yield _difference("operations()", expected, [_row(each) for each in found])
        yield from sums(log, found)
        if {each.session_id for each in log.sessions(None)} != _entered(records):
            yield "sessions() disagrees with the records"
        yield from self._stuck_are_interrupted(found)

    def _earlier_is_unchanged(self) -> Iterator[str]:
        """Compare each file with what it held a round ago, wherever it was moved to."""
        now = {
            path.stat().st_ino: path.read_bytes()
            for directory in (self.log_dir / "journal", self.grave)
            if directory.exists()
            for path in directory.iterdir()
        }
        for inode, before in self._contents.items():
            if inode not in now:
                yield "a segment vanished"
            elif not now[inode].startswith(before):
                yield "an earlier line was changed"
        self._contents = now

    def _broken_session_file(self) -> Path | None:
        path = self.log_dir / "session.json"
        try:
            json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return path
        return None

    def _compared(self, operations: list[Record]) -> Iterator[str]:
        """Compare the operations in the files with those that were acknowledged."""
        times = Counter(each["operation_id"] for each in operations)
        if doubled := [each for each, count in times.items() if count > 1]:
            yield f"{len(doubled)} operations are on record twice, {doubled[0]} for one"
        yield from self._acknowledged_are_among(times)
        for record in operations:
            if fault := self._fault(record):
                yield f"{record['operation_id']} {record['operation']}: {fault}"

    def _acknowledged_are_among(self, ids: Iterable[str]) -> Iterator[str]:
        missing = self.acknowledged.keys() - self.lost - self.mortal - set(ids)
        if missing:
            example = min(missing)
            yield f"{len(missing)} operations are lost, {example} for one: " + str(
                self.acknowledged[example]
            )
        extra = set(ids) - self.acknowledged.keys()
        if len(extra) > self.may_be_unacknowledged:
            yield f"{len(extra)} operations more than could be in flight"

    def _fault(self, record: Record) -> str | None:
        operation_id = record["operation_id"]
        outcome = record.get("outcome") or ("ok" if record["success"] else "error")
        if record["operation"] == "stuck" and outcome == "ok":
            return "is ok, and never returned"
        told = self.acknowledged.get(operation_id)
        if told and told != (record["operation"], outcome, record["session_id"]):
            return f"is {outcome} in {record['session_id']}, acknowledged as {told}"
        if told and record.get("tokens") != int(operation_id, 16) % 1_000:
            return f"has {record.get('tokens')} tokens"
        parts = record["metadata"].get("parts", [])
        if any(each != {"id": operation_id} for each in parts):
            return "has the metadata of another"
        return None

    def _stuck_are_interrupted(self, found: list[Operation]) -> Iterator[str]:
        outcomes = {each.operation_id: each.outcome for each in found}
        for operation_id in self.stuck:
            outcome = outcomes.get(operation_id)
            # where segments are deleted, its begin line may have gone with one
            if outcome != "interrupted" and not (outcome is None and any(self._buried())):
                yield f"a call that was killed in flight is {outcome}"

    def _buried(self) -> Iterator[Path]:
        return self.grave.iterdir() if self.grave.exists() else iter(())


class KnownWithArchive(Known):
    """The same where segments go into the archive, so that the library alone can read it all."""

    def __init__(self, log_dir: Path, grave: Path, *, prunes: bool = False) -> None:
        super().__init__(log_dir, grave, prunes=prunes)
        self._seen: dict[str, tuple[Any, ...]] = {}

    def after_round(self) -> Iterator[str]:
        log = UsageLog(self.log_dir)
        if not _has_settled(log):
            yield "operations of dead processes are running"
        found = log.operations()
        with_id = [each for each in found if each.operation_id]
        count = len(found) - len(with_id)
        if not self.without_id <= count <= self.without_id + self.mortal_without_id:
            yield f"{count} operations without an id, of {self.without_id}"
        yield from self._compared([msgspec.structs.asdict(each) for each in with_id])
        rows = {each.operation_id or "": _row(each) for each in with_id}
        for operation_id, before in self._seen.items():
            is_pruned = operation_id in self.mortal - rows.keys()
            if rows.get(operation_id) != before and not is_pruned:
                yield f"{before} became {rows.get(operation_id)}"
        self._seen = rows
        if [_row(each) for each in with_id] != sorted(rows.values()):
            yield "operations() is out of order, or has doubles"
        yield from self._stuck_are_interrupted(found)

    def answers(self) -> Iterator[str]:
        """Check that a compaction that nobody kills finishes the work, and changes no answer."""
        log = UsageLog(self.log_dir)
        found, before = log.operations(), answers_of(log)
        yield from sums(log, found)
        log.compact(all=True)
        if left := [*self.log_dir.glob("journal/*")]:
            yield f"{left} is left after compaction"
        after = answers_of(log)
        for what in before:
            if before[what] != after[what]:
                difference = _first_difference(before[what], after[what])
                yield f"{what} is other after compaction: {difference}"
        if left := [each.name for each in (self.log_dir / "archive").glob("*unfinished*")]:
            yield f"{left} is left over in the archive"
        if self.prunes:
            yield from self._pruned(log)

    def _pruned(self, log: UsageLog) -> Iterator[str]:
        """Check that a pruning that nobody kills removes what is old, and nothing else."""
        since = datetime.now(UTC) - timedelta(days=PRUNED_DAYS)
        kept = log.operations(since=since)
        log.prune(older_than=timedelta(days=PRUNED_DAYS))
        found = log.operations()
        if [_row(each) for each in found] != [_row(each) for each in kept]:
            yield _difference(
                "operations() after pruning", list(map(_row, kept)), list(map(_row, found))
            )
        yield from sums(log, found)


def answers_of(log: UsageLog) -> dict[str, Any]:
    """Return what a log answers to all questions, which compaction must not change."""
    return listed(log) | {
        "summary": _rounded(log.summary(by=("service", "model", "day", "outcome"))),
        "by session": _rounded(log.summary(by=("session", "operation"))),
        "sql": log.sql(
            "select operation_id, operation, outcome, tokens, duration_seconds, metadata"
            " from operations order by timestamp, operation_id nulls first"
        ).fetchall(),
    }


def listed(log: UsageLog) -> dict[str, Any]:
    """Return what a log answers to those questions that take little time."""
    sessions = log.sessions(None)
    some = [each.session_id for each in sessions[:5]]
    return {
        "operations": log.operations(),
        "sessions": _rounded(sessions),
        "iterate": list(log.iterate()),
        "session operations": [log.operations(each) for each in some],
        "stats": _rounded([log.stats(each) for each in some]),
        "running": log.running(),
        "latest": log.operations(limit=3),
        "errors": log.errors(),
    }


def _rounded(rows: Sequence[SessionStats]) -> list[Record]:
    """Return the rows with what does not depend on the order in which floats are summed."""
    return [
        {
            name: round(value, 9) if isinstance(value, float) else value
            for name, value in msgspec.structs.asdict(row).items()
        }
        for row in rows
    ]


def _first_difference(before: list[Any], after: list[Any]) -> str:
    if len(before) != len(after):
        return f"{len(before)} became {len(after)}"
    one, other = next(each for each in zip(before, after, strict=True) if each[0] != each[1])
    return f"{one!r} became {other!r}"


class _Line(NamedTuple):
    records: list[Record]
    is_torn: bool


def _lines(data: bytes) -> Iterator[_Line]:
    """Yield the lines that are not blank, with the records that can be told in each."""
    for line in data.split(b"\n"):
        if not line:
            continue
        text = line.decode(errors="replace")
        records, end = _records_from(text, 0)
        yield _Line(records, end < len(text))


def _records_from(text: str, begin: int) -> tuple[list[Record], int]:
    """Return the records that can be told in a line from there on, and where the first gap is.

    Another process may have written right behind a line that was cut short, be it by no more than
    its newline.
    """
    records, gap = [], len(text)
    while begin < len(text):
        try:
            record, begin = _decoder.raw_decode(text, begin)
            records.append(record)
        except ValueError:
            gap = min(gap, begin)
            begin = min(_places(text, begin + 1), default=len(text))
    return records, gap


def _places(text: str, begin: int) -> list[int]:
    return [place for mark in _STARTS if (place := text.find(mark, begin)) >= 0]


def _records_in(directory: Path) -> list[Record]:
    return [
        record
        for path in sorted(directory.glob("*.jsonl"))
        for line in _lines(path.read_bytes())
        for record in line.records
    ]


def _entered(records: list[Record]) -> set[str]:
    return {each["session_id"] for each in records if "session_id" in each}


def _old(rng: Random, moment: datetime) -> Record:
    operation_id = f"{rng.getrandbits(64):016x}"
    return {
        "timestamp": moment.isoformat(),
        "session_id": "old",
        "service": "crash",
        "operation": "ask",
        "success": True,
        "duration_seconds": 1.0,
        "tokens": int(operation_id, 16) % 1_000,
        "metadata": {},
        "operation_id": operation_id,
    }


def _is_operation(record: Record) -> bool:
    return "type" not in record


def _expected(records: list[Record]) -> list[tuple[Any, ...]]:
    """Return the rows that `operations()` shall give for these lines, all processes being dead."""
    ended = {each["operation_id"]: each for each in reversed(records) if _is_operation(each)}
    void = {
        (each["operation_id"], each.get("timestamp"))
        for each in records
        if each.get("type") == "void"
    }
    begins = sorted(
        (each for each in records if each.get("type") == "begin"), key=itemgetter("timestamp")
    )
    # of several beginnings the last
    begun = {each["operation_id"]: each | {"outcome": "interrupted"} for each in begins}
    left = [
        each
        for key, each in begun.items()
        if key not in ended and void.isdisjoint([(key, each["timestamp"]), (key, None)])
    ]
    return sorted(map(_row_of_record, [*ended.values(), *left]))


def _row_of_record(record: Record) -> tuple[Any, ...]:
    return (
        datetime.fromisoformat(record["timestamp"]),
        record["operation_id"],
        record["operation"],
        record["session_id"],
        record.get("outcome") or ("ok" if record["success"] else "error"),
        record.get("tokens", -1),
        record.get("parent_id") or "",
    )


def _row(operation: Operation) -> tuple[Any, ...]:
    return (
        operation.timestamp,
        operation.operation_id or "",
        operation.operation,
        operation.session_id,
        operation.outcome,
        -1 if operation.tokens is None else operation.tokens,
        operation.parent_id or "",
    )


def sums(log: UsageLog, found: list[Operation]) -> Iterator[str]:
    """Check that what sums up agrees with the list."""
    groups = Counter((each.operation, each.outcome) for each in found)
    summary = log.summary(by=("operation", "outcome"))
    if {(each.operation, each.outcome): each.operation_count for each in summary} != groups:
        yield "summary() disagrees with operations()"
    listed = Counter({each.session_id: each.operation_count for each in log.sessions(None)})
    if +listed != Counter(each.session_id for each in found):
        yield "sessions() disagrees with operations()"
    for session_id in sorted({each.session_id for each in found})[:3]:
        own = [each for each in found if each.session_id == session_id]
        stats = log.stats(session_id, children=False)
        counted = (stats.operation_count, stats.total_tokens, stats.interrupted_count)
        interrupted = sum(each.outcome == "interrupted" for each in own)
        if counted != (len(own), sum(each.tokens or 0 for each in own), interrupted):
            yield f"stats({session_id!r}) disagrees with operations()"
        if [_row(each) for each in log.operations(session_id)] != [_row(each) for each in own]:
            yield f"operations({session_id!r}) disagrees with operations()"


def _difference(what: str, expected: list[Any], found: list[Any]) -> str:
    missing = [each for each in expected if each not in found]
    extra = [each for each in found if each not in expected]
    if not missing and not extra:
        return f"{what} is out of order, or has doubles"
    return f"{what} lacks {missing[:3]} and has {extra[:3]} instead"


def _has_settled(log: UsageLog) -> bool:
    """Wait for the kernel to take the locks from the dead, which may lag behind their end."""
    until = time.monotonic() + SETTLED_WITHIN_SECONDS
    while log.running():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def _died_as_planned(life: Life) -> bool:
    end, handles = life.plan.end, life.plan.options.get("handles_sigterm")
    if end == "SIGTERM":
        return life.status in (0, 15) if handles else life.status == 15
    return life.status == {"SIGKILL": 9, "exit": 0, "raise": 256}[end]


def _is_expected(life: Life) -> bool:
    """Tell whether a process said what it must say: that the disk is full."""
    return life.plan.program == "full_disk" and "Traceback" not in life.errors
