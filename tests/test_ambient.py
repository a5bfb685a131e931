"""The session of everything outside an explicit one, shared through `session.json`."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from child import run, start

from instrument import UsageLog

ID = re.compile(r"session_\d{10,}_[0-9a-f]{8}")


def stored(log_dir: Path) -> Any:
    return json.loads((log_dir / "session.json").read_bytes())


def store(log_dir: Path, **changes: Any) -> None:
    """Leave a session as another tool would, last active now."""
    now = time.time()
    session = {"session_id": "earlier", "created_at": now - 9000, "last_activity": now} | changes
    (log_dir / "session.json").write_text(json.dumps(session))


def sessions(log_dir: Path) -> list[str]:
    """Return the session of each recorded operation."""
    return [each.session_id for each in UsageLog(log_dir).operations()]


def test_sixteen_processes_that_start_at_once_agree_on_one_id(tmp_path: Path) -> None:
    program = """
        ask()
        print("ready", flush=True)
        at = float(input())
        for n in range(20):
            time.sleep(max(0, at + n / 20 - time.time()))
            configure(log_dir=Path(os.environ["INSTRUMENT_DIR"]) / str(n))
            ask()
        """
    several = [start(program, tmp_path) for _ in range(16)]
    assert [process.stdout and process.stdout.readline() for process in several] == ["ready\n"] * 16
    at = time.time() + 0.2
    for process in several:
        assert process.stdin is not None
        process.stdin.write(f"{at}\n")
        process.stdin.flush()
    for process in several:
        process.communicate(timeout=60)
    rounds = [tmp_path / str(n) for n in range(20)]
    assert [set(sessions(each)) for each in rounds] == [
        {stored(each)["session_id"]} for each in rounds
    ]
    assert [len(sessions(each)) for each in rounds] == [16] * 20


def test_the_next_process_resumes_the_session(tmp_path: Path) -> None:
    run("ask()", tmp_path)
    run("ask()", tmp_path)
    (first, second) = sessions(tmp_path)
    assert first == second
    assert ID.fullmatch(first)


def test_a_long_lived_process_leaves_a_session_that_was_idle_too_long(tmp_path: Path) -> None:
    program = """
        configure(session_timeout_seconds=1)
        ask(); time.sleep(0.6); ask(); time.sleep(0.6); ask(); time.sleep(1.1); ask()
        """
    run(program, tmp_path)
    first, second, third, fourth = sessions(tmp_path)
    assert first == second == third != fourth == stored(tmp_path)["session_id"]


@pytest.mark.parametrize("idle", [0, 3500, -3500, 3700, -3700, 1e300])
def test_a_session_lives_for_an_hour_however_the_clock_jumps(idle: float, tmp_path: Path) -> None:
    store(tmp_path, last_activity=time.time() - idle)
    run("ask()", tmp_path)
    assert (sessions(tmp_path) == ["earlier"]) is (abs(idle) < 3600)
    assert abs(stored(tmp_path)["last_activity"] - time.time()) < 60


FOREIGN = {
    "empty": b"",
    "torn": b'{"session_id": "earl',
    "not text": b"\xff\xfe",
    "a list": b"[]",
    "other keys": b'{"id": "x"}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=list(FOREIGN))
def test_a_corrupt_or_foreign_file_is_replaced(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "session.json").write_bytes(content)
    assert run("ask()", tmp_path, "-W", "error") == ("", "")
    assert sessions(tmp_path) == [stored(tmp_path)["session_id"]]


def test_a_fifo_in_its_place_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "session.json")
    assert run("ask()", tmp_path, "-W", "error") == ("", "")
    assert sessions(tmp_path) == [stored(tmp_path)["session_id"]]


def test_fifos_beside_it_delay_nobody(tmp_path: Path) -> None:
    program = """
        os.mkfifo(f"{os.environ['INSTRUMENT_DIR']}/session.json.{os.getpid()}.tmp")
        ask()
        """
    assert run(program, tmp_path, "-W", "error") == ("", "")
    assert len(sessions(tmp_path)) == 1


@pytest.mark.parametrize("session_id", ["", "a b", "a/b", "x" * 129, "\n"])
def test_a_stored_id_that_is_none_is_replaced(session_id: str, tmp_path: Path) -> None:
    store(tmp_path, session_id=session_id)
    run("ask()", tmp_path)
    assert ID.fullmatch(stored(tmp_path)["session_id"])


def test_a_directory_in_its_place_is_left_and_leaves_no_litter(tmp_path: Path) -> None:
    (tmp_path / "session.json").mkdir()
    assert run("ask()\nask()", tmp_path, "-W", "error") == ("", "")
    assert len(set(sessions(tmp_path))) == 1
    assert list(tmp_path.glob("*.tmp")) == []


def test_the_original_formats_file_is_resumed_and_kept_readable(tmp_path: Path) -> None:
    store(tmp_path, last_activity=time.time() - 60)
    created_at = stored(tmp_path)["created_at"]
    run("ask()", tmp_path)
    after = stored(tmp_path)
    assert list(after) == ["session_id", "created_at", "last_activity"]
    assert (after["session_id"], after["created_at"]) == ("earlier", created_at)
    assert time.time() - after["last_activity"] < 60


def test_explicit_sessions_and_reading_are_no_activity(tmp_path: Path) -> None:
    before = time.time() - 60
    store(tmp_path, last_activity=before)
    program = """
        from instrument import current_session
        with session("work"): ask()
        print(current_session().id, UsageLog().recent()[0].session_id == current_session().id)
        """
    assert run(program, tmp_path) == ("earlier False", "")
    assert stored(tmp_path)["last_activity"] == before


def test_activity_is_written_at_most_once_a_second_by_all_processes_together(
    tmp_path: Path,
) -> None:
    run("ask()", tmp_path)
    before = (tmp_path / "session.json").stat().st_ino
    run("for n in range(1000): ask()", tmp_path)
    unchanged = (tmp_path / "session.json").stat().st_ino == before
    assert unchanged is (time.time() - stored(tmp_path)["last_activity"] < 5)
    store(tmp_path, last_activity=time.time() - 2)
    run("ask()", tmp_path)
    assert time.time() - stored(tmp_path)["last_activity"] < 1


HELD = """
    started = time.perf_counter()
    ask()
    print(time.perf_counter() - started < 0.2, flush=True)
    input()
    same_second()
    ask()
    """


@pytest.mark.parametrize("known", [True, False])
def test_a_lock_that_another_process_keeps_delays_nobody_for_long(
    known: bool, tmp_path: Path
) -> None:
    if known:
        store(tmp_path, last_activity=time.time() - 60)
    descriptor = os.open(tmp_path / "session.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with start(HELD, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        os.close(descriptor)
        store(tmp_path, session_id="agreed")
        process.communicate("\n")
    first, second = sessions(tmp_path)
    assert (first == "earlier") is known
    assert second == "agreed"


def test_the_first_session_is_agreed_on_without_the_lock(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "session.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    several = [start("ask()", tmp_path) for _ in range(4)]
    for process in several:
        process.communicate(timeout=60)
    os.close(descriptor)
    assert sessions(tmp_path) == [stored(tmp_path)["session_id"]] * 4
    assert sorted(each.name for each in tmp_path.iterdir() if "session" in each.name) == [
        "session.json",
        "session.lock",
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_a_stored_session_is_used_where_it_cannot_be_refreshed(tmp_path: Path) -> None:
    program = """
        import tempfile, json
        from instrument import current_session
        with tempfile.TemporaryDirectory() as place:
            os.chmod(place, 0o755)
            now = time.time() - 60
            stored = {"session_id": "earlier", "created_at": now, "last_activity": now}
            Path(place, "session.json").write_text(json.dumps(stored))
            configure(log_dir=place)
            child = os.fork()
            if child:
                os.wait()
            else:
                os.setuid(65534)
                warnings.simplefilter("ignore")
                with track("block", service="s") as block: print(block.session_id, flush=True)
                os._exit(0)
        """
    assert run(program, tmp_path) == ("earlier", "")
