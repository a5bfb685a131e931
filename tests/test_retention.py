"""What is pruned goes in whole days, and what is kept of a day stays, whatever comes after."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from log_writing import operation, write

from instrument.log import UsageLog

OLD, NEW = "2026-11-20-host-0001.jsonl", "2026-11-21-host-0001.jsonl"
DAY = 86_400
QUESTIONS = [("day",), ("day", "service"), ("week",), ("service",), ("service", "model"), ()]


def before(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def calls(log: UsageLog, *by: str) -> list[int]:
    return [row.operation_count for row in log.summary(by=by)]


def medians(log: UsageLog, *by: str) -> list[float | None]:
    return [row.p50_seconds for row in log.summary(by=by)]


def test_a_later_operation_of_a_kept_day_is_added_before_and_after_compaction(
    tmp_path: Path,
) -> None:
    write(tmp_path, *[operation(number) for number in range(9)], name=OLD)
    log = UsageLog(tmp_path)
    assert log.prune(before(21), keep_summary=True).operations == 9
    write(tmp_path, operation(100, duration_seconds=100.0), name=OLD)
    for again in range(4):
        for by in QUESTIONS:
            assert calls(log, *by) == [10]
            assert medians(log, *by) == [None]  # of nine, nobody knows any more
        if again == 2:
            write(tmp_path, operation(101), name=OLD.replace("0001", "0002"))
            log.prune(before(21), keep_summary=True)
            assert (calls(log, "day"), medians(log, "day")) == ([11], [None])
            return
        log.compact(all=True)


@pytest.mark.parametrize("keep", [True, False])
def test_of_a_day_that_is_not_over_before_the_moment_nothing_goes(
    tmp_path: Path, keep: bool
) -> None:
    log = UsageLog(tmp_path)
    write(tmp_path, operation(1, session_id="early"), operation(2), name=OLD)
    log.compact()
    write(tmp_path, operation(7200, session_id="late"), name=OLD.replace("0001", "0002"))
    log.compact()
    assert log.prune(before(20, 13), keep_summary=keep).operations == 0
    for by in [*QUESTIONS, ("operation",), ("outcome",)]:
        assert calls(log, *by) == [3]
    assert sorted(log.find_sessions()) == ["early", "late", "work"]
    assert log.prune(before(20, 15), keep_summary=keep).operations == 3
    assert log.find_sessions() == []
    assert calls(log) == ([3] if keep else [])


def test_what_is_kept_goes_by_a_later_pruning_of_its_own_days_alone(tmp_path: Path) -> None:
    log = UsageLog(tmp_path)
    write(tmp_path, operation(1), operation(-10 * DAY), name=OLD)
    write(tmp_path, operation(DAY), name=NEW)
    log.prune(before(22), keep_summary=True)
    assert calls(log, "day") == [1, 1, 1]
    log.prune(before(11))
    assert [str(row.day) for row in log.summary(by="day")] == ["2026-11-20", "2026-11-21"]
    log.prune(before(20, 12))
    assert calls(log, "day") == [1, 1]
    log.prune(before(21))
    assert calls(log, "day") == [1]
    log.prune(before(22))
    assert calls(log, "day") == []


def test_percentiles_of_a_kept_day_are_those_that_were_kept_and_of_more_days_unknown(
    tmp_path: Path,
) -> None:
    log = UsageLog(tmp_path)
    write(tmp_path, *[operation(each, duration_seconds=100.0) for each in range(9)], name=OLD)
    write(tmp_path, operation(DAY), name=NEW)
    log.prune(before(21), keep_summary=True)
    assert medians(log, "day") == [100.0, 1.0]
    assert medians(log, "day", "service") == [100.0, 1.0]
    assert medians(log) == medians(log, "month") == medians(log, "service") == [None]
    assert log.summary(by=(), zone=UTC)[0].total_duration_seconds == 901.0


@pytest.mark.parametrize("turned", [False, True])
def test_a_days_percentiles_are_over_all_logs(tmp_path: Path, turned: bool) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write(one, *[operation(each) for each in range(9)], name=OLD)
    write(other, operation(100, duration_seconds=100.0), name=OLD)
    write(other, operation(DAY, duration_seconds=7.0), name=NEW)
    log = UsageLog(other, one) if turned else UsageLog(one, other)
    expected = {by: figures(log, by) for by in QUESTIONS}
    assert medians(log, "day") == [1.0, 7.0]
    for _ in range(2):
        log.compact(all=True)
        assert {by: figures(log, by) for by in QUESTIONS} == expected
    UsageLog(one).prune(before(21), keep_summary=True)
    assert calls(log, "day") == [10, 1]
    assert medians(log, "day") == [None, 7.0]
    UsageLog(other).prune(before(21), keep_summary=True)
    assert calls(log, "day") == [10, 1]
    assert medians(log, "day") == [None, 7.0]


def figures(log: UsageLog, by: tuple[str, ...]) -> list[Any]:
    return [
        (row.operation_count, row.p50_seconds, row.p95_seconds, row.p99_seconds)
        for row in log.summary(by=by)
    ]
