"""Probes on records: one for each call, with the right time, name and parent."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from .subject import Record, Subject, recording

STEP_SECONDS = 0.02
CONSUMER_SECONDS = 0.2  # longer than a busy machine makes the two steps before it wait
TIMER_SLACK_SECONDS = 0.001


def only_record(subject: Subject) -> Record:
    (record,) = subject.records()
    return record


def assert_lasted(record: Record, seconds: float) -> None:
    assert record.duration_seconds >= seconds - TIMER_SLACK_SECONDS


def child_and_parent(subject: Subject) -> tuple[Record, Record]:
    """Return the two records, told apart by the name of the function."""
    child = next(record for record in subject.records() if "inner" in record.name)
    parent = next(record for record in subject.records() if "outer" in record.name)
    return child, parent


@recording()
def function_is_timed(subject: Subject) -> None:
    subject.decorate(_sleep)(STEP_SECONDS)
    assert_lasted(only_record(subject), STEP_SECONDS)


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


@recording()
def record_is_named_after_the_function(subject: Subject) -> None:
    def inner() -> None: ...

    subject.decorate(inner)()
    assert "inner" in only_record(subject).name


@recording()
async def coroutine_is_timed(subject: Subject) -> None:
    async def wait() -> None:
        await asyncio.sleep(STEP_SECONDS)

    await subject.decorate(wait)()
    assert_lasted(only_record(subject), STEP_SECONDS)


@recording()
def generator_is_timed_to_its_end(subject: Subject) -> None:
    def produce() -> Iterator[int]:
        for number in range(3):
            time.sleep(STEP_SECONDS)
            yield number

    assert list(subject.decorate(produce)()) == [0, 1, 2]
    assert_lasted(only_record(subject), 3 * STEP_SECONDS)


@recording()
async def async_generator_is_timed_to_its_end(subject: Subject) -> None:
    async def produce() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(STEP_SECONDS)
            yield number

    assert [number async for number in subject.decorate(produce)()] == [0, 1, 2]
    assert_lasted(only_record(subject), 3 * STEP_SECONDS)


@recording()
async def returned_coroutine_is_timed(subject: Subject) -> None:
    def ask() -> Any:
        return asyncio.sleep(STEP_SECONDS)

    await subject.decorate(ask)()
    assert_lasted(only_record(subject), STEP_SECONDS)


@recording()
async def returned_task_is_timed(subject: Subject) -> None:
    def ask() -> Any:
        return asyncio.create_task(asyncio.sleep(STEP_SECONDS))

    await subject.decorate(ask)()
    await asyncio.sleep(0)
    assert_lasted(only_record(subject), STEP_SECONDS)


@recording()
async def returned_asyncio_future_is_timed(subject: Subject) -> None:
    loop = asyncio.get_running_loop()

    def ask() -> Any:
        future = loop.create_future()
        loop.call_later(STEP_SECONDS, future.set_result, 1)
        return future

    assert await subject.decorate(ask)() == 1
    await asyncio.sleep(0)
    assert_lasted(only_record(subject), STEP_SECONDS)


@recording()
def returned_concurrent_future_is_timed(subject: Subject) -> None:
    with ThreadPoolExecutor(1) as pool:

        def ask() -> Future[None]:
            return pool.submit(_sleep, STEP_SECONDS)

        subject.decorate(ask)().result(5)
    assert_lasted(only_record(subject), STEP_SECONDS)


@recording()
def returned_generator_is_timed(subject: Subject) -> None:
    def produce() -> Iterator[int]:
        time.sleep(STEP_SECONDS)
        yield 1

    def ask() -> Iterator[int]:
        return produce()

    assert list(subject.decorate(ask)()) == [1]
    assert_lasted(only_record(subject), STEP_SECONDS)


@recording()
def slow_consumer_is_not_charged_to_the_generator(subject: Subject) -> None:
    def produce() -> Iterator[int]:
        yield from range(2)

    for _ in subject.decorate(produce)():
        time.sleep(CONSUMER_SECONDS)
    assert only_record(subject).charged_seconds < CONSUMER_SECONDS


@recording()
async def slow_consumer_is_not_charged_to_the_async_generator(subject: Subject) -> None:
    async def produce() -> AsyncIterator[int]:
        for number in range(2):
            yield number

    async for _ in subject.decorate(produce)():
        await asyncio.sleep(CONSUMER_SECONDS)
    assert only_record(subject).charged_seconds < CONSUMER_SECONDS


@recording()
def decorating_twice_records_once(subject: Subject) -> None:
    subject.decorate(subject.decorate(_sleep))(0)
    assert len(subject.records()) == 1


@recording()
def method_decorated_in_a_decorated_class_records_once(subject: Subject) -> None:
    @subject.decorate
    class Client:
        @subject.decorate
        def ask(self) -> None: ...

    Client().ask()
    assert len(subject.records()) == 1


@recording()
def class_records_its_own_public_methods_only(subject: Subject) -> None:
    class Base:
        def inherited(self) -> None: ...

    @subject.decorate
    class Client(Base):
        def ask(self) -> None: ...

        def _private(self) -> None: ...

        @property
        def amount(self) -> int:
            return 1

    client = Client()
    client.inherited()
    client._private()
    assert client.amount == 1
    client.ask()
    assert "Client.ask" in only_record(subject).name


@recording()
def every_call_of_a_recursion_is_linked_to_its_caller(subject: Subject) -> None:
    def countdown(number: int) -> None:
        if number:
            decorated(number - 1)

    decorated = subject.decorate(countdown)
    decorated(2)
    ids = {record.id for record in subject.records()}
    parents = [record.parent_id for record in subject.records()]
    assert len(ids) == 3
    assert parents.count(None) == 1
    assert len({*parents} & ids) == 2


@recording()
def calls_from_threads_are_all_recorded(subject: Subject) -> None:
    decorated = subject.decorate(_sleep)
    threads = [threading.Thread(target=decorated, args=(0,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({record.id for record in subject.records()}) == 8


@recording()
def call_made_by_a_generator_is_its_child(subject: Subject) -> None:
    def inner() -> int:
        return 1

    def outer() -> Iterator[int]:
        yield subject.decorate(inner)()

    assert list(subject.decorate(outer)()) == [1]
    child, parent = child_and_parent(subject)
    assert child.parent_id == parent.id


@recording()
async def call_made_by_an_async_generator_is_its_child(subject: Subject) -> None:
    async def inner() -> int:
        return 1

    async def outer() -> AsyncIterator[int]:
        yield await subject.decorate(inner)()

    assert [number async for number in subject.decorate(outer)()] == [1]
    child, parent = child_and_parent(subject)
    assert child.parent_id == parent.id


@recording()
async def nested_async_generators_are_linked(subject: Subject) -> None:
    async def inner() -> AsyncIterator[int]:
        yield 1

    async def outer() -> AsyncIterator[int]:
        async for number in subject.decorate(inner)():
            yield number

    assert [number async for number in subject.decorate(outer)()] == [1]
    child, parent = child_and_parent(subject)
    assert child.parent_id == parent.id


@recording()
async def tasks_started_by_a_coroutine_are_its_children(subject: Subject) -> None:
    async def inner() -> None:
        await asyncio.sleep(0)

    async def outer() -> None:
        decorated = subject.decorate(inner)
        await asyncio.gather(decorated(), decorated())

    await subject.decorate(outer)()
    _, parent = child_and_parent(subject)
    children = [record for record in subject.records() if record.id != parent.id]
    assert [child.parent_id for child in children] == [parent.id, parent.id]


@recording()
def call_beside_a_suspended_generator_is_not_its_child(subject: Subject) -> None:
    def outer() -> Iterator[int]:
        yield from range(3)

    def inner() -> None: ...

    generator = subject.decorate(outer)()
    next(generator)
    subject.decorate(inner)()
    generator.close()
    child, _ = child_and_parent(subject)
    assert child.parent_id is None


@recording()
async def call_beside_a_suspended_async_generator_is_not_its_child(subject: Subject) -> None:
    async def outer() -> AsyncIterator[int]:
        yield 1

    def inner() -> None: ...

    async with aclosing(subject.decorate(outer)()) as numbers:
        await anext(numbers)
        subject.decorate(inner)()
    child, _ = child_and_parent(subject)
    assert child.parent_id is None


@recording()
def generator_that_never_starts_leaves_no_record(subject: Subject) -> None:
    def produce() -> Iterator[int]:
        yield 1

    subject.decorate(produce)().close()
    gc.collect()
    assert subject.records() == []


@recording()
def coroutine_that_never_starts_leaves_no_record(subject: Subject) -> None:
    async def wait() -> None: ...

    subject.decorate(wait)().close()
    assert subject.records() == []


@recording()
def collected_generator_is_recorded_once(subject: Subject) -> None:
    def produce() -> Iterator[int]:
        yield from range(3)

    generator = subject.decorate(produce)()
    next(generator)
    del generator
    gc.collect()
    only_record(subject)


@recording("openai")
def provider_stream_is_timed_to_its_end(subject: Subject) -> None:
    from .streams import client, open_stream

    with client() as source:
        began = time.perf_counter()
        stream = open_stream(subject, source)
        pause_seconds = 10 * STEP_SECONDS
        time.sleep(pause_seconds)
        assert len(list(stream)) == 3
        lasted = time.perf_counter() - began
    assert_lasted(only_record(subject), lasted - pause_seconds / 2)
