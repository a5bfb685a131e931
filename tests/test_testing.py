"""`capture()` and the fixture: tests of programs that never touch the real log."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from responses import chat, only

from instrument import (
    Budget,
    BudgetExceeded,
    ConfigurationError,
    Operation,
    UsageLogger,
    configure,
    current_session,
    session,
    track,
    tracked,
)
from instrument.recorder import recorder
from instrument.testing import CapturedOperations, CountingIds, FakeClock, capture

CHAT_READ: dict[str, Any] = {
    "tokens": 15,
    "input_tokens": 10,
    "output_tokens": 5,
    "model": "without-a-price",
    "kind": "chat",
    "response_id": "chat-1",
}


@tracked(service="s")
def call() -> None: ...


def in_threads(number: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(number)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def test_operations_stay_readable_after_the_block() -> None:
    with capture() as operations, session() as work:
        tracked(service="s")(chat)()
        assert len(operations) == 1
    assert only(operations).tokens == 15
    assert operations.stats(work.id).total_tokens == 15
    assert operations.log.operations() == list(operations)


def test_the_log_goes_with_the_object() -> None:
    with capture() as operations:
        call()
    log_dir = operations.log_dir
    assert log_dir.exists()
    del operations
    gc.collect()
    assert not log_dir.exists()


def test_captures_nest() -> None:
    with capture() as outer:
        call()
        with capture() as inner:
            call()
        call()
    assert (len(outer), len(inner)) == (2, 1)


def test_settings_and_environment_are_restored_after_an_exception() -> None:
    settings, environment = recorder().settings, dict(os.environ)
    with suppress(KeyError), capture(enabled=False, error_messages=False):
        assert not recorder().settings.error_messages
        raise KeyError
    assert recorder().settings == settings
    assert dict(os.environ) == environment


def test_threads_and_child_processes_are_captured(
    capture_operations: CapturedOperations,
) -> None:
    program = "from instrument import track\nwith track('child', service='s'): pass"
    subprocess.run([sys.executable, "-c", program], check=True)
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert [each.operation for each in capture_operations] == ["child", "call"]


def test_what_began_before_is_recorded_where_it_began() -> None:
    with capture() as outer:
        with track("outside", service="s"):
            inner_capture = capture()
            inner = inner_capture.__enter__()
            call()
        inner_capture.__exit__(None, None, None)
    assert [each.operation for each in outer] == ["outside"]
    assert [each.operation for each in inner] == ["call"]


def test_a_session_that_is_around_stays_around() -> None:
    with capture(), session("outer") as work, capture() as operations:
        assert current_session() is work
        call()
    assert (only(operations).session_id, only(operations).session_name) == (work.id, "outer")


def test_it_works_in_unittest() -> None:
    class Case(unittest.TestCase):
        def test(self) -> None:
            with capture() as operations:
                call()
            assert [each.operation for each in operations] == ["call"]

    result = unittest.TestResult()
    Case("test").run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])


def test_the_fixture_works_in_a_run_of_its_own_and_the_real_log_is_not_created(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_it.py").write_text(
        "from instrument import tracked\n"
        "def test_it(capture_operations):\n"
        "    assert tracked(service='s')(len)('ab') == 2\n"
        "    assert [each.operation for each in capture_operations] == ['len']\n"
    )
    real = tmp_path / "real"
    environment: dict[str, Any] = {**os.environ, "INSTRUMENT_DIR": str(real)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "."], cwd=tmp_path, env=environment, capture_output=True)
    assert b"1 passed" in done.stdout
    assert not real.exists()


def test_a_fork_that_ends_does_not_take_the_captured_log_away() -> None:
    with capture() as operations:
        call()
    child = os.fork()
    if not child:
        del operations
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert [each.operation for each in operations] == ["call"]


def test_a_program_that_configures_itself_inside_stays_captured(
    capture_operations: CapturedOperations,
) -> None:
    configure(error_messages=True)
    call()
    assert only(capture_operations).operation == "call"


def test_durations_timestamps_and_percentiles_are_those_of_the_fake_clock() -> None:
    clock = FakeClock()
    with capture(clock=clock) as operations, session() as work:
        for seconds in (0.1, 2, 30):
            tracked(service="s")(clock.tick)(seconds)
    assert [each.duration_seconds for each in operations] == [0.1, 2.0, 30.0]
    assert [each.timestamp.second for each in operations] == [0, 0, 2]
    stats = operations.stats(work.id)
    assert (stats.elapsed_seconds, stats.p50_seconds) == (32.1, 2.0)
    assert work.started_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_whole_record_is_predictable() -> None:
    with capture(clock=FakeClock(), ids=CountingIds()) as operations, session("nightly"):
        tracked(service="s")(chat)(model="without-a-price")
    assert only(operations) == Operation(
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        session_id="session_0_00000001",
        session_name="nightly",
        service="s",
        operation="chat",
        success=True,
        outcome="ok",
        duration_seconds=0.0,
        operation_id="0000000000000001",
        pid=os.getpid(),
        **CHAT_READ,
    )


def test_operations_and_sessions_are_counted_apart_and_the_ambient_one_too() -> None:
    with capture(ids=CountingIds()) as operations:
        call()
        with session():
            call()
        call()
    assert [(each.operation_id[-2:], each.session_id[-2:]) for each in operations] == [
        ("01", "01"),
        ("02", "02"),
        ("03", "01"),
    ]


def test_the_tenth_id_is_written_as_a_ten() -> None:
    ids = CountingIds()
    assert [ids.new_id() for _ in range(10)][-1] == "0000000000000010"


def test_a_stream_is_measured_by_the_fake_clock() -> None:
    clock = FakeClock()

    @tracked(service="s")
    def stream() -> Iterator[int]:
        clock.tick(1)
        yield 1
        clock.tick(2)

    with capture(clock=clock) as operations:
        for _ in stream():
            clock.tick(10)
    found = only(operations)
    assert (found.duration_seconds, found.active_seconds) == (13.0, 3.0)
    assert found.first_chunk_seconds == 1.0


def test_a_coroutine_is_measured_by_the_fake_clock() -> None:
    clock = FakeClock()

    @tracked(service="s")
    async def ask() -> None:
        clock.tick(4)

    with capture(clock=clock) as operations:
        asyncio.run(ask())
    assert only(operations).duration_seconds == 4.0


def test_another_day_is_another_segment_and_another_row() -> None:
    clock = FakeClock(datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC))
    with capture(clock=clock) as operations:
        call()
        clock.tick(2)
        call()
        days = [(row.day, row.operation_count) for row in operations.log.summary(by="day")]
    assert days == [(date(2026, 2, 28), 1), (date(2026, 3, 1), 1)]
    segments = sorted(each.name[:10] for each in (operations.log_dir / "journal").iterdir())
    assert segments == ["2026-02-28", "2026-03-01"]


def test_the_ambient_session_ends_by_the_fake_clock() -> None:
    clock = FakeClock()
    with capture(clock=clock) as operations:
        for seconds in (0, 3599, 3601):
            clock.tick(seconds)
            call()
    first, second, third = (each.session_id for each in operations)
    assert first == second != third


@pytest.mark.parametrize("year", [1999, 2026, 2999])
def test_ago_and_recent_are_counted_back_from_the_fake_clock(year: int) -> None:
    clock = FakeClock(datetime(year, 6, 1, tzinfo=UTC))
    with capture(clock=clock) as operations:
        call()
        clock.tick(timedelta(days=40))
        call()
        assert len(operations.log.recent(hours=1)) == 1
        assert len(operations.log.operations(since=timedelta(days=41))) == 2


def test_a_running_operation_runs_by_the_fake_clock() -> None:
    clock = FakeClock()
    with capture(clock=clock) as operations, track("slow", service="s"):
        clock.tick(7)
        assert only(operations.log.running()).duration_seconds == 7.0


def test_threads_see_one_clock_and_draw_different_ids() -> None:
    clock = FakeClock()
    ask = tracked(service="s")(lambda: clock.tick(0.5))
    with capture(clock=clock, ids=CountingIds()) as operations:
        in_threads(8, lambda: [ask() for _ in range(50)])
    assert sorted(each.operation_id for each in operations) == [f"{n:016d}" for n in range(1, 401)]
    assert clock.now() == datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=200)


def test_a_budget_of_a_day_is_new_on_the_next_fake_day() -> None:
    clock = FakeClock()
    with capture(clock=clock, budgets={"daily": Budget(operations=1, per="day")}) as operations:
        call()
        with pytest.raises(BudgetExceeded, match=r"new at 2026-01-02T00:00Z"):
            call()
        clock.tick(timedelta(days=1))
        call()
    assert [each.timestamp.day for each in operations] == [1, 2]


def test_the_fake_clock_is_gone_after_an_exception() -> None:
    before = recorder().settings
    with suppress(KeyError), capture(clock=FakeClock(), ids=CountingIds()):
        raise KeyError
    assert recorder().settings == before
    assert session().id.startswith("session_1")
    assert session().started_at.year != 2026 or session().started_at.month != 1


def test_an_operation_keeps_the_clock_that_it_began_with() -> None:
    clock = FakeClock()
    with capture() as outer:
        inner_capture = capture(clock=clock)
        with track("before", service="s"):
            inner = inner_capture.__enter__()
            clock.tick(1000)
        within = track("within", service="s")
        within.__enter__()
        clock.tick(5)
        inner_capture.__exit__(None, None, None)
        within.__exit__(None, None, None)
    assert only(outer).duration_seconds < 900
    assert only(inner).duration_seconds == 5.0


def test_a_capture_inside_goes_on_with_the_clock_around() -> None:
    clock = FakeClock()
    with capture(clock=clock, ids=CountingIds()), capture() as inner:
        call()
        with capture(clock=FakeClock(datetime(2000, 1, 1, tzinfo=UTC))) as innermost:
            call()
    assert only(inner).timestamp == clock.now()
    assert only(innermost).timestamp.year == 2000
    assert [only(inner).operation_id[-1], only(innermost).operation_id[-1]] == ["1", "2"]


def test_configure_inside_leaves_clock_and_ids() -> None:
    with capture(clock=FakeClock(), ids=CountingIds()) as operations:
        configure(error_messages=False)
        call()
    assert (only(operations).operation_id[-1], only(operations).timestamp.year) == ("1", 2026)


def test_a_fork_goes_on_with_a_copy_of_the_clock_and_with_ids_of_its_own() -> None:
    clock = FakeClock()
    with capture(clock=clock, ids=CountingIds()) as operations:
        child = os.fork()
        if not child:
            tracked(service="s")(clock.tick)(60)
            os._exit(0)
        os.waitpid(child, 0)
        call()
    (childs, own) = sorted(operations, key=lambda each: -each.duration_seconds)
    assert (childs.duration_seconds, own.timestamp) == (60.0, datetime(2026, 1, 1, tzinfo=UTC))
    assert own.operation_id == "0000000000000001" != childs.operation_id


def test_the_original_loggers_lines_are_of_the_fake_clock() -> None:
    clock = FakeClock()
    with capture(clock=clock, ids=CountingIds()) as operations:
        clock.tick(90)
        UsageLogger("s").log_usage("op", duration=30.0)
    assert only(operations).timestamp == datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert only(operations).operation_id == "0000000000000001"


BAD = {
    "the class": {"clock": FakeClock},
    "a time": {"clock": 0},
    "a number": {"ids": 1},
}


@pytest.mark.parametrize("given", BAD.values(), ids=BAD)
def test_what_is_no_clock_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"use a (FakeClock|CountingIds)\(\)"):
        capture(**given).__enter__()


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, 1e300, 10**400, True, "1", None])
def test_the_clock_does_not_go_back_nor_out_of_the_calendar(seconds: Any) -> None:
    clock = FakeClock()
    before = clock.now()
    with pytest.raises(ConfigurationError, match="a number of seconds from 0"):
        clock.tick(seconds)
    assert clock.now() == before


@pytest.mark.parametrize("start", [datetime(2026, 1, 1), "2026-01-01", 0])
def test_a_start_without_a_zone_is_refused(start: Any) -> None:
    with pytest.raises(ConfigurationError, match="an aware datetime"):
        FakeClock(start)


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**12), max_size=20))
def test_what_ticks_add_up_to_is_what_passed(microseconds: list[int]) -> None:
    clock = FakeClock()
    for each in microseconds:
        clock.tick(timedelta(microseconds=each))
    passed = clock.now() - datetime(2026, 1, 1, tzinfo=UTC)
    assert passed == timedelta(microseconds=sum(microseconds))
    assert clock.time_ns() == clock.perf_counter_ns()


SHOWN = """\
nightly  session_0_00000001
2026-01-01 00:00:00 UTC
2 operations, tokens not reported, 100.0 % success, 1.5 s

