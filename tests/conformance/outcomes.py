"""Probes on records: how a call ended is told as it was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from typing import Any

from .errors import raising
from .records import STEP_SECONDS, only_record
from .subject import Subject, recording


def count() -> Iterator[int]:
    yield from range(9)


async def async_count() -> AsyncIterator[int]:
    for number in range(9):
        yield number


async def wait() -> None:
    await asyncio.sleep(60)


@recording()
def success_is_not_an_error(subject: Subject) -> None:
    subject.decorate(_nothing)()
    assert only_record(subject).outcome == "ok"


def _nothing() -> None: ...


@recording()
def exception_is_an_error(subject: Subject) -> None:
    with suppress(ValueError):
        subject.decorate(raising(ValueError()))()
    assert only_record(subject).outcome == "error"


@recording()
def keyboard_interrupt_is_recorded_as_an_error(subject: Subject) -> None:
    with suppress(KeyboardInterrupt):
        subject.decorate(raising(KeyboardInterrupt()))()
    assert only_record(subject).outcome == "error"


@recording()
def system_exit_is_recorded_as_an_error(subject: Subject) -> None:
    with suppress(SystemExit):
        subject.decorate(raising(SystemExit(1)))()
    assert only_record(subject).outcome == "error"


@recording()
async def timeout_is_a_cancellation(subject: Subject) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(STEP_SECONDS):
            await subject.decorate(wait)()
    assert only_record(subject).outcome == "cancelled"


@recording()
async def cancelled_task_is_a_cancellation(subject: Subject) -> None:
    task = asyncio.create_task(subject.decorate(wait)())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert only_record(subject).outcome == "cancelled"


@recording()
async def cancelled_step_of_an_async_generator_is_a_cancellation(subject: Subject) -> None:
    async def stall() -> AsyncIterator[int]:
        await asyncio.sleep(60)
        yield 1

    with suppress(TimeoutError):
        async with asyncio.timeout(STEP_SECONDS):
            await anext(subject.decorate(stall)())
    assert only_record(subject).outcome == "cancelled"


@recording()
async def cancelled_returned_task_is_a_cancellation(subject: Subject) -> None:
    def ask() -> Any:
        return asyncio.create_task(wait())

    task = subject.decorate(ask)()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert only_record(subject).outcome == "cancelled"


@recording()
def generator_left_early_is_recorded_once_and_no_error(subject: Subject) -> None:
    for _ in subject.decorate(count)():
        break
    assert only_record(subject).outcome in {"ok", "partial"}


@recording()
async def async_generator_left_early_is_recorded_once_and_no_error(subject: Subject) -> None:
    async with aclosing(subject.decorate(async_count)()) as numbers:
        async for _ in numbers:
            break
    assert only_record(subject).outcome in {"ok", "partial"}


@recording()
def generator_left_early_says_so(subject: Subject) -> None:
    generator = subject.decorate(count)()
    next(generator)
    generator.close()
    assert only_record(subject).outcome == "partial"


@recording()
def consumers_exception_is_not_the_generators(subject: Subject) -> None:
    with suppress(ValueError):
        for _ in subject.decorate(count)():
            raise ValueError
    assert only_record(subject).outcome in {"ok", "partial"}


@recording()
def exhausted_generator_is_a_success(subject: Subject) -> None:
    assert len(list(subject.decorate(count)())) == 9
    assert only_record(subject).outcome == "ok"


@recording()
def failing_generator_is_an_error(subject: Subject) -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise ValueError

    with suppress(ValueError):
        list(subject.decorate(fail)())
    assert only_record(subject).outcome == "error"


@recording()
async def failing_returned_coroutine_is_an_error(subject: Subject) -> None:
    async def fail() -> None:
        raise ValueError

    def ask() -> Any:
        return fail()

    with suppress(ValueError):
        await subject.decorate(ask)()
    assert only_record(subject).outcome == "error"


@recording()
def exception_caught_by_the_body_is_no_error(subject: Subject) -> None:
    def recover() -> None:
        with suppress(ValueError):
            raise ValueError

    subject.decorate(recover)()
    assert only_record(subject).outcome == "ok"


@recording("openai")
def provider_stream_left_early_is_recorded_once_and_no_error(subject: Subject) -> None:
    from .streams import client, open_stream

    with client() as source, open_stream(subject, source) as stream:
        next(stream)
        time.sleep(STEP_SECONDS)
    record = only_record(subject)
    assert record.outcome == "partial"
    assert record.duration_seconds >= STEP_SECONDS
