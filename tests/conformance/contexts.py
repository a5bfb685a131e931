"""Probes: context variables, threads, recursion: the decorator leaves no trace in any of them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from .quiet import quiet
from .subject import Subject, behaviour

language: contextvars.ContextVar[str] = contextvars.ContextVar("language", default="none")


def in_fresh_context(call: Callable[[], None]) -> None:
    contextvars.Context().run(call)


@behaviour()
def context_variable_set_by_a_function_is_visible_to_its_caller(subject: Subject) -> None:
    def body() -> None:
        language.set("nl")

    def check() -> None:
        subject.decorate(body)()
        assert language.get() == "nl"

    in_fresh_context(check)


@behaviour()
async def context_variable_set_by_a_coroutine_is_visible_to_its_caller(subject: Subject) -> None:
    async def body() -> None:
        await asyncio.sleep(0)
        language.set("nl")

    await subject.decorate(body)()
    assert language.get() == "nl"


@behaviour()
def context_variable_set_by_a_generator_is_visible_to_its_consumer(subject: Subject) -> None:
    def body() -> Iterator[str]:
        for code in ("nl", "fr"):
            language.set(code)
            yield code

    def check() -> None:
        for code in subject.decorate(body)():
            assert language.get() == code

    in_fresh_context(check)


@behaviour()
async def context_variable_set_by_an_async_generator_is_visible_to_its_consumer(
    subject: Subject,
) -> None:
    async def body() -> AsyncIterator[str]:
        for code in ("nl", "fr"):
            language.set(code)
            yield code

    async for code in subject.decorate(body)():
        assert language.get() == code


@behaviour()
def token_of_the_body_can_be_reset_by_the_caller(subject: Subject) -> None:
    def body() -> Any:
        return language.set("nl")

    def check() -> None:
        language.reset(subject.decorate(body)())
        assert language.get() == "none"

    in_fresh_context(check)


@behaviour()
def thread_locals_are_the_callers(subject: Subject) -> None:
    local = threading.local()
    local.value = "mine"

    def body() -> Any:
        local.other = threading.current_thread()
        return local.value

    assert subject.decorate(body)() == "mine"
    assert local.other is threading.current_thread()


@behaviour()
def nothing_is_current_after_a_call_returns_or_raises(subject: Subject) -> None:
    def divide(by: int) -> float:
        return 1 / by

    decorated = subject.decorate(divide)
    before = subject.current()
    decorated(1)
    with suppress(ZeroDivisionError):
        decorated(0)
    assert subject.current() == before


@behaviour()
def nothing_is_current_after_interrupts(subject: Subject) -> None:
    before = subject.current()
    for error in (KeyboardInterrupt, SystemExit, GeneratorExit):

        def interrupted(error: type[BaseException] = error) -> None:
            raise error

        with suppress(KeyboardInterrupt, SystemExit, GeneratorExit):
            subject.decorate(interrupted)()
        assert subject.current() == before


@behaviour()
async def nothing_is_current_after_a_timeout(subject: Subject) -> None:
    async def wait() -> None:
        await asyncio.sleep(60)

    before = subject.current()
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await subject.decorate(wait)()
    assert subject.current() == before


@behaviour()
def nothing_is_current_between_and_after_the_steps_of_a_generator(subject: Subject) -> None:
    def count() -> Iterator[int]:
        yield from range(3)

    before = subject.current()
    for _ in subject.decorate(count)():
        assert subject.current() == before
    assert subject.current() == before


@behaviour()
def nothing_is_current_after_a_generator_is_left_and_closed(subject: Subject) -> None:
    def count() -> Iterator[int]:
        yield from range(3)

    before = subject.current()
    generator = subject.decorate(count)()
    next(generator)
    generator.close()
    assert subject.current() == before


@behaviour()
async def nothing_is_current_between_the_steps_of_an_async_generator(subject: Subject) -> None:
    async def count() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    before = subject.current()
    async for _ in subject.decorate(count)():
        assert subject.current() == before
    assert subject.current() == before


@behaviour()
def generator_driven_by_three_threads_leaks_nothing(subject: Subject) -> None:
    def count() -> Iterator[int]:
        yield from range(3)

    generator = subject.decorate(count)()

    def step() -> tuple[Any, Any, int]:
        before = subject.current()
        value = next(generator)
        return before, subject.current(), value

    with quiet(), ThreadPoolExecutor(3) as pool:
        steps = [pool.submit(step).result(5) for _ in range(3)]
        assert list(generator) == []
    assert [value for *_, value in steps] == [0, 1, 2]
    assert all(before == after for before, after, _ in steps)


@behaviour()
async def async_generator_driven_by_three_tasks_leaks_nothing(subject: Subject) -> None:
    async def count() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    generator = subject.decorate(count)()

    async def step() -> tuple[Any, Any, int]:
        before = subject.current()
        value = await anext(generator)
        return before, subject.current(), value

    with quiet():
        steps = [await asyncio.create_task(step()) for _ in range(3)]
        assert [number async for number in generator] == []
    assert [value for *_, value in steps] == [0, 1, 2]
    assert all(before == after for before, after, _ in steps)


@behaviour()
def generator_closed_by_another_thread_is_silent(subject: Subject) -> None:
    def count() -> Iterator[int]:
        yield from range(3)

    generator = subject.decorate(count)()
    next(generator)
    with quiet(), ThreadPoolExecutor(1) as pool:
        pool.submit(generator.close).result(5)


@behaviour()
def generator_resumed_in_another_context_leaks_nothing(subject: Subject) -> None:
    def count() -> Iterator[int]:
        yield from range(3)

    with quiet():
        before = subject.current()
        generator = subject.decorate(count)()
        contextvars.Context().run(next, generator)
        contextvars.Context().run(next, generator)
        generator.close()
        assert subject.current() == before


@behaviour()
def recursion_works(subject: Subject) -> None:
    def factorial(number: int) -> int:
        return 1 if number < 2 else number * decorated(number - 1)

    decorated = subject.decorate(factorial)
    assert decorated(20) == 2432902008176640000


@behaviour()
async def coroutine_recursion_works(subject: Subject) -> None:
    async def factorial(number: int) -> int:
        return 1 if number < 2 else number * await decorated(number - 1)

    decorated = subject.decorate(factorial)
    assert await decorated(20) == 2432902008176640000


@behaviour()
def calls_from_several_threads_do_not_mix(subject: Subject) -> None:
    barrier = threading.Barrier(4, timeout=5)

    def meet(number: int) -> int:
        barrier.wait()
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(subject.decorate(meet), range(4))) == [0, 1, 2, 3]


@behaviour()
def lock_held_by_the_caller_does_not_block_a_call(subject: Subject) -> None:
    lock = threading.Lock()

    def body() -> bool:
        return lock.locked()

    with lock:
        assert subject.decorate(body)()


@behaviour()
async def coroutine_works_in_a_thread_and_loop_of_its_own(subject: Subject) -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    decorated = subject.decorate(answer)
    assert await asyncio.to_thread(lambda: asyncio.run(decorated())) == 42


@behaviour()
def contextmanager_over_a_decorated_generator_works(subject: Subject) -> None:
    seen: list[str] = []

    def managed() -> Iterator[str]:
        try:
            yield "inside"
        except ValueError:
            seen.append("value error")
        finally:
            seen.append("left")

    with contextmanager(subject.decorate(managed))() as value:
        assert value == "inside"
        raise ValueError
    assert seen == ["value error", "left"]


@behaviour()
def decorated_contextmanager_works(subject: Subject) -> None:
    @contextmanager
    def managed(name: str) -> Iterator[str]:
        yield name

    decorated = subject.decorate(managed)
    with decorated("inside") as value:
        assert value == "inside"
    assert decorated("again")(len)("four") == 4


@behaviour()
async def asynccontextmanager_over_a_decorated_generator_works(subject: Subject) -> None:
    async def managed() -> AsyncIterator[str]:
        yield "inside"

    async with asynccontextmanager(subject.decorate(managed))() as value:
        assert value == "inside"


@behaviour()
async def decorated_asynccontextmanager_works(subject: Subject) -> None:
    @asynccontextmanager
    async def managed() -> AsyncIterator[str]:
        yield "inside"

    async with subject.decorate(managed)() as value:
        assert value == "inside"
