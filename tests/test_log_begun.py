"""Operations that began and have no line of their own."""

from __future__ import annotations

import os
from datetime import UTC, timedelta
from pathlib import Path

from log_writing import START, at, begin, held, operation, write

from instrument.log import UsageLog

NEXT_DAY = "2026-11-21-host-0001.jsonl"


def test_a_begun_operation_runs_while_its_process_holds_the_lock(tmp_path: Path) -> None:
    write(tmp_path, begin(1))
    log = UsageLog(tmp_path)
    with held(tmp_path):
        (running,) = log.running()
        assert (running.outcome, running.success, running.operation) == ("running", False, "ask")
        assert running.duration_seconds > 0
        assert log.operations() == []
        assert log.sql("select * from operations").fetchall() == []
    assert log.running() == []


def test_it_is_interrupted_once_its_process_is_gone(tmp_path: Path) -> None:
    write(tmp_path, begin(1), operation(0))
    log = UsageLog(tmp_path)
    _, interrupted = log.operations(session="work")
    assert (interrupted.outcome, interrupted.success) == ("interrupted", False)
    assert log.operations(outcome="interrupted") == [interrupted]
    assert log.stats("work").interrupted_count == 1
    assert log.sessions()[0].operation_count == 2
    assert log.sql("select outcome, success, tokens from operations order by 1").fetchall() == [
        ("interrupted", False, None),
        ("ok", True, 10),
    ]


def test_the_interrupted_one_lasts_to_the_last_sign_of_life(tmp_path: Path) -> None:
    write(tmp_path, operation(0, pid=77, duration_seconds=500.0), begin(10))
    write(tmp_path, operation(12, pid=77, duration_seconds=3.0), operation(60, pid=78))
    write(tmp_path, operation(13, pid=77), name=NEXT_DAY)
    (interrupted,) = UsageLog(tmp_path).operations(outcome="interrupted")
    assert interrupted.duration_seconds == 5.0


def test_a_reused_process_number_is_no_sign_of_life(tmp_path: Path) -> None:
    write(tmp_path, begin(10), operation(11, pid=77))
    write(tmp_path, begin(50, run="run2"), operation(50, pid=77), operation(51, pid=77))
    (interrupted,) = UsageLog(tmp_path).operations(outcome="interrupted")
    assert interrupted.duration_seconds == 2.0


def test_the_same_process_number_on_another_host_is_no_sign_of_life(tmp_path: Path) -> None:
    write(tmp_path, begin(10))
    write(tmp_path, operation(50, pid=77), name="2026-11-20-other-0001.jsonl")
    (interrupted,) = UsageLog(tmp_path).operations(outcome="interrupted")
    assert interrupted.duration_seconds == 0.0


def test_without_later_lines_the_lock_file_tells_when_it_was_last_alive(tmp_path: Path) -> None:
    write(tmp_path, begin(10))
    with held(tmp_path) as lock:
        pass
    touched = (START + timedelta(seconds=14)).astimezone(UTC).timestamp()
    os.utime(lock, (touched, touched))
    (interrupted,) = UsageLog(tmp_path).operations(session="work")
    assert interrupted.duration_seconds == 4.0


def test_an_operation_line_ends_its_begin_wherever_it_stands(tmp_path: Path) -> None:
    write(tmp_path, begin(1), name=NEXT_DAY)
    write(tmp_path, operation(1))
    write(tmp_path / "other", begin(2))
    write(tmp_path, operation(2), name=NEXT_DAY)
    log = UsageLog(tmp_path, tmp_path / "other")
    assert [each.outcome for each in log.operations()] == ["ok", "ok"]
    assert [each.outcome for each in log.operations(session="work")] == ["ok", "ok"]
    assert log.running() == []


def test_an_end_outside_the_period_asked_for_still_ends_its_begin(tmp_path: Path) -> None:
    write(tmp_path, begin(5), operation(5, timestamp=at(1)))
    log = UsageLog(tmp_path)
    assert log.operations(since=START + timedelta(seconds=3)) == []
    assert log.operations(model="none") == []


def test_void_withdraws_a_begin_line_and_a_later_one_counts_again(tmp_path: Path) -> None:
    void = {"type": "void", "operation_id": f"{1:016x}"}
    write(tmp_path, begin(1), void)
    log = UsageLog(tmp_path)
    assert log.operations(session="work") == log.operations() == []
    assert log.sql("select * from operations").fetchall() == []
    write(tmp_path, begin(1, timestamp=at(8)))
    (interrupted,) = log.operations(session="work")
    assert interrupted.timestamp == START + timedelta(seconds=8)


def test_a_run_that_leads_out_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    with held(tmp_path / "elsewhere", "x"):
        write(tmp_path / "log", begin(1, run="../../elsewhere/run/x"))
        assert UsageLog(tmp_path / "log").running() == []


def test_many_processes_that_died_are_each_interrupted_once(tmp_path: Path) -> None:
    write(tmp_path, *[begin(n, pid=n, run=f"run{n}", session_id=f"s{n}") for n in range(50)])
    log = UsageLog(tmp_path)
    assert len(log.operations()) == len(log.operations(limit=80)) == 50
    assert log.sql("select count(*) from operations").fetchall() == [(50,)]
    assert [each.interrupted_count for each in log.sessions()] == [1] * 20
