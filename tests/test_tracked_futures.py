"""Futures and tasks that a tracked function returns: the same object, followed to its end."""

from __future__ import annotations

import asyncio
import gc
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import pytest
from responses import chat, only

from instrument import tracked
from instrument.testing import CapturedOperations

SECONDS = 0.02


@tracked(service="s")
def give(future: Any) -> Any:
    return future


def test_a_future_is_timed_and_read_when_it_is_done(
    capture_operations: CapturedOperations,
) -> None:
    def slowly() -> Any:
        time.sleep(SECONDS)
        return chat()

    with ThreadPoolExecutor(1) as pool:
        tracked(service="s")(pool.submit)(slowly)
    found = only(capture_operations)
    assert (found.outcome, found.tokens) == ("ok", 15)
    assert found.duration_seconds >= SECONDS * 0.9


async def test_a_task_is_timed_and_read_when_it_is_done(
    capture_operations: CapturedOperations,
) -> None:
    task = asyncio.create_task(asyncio.sleep(SECONDS, chat()))
    assert give(task) is task
    assert list(capture_operations) == []
    assert await task == chat()
    found = only(capture_operations)
    assert (found.outcome, found.tokens) == ("ok", 15)
    assert found.duration_seconds >= SECONDS * 0.9


async def test_a_futures_exception_is_the_operations(
    capture_operations: CapturedOperations,
) -> None:
    ours: Future[None] = Future()
    theirs = asyncio.get_running_loop().create_future()
    for future in (ours, theirs):
        give(future).set_exception(ValueError("why"))
    with pytest.raises(ValueError, match="why"):
        await theirs
    await asyncio.sleep(0)
    assert [(each.error_type, each.error_message) for each in capture_operations] == [
        ("ValueError", "why"),
        ("ValueError", "why"),
    ]


async def test_a_cancelled_future_is_cancelled(capture_operations: CapturedOperations) -> None:
    ours: Future[None] = Future()
    theirs = asyncio.get_running_loop().create_future()
    for future in (ours, theirs):
        give(future).cancel()
    with pytest.raises(asyncio.CancelledError):
        await theirs
    await asyncio.sleep(0)
    with pytest.raises(CancelledError):
        ours.result()
    assert [each.outcome for each in capture_operations] == ["cancelled", "cancelled"]


async def test_an_exception_that_the_program_never_looks_at_is_still_complained_about(
    capture_operations: CapturedOperations,
) -> None:
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: complaints.append(context["message"]))
    future = give(loop.create_future())
    future.set_exception(ValueError("why"))
    await asyncio.sleep(0.001)
    del future
    gc.collect()
    assert complaints == ["Future exception was never retrieved"]
    assert only(capture_operations).error_type == "ValueError"


def test_a_future_that_is_done_already_is_read_at_once_even_if_its_loop_is_closed(
    capture_operations: CapturedOperations,
) -> None:
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.set_result(chat())
    loop.close()
    assert give(future) is future
    assert only(capture_operations).tokens == 15


def test_a_loop_that_is_closed_before_the_future_is_done_is_not_disturbed(
    capture_operations: CapturedOperations,
) -> None:
    loop = asyncio.new_event_loop()
    future = tracked(service="s")(loop.create_future)()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        future.set_result(1)
    (running,) = capture_operations.log.running()
    assert running.operation == "BaseEventLoop.create_future"


def test_usage_and_success_see_the_futures_result(
    capture_operations: CapturedOperations,
) -> None:
    future: Future[str] = Future()
    ask = tracked(service="s", usage=len, success=lambda text: text == "fine")(lambda: future)
    ask()
    future.set_result("not fine")
    found = only(capture_operations)
    assert (found.tokens, found.error_type) == (8, "unsuccessful")


class Metaclass(type):
    __hash__ = None  # type: ignore[assignment]

    def __getattr__(cls, name: str) -> Any:
        raise RuntimeError(name)


class Unusual(metaclass=Metaclass):
    pass


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_result_whose_class_cannot_be_looked_up_comes_back(
    capture_operations: CapturedOperations, wrapped: bool, fresh_warnings: None
) -> None:
    result: Any = Unusual()
    if wrapped:
        result = Future()
        result.set_result(Unusual())
    with pytest.warns(UserWarning, match="Unusual could not be read"):
        assert give(result) is result
    assert only(capture_operations).outcome == "ok"
