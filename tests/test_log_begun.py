"""Operations that began and have no line of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from child import raw_lines, start
from log_writing import START, at, begin, encoded, exact, held, open_by_writers, operation, write

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


def test_thousands_that_a_full_disk_left_open_last_to_the_same_sign_of_life(tmp_path: Path) -> None:
    count = 4_000
    lines = [(begin(2 * each), operation(2 * each + 1, pid=77)) for each in range(count)]
    write(tmp_path, *chain.from_iterable(lines), begin(9_000, run="run2"))
    found = UsageLog(tmp_path).operations(outcome="interrupted")
    seconds = [each.duration_seconds for each in found]
    assert seconds == [*range(2 * count, 0, -2), 0]


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


def void(number: int, moment: float) -> dict[str, Any]:
    return {"type": "void", "operation_id": f"{number:016x}", "timestamp": at(moment)}


def starts(log: UsageLog, since: datetime | None = None) -> list[list[float]]:
    """Return when operations began, in seconds, as each way of asking has it."""
    moment = START if since is None else since
    found = [log.operations(since=since), log.operations(limit=9999, since=since)]
    found += [[*log.iterate(since=since)], log.operations(session="work", since=since)]
    rows = log.sql("select timestamp from operations where timestamp >= ? order by 1", [moment])
    found_rows = [row[0] for row in rows.fetchall()]
    table = log.to_arrow(since=since)["timestamp"].to_pylist()
    seconds = [[each.timestamp for each in one] for one in found] + [found_rows, table]
    counted = [row.operation_count for row in log.summary((), since=since)]
    assert counted == [len(found_rows)] * bool(found_rows)
    return [[(each - START).total_seconds() for each in one] for one in seconds]


MANY = [begin(n, timestamp=at(2)) for n in range(100, 170)]
SECOND = "2026-11-25-host-0002.jsonl"
# what stands in two files, and when operation 1 began, if it did
WITHDRAWN: dict[str, tuple[list[Any], list[Any], int | None]] = {
    "once": ([begin(1), void(1, 1)], [], None),
    "and then begun": ([begin(1), void(1, 1), begin(1, timestamp=at(8))], [], 8),
    "and begun elsewhere": ([begin(1), void(1, 1)], [begin(1, timestamp=at(8))], 8),
    "elsewhere and begun": ([begin(1)], [void(1, 1), begin(1, timestamp=at(8))], 8),
    "after it began": ([begin(1), begin(1, timestamp=at(8))], [void(1, 1)], 8),
    "in another order": ([begin(1, timestamp=at(8))], [begin(1), void(1, 1)], 8),
    "twice": ([begin(1), void(1, 1), begin(1, timestamp=at(8)), void(1, 8)], [], None),
    "for a copy": ([begin(1), begin(1)], [void(1, 1)], None),
    "for good": ([begin(1), begin(1, timestamp=at(8))], [void(1, 1) | {"timestamp": None}], None),
    "among many": ([begin(1), void(1, 1), *MANY], [begin(1, timestamp=at(8))], 8),
    "far before": ([begin(1), *[operation(2)] * 1000], [void(1, 1), begin(1, timestamp=at(8))], 8),
}


@pytest.mark.parametrize("form", [bytes, exact], ids=["any", "recorded"])
@pytest.mark.parametrize(("first", "second", "began"), WITHDRAWN.values(), ids=WITHDRAWN)
def test_void_withdraws_a_beginning_and_a_later_one_counts(
    tmp_path: Path,
    first: list[Any],
    second: list[Any],
    began: int | None,
    form: Callable[[bytes], bytes],
) -> None:
    pytest.importorskip("pyarrow")
    others = [each for each in first if each.get("type") == "begin" and each in MANY]
    write(tmp_path, form(encoded(*first, operation(9))))
    if second:
        write(tmp_path, form(encoded(*second, operation(10))), name=SECOND)
    log = UsageLog(tmp_path)
    ends = {9.0} | ({10.0} if second else set()) | ({2.0} if operation(2) in first else set())
    expected = sorted([*ends, *[2.0] * len(others), *([] if began is None else [float(began)])])
    late = [each for each in expected if each >= 5]
    for _ in range(2):
        assert starts(log, START + timedelta(seconds=5)) == [late] * 6
        assert starts(log) == [expected] * 6
    log.compact(all=True)
    assert starts(log) == [expected] * 6


def test_what_began_again_still_runs_while_its_beginning_is_compacted(tmp_path: Path) -> None:
    write(tmp_path, exact(encoded(begin(1), operation(2))))
    write(tmp_path, exact(encoded(void(1, 1), operation(3))), name=SECOND)
    log = UsageLog(tmp_path)
    with held(tmp_path), open_by_writers(tmp_path / "journal" / SECOND):
        write(tmp_path, exact(encoded(begin(1, timestamp=at(8)))), name=SECOND)
        assert [each.timestamp for each in log.running()] == [START + timedelta(seconds=8)]
        log.compact(all=True)
        assert [each.timestamp for each in log.running()] == [START + timedelta(seconds=8)]
    assert starts(log) == [[2, 3, 8]] * 6


def test_a_call_that_started_late_and_was_killed_is_interrupted_in_every_answer(
    tmp_path: Path,
) -> None:
    program = """
        @tracked(service="s")
        def fetch(seconds):
            return asyncio.sleep(seconds)

        fetch(0).close()  # begun and withdrawn for good

        @tracked(service="s")
        def slow():
            return work()

        async def work():
            print("begun", flush=True)
            await asyncio.sleep(60)

        asyncio.run(slow())
    """
    process = start(program, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.kill()
    process.communicate()
    lines = [json.loads(line) for line in raw_lines(tmp_path)]
    assert [each["type"] for each in lines] == ["begin", "void", "begin", "void", "begin"]
    assert lines[2]["operation_id"] == lines[4]["operation_id"]
    assert lines[2]["timestamp"] == lines[3]["timestamp"] < lines[4]["timestamp"]
    log = UsageLog(tmp_path)
    (interrupted,) = log.operations()
    assert interrupted.outcome == "interrupted"
    rows = log.sql("select operation_id, outcome from operations").fetchall()
    assert rows == [(interrupted.operation_id, "interrupted")]
    assert [each.interrupted_count for each in log.summary("service")] == [1]
    log.compact(all=True)
    assert log.operations() == [interrupted]
    assert [each.interrupted_count for each in log.summary("service")] == [1]


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
