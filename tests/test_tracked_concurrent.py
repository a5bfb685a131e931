"""Threads, tasks, forks, and how much memory is taken."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from responses import chat, chunks, only, parents

from instrument import current_operation, session, track, tracked
from instrument.testing import CapturedOperations, capture

KILOBYTE = 1024


@tracked(service="s", operation="inner")
def inner() -> Any:
    return current_operation().parent_id


@tracked(service="s", operation="outer")
def outer() -> bool:
    return {inner(), inner()} == {current_operation().id}


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_eight_threads_never_see_each_others_operations(
    capture_operations: CapturedOperations,
) -> None:
    assert in_threads(8, lambda: all(outer() for _ in range(100))) == [True] * 8
    found = list(capture_operations)
    assert len({each.operation_id for each in found}) == len(found) == 8 * 300
    assert set(Counter(each.parent_id for each in found if each.parent_id).values()) == {2}


async def test_tasks_never_see_each_others_operations(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s", operation="task")
    async def task() -> bool:
        mine = current_operation().id
        await asyncio.sleep(0.001)
        return inner() == mine == current_operation().id

    assert all(await asyncio.gather(*(task() for _ in range(50))))
    assert len(capture_operations) == 100


def test_a_call_that_forks_is_recorded_by_the_parent_alone(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s", operation="forks")
    def forks() -> int:
        child = os.fork()
        if not child:
            inner()
        return child

    child = forks()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    assert parents(capture_operations) == {"forks": None, "inner": "forks"}
    assert len(capture_operations) == 2
    assert len({each.pid for each in capture_operations}) == 2


def grown(work: Callable[[], Any], warm: Callable[[], Any] = list) -> int:
    """Return how many bytes more are in use after `work` than after `warm`, which runs before."""
    tracemalloc.start()
    try:
        warm()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_a_generator_of_many_chunks_holds_none_of_them(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s")
    def generate() -> Iterator[Any]:
        for number in range(100_000):
            yield {**chunks()[0], "number": number}

    generator = generate()

    def consume() -> None:
        for chunk in generator:
            if chunk["number"] == 99_998:
                return

    assert grown(consume, warm=lambda: next(generator)) < 100 * KILOBYTE
    generator.close()
    assert only(capture_operations).chunks == 99_999


def test_an_operation_with_very_many_children_stays_small() -> None:
    numbers = iter(range(1_000_000))
    ask = tracked(service="s")(lambda: chat(f"chat-{next(numbers)}"))

    def work(count: int) -> None:
        for _ in range(count):
            ask()

    with capture(), session(), track("outer", service="s"):
        assert grown(lambda: work(20_000), warm=lambda: work(12_000)) < 2000 * KILOBYTE


def test_finished_operations_are_let_go(capture_operations: CapturedOperations) -> None:
    def living() -> int:
        gc.collect()
        return sum(type(each).__name__ == "RunningOperation" for each in gc.get_objects())

    before = living()
    with session():
        for _ in range(100):
            outer()
            list(tracked(service="s")(lambda: iter(chunks()))())
    assert living() - before < 5
