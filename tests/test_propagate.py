"""`propagate(fn)`: the session and operation of the moment, taken along."""

from __future__ import annotations

import functools
import inspect
import multiprocessing
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from responses import parents

from instrument import ConfigurationError, current_session, propagate, session, track, tracked
from instrument.testing import CapturedOperations


@tracked(service="s", operation="child")
def child(*arguments: Any) -> tuple[str, Any]:
    return current_session().id, arguments


async def coroutine_function(*arguments: Any) -> Any:
    return child(*arguments)


def generator_function(*arguments: Any) -> Iterator[Any]:
    yield child(*arguments)


async def async_generator_function(*arguments: Any) -> AsyncIterator[Any]:
    yield child(*arguments)


class Worker:
    def method(self, *arguments: Any) -> Any:
        return child(*arguments)


def moment(function: Any) -> Any:
    """Bind the function inside of a session and an operation."""
    with session(id="work"), track("parent", service="s"):
        return propagate(function)


def in_a_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


@pytest.mark.parametrize(
    "function",
    [child, functools.partial(child, 1), lambda *given: child(*given), Worker().method],
    ids=["function", "partial", "lambda", "method"],
)
def test_a_callable_runs_in_the_session_and_operation_of_the_moment(
    capture_operations: CapturedOperations, function: Any
) -> None:
    given = (1, 2) if isinstance(function, functools.partial) else (2,)
    assert in_a_thread(moment(function), 2) == ("work", given)
    assert parents(capture_operations) == {"parent": None, "child": "parent"}
    assert current_session().id != "work"


async def consumed(result: Any) -> Any:
    if inspect.isasyncgen(result):
        return await anext(result)
    return await result if inspect.isawaitable(result) else next(iter(result))


@pytest.mark.parametrize(
    "function",
    [coroutine_function, generator_function, async_generator_function],
    ids=lambda function: function.__name__,
)
@pytest.mark.parametrize("partially", [False, True], ids=["whole", "partial"])
async def test_the_kind_of_a_function_is_kept(
    capture_operations: CapturedOperations, function: Any, partially: bool
) -> None:
    bound = moment(functools.partial(function, 1) if partially else function)
    for ask in ("iscoroutinefunction", "isgeneratorfunction", "isasyncgenfunction"):
        assert getattr(inspect, ask)(bound) == getattr(inspect, ask)(function)
    assert await consumed(bound(2)) == ("work", (1, 2) if partially else (2,))
    assert parents(capture_operations) == {"parent": None, "child": "parent"}


@pytest.mark.parametrize("function", [child, functools.partial(child, 1)], ids=["whole", "partial"])
def test_it_goes_to_a_spawned_process(
    capture_operations: CapturedOperations, function: Any
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        sent = pool.submit(moment(function), 2)
        assert sent.result() == ("work", (2,) if function is child else (1, 2))
    assert parents(capture_operations) == {"parent": None, "child": "parent"}
    assert {each.session_id for each in capture_operations} == {"work"}


async def test_a_coroutine_function_pickles_with_its_kind(
    capture_operations: CapturedOperations,
) -> None:
    bound = pickle.loads(pickle.dumps(moment(coroutine_function)))
    assert inspect.iscoroutinefunction(bound)
    assert await bound(2) == ("work", (2,))
    assert parents(capture_operations) == {"parent": None, "child": "parent"}


def test_with_nothing_current_the_callable_runs_as_it_is(
    capture_operations: CapturedOperations,
) -> None:
    assert in_a_thread(propagate(child), 2)[1] == (2,)
    assert pickle.loads(pickle.dumps(propagate(divmod)))(7, 2) == (3, 1)
    assert parents(capture_operations) == {"child": None}


class Called:
    async def __call__(self, *arguments: Any) -> Any:
        return child(*arguments)


async def test_a_coroutine_that_an_object_returns_is_bound_too(
    capture_operations: CapturedOperations,
) -> None:
    assert await moment(Called())(2) == ("work", (2,))
    assert parents(capture_operations) == {"parent": None, "child": "parent"}


def test_its_name_and_signature_are_the_functions(
    capture_operations: CapturedOperations,
) -> None:
    bound = moment(generator_function)
    assert bound.__name__ == "generator_function"
    assert inspect.signature(bound) == inspect.signature(generator_function)


def test_many_threads_may_call_it_at_once(capture_operations: CapturedOperations) -> None:
    bound = moment(child)
    threads = [threading.Thread(target=bound) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(capture_operations) == 9
    assert parents(capture_operations) == {"parent": None, "child": "parent"}


def test_exceptions_come_through(capture_operations: CapturedOperations) -> None:
    error = KeyError("key")

    def fail() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        moment(fail)()
    assert caught.value is error


def test_what_cannot_be_called_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match="fn=5: use a callable"):
        propagate(5)  # type: ignore[type-var]
