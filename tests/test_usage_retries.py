"""Which attempt a call was, told by tenacity's own state, and absent where nothing tells it."""

from __future__ import annotations

from typing import Any

import pytest
from responses import only

from instrument import tracked
from instrument.testing import CapturedOperations

tenacity = pytest.importorskip("tenacity")
THREE_TIMES: dict[str, Any] = {"stop": tenacity.stop_after_attempt(3), "reraise": True}


class Flaky:
    """Fails twice and then answers."""

    def __init__(self, failures: int = 2) -> None:
        self.failures = failures

    def __call__(self) -> str:
        self.failures -= 1
        if self.failures >= 0:
            raise OSError("no")
        return "yes"


def attempts(operations: CapturedOperations) -> list[tuple[str, int | None]]:
    return [(each.outcome, each.attempt) for each in operations]


def test_each_call_that_tenacity_makes_is_an_attempt(
    capture_operations: CapturedOperations,
) -> None:
    flaky = Flaky()

    @tenacity.retry(**THREE_TIMES)
    @tracked(service="s")
    def ask() -> str:
        return flaky()

    assert ask() == "yes"
    assert attempts(capture_operations) == [("error", 1), ("error", 2), ("ok", 3)]


async def test_so_is_each_that_it_awaits(capture_operations: CapturedOperations) -> None:
    flaky = Flaky()

    @tenacity.retry(**THREE_TIMES)
    @tracked(service="s")
    async def ask() -> str:
        return flaky()

    assert await ask() == "yes"
    assert attempts(capture_operations) == [("error", 1), ("error", 2), ("ok", 3)]


@pytest.mark.parametrize("reraise", [True, False])
def test_what_tenacity_gave_up_on_was_tried_so_often(
    capture_operations: CapturedOperations, reraise: bool
) -> None:
    retrying = tenacity.retry(stop=tenacity.stop_after_attempt(3), reraise=reraise)
    with pytest.raises((OSError, tenacity.RetryError)):
        tracked(service="s")(retrying(Flaky(9).__call__))()
    assert attempts(capture_operations) == [("error", 3)]


def test_a_call_around_what_tenacity_gave_up_on_was_made_once(
    capture_operations: CapturedOperations,
) -> None:
    def ask() -> None:
        tenacity.retry(**THREE_TIMES)(Flaky(9).__call__)()

    with pytest.raises(OSError, match="no"):
        tracked(service="s")(ask)()
    assert only(capture_operations).attempt is None


def test_a_loop_of_the_programs_own_tells_nothing(capture_operations: CapturedOperations) -> None:
    ask = tracked(service="s")(Flaky())
    for attempt in tenacity.Retrying(**THREE_TIMES):
        with attempt:
            ask()
    assert attempts(capture_operations) == [("error", None), ("error", None), ("ok", None)]


def test_the_retries_of_awss_clients_are_attempts(capture_operations: CapturedOperations) -> None:
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    for retries in (0, 2):
        told = {"RequestId": "r", "HTTPStatusCode": 200, "RetryAttempts": retries}
        answer = {"ResponseMetadata": told, "usage": usage, "stopReason": "end_turn", "output": {}}
        tracked(service="bedrock")(lambda found: found)(answer)
    assert attempts(capture_operations) == [("ok", None), ("ok", 3)]
