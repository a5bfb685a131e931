"""What a function returns and somebody else has too stays theirs: followed, and never closed."""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest

from instrument import tracked
from instrument.testing import CapturedOperations


def outcomes(operations: CapturedOperations) -> list[str]:
    return [each.outcome for each in operations]


class Reader:
    """Keeps what it gives."""

    def __init__(self) -> None:
        self.closed = False
        self.kept = self._lines()
        self.kept_async = self._lines_later()

    def _lines(self) -> Iterator[int]:
        try:
            yield from range(4)
        finally:
            self.closed = True

    async def _lines_later(self) -> AsyncIterator[int]:
        try:
            for each in range(4):
                yield each
        finally:
            self.closed = True

    @tracked(service="files")
    def lines(self) -> Iterator[int]:
        return self.kept

    @tracked(service="files", stream=True)
    def stream(self) -> Iterator[int]:
        return self.kept

    @tracked(service="files")
    def later(self) -> AsyncIterator[int]:
        return self.kept_async


def first_of(iterator: Iterator[int]) -> int:
    for each in iterator:
        return each
    raise AssertionError("there is nothing")


@pytest.mark.parametrize("ask", [Reader.lines, Reader.stream])
@pytest.mark.parametrize("leave", [next, first_of])
def test_a_generator_that_is_kept_goes_on_after_what_follows_it_is_dropped(
    ask: Callable[[Reader], Iterator[int]],
    leave: Callable[[Iterator[int]], int],
    capture_operations: CapturedOperations,
) -> None:
    reader = Reader()
    assert leave(ask(reader)) == 0
    gc.collect()
    assert not reader.closed
    assert list(ask(reader)) == [1, 2, 3]
    assert outcomes(capture_operations) == ["partial", "ok"]


async def test_so_does_an_async_generator(capture_operations: CapturedOperations) -> None:
    reader = Reader()
    async for each in reader.later():
        assert each == 0
        break
    gc.collect()
    await asyncio.sleep(0.01)  # in which the loop closes what follows it
    assert not reader.closed
    assert [each async for each in reader.later()] == [1, 2, 3]
    assert outcomes(capture_operations) == ["partial", "ok"]


def test_what_nobody_else_has_is_closed_inside_of_its_operation(
    capture_operations: CapturedOperations,
) -> None:
    tell = tracked(service="log")(lambda: None)

    def lines() -> Iterator[int]:
        try:
            yield 1
        finally:
            tell()

    next(tracked(service="files", operation="lines")(lambda: lines())())
    told, read = sorted(capture_operations, key=lambda each: each.service, reverse=True)
    assert (told.parent_id, read.outcome) == (read.operation_id, "partial")


async def test_an_async_one_that_nobody_else_has_is_closed_by_its_loop() -> None:
    closed = []

    async def lines() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async for _ in tracked(service="files")(lambda: lines())():
        break
    gc.collect()
    await asyncio.sleep(0.01)
    assert closed == [True]


@pytest.mark.parametrize("is_returned", [True, False])
async def test_an_async_generator_in_a_cycle_is_closed_without_complaint(
    is_returned: bool, capture_operations: CapturedOperations
) -> None:
    async def lines() -> AsyncIterator[int]:
        yield 1
        yield 2

    class Holder:
        itself: Any
        lines: Any

    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, told: complaints.append(told))
    track_lines = tracked(service="files", operation="lines")
    holder = Holder()
    holder.itself = holder
    holder.lines = track_lines(lambda: lines())() if is_returned else track_lines(lines)()
    await anext(holder.lines)
    del holder
    gc.collect()
    await asyncio.sleep(0.01)
    gc.collect()
    assert complaints == []
    assert outcomes(capture_operations) == ["partial"]


def test_closing_what_is_returned_closes_what_is_kept() -> None:
    reader = Reader()
    lines: Any = reader.lines()
    next(lines)
    lines.close()
    assert reader.closed
    assert list(reader.kept) == []


async def test_a_coroutine_that_is_kept_can_be_awaited_though_what_is_returned_is_not() -> None:
    jobs: list[Coroutine[Any, Any, int]] = []

    async def work() -> int:
        return 7

    @tracked(service="queue")
    def submit(job: Coroutine[Any, Any, int]) -> Coroutine[Any, Any, int]:
        jobs.append(job)
        return job

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of ours, which was not awaited
        submit(work())
        gc.collect()
    assert await jobs[0] == 7


