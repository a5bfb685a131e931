"""Tasks carry the session and operation of whoever starts them, in every event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
from responses import parents

from instrument import current_operation, current_session, session, track, tracked
from instrument.testing import CapturedOperations


@tracked(service="s", operation="child")
async def child(*arguments: Any) -> str:
    await anyio.sleep(0)
    return current_session().id


def sessions(captured: CapturedOperations) -> set[str]:
    return {each.session_id for each in captured}


async def by_gather() -> None:
    await asyncio.gather(child(), child())


async def by_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(child())


async def by_callback() -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    tasks: list[Any] = []
    loop.call_soon(lambda: tasks.append(loop.create_task(child())) or done.set())
    await done.wait()
    await asyncio.gather(*tasks)


async def by_timeout() -> None:
    async with asyncio.timeout(10):
        await asyncio.wait_for(child(), 10)


async def by_anyio() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(child)


async def by_trio() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)


WAYS: list[tuple[Callable[[], Awaitable[None]], str]] = [
    (by_gather, "asyncio"),
    (by_task_group, "asyncio"),
    (by_callback, "asyncio"),
    (by_timeout, "asyncio"),
    (by_anyio, "asyncio"),
    (by_anyio, "trio"),
    (by_trio, "trio"),
]


@pytest.mark.parametrize(("way", "backend"), WAYS)
def test_a_task_belongs_to_whoever_started_it(
    capture_operations: CapturedOperations, way: Callable[[], Awaitable[None]], backend: str
) -> None:
    async def main() -> None:
        async with session(id="work"):
            with track("parent", service="s"):
                await way()
        assert current_operation() is None

    anyio.run(main, backend=backend)
    assert parents(capture_operations) == {"parent": None, "child": "parent"}
    assert sessions(capture_operations) == {"work"}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_inside_of_a_session_belongs_to_it(
    capture_operations: CapturedOperations, backend: str
) -> None:
    with session(id="work"), track("parent", service="s"):
        assert anyio.run(child, backend=backend) == "work"
    assert parents(capture_operations) == {"parent": None, "child": "parent"}


async def test_a_task_that_outlives_the_session_stays_in_it(
    capture_operations: CapturedOperations,
) -> None:
    async def late() -> str:
        await is_over.wait()
        return await child()

    is_over = asyncio.Event()
    with session(id="work"), track("parent", service="s"):
        forgotten = asyncio.create_task(late())
    with session(id="next"):
        is_over.set()
        assert await forgotten == "work"
    assert parents(capture_operations) == {"parent": None, "child": "parent"}
    assert sessions(capture_operations) == {"work"}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_items_of_a_stream_belong_to_whoever_takes_them(
    capture_operations: CapturedOperations, backend: str
) -> None:
    """A memory object stream carries objects, and no session: there `propagate` binds by hand."""

    async def main() -> None:
        send, receive = anyio.create_memory_object_stream[str](9)
        async with receive, anyio.create_task_group() as group:
            with session(id="taker"):
                group.start_soon(take, receive)
            with session(id="giver"):
                async with send:
                    for item in "abc":
                        await send.send(item)

    async def take(receive: Any) -> None:
        async for _ in receive:
            assert await child() == "taker"

    anyio.run(main, backend=backend)
    assert len(capture_operations) == 3


async def test_tasks_of_many_sessions_never_mix(capture_operations: CapturedOperations) -> None:
    async def one(name: str) -> None:
        async with session(id=name), asyncio.TaskGroup() as group:
            tasks = [group.create_task(child()) for _ in range(5)]
        assert {task.result() for task in tasks} == {name}

    await asyncio.gather(*(one(f"work-{number}") for number in range(50)))
    counted = [each.session_id for each in capture_operations]
    assert {counted.count(each) for each in counted} == {5}
    assert len(counted) == 250
