"""What a test captures is the same whether the run is recorded or not."""

from __future__ import annotations

import pytest

from instrument import UsageLog

TEST = """
import asyncio
import os
import subprocess
import sys
import pytest
from instrument import current_session, session, tracked
from instrument.testing import CountingIds, FakeClock, capture

ask = tracked(service="s", operation="ask")(lambda: None)

@pytest.fixture
def captured():
    with capture(clock=FakeClock(), ids=CountingIds()) as operations:
        yield operations

def check(operations):
    (found,) = operations
    assert (found.parent_id, found.session_name) == (None, None)
    assert found.session_id == "session_0_00000001"

def test_in_a_block():
    with capture(clock=FakeClock(), ids=CountingIds()) as operations:
        ask()
    check(operations)

def test_in_a_fixture(captured):
    ask()
    check(captured)

@pytest.mark.asyncio
async def test_in_a_task(captured):
    await asyncio.to_thread(ask)
    check(captured)

def test_in_a_session(captured):
    with session("mine") as work:
        ask()
    assert work.parent_id is None
    assert [each.session_name for each in captured] == ["mine"]

def test_in_a_child_process(captured):
    program = "from instrument import track\\nwith track('child', service='s'): pass"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert captured[0].parent_id is None

def test_the_recording_goes_on_afterwards():
    ask()
    with capture():
        ask()
    ask()
"""


@pytest.mark.parametrize("options", [[], ["--instrument"]], ids=["alone", "recorded"])
def test_what_is_captured_does_not_depend_on_the_run(
    options: list[str], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUMENT_DIR", str(pytester.path / "log"))
    monkeypatch.setenv("INSTRUMENT_SESSION_ID", "around")
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest", *options)
    result.assert_outcomes(passed=6)
    log = UsageLog(pytester.path / "log")
    asked = log.operations(service="s")
    calls = [each.operation_id for each in log.operations(service="pytest", operation="call")]
    assert len(asked) == 2
    assert [each.parent_id in calls for each in asked] == [bool(options)] * 2