operation     outcome    time  0                                          1.50 s
app report    ok       1.50 s  █████████████████████████████████████████████████
  openai ask  ok       1.50 s  █████████████████████████████████████████████████
"""


def test_what_the_command_prints_can_be_a_golden_text() -> None:
    clock = FakeClock()
    ask = tracked(service="openai", operation="ask")(clock.tick)
    with capture(clock=clock, ids=CountingIds()):
        with session("nightly"), track("report", service="app"):
            ask(1.5)
        command = [sys.executable, "-m", "instrument", "show", "session_0_00000001", "--utc"]
        environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONUTF8": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert done.stdout == SHOWN


UNITTEST = [sys.executable, "-m", "unittest", "-q", "test_with_unittest"]
OFFLINE = Path(__file__).with_name("offline")


@pytest.mark.parametrize(
    ("tokens", "said"), [(1500, b"OK"), (1499, b"1500 not less than or equal to")]
)
def test_a_unittest_module_holds_a_budget_offline(tokens: int, said: bytes) -> None:
    environment = {**os.environ, "GEOGRAPHY_TOKENS": str(tokens)}
    done = subprocess.run(UNITTEST, cwd=OFFLINE, env=environment, capture_output=True)
    assert said in done.stderr
    assert done.returncode == (tokens < 1500)
