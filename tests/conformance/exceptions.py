"""Probes: an exception reaches the caller as it was raised."""

from __future__ import annotations

import asyncio
import signal
import sys
import traceback
from typing import Any

from .errors import raised, raised_by, raising
from .subject import Subject, behaviour


@behaviour()
def exceptions_are_the_same_object(subject: Subject) -> None:
    error = ValueError("no")
    assert raised(subject.decorate(raising(error))) is error


@behaviour()
def exceptions_get_no_context_or_cause(subject: Subject) -> None:
    error = raised(subject.decorate(raising(ValueError())))
    assert error.__context__ is None
    assert error.__cause__ is None
    assert error.__suppress_context__ is False


@behaviour()
def causes_and_contexts_of_the_body_are_kept(subject: Subject) -> None:
    cause, context = KeyError(), LookupError()

    def fail() -> None:
        try:
            raise context
        except LookupError:
            raise ValueError from cause

    error = raised(subject.decorate(fail))
    assert (error.__cause__, error.__context__) == (cause, context)


@behaviour()
def traceback_has_at_most_one_more_frame(subject: Subject) -> None:
    bare = raised(raising(ValueError()))
    error = raised(subject.decorate(raising(ValueError())))
    frames, bare_frames = (traceback.extract_tb(e.__traceback__) for e in (error, bare))
    assert len(frames) <= len(bare_frames) + 1
    assert frames[-1] == bare_frames[-1]


@behaviour()
async def traceback_of_a_coroutine_has_at_most_one_more_frame(subject: Subject) -> None:
    async def fail() -> None:
        raise ValueError

    async def depth(function: Any) -> int:
        return len(traceback.extract_tb((await raised_by(function())).__traceback__))

    assert await depth(subject.decorate(fail)) <= await depth(fail) + 1


@behaviour()
def traceback_does_not_grow_in_generators(subject: Subject) -> None:
    def fail() -> Any:
        yield
        raise ValueError

    bare, error = (raised(lambda g=g: list(g())) for g in (fail, subject.decorate(fail)))
    depth, bare_depth = (len(traceback.extract_tb(e.__traceback__)) for e in (error, bare))
    assert depth <= bare_depth + 1


@behaviour()
def keyboard_interrupt_and_system_exit_pass(subject: Subject) -> None:
    for error in (KeyboardInterrupt(), SystemExit(3), GeneratorExit(), asyncio.CancelledError()):
        caught = raised(subject.decorate(raising(error)))
        assert caught is error
        assert (caught.__context__, caught.__cause__) == (None, None)


@behaviour()
def stop_iteration_passes_through_a_function(subject: Subject) -> None:
    error = StopIteration("value")
    assert raised(subject.decorate(raising(error))) is error


@behaviour()
async def stop_iteration_in_a_coroutine_becomes_runtime_error(subject: Subject) -> None:
    async def fail() -> None:
        raise StopIteration("value")

    error = await raised_by(subject.decorate(fail)())
    assert repr(error) == "RuntimeError('coroutine raised StopIteration')"
    assert isinstance(error.__cause__, StopIteration)


@behaviour()
def notes_and_attributes_are_kept(subject: Subject) -> None:
    error = ValueError("no")
    error.add_note("while asking")
    error.status = 429
    caught = raised(subject.decorate(raising(error)))
    assert (caught.__notes__, caught.status) == (["while asking"], 429)


@behaviour()
def exception_groups_can_be_taken_apart(subject: Subject) -> None:
    group = ExceptionGroup("two", [ValueError(), KeyError()])
    seen: list[str] = []
    try:
        subject.decorate(raising(group))()
    except* ValueError as values:
        seen.append(f"{len(values.exceptions)} value")
    except* KeyError as keys:
        seen.append(f"{len(keys.exceptions)} key")
    assert seen == ["1 value", "1 key"]


@behaviour()
def exception_being_handled_is_seen_by_the_body_and_kept(subject: Subject) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append(sys.exc_info()[1])

    decorated, error = subject.decorate(look), LookupError()
    try:
        raise error
    except LookupError:
        decorated()
        look()
    look()
    assert seen == [error, error, None]


@behaviour()
def failing_inside_except_gets_that_exception_as_context(subject: Subject) -> None:
    first, second = LookupError(), ValueError()
    decorated = subject.decorate(raising(second))

    def handle() -> None:
        try:
            raise first
        except LookupError:
            decorated()

    assert raised(handle) is second
    assert second.__context__ is first


@behaviour()
def exception_whose_str_raises_passes(subject: Subject) -> None:
    class RudeError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    error = RudeError()
    assert raised(subject.decorate(raising(error))) is error


@behaviour()
def exception_raised_again_later_is_the_same(subject: Subject) -> None:
    error = ValueError()
    decorated = subject.decorate(raising(error))
    assert raised(decorated) is error
    assert raised(decorated) is error
    assert error.__context__ is None


@behaviour()
def recursion_error_reaches_the_caller(subject: Subject) -> None:
    def endless() -> Any:
        return decorated()

    decorated = subject.decorate(endless)
    assert isinstance(raised(decorated), RecursionError)


@behaviour()
def exception_of_a_signal_handler_passes(subject: Subject) -> None:
    error = TimeoutError("out of time")

    def handler(*_: Any) -> None:
        raise error

    def interrupt() -> None:
        signal.raise_signal(signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        assert raised(subject.decorate(interrupt)) is error
    finally:
        signal.signal(signal.SIGUSR1, previous)
