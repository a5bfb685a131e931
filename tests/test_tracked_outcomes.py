"""How calls end: by exceptions of every kind, by cancellation, and at the gate."""

from __future__ import annotations

import asyncio
import builtins
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import trio
from responses import chat, only

from instrument import session, tracked
from instrument.testing import CapturedOperations


def outcome(operations: CapturedOperations) -> tuple[str, str | None, str | None]:
    found = only(operations)
    return found.outcome, found.error_type, found.error_message


class Metaclass(type):
    """A class of classes of which nothing can be asked."""

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)

    __hash__ = None  # type: ignore[assignment]


class NothingToAskError(Exception, metaclass=Metaclass):
    pass


class WithoutModuleError(Exception):
    __module__ = None  # type: ignore[assignment]


class WithoutClassError(Exception):
    @property
    def __class__(self) -> Any:
        raise RuntimeError


class WithoutTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class TextOfNoTextError(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


MESSAGES = {
    "NothingToAskError": "why",
    "WithoutModuleError": "why",
    "WithoutClassError": "why",
    "WithoutTextError": "<WithoutTextError whose str fails>",
    "TextOfNoTextError": "<TextOfNoTextError whose str fails>",
    "KeyboardInterrupt": "why",
    "SystemExit": "why",
    "StopIteration": "why",
    "StopAsyncIteration": "why",
    "BaseException": "why",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_every_exception_reaches_the_caller_and_is_an_error(
    capture_operations: CapturedOperations, name: str
) -> None:
    error = (globals().get(name) or getattr(builtins, name))("why")

    @tracked(service="s")
    def ask() -> None:
        raise error

    try:
        ask()
    except BaseException as caught:
        came_back = caught is error
    assert came_back
    assert outcome(capture_operations) == ("error", name, MESSAGES[name])


def test_the_error_type_is_the_qualified_name(capture_operations: CapturedOperations) -> None:
    class Client:
        class RateLimitError(Exception): ...

    def ask() -> None:
        raise Client.RateLimitError("x" * 600)

    with pytest.raises(Client.RateLimitError):
        tracked(service="s")(ask)()
    _, name, message = outcome(capture_operations)
    assert name is not None
    assert name.endswith("<locals>.Client.RateLimitError")
    assert message == "x" * 500


async def by_timeout(ask: Any) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.005):
            await ask()


async def by_wait_for(ask: Any) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(ask(), 0.005)


async def by_a_task_group(ask: Any) -> None:
    async def fail() -> None:
        await asyncio.sleep(0.005)
        raise KeyError

    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
            group.create_task(fail())


async def by_a_cancel_scope(ask: Any) -> None:
    with anyio.move_on_after(0.005):
        await ask()


@pytest.mark.parametrize("cancel", [by_timeout, by_wait_for, by_a_task_group, by_a_cancel_scope])
@pytest.mark.parametrize("kind", ["function", "generator"])
async def test_cancellation_is_cancelled_and_no_error(
    capture_operations: CapturedOperations, cancel: Any, kind: str
) -> None:
    @tracked(service="s")
    async def ask() -> None:
        await asyncio.sleep(9)

    @tracked(service="s")
    async def generate() -> AsyncIterator[int]:
        await asyncio.sleep(9)
        yield 1

    async def first() -> None:
        await anext(generate())

    await cancel(ask if kind == "function" else first)
    assert outcome(capture_operations) == ("cancelled", "CancelledError", None)


def test_trios_cancellation_is_cancelled(capture_operations: CapturedOperations) -> None:
    async def main() -> None:
        with trio.move_on_after(0.005):
            await tracked(service="s")(trio.sleep)(9)

    trio.run(main)
    assert outcome(capture_operations) == ("cancelled", "Cancelled", None)


async def test_a_coroutine_that_is_closed_is_partial(
    capture_operations: CapturedOperations,
) -> None:
    coroutine = tracked(service="s")(asyncio.sleep)(1)
    coroutine.send(None)
    coroutine.close()
    assert outcome(capture_operations) == ("partial", None, None)
    assert only(capture_operations).success


def test_a_failed_process_is_an_error_unless_success_says_otherwise(
    capture_operations: CapturedOperations,
) -> None:
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    for success in (None, lambda process: process.returncode == 3):
        tracked(service="s", success=success)(subprocess.run)(command)
    assert [(each.outcome, each.error_type) for each in capture_operations] == [
        ("error", "exit_3"),
        ("ok", None),
    ]


def test_a_response_with_an_error_status_is_an_error(
    capture_operations: CapturedOperations,
) -> None:
    tracked(service="s")(lambda: SimpleNamespace(status_code=429))()
    tracked(service="s")(lambda: SimpleNamespace(status_code=200))()
    assert [each.error_type for each in capture_operations] == ["http_429", None]


class Gate:
    """Admits a number of operations, and keeps what it hears."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.admitted: list[str] = []
        self.settled: list[tuple[str, int | None, bool]] = []

    def admit(self, operation: Any) -> None:
        if len(self.admitted) >= self.places:
            raise PermissionError("no more")
        self.admitted.append(operation.id)

    def settle(self, operation: Any, line: Any) -> None:
        self.settled.append((line.operation_id, line.tokens, line.success))


def plain() -> Any:
    return chat()


def iterate() -> Iterator[Any]:
    yield chat()


async def awaitable() -> Any:
    return chat()


async def aiterate() -> AsyncIterator[Any]:
    yield chat()


async def consume(result: Any) -> None:
    if hasattr(result, "__aiter__"):
        async for _ in result:
            pass
    elif hasattr(result, "__await__"):
        await result
    elif not isinstance(result, dict):
        list(result)


@pytest.mark.parametrize("function", [plain, iterate, awaitable, aiterate])
async def test_the_gates_refusal_goes_to_the_caller_and_leaves_no_operation(
    capture_operations: CapturedOperations, function: Any
) -> None:
    ask = tracked(service="s")(function)
    with session() as work:
        work.gate = Gate(places=0)
        refused = ask if function is plain else ask()  # not before the first step
        with pytest.raises(PermissionError, match="no more"):
            await consume(refused() if function is plain else refused)
    assert list(capture_operations) == []
    assert capture_operations.log.running() == []


@pytest.mark.parametrize("function", [plain, iterate, awaitable, aiterate])
async def test_the_gate_hears_once_of_the_final_line(
    capture_operations: CapturedOperations, function: Any
) -> None:
    with session() as work:
        work.gate = gate = Gate(places=1)
        await consume(tracked(service="s")(function)())
    found = only(capture_operations)
    assert gate.admitted == [found.operation_id]
    assert gate.settled == [(found.operation_id, 15, True)]


def test_a_gate_that_fails_to_take_note_is_not_the_callers_concern(
    capture_operations: CapturedOperations, fresh_warnings: None
) -> None:
    with session() as work:
        work.gate = gate = Gate(places=1)
        gate.settle = None  # type: ignore[assignment, method-assign]
        with pytest.warns(UserWarning, match="not recorded"):
            assert tracked(service="s")(plain)() == chat()
    assert only(capture_operations).tokens == 15
