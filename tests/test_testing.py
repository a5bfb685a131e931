"""`capture()` and the fixture: tests of programs that never touch the real log."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import unittest
from contextlib import suppress
from pathlib import Path
from typing import Any

from responses import chat, only

from instrument import configure, current_session, session, track, tracked
from instrument.recorder import recorder
from instrument.testing import CapturedOperations, capture


@tracked(service="s")
def call() -> None: ...


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
