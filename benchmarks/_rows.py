"""The rows of `overhead.py`: each makes a side's call in another way and times it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from _sides import Side

THREADS = 4

Loop = Callable[[int], float]  # makes that many calls, returns the seconds they took


def timed(body: Callable[[int], Any], clock: Callable[[], float] = time.thread_time) -> Loop:
    def loop(calls: int) -> float:
        began = clock()
        body(calls)
        return clock() - began

    return loop


def repeat(call: Callable[[], Any], calls: int) -> None:
    for _ in range(calls):
        call()


def sync_row(side: Side) -> Loop:
    call = side.decorate(side.work)
    return timed(lambda calls: repeat(call, calls))


def whole_process_row(side: Side) -> Loop:
    """The sync call with what other threads do for it, until nothing is left to be done."""
    call = side.decorate(side.work)

    def body(calls: int) -> None:
        repeat(call, calls)
        side.settle()

    return timed(body, clock=time.process_time)


def async_row(side: Side) -> Loop:
    work = side.work

    async def later() -> Any:
        return work()

    call = side.decorate(later)

    async def main(calls: int) -> float:
        began = time.thread_time()
        for _ in range(calls):
            await call()
        return time.thread_time() - began

    return lambda calls: asyncio.run(main(calls))


def nested_row(side: Side) -> Loop:
    child, before = side.decorate(side.work), side.before

    def parent() -> Any:
        return child()

    def parent_by_hand() -> Any:
        before()
        return child()

    call = side.decorate(parent_by_hand if before else parent)
    return timed(lambda calls: repeat(call, calls))


def generator_row(side: Side) -> Loop:
    work = side.work

    def three_chunks() -> Iterator[Any]:
        yield "A short"
        yield "answer."
        yield work()

    call = side.decorate(three_chunks)
    return timed(lambda calls: repeat(lambda: list(call()), calls))


def threads_row(side: Side) -> Loop:
    call = side.decorate(side.work)

    def body(calls: int) -> None:
        share = calls // THREADS
        threads = [threading.Thread(target=repeat, args=(call, share)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return timed(body, clock=time.perf_counter)


def inside_row(side: Side) -> Loop:
    """The sync call inside one long operation, to which a reader leaves its claim."""
    from instrument import track

    call = side.decorate(side.work)

    def loop(calls: int) -> float:
        with track("benchmark", service="benchmark"):
            return timed(lambda calls: repeat(call, calls))(calls)

    return loop


ROWS: dict[str, Callable[[Side], Loop]] = {
    "sync": sync_row,
    "sync, in all": whole_process_row,
    "async": async_row,
    "parent + child": nested_row,
    "generator of 3": generator_row,
    "4 threads": threads_row,
}
OF_FUNCTIONS = ("sync", "sync, in all", "parent + child", "4 threads")
INSIDE = "inside an operation"
BESIDE = "beside OpenTelemetry"
