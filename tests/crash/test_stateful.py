"""A writer, a compactor, a reader and somebody who deletes, in any order, against a model.

The segments are written by hand, in the documented format, so that there are operations of several
days and hosts, torn lines and odd ones.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from checks import listed, sums
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from killing import RUNS, SEED

from instrument import Operation, UsageLog
from instrument.journal import Journal

Record = dict[str, Any]
Row = tuple[Any, ...]

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
CAN_COMPACT = hasattr(UsageLog, "compact")
SEGMENTS = st.builds(
    "{}-{}-{:04d}.jsonl".format,
    st.integers(0, 2).map(lambda ago: (TODAY - timedelta(days=ago)).date()),
    st.sampled_from(["alpha", "beta"]),
    st.integers(1, 2),
)
SESSIONS = st.sampled_from(["one", "two", "three"])
# what other programs leave in a log, and readers pass over
ODD_LINES = st.sampled_from(
    [
        b"",
        b"[]",
        b'"text"',
        b"{}",
        b'{"timestamp":"soon","service":"s","operation":"o"}',
        b'{"timestamp":"2026-01-01T00:00:00Z"}',
        b'{"type":"session","timestamp":"2026-01-01T00:00:00Z"}',
        b"\xff\xfe\x00",
        b"[" * 5_000,
    ]
)
# what readers understand all the same: of the record, and of the row that it is read as
ODD_KEYS: dict[str, tuple[Record, Record]] = {
    "plain": ({}, {}),
    "without an id": ({"operation_id": None}, {"operation_id": None}),
    "a number as text": ({"tokens": "12"}, {"tokens": 12}),
    "an unknown key": ({"colour": "red"}, {"extra": {"colour": "red"}}),
    "an error": ({"success": False, "error_type": "Late"}, {"outcome": "error"}),
    "left early": ({"outcome": "partial"}, {"outcome": "partial"}),
    "a model": ({"model": "gpt-5", "input_tokens": 7}, {"model": "gpt-5", "input_tokens": 7}),
    "text": ({"metadata": {"a": "\u2028 \N{GRINNING FACE}\0"}}, {}),
}


class LogMachine(RuleBasedStateMachine):
    """`rows` are the operations that must be read; `files` says where each record stands.

    A record is in a segment's list until that is compacted, after which no deletion takes it.
    """

    begun = Bundle("begun")

    def __init__(self) -> None:
        super().__init__()
        self.log_dir = Path(tempfile.mkdtemp())
        self.log = UsageLog(self.log_dir)
        self.files: dict[str, list[Record]] = {}
        self.archived: list[Record] = []
        self.number = 0
        self.journal: Journal | None = None

    def teardown(self) -> None:
        self.stop_writing()
        shutil.rmtree(self.log_dir)

    @initialize()
    def make_journal(self) -> None:
        (self.log_dir / "journal").mkdir()

    # the writer

    @rule(segment=SEGMENTS, session=SESSIONS, odd=st.sampled_from(sorted(ODD_KEYS)))
    def write(self, segment: str, session: str, odd: str) -> None:
        record = self._operation(segment, session) | ODD_KEYS[odd][0]
        self._append(segment, record, expect=ODD_KEYS[odd][1])

    @rule(segment=SEGMENTS, session=SESSIONS, count=st.integers(2, 40))
    def write_many(self, segment: str, session: str, count: int) -> None:
        for _ in range(count):
            self._append(segment, self._operation(segment, session))

    @rule(segments=st.lists(SEGMENTS, min_size=2, max_size=3))
    def write_again(self, segments: list[str]) -> None:
        """Write one operation several times, as a shipper may that was interrupted."""
        record = self._operation(segments[0], "one")
        for segment in segments:
            self._append(segment, record)

    @rule(target=begun, segment=SEGMENTS, session=SESSIONS)
    def begin(self, segment: str, session: str) -> Record:
        operation = self._operation(segment, session)
        keys = ("timestamp", "session_id", "service", "operation", "operation_id")
        line = {"type": "begin"} | {key: operation[key] for key in keys} | {"run": "dead"}
        self._append(segment, line)
        return operation | {"segment": segment}

    @rule(operation=consumes(begun), segment=SEGMENTS)
    def end(self, operation: Record, segment: str) -> None:
        if not self._is_archived(operation):
            self._append(segment, {**operation, "segment": None})

    @rule(operation=consumes(begun))
    def withdraw(self, operation: Record) -> None:
        """Take a begin line back, in the same segment, for the order of the two counts."""
        segment = operation["segment"]
        if not self._is_archived(operation):
            self._append(segment, {"type": "void", "operation_id": operation["operation_id"]})

    @rule(segment=SEGMENTS, session=SESSIONS, parent=SESSIONS)
    def enter_session(self, segment: str, session: str, parent: str) -> None:
        stamp = self._operation(segment, session)["timestamp"]
        line = {"type": "session", "timestamp": stamp, "session_id": session}
        self._write(segment, _line(line | {"session_name": "a name", "parent_session_id": parent}))

    @rule(segment=SEGMENTS, cut=st.integers(1, 200))
    def tear(self, segment: str, cut: int) -> None:
        data = json.dumps(self._operation(segment, "one"), separators=(",", ":")).encode()
        self._write(segment, data[: min(cut, len(data) - 1)])

    @rule(segment=SEGMENTS, line=ODD_LINES)
    def write_odd_line(self, segment: str, line: bytes) -> None:
        self._write(segment, line + b"\n")

    @rule(segment=SEGMENTS)
    def start_writing(self, segment: str) -> None:
        """Open a journal as the library does, with a clock that stands in that segment's day."""
        self.stop_writing()
        day = datetime.fromisoformat(f"{segment[:10]}T12:00:00+00:00")
        self.journal = Journal(
            self.log_dir,
            fsync=False,
            max_bytes=10**9,
            report=_never,
            grown=_never,
            clock=day.timestamp,
        )
        self.append(segment)

    @precondition(lambda self: self.journal is not None)
    @rule(segment=SEGMENTS)
    def append(self, segment: str) -> None:
        assert self.journal is not None
        record, before = self._operation(segment, "one"), self._sizes()
        assert self.journal.append(_line(record), self.number * 10**9)
        (name,) = [each for each, size in self._sizes().items() if size != before.get(each)]
        self.files.setdefault(name, []).append(record)

    @rule()
    def stop_writing(self) -> None:
        if self.journal is not None:
            self.journal.forget()
        self.journal = None

    # the others

    @rule(segment=SEGMENTS)
    def delete(self, segment: str) -> None:
        (self.log_dir / "journal" / segment).unlink(missing_ok=True)
        self.files.pop(segment, None)

    @precondition(lambda self: CAN_COMPACT)
    @rule(everything=st.booleans())
    def compact(self, everything: bool) -> None:
        before = listed(self.log)
        self.log.compact(all=everything)
        after = listed(self.log)
        for what in before:
            assert after[what] == before[what], what
        assert list(sums(self.log, self.log.operations())) == []
        for name in self.files.keys() - self._sizes().keys():
            self.archived += self.files.pop(name)
        # what had ended then is one record in the archive, wherever its end stands
        done = self._ended()
        self.archived = [
            each
            for each in self.archived
            if each.get("type") != "begin" or each["operation_id"] not in done
        ]

    @invariant()
    def nothing_is_lost_or_doubled_and_order_is_kept(self) -> None:
        assert sorted(map(_row, self.log.operations()), key=_sortable) == self._rows()
        assert self.log.operations() == sorted(self.log.operations(), key=_start)

    # the model

    def _operation(self, segment: str, session: str) -> Record:
        """Return a new operation of that day, each with a moment of its own."""
        self.number += 1
        moment = datetime.fromisoformat(segment[:10]) + timedelta(seconds=self.number)
        return {
            "timestamp": f"{moment.isoformat()}.{self.number:06d}Z",
            "session_id": session,
            "service": f"service-{self.number % 3}",
            "operation": "ask",
            "success": True,
            "duration_seconds": self.number / 8,
            "tokens": self.number,
            "metadata": {"n": self.number},
            "operation_id": f"{self.number:016x}",
        }

    def _append(self, segment: str, record: Record, expect: Record | None = None) -> None:
        line = {key: value for key, value in record.items() if value is not None}
        self._write(segment, _line(line))
        self.files.setdefault(segment, []).append(record | {"expect": expect or {}})

    def _write(self, segment: str, data: bytes) -> None:
        """Write behind what is there; the library's writers close a torn line before."""
        with (self.log_dir / "journal" / segment).open("a+b") as file:
            file.seek(0)
            is_torn = file.read()[-1:] not in (b"", b"\n")
            file.write(b"\n" + data if is_torn else data)

    def _sizes(self) -> dict[str, int]:
        return {each.name: each.stat().st_size for each in (self.log_dir / "journal").iterdir()}

    def _is_archived(self, operation: Record) -> bool:
        """Tell whether it counts as interrupted for good: compaction waits for what still runs."""
        return operation["operation_id"] in {each["operation_id"] for each in self.archived}

    def _records(self) -> list[Record]:
        return [*self.archived, *(each for name in self.files for each in self.files[name])]

    def _ended(self) -> set[str]:
        return {
            each["operation_id"] for each in self._records() if each.get("type") in (None, "void")
        }

    def _rows(self) -> list[Row]:
        ended, rows = self._ended(), {}
        for record in self._records():
            key = record["operation_id"] or record["timestamp"]
            if "type" not in record:
                rows[key] = _expected(record)
            elif record["type"] == "begin" and key not in ended:
                rows[key] = _expected(record | {"expect": {"outcome": "interrupted"}})
        return sorted(rows.values(), key=_sortable)


def _expected(record: Record) -> Row:
    values = {"outcome": "ok"} | record | record.get("expect", {})
    return (
        datetime.fromisoformat(record["timestamp"]),
        values.get("operation_id"),
        values["session_id"],
        values["service"],
        values["outcome"],
        values.get("tokens"),
        values.get("input_tokens"),
        values.get("model"),
        values.get("metadata", {}),
        values.get("extra", {}),
    )


def _row(operation: Operation) -> Row:
    return (
        operation.timestamp,
        operation.operation_id,
        operation.session_id,
        operation.service,
        operation.outcome,
        operation.tokens,
        operation.input_tokens,
        operation.model,
        operation.metadata,
        operation.extra,
    )


def _start(operation: Operation) -> tuple[datetime, str]:
    return operation.timestamp, operation.operation_id or ""


def _sortable(row: Row) -> tuple[datetime, str]:
    return row[0], row[1] or ""


def _line(record: Record) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _never(*arguments: object) -> None:
    raise AssertionError(arguments)


def test_whatever_happens_to_a_log_its_answers_are_those_of_the_model() -> None:
    seed(SEED)(LogMachine)
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=2 * RUNS,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
