"""Probes: what the function returns is what the caller gets, the same object."""

from __future__ import annotations

import array
import asyncio
import concurrent.futures
import csv
import gc
import inspect
import io
import itertools
import re
import sqlite3
import subprocess
import tempfile
import threading
import types
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any
from unittest import mock

from .errors import raised
from .loopback import answering
from .subject import Subject, behaviour


def returned(subject: Subject, value: Any) -> Any:
    """Return what a decorated function that returns `value` gives its caller."""

    def give() -> Any:
        return value

    return subject.decorate(give)()


def assert_untouched(subject: Subject, *values: Any) -> None:
    for value in values:
        assert returned(subject, value) is value


@behaviour()
def none_is_returned(subject: Subject) -> None:
    assert_untouched(subject, None)


@behaviour()
def scalars_keep_identity_and_exact_type(subject: Subject) -> None:
    assert_untouched(subject, 10**30, 1.5, True, "text" * 9, b"bytes" * 9, Decimal("1.1"), 1j)
    assert type(returned(subject, 7)) is int


@behaviour()
def containers_are_untouched(subject: Subject) -> None:
    assert_untouched(subject, [1], {"a": 1}, {1}, (1, [2]), bytearray(b"x"), array.array("d", [1]))


@behaviour()
async def awaited_results_are_untouched(subject: Subject) -> None:
    value = {"choices": []}

    async def give() -> Any:
        return value

    assert await subject.decorate(give)() is value


@behaviour()
def iterators_are_untouched(subject: Subject) -> None:
    lines = csv.reader(io.StringIO("a,b\n"))
    pairs, doubled = zip([1], [2], strict=True), map(abs, [-1])
    assert_untouched(subject, lines, pairs, doubled, iter([1]), enumerate("a"), itertools.count())
    assert list(pairs) == [(1, 2)]
    assert list(doubled) == [1]
    assert list(lines) == [["a", "b"]]


@behaviour()
def files_and_cursors_are_untouched(subject: Subject) -> None:
    with tempfile.TemporaryFile("w+") as file, sqlite3.connect(":memory:") as connection:
        assert_untouched(subject, file, connection, connection.execute("select 1"))
    connection.close()


@behaviour()
def classes_functions_and_modules_are_untouched(subject: Subject) -> None:
    assert_untouched(subject, dict, len, re, re.match("a", "a"), io.StringIO, print)


@behaviour()
def context_managers_are_untouched(subject: Subject) -> None:
    @contextmanager
    def managed() -> Iterator[int]:
        yield 1

    manager, lock = managed(), threading.Lock()
    assert_untouched(subject, manager, lock, subprocess.CompletedProcess(["true"], 0))
    with manager as value:
        assert value == 1


@behaviour()
def objects_that_answer_every_attribute_are_untouched(subject: Subject) -> None:
    class Yes:
        def __getattr__(self, name: str) -> Any:
            return Yes()

        def __call__(self, *_: Any, **__: Any) -> Any:
            return Yes()

    assert_untouched(subject, Yes())


@behaviour()
def objects_that_refuse_every_attribute_are_untouched(subject: Subject) -> None:
    class No:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

        @property
        def usage(self) -> Any:
            raise RuntimeError("usage")

    assert_untouched(subject, No())


@behaviour()
async def asyncio_futures_and_tasks_keep_their_identity(subject: Subject) -> None:
    future = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(asyncio.sleep(0, "slept"))
    assert_untouched(subject, future, task)
    future.set_result("set")
    assert await asyncio.gather(future, task) == ["set", "slept"]


@behaviour()
def concurrent_futures_keep_their_identity(subject: Subject) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(str, 1)
        assert_untouched(subject, future)
        assert future.result(5) == "1"


@behaviour()
async def returned_coroutine_is_a_native_coroutine(subject: Subject) -> None:
    async def answer() -> int:
        return 42

    def ask() -> Awaitable[int]:
        return answer()

    pending = subject.decorate(ask)()
    assert type(pending) is types.CoroutineType
    assert await asyncio.create_task(pending) == 42


@behaviour()
def returned_generator_is_a_native_generator(subject: Subject) -> None:
    def numbers() -> Any:
        received = yield 1
        return received

    def start() -> Any:
        return numbers()

    generator = subject.decorate(start)()
    assert type(generator) is types.GeneratorType
    assert next(generator) == 1
    assert repr(raised(generator.send, "sent")) == "StopIteration('sent')"


@behaviour()
async def returned_async_generator_is_a_native_one(subject: Subject) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    def start() -> AsyncIterator[int]:
        return numbers()

    generator = subject.decorate(start)()
    assert type(generator) is types.AsyncGeneratorType
    assert [number async for number in generator] == [1]


@behaviour()
def returned_awaitable_object_is_untouched(subject: Subject) -> None:
    class Later:
        def __await__(self) -> Iterator[Any]:
            return iter(())

    later = Later()
    assert_untouched(subject, later)
    assert inspect.isawaitable(later)


class Large:
    """Something whose end can be seen."""


@behaviour()
def arguments_and_results_are_freed_at_once(subject: Subject) -> None:
    def pass_on(value: Large) -> Large:
        return value

    with _no_collector():
        large = Large()
        gone = weakref.ref(subject.decorate(pass_on)(large))
        del large
        assert gone() is None


@behaviour()
def a_failed_call_frees_its_locals_at_once(subject: Subject) -> None:
    witness: list[Any] = []

    def fail() -> None:
        large = Large()
        witness.append(weakref.ref(large))
        raise ValueError

    decorated = subject.decorate(fail)
    with _no_collector():
        with suppress(ValueError):
            decorated()
        assert witness[0]() is None


@contextmanager
def _no_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@behaviour()
def mocks_are_not_called(subject: Subject) -> None:
    result = mock.MagicMock()
    assert_untouched(subject, result)
    assert result.mock_calls == []


@behaviour()
def lazy_results_are_not_evaluated(subject: Subject) -> None:
    class Query:
        evaluated: bool = False

        def _evaluate(self, *_: Any) -> Any:
            self.evaluated = True
            raise RuntimeError("evaluated")

        __iter__ = __len__ = __bool__ = __eq__ = __hash__ = __getitem__ = __repr__ = _evaluate

    query = Query()
    assert returned(subject, query) is query
    assert not query.evaluated


@behaviour()
def dictionaries_with_defaults_gain_no_keys(subject: Subject) -> None:
    counts: Any = defaultdict(int, {"model": "gpt-5", "usage": defaultdict(int)})
    assert_untouched(subject, counts)
    assert (list(counts), dict(counts["usage"])) == (["model", "usage"], {})


@behaviour("httpx")
def body_of_a_streaming_http_response_is_left_to_the_caller(subject: Subject) -> None:
    import httpx

    with answering(b'{"usage": {"prompt_tokens": 1}}') as address, httpx.Client() as client:
        request = client.build_request("GET", address)
        response = subject.decorate(lambda: client.send(request, stream=True))()
        assert not response.is_stream_consumed
        assert not response.is_closed
        assert response.read().startswith(b'{"usage"')
