"""Probes: async generators are native and obey PEP 525 in full."""

from __future__ import annotations

import asyncio
import gc
import types
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from .errors import raised_by
from .quiet import quiet
from .subject import Subject, behaviour


def converse_with(subject: Subject) -> tuple[Any, list[str]]:
    """Return a fresh decorated async generator and the list of what happens to it."""
    events: list[str] = []

    async def converse() -> AsyncGenerator[str, Any]:
        events.append("started")
        received = "nothing"
        try:
            while received != "stop":
                try:
                    received = yield f"got {received}"
                except KeyError:
                    received = "a key error"
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            events.append("closed")

    return subject.decorate(converse)(), events


@behaviour()
async def calling_gives_a_native_async_generator(subject: Subject) -> None:
    generator, _ = converse_with(subject)
    assert type(generator) is types.AsyncGeneratorType
    assert generator.__name__ == "converse"
    assert generator.__qualname__.endswith("<locals>.converse")


@behaviour()
async def async_generator_starts_at_the_first_step(subject: Subject) -> None:
    generator, events = converse_with(subject)
    assert events == []
    await anext(generator)
    assert events == ["started"]
    await generator.aclose()


@behaviour()
async def asend_arrives(subject: Subject) -> None:
    generator, _ = converse_with(subject)
    assert await anext(generator) == "got nothing"
    assert await generator.asend("this") == "got this"
    await generator.aclose()


@behaviour()
async def athrow_arrives(subject: Subject) -> None:
    generator, _ = converse_with(subject)
    await anext(generator)
    assert await generator.athrow(KeyError()) == "got a key error"
    await generator.aclose()


@behaviour()
async def athrown_exception_that_is_not_caught_comes_back(subject: Subject) -> None:
    generator, events = converse_with(subject)
    await anext(generator)
    error = ValueError()
    assert await raised_by(generator.athrow(error)) is error
    assert error.__context__ is None
    assert events == ["started", "closed"]


@behaviour()
async def asend_ends_the_generator(subject: Subject) -> None:
    generator, events = converse_with(subject)
    await anext(generator)
    assert repr(await raised_by(generator.asend("stop"))) == "StopAsyncIteration()"
    assert events == ["started", "closed"]


@behaviour()
async def aclose_runs_finally_once(subject: Subject) -> None:
    generator, events = converse_with(subject)
    await anext(generator)
    await generator.aclose()
    await generator.aclose()
    assert events == ["started", "closed"]


@behaviour()
async def aclosing_runs_finally_after_an_early_break(subject: Subject) -> None:
    generator, events = converse_with(subject)
    async with aclosing(generator) as answers:
        async for _ in answers:
            break
    assert events == ["started", "closed"]


@behaviour()
async def broken_off_async_generator_is_finalised_by_the_loop(subject: Subject) -> None:
    with quiet():
        generator, events = converse_with(subject)
        async for _ in generator:
            break
        del generator
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
    assert events == ["started", "closed"]


@behaviour()
def async_generator_left_at_the_end_of_the_loop_is_silent(subject: Subject) -> None:
    kept: list[Any] = []

    async def leave() -> None:
        kept.extend(converse_with(subject))
        await anext(kept[0])

    with quiet():
        asyncio.run(leave())
    assert kept[1] == ["started", "closed"]


@behaviour()
async def async_generator_closed_by_another_task_is_silent(subject: Subject) -> None:
    with quiet():
        generator, events = converse_with(subject)
        await anext(generator)
        await asyncio.ensure_future(generator.aclose())
    assert events == ["started", "closed"]


@behaviour()
async def every_step_runs_in_the_task_that_asks(subject: Subject) -> None:
    async def tasks() -> AsyncIterator[Any]:
        while True:
            yield asyncio.current_task()

    generator = subject.decorate(tasks)()
    assert await anext(generator) is asyncio.current_task()
    other = asyncio.ensure_future(anext(generator))
    assert await other is other
    await generator.aclose()


@behaviour()
async def anext_with_default_and_comprehension_work(subject: Subject) -> None:
    async def count() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    decorated = subject.decorate(count)
    generator = decorated()
    assert [number async for number in decorated()] == [0, 1, 2]
    assert [await anext(generator, "end") for _ in range(4)] == [0, 1, 2, "end"]


@behaviour()
async def stop_async_iteration_in_the_body_becomes_runtime_error(subject: Subject) -> None:
    async def fail() -> AsyncIterator[int]:
        yield 1
        raise StopAsyncIteration

    generator = subject.decorate(fail)()
    await anext(generator)
    error = await raised_by(anext(generator))
    assert repr(error) == "RuntimeError('async generator raised StopAsyncIteration')"


@behaviour()
async def async_generator_that_yields_while_closing_is_refused(subject: Subject) -> None:
    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            yield 2

    generator = subject.decorate(stubborn)()
    await anext(generator)
    error = await raised_by(generator.aclose())
    assert repr(error) == "RuntimeError('async generator ignored GeneratorExit')"


@behaviour()
async def async_generator_attributes_are_there(subject: Subject) -> None:
    running: list[bool] = []

    async def watch() -> AsyncIterator[int]:
        running.append(generator.ag_running)
        yield 1

    generator: Any = subject.decorate(watch)()
    assert generator.ag_running is False
    assert isinstance(generator.ag_code, types.CodeType)
    assert isinstance(generator.ag_frame, types.FrameType)
    assert await anext(generator) == 1
    await generator.aclose()
    assert generator.ag_frame is None
    assert running == [True]


@behaviour()
async def concurrent_anext_is_refused(subject: Subject) -> None:
    async def wait() -> AsyncIterator[int]:
        await asyncio.sleep(0.01)
        yield 1

    generator = subject.decorate(wait)()
    results = await asyncio.gather(anext(generator), anext(generator), return_exceptions=True)
    assert [type(result) for result in results] == [int, RuntimeError]


@behaviour()
async def cancelling_a_step_reaches_the_body(subject: Subject) -> None:
    seen: list[str] = []

    async def wait() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(60)
            yield 1
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.ensure_future(anext(subject.decorate(wait)()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert seen == ["cancelled"]


@behaviour("trio")
def async_generators_run_under_trio(subject: Subject) -> None:
    import trio

    async def count() -> AsyncIterator[int]:
        for number in range(3):
            await trio.sleep(0)
            yield number

    async def collect() -> list[int]:
        async with aclosing(subject.decorate(count)()) as numbers:
            return [number async for number in numbers]

    assert trio.run(collect) == [0, 1, 2]


@behaviour()
async def first_value_asent_must_be_none(subject: Subject) -> None:
    generator, events = converse_with(subject)
    error = await raised_by(generator.asend("too early"))
    assert str(error) == "can't send non-None value to a just-started async generator"
    assert events == []


@behaviour()
async def async_generator_closed_before_the_start_runs_nothing(subject: Subject) -> None:
    generator, events = converse_with(subject)
    await generator.aclose()
    assert [answer async for answer in generator] == []
    assert events == []
