"""What is on disk when a process does not live to say goodbye."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from child import raw_ids, run, start

from instrument import UsageLog

KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
CALLS = {
    "sync": "for n in range(200): ask()",
    "async": """
        @tracked(service="s", operation="ask")
        async def ask_async(): await asyncio.sleep(0)
        async def main(): await asyncio.gather(*(ask_async() for n in range(200)))
        asyncio.run(main())
        """,
    "threads": """
        def work():
            for n in range(50): ask()
        threads = [threading.Thread(target=work) for n in range(4)]
        for each in threads: each.start()
        for each in threads: each.join()
        """,
}


def dedented(calls: str, then: str) -> str:
    lines = calls.strip().splitlines()
    return "\n".join([lines[0], *(line.removeprefix(" " * 8) for line in lines[1:]), then])


@pytest.mark.parametrize("then", [KILLED, "os._exit(0)"], ids=["SIGKILL", "_exit"])
@pytest.mark.parametrize("calls", CALLS.values(), ids=list(CALLS))
def test_every_call_that_returned_before_the_end_is_recorded(
    calls: str, then: str, tmp_path: Path
) -> None:
    run(dedented(calls, then), tmp_path)
    assert [each.outcome for each in UsageLog(tmp_path).operations()] == ["ok"] * 200


def test_a_burst_of_100_000_calls_loses_none(tmp_path: Path) -> None:
    run(f"for n in range(100_000): ask()\n{KILLED}", tmp_path)
    assert len(raw_ids(tmp_path)) == 100_000


def test_eight_processes_write_40_000_whole_lines_with_ids_of_their_own(tmp_path: Path) -> None:
    several = [start("for n in range(5_000): ask()", tmp_path) for _ in range(8)]
    for process in several:
        process.communicate(timeout=60)
    log = UsageLog(tmp_path)
    found = log.operations()
    assert (len(found), log.skipped_count) == (40_000, 0)
    assert len(raw_ids(tmp_path)) == len(set(raw_ids(tmp_path))) == 40_000
    assert len({each.session_id for each in found}) == 1


def test_a_call_in_flight_is_running_and_after_a_kill_interrupted(tmp_path: Path) -> None:
    program = """
        @tracked(service="s")
        def hang():
            print("in flight", flush=True)
            time.sleep(60)
        hang()
        """
    log = UsageLog(tmp_path)
    with start(program, tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [each.operation for each in log.running()] == ["hang"]
        process.kill()
    (found,) = log.operations()
    assert (found.outcome, found.success, log.running()) == ("interrupted", False, [])
    assert 0 <= found.duration_seconds < 30


def test_a_fifo_in_the_place_of_a_run_lock_is_no_sign_of_life(tmp_path: Path) -> None:
    run(f"tracked(service='s')(lambda: {KILLED})()", tmp_path)
    (lock,) = (tmp_path / "run").iterdir()
    lock.unlink()
    os.mkfifo(lock)
    assert run("print(UsageLog().running())", tmp_path) == ("[]", "")


def test_a_returned_coroutine_that_never_starts_leaves_nothing(tmp_path: Path) -> None:
    program = """
        async def later(): pass
        coroutine = ask(later())
        print(len(UsageLog().running()))
        coroutine.close()
        """
    assert run(program, tmp_path)[0] == "0"
    assert UsageLog(tmp_path).operations() == []


def test_a_torn_last_line_of_a_dead_process_does_not_swallow_the_next_one(tmp_path: Path) -> None:
    run("ask()", tmp_path)
    (segment,) = (tmp_path / "journal").iterdir()
    with segment.open("a") as file:
        file.write('{"timestamp":"2026-11-2')
    run("ask()", tmp_path)
    log = UsageLog(tmp_path)
    assert (len(log.operations()), log.skipped_count) == (2, 1)


def test_fsync_durability_syncs_the_segment_at_every_line(tmp_path: Path) -> None:
    program = """
        synced, fsync = [], os.fsync
        def counting(descriptor):
            synced.append(os.fstat(descriptor).st_ino)
            fsync(descriptor)
        os.fsync = counting
        configure(durability="fsync")
        ask(); ask()
        print(len(synced), set(synced) == {segments(os.environ["INSTRUMENT_DIR"])[0].stat().st_ino})
        """
    # the first call leaves a begin line too
    assert run(program, tmp_path) == ("3 True", "")