def counting() -> Generator[int, int, str]:
    total = 0
    try:
        while True:
            total += yield total
    finally:
        ended.append(total)


async def counting_later() -> Any:
    total = 0
    try:
        while True:
            total += yield total
    finally:
        ended.append(total)


async def working() -> int:
    try:
        await asyncio.sleep(0)
        return 7
    finally:
        ended.append(7)


ended: list[int] = []


def begun(generator: Any) -> Any:
    generator.send(None)
    return generator


@pytest.fixture(autouse=True)
def forget() -> None:
    ended.clear()


def test_a_generator_that_has_begun_takes_what_is_sent_thrown_and_closed(
    capture_operations: CapturedOperations,
) -> None:
    ask = tracked(service="s")(lambda: begun(counting()))
    assert ask().send(5) == 5
    ended.clear()
    ask().close()
    assert ended == [0]
    with pytest.raises(KeyError):
        ask().throw(KeyError())
    assert outcomes(capture_operations) == ["partial", "partial", "error"]


def test_a_generator_that_has_begun_is_followed_from_where_it_stands(
    capture_operations: CapturedOperations,
) -> None:
    def chunks() -> Iterator[dict[str, Any]]:
        yield {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": []}
        counts = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        yield {"id": "c", "object": "chat.completion.chunk", "model": "m", "usage": counts}

    ask = tracked(service="s")(lambda: begun(chunks()))
    assert len(list(ask())) == 1
    asked: list[Any] = []
    look = tracked(service="s", usage=lambda told: asked.append(list(told or ())))
    look(lambda: begun(chunks()))()  # which is dropped at once
    first, second = capture_operations
    assert (first.tokens, first.chunks, first.outcome) == (7, 1, "ok")
    assert (second.outcome, asked) == ("partial", [])


async def test_what_is_asked_for_usage_is_not_let_go_on_with_what_has_begun() -> None:
    async def asked() -> Any:
        generator = counting_later()
        await generator.asend(None)
        return generator

    seen: list[Any] = []
    ask = tracked(service="s", usage=seen.append, success=seen.append)(asked)
    assert await (await ask()).asend(5) == 5
    assert seen == []


async def test_an_async_generator_that_has_begun_takes_them_too() -> None:
    async def asked() -> Any:
        generator = counting_later()
        await generator.asend(None)
        return generator

    generator = await tracked(service="s")(asked)()
    assert await generator.asend(5) == 5
    await generator.aclose()
    assert ended == [5]


def test_an_async_generator_that_has_not_begun_is_followed_whatever_its_body_has_in_cells(
    capture_operations: CapturedOperations,
) -> None:
    around = 1

    def make() -> AsyncIterator[int]:
        async def lines(first: int) -> AsyncIterator[int]:
            yield (lambda: first + around)()
            yield 2

        return lines(around)

    async def consume() -> list[int]:
        return [each async for each in tracked(service="s", operation="lines")(make)()]

    assert asyncio.run(consume()) == [2, 2]
    (operation,) = capture_operations
    assert operation.chunks == 2


def test_a_coroutine_that_has_begun_or_ended_comes_back_as_it_is() -> None:
    ask: Any = tracked(service="s")(lambda coroutine: coroutine)
    coroutine: Any = working()
    coroutine.send(None)
    assert ask(coroutine) is coroutine
    coroutine.close()
    assert ended == [7]
    assert ask(coroutine) is coroutine
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)


def test_arguments_are_let_go_where_the_body_lets_them_go() -> None:
    class Large:
        pass

    freed: list[bool] = []

    def watch(large: Large) -> Callable[[], object]:
        return weakref.ref(large)

    @tracked(service="s")
    def generate(large: Large) -> Iterator[None]:
        known = watch(large)
        del large
        freed.append(known() is None)
        yield

    @tracked(service="s")
    async def answer(large: Large) -> None:
        known = watch(large)
        del large
        await asyncio.sleep(0)
        freed.append(known() is None)

    list(generate(Large()))
    asyncio.run(answer(Large()))
    assert freed == [True, True]
