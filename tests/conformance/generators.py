"""Probes: generators are native and obey PEP 342 and PEP 380 in full."""

from __future__ import annotations

import inspect
import types
from collections.abc import Generator, Iterator
from typing import Any

from .errors import raised
from .quiet import quiet
from .subject import Subject, behaviour


def converse_with(subject: Subject) -> tuple[Any, list[str]]:
    """Return a fresh decorated generator and the list of what happens to it."""
    events: list[str] = []

    def converse() -> Generator[str, Any, str]:
        events.append("started")
        received = "nothing"
        try:
            while received != "stop":
                try:
                    received = yield f"got {received}"
                except KeyError:
                    received = "a key error"
            return "said stop"
        finally:
            events.append("closed")

    return subject.decorate(converse)(), events


@behaviour()
def calling_gives_a_native_generator(subject: Subject) -> None:
    generator, _ = converse_with(subject)
    assert type(generator) is types.GeneratorType
    assert generator.__name__ == "converse"
    assert generator.__qualname__.endswith("<locals>.converse")


@behaviour()
def generator_starts_at_the_first_step(subject: Subject) -> None:
    generator, events = converse_with(subject)
    assert events == []
    next(generator)
    assert events == ["started"]


@behaviour()
def sent_values_arrive(subject: Subject) -> None:
    generator, _ = converse_with(subject)
    assert next(generator) == "got nothing"
    assert generator.send("this") == "got this"


@behaviour()
def thrown_exceptions_arrive(subject: Subject) -> None:
    generator, _ = converse_with(subject)
    next(generator)
    assert generator.throw(KeyError()) == "got a key error"


@behaviour()
def thrown_exception_that_is_not_caught_comes_back(subject: Subject) -> None:
    generator, events = converse_with(subject)
    next(generator)
    error = ValueError()
    assert raised(generator.throw, error) is error
    assert error.__context__ is None
    assert events == ["started", "closed"]


@behaviour()
def return_value_comes_out_of_yield_from(subject: Subject) -> None:
    generator, _ = converse_with(subject)

    def outer() -> Generator[str, Any, str]:
        return (yield from generator)

    delegating = outer()
    next(delegating)
    assert repr(raised(delegating.send, "stop")) == "StopIteration('said stop')"


@behaviour()
def close_runs_finally_once(subject: Subject) -> None:
    generator, events = converse_with(subject)
    next(generator)
    assert generator.close() is None
    generator.close()
    assert events == ["started", "closed"]


@behaviour()
def leaving_the_loop_runs_finally_at_once(subject: Subject) -> None:
    events: list[str] = []

    def count() -> Iterator[int]:
        try:
            yield from range(9)
        finally:
            events.append("closed")

    for _ in subject.decorate(count)():
        break
    assert events == ["closed"]


@behaviour()
def closing_unstarted_generator_runs_nothing(subject: Subject) -> None:
    generator, events = converse_with(subject)
    generator.close()
    assert list(generator) == []
    assert events == []


@behaviour()
def generator_that_yields_while_closing_is_refused(subject: Subject) -> None:
    def stubborn() -> Iterator[int]:
        try:
            yield 1
        finally:
            yield 2

    generator = subject.decorate(stubborn)()
    next(generator)
    error = raised(generator.close)
    assert repr(error) == "RuntimeError('generator ignored GeneratorExit')"


@behaviour()
def stop_iteration_in_a_generator_becomes_runtime_error(subject: Subject) -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise StopIteration

    error = raised(list, subject.decorate(fail)())
    assert repr(error) == "RuntimeError('generator raised StopIteration')"
    assert isinstance(error.__cause__, StopIteration)


@behaviour()
def thrown_stop_iteration_becomes_runtime_error(subject: Subject) -> None:
    generator, _ = converse_with(subject)
    next(generator)
    error = StopIteration()
    caught = raised(generator.throw, error)
    assert isinstance(caught, RuntimeError)
    assert caught.__cause__ is error


@behaviour()
def generator_states_follow_the_body(subject: Subject) -> None:
    states: list[str] = []

    def watch() -> Iterator[int]:
        states.append(inspect.getgeneratorstate(generator))
        yield 1

    generator = subject.decorate(watch)()
    states.append(inspect.getgeneratorstate(generator))
    next(generator)
    states.append(inspect.getgeneratorstate(generator))
    generator.close()
    states.append(inspect.getgeneratorstate(generator))
    assert states == [
        inspect.GEN_CREATED,
        inspect.GEN_RUNNING,
        inspect.GEN_SUSPENDED,
        inspect.GEN_CLOSED,
    ]


@behaviour()
def generator_attributes_are_there(subject: Subject) -> None:
    generator, _ = converse_with(subject)
    assert generator.gi_running is False
    assert isinstance(generator.gi_code, types.CodeType)
    assert isinstance(generator.gi_frame, types.FrameType)
    assert generator.gi_yieldfrom is None
    generator.close()
    assert generator.gi_frame is None


@behaviour()
def generator_that_resumes_itself_is_refused(subject: Subject) -> None:
    def resume() -> Iterator[int]:
        yield next(generator)

    generator = subject.decorate(resume)()
    assert repr(raised(next, generator)) == "ValueError('generator already executing')"


@behaviour()
def collected_generator_is_silent(subject: Subject) -> None:
    with quiet():
        generator, events = converse_with(subject)
        next(generator)
        del generator
    assert events == ["started", "closed"]


@behaviour()
def recursive_generators_walk_a_tree(subject: Subject) -> None:
    def walk(tree: Any) -> Iterator[int]:
        for branch in tree:
            if isinstance(branch, list):
                yield from decorated(branch)
            else:
                yield branch

    decorated = subject.decorate(walk)
    assert list(decorated([1, [2, [3, [4]], 5]])) == [1, 2, 3, 4, 5]


@behaviour()
def two_generators_of_one_function_are_independent(subject: Subject) -> None:
    def count() -> Iterator[int]:
        yield from range(3)

    decorated = subject.decorate(count)
    pairs = zip(decorated(), decorated(), strict=True)
    assert list(pairs) == [(0, 0), (1, 1), (2, 2)]


@behaviour()
def first_value_sent_must_be_none(subject: Subject) -> None:
    generator, events = converse_with(subject)
    error = raised(generator.send, "too early")
    assert str(error) == "can't send non-None value to a just-started generator"
    assert next(generator) == "got nothing"
    assert events == ["started"]


@behaviour()
def exception_thrown_before_the_start_ends_the_generator(subject: Subject) -> None:
    generator, events = converse_with(subject)
    error = KeyError()
    assert raised(generator.throw, error) is error
    assert (list(generator), events) == ([], [])


@behaviour()
def exception_thrown_through_yield_from_arrives(subject: Subject) -> None:
    generator, events = converse_with(subject)

    def outer() -> Generator[str, Any, None]:
        yield from generator

    delegating = outer()
    next(delegating)
    assert delegating.throw(KeyError()) == "got a key error"
    delegating.close()
    assert events == ["started", "closed"]
