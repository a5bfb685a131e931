"""Probes: coroutines are native, run in the caller's task, and are cancelled as before."""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Iterator
from typing import Any

from .errors import raised, raised_by
from .quiet import listening, quiet
from .subject import Subject, behaviour


async def slowly(value: int) -> int:
    await asyncio.sleep(0)
    return value


@behaviour()
async def calling_gives_a_native_coroutine(subject: Subject) -> None:
    pending = subject.decorate(slowly)(1)
    assert type(pending) is types.CoroutineType
    assert inspect.isawaitable(pending)
    assert (pending.__name__, pending.__qualname__) == ("slowly", "slowly")
    assert inspect.getcoroutinestate(pending) == inspect.CORO_CREATED
    assert await pending == 1


@behaviour()
async def coroutine_body_runs_at_the_first_step_only(subject: Subject) -> None:
    ran: list[str] = []

    async def note() -> None:
        ran.append("body")

    pending = subject.decorate(note)()
    assert ran == []
    await pending
    assert ran == ["body"]


@behaviour()
def never_awaited_warning_names_the_function(subject: Subject) -> None:
    heard: list[str] = []
    with listening(heard):
        subject.decorate(slowly)(1)
    assert heard == ["coroutine 'slowly' was never awaited"]


@behaviour()
def coroutine_closed_unstarted_is_silent(subject: Subject) -> None:
    with quiet():
        subject.decorate(slowly)(1).close()


@behaviour()
async def coroutine_runs_in_the_same_task(subject: Subject) -> None:
    async def task() -> Any:
        return asyncio.current_task()

    assert await subject.decorate(task)() is asyncio.current_task()


@behaviour()
def coroutine_can_be_driven_by_hand(subject: Subject) -> None:
    @types.coroutine
    def ask(question: str) -> Iterator[Any]:
        return (yield question)

    async def converse() -> Any:
        try:
            await ask("first")
        except KeyError:
            return await ask("second")

    pending = subject.decorate(converse)()
    assert pending.send(None) == "first"
    assert pending.throw(KeyError()) == "second"
    assert repr(raised(pending.send, "answer")) == "StopIteration('answer')"


@behaviour()
async def generator_based_coroutines_can_be_awaited(subject: Subject) -> None:
    @types.coroutine
    def legacy() -> Iterator[Any]:
        yield from asyncio.sleep(0).__await__()
        return 42

    assert await subject.decorate(legacy)() == 42


@behaviour()
async def cancellation_reaches_the_body_and_the_awaiter(subject: Subject) -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            seen.append(str(error))
            raise

    task = asyncio.create_task(subject.decorate(wait)())
    await asyncio.sleep(0)
    task.cancel("enough")
    await asyncio.wait([task])
    assert seen == ["enough"]
    assert task.cancelled()


@behaviour()
async def timeout_becomes_timeout_error_in_the_same_task(subject: Subject) -> None:
    async def wait() -> None:
        await asyncio.sleep(60)

    try:
        async with asyncio.timeout(0.01):
            await subject.decorate(wait)()
    except TimeoutError:
        assert asyncio.current_task().cancelling() == 0
    else:
        raise AssertionError("the timeout did not fire")


@behaviour()
async def cancellation_that_the_body_swallows_stays_swallowed(subject: Subject) -> None:
    async def survive() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "survived"
        return "slept"

    task = asyncio.create_task(subject.decorate(survive)())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "survived"


@behaviour()
async def task_groups_and_gather_work(subject: Subject) -> None:
    decorated = subject.decorate(slowly)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(decorated(number)) for number in range(3)]
    assert [task.result() for task in tasks] == [0, 1, 2]
    assert await asyncio.gather(*map(decorated, range(3))) == [0, 1, 2]


@behaviour()
async def locals_of_a_waiting_coroutine_are_reachable(subject: Subject) -> None:
    waiting = subject.decorate(asyncio.sleep)(0)
    assert waiting.cr_frame is not None
    assert waiting.cr_running is False
    assert waiting.cr_code is not None
    await waiting
    assert waiting.cr_frame is None


@behaviour("trio")
def coroutines_run_under_trio(subject: Subject) -> None:
    import trio

    async def sleep() -> str:
        await trio.sleep(0)
        return "slept"

    assert trio.run(subject.decorate(sleep)) == "slept"


@behaviour()
async def coroutine_cannot_be_awaited_twice(subject: Subject) -> None:
    pending = subject.decorate(slowly)(1)
    await pending
    error = await raised_by(pending)
    assert repr(error) == "RuntimeError('cannot reuse already awaited coroutine')"


@behaviour()
def coroutine_dropped_half_way_is_silent(subject: Subject) -> None:
    events: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            events.append("closed")

    with quiet():
        pending = subject.decorate(wait)()
        pending.send(None)
        del pending
    assert events == ["closed"]
