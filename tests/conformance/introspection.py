"""Probes: a decorated function looks like the bare one to whoever inspects, copies or stores it."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import sys
import typing
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

from .errors import raised
from .subject import Subject, behaviour


def sample(left: int, /, right: str = "r", *rest: bytes, key: float = 1.5, **more: Any) -> str:
    """Join what it is given."""
    return f"{left}{right}{rest}{key}{more}"


async def coroutine_sample(value: int) -> int:
    return value


def generator_sample(count: int) -> Iterator[int]:
    yield from range(count)


async def async_generator_sample(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


KINDS = (
    inspect.isfunction,
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)


def assert_same_kind(subject: Subject, function: Any) -> None:
    decorated = subject.decorate(function)
    assert [is_kind(decorated) for is_kind in KINDS] == [is_kind(function) for is_kind in KINDS]


@behaviour()
def plain_function_stays_a_plain_function(subject: Subject) -> None:
    assert_same_kind(subject, sample)


@behaviour()
def coroutine_function_is_recognised(subject: Subject) -> None:
    assert_same_kind(subject, coroutine_sample)


@behaviour()
def generator_function_is_recognised(subject: Subject) -> None:
    assert_same_kind(subject, generator_sample)


@behaviour()
def async_generator_function_is_recognised(subject: Subject) -> None:
    assert_same_kind(subject, async_generator_sample)


@behaviour()
def asyncio_recognises_coroutine_functions(subject: Subject) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # deprecated in 3.14, still called
        assert asyncio.iscoroutinefunction(subject.decorate(coroutine_sample))
        assert not asyncio.iscoroutinefunction(subject.decorate(sample))


@behaviour()
def function_marked_as_coroutine_function_stays_marked(subject: Subject) -> None:
    def returns_coroutine(value: int) -> Any:
        return coroutine_sample(value)

    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(returns_coroutine)
        assert inspect.iscoroutinefunction(subject.decorate(returns_coroutine))


@behaviour()
def signature_is_the_same(subject: Subject) -> None:
    assert inspect.signature(subject.decorate(sample)) == inspect.signature(sample)


@behaviour()
def annotations_and_type_hints_are_the_same(subject: Subject) -> None:
    decorated = subject.decorate(sample)
    assert decorated.__annotations__ == sample.__annotations__
    assert typing.get_type_hints(decorated) == typing.get_type_hints(sample)


@behaviour()
def name_qualname_module_and_docstring_are_the_same(subject: Subject) -> None:
    decorated = subject.decorate(sample)
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(decorated, attribute) == getattr(sample, attribute)


@behaviour()
def defaults_are_the_same(subject: Subject) -> None:
    decorated = subject.decorate(sample)
    assert decorated.__defaults__ == ("r",)
    assert decorated.__kwdefaults__ == {"key": 1.5}


@behaviour()
def attributes_set_before_decoration_are_kept(subject: Subject) -> None:
    def function() -> None: ...

    function.route = "/ask"
    decorated = subject.decorate(function)
    decorated.later = 1
    assert (decorated.route, decorated.later) == ("/ask", 1)


@behaviour()
def source_is_found(subject: Subject) -> None:
    assert inspect.getsource(subject.decorate(sample)) == inspect.getsource(sample)


@behaviour()
def weak_references_and_sets_work(subject: Subject) -> None:
    decorated = subject.decorate(generator_sample)
    assert weakref.ref(decorated)() is decorated
    assert {decorated: 1}[decorated] == 1
    assert decorated in {decorated}
    assert decorated != subject.decorate(coroutine_sample)


@behaviour()
def copies_are_the_function_itself(subject: Subject) -> None:
    decorated = subject.decorate(sample)
    assert copy.copy(decorated) is decorated
    assert copy.deepcopy({"call": decorated})["call"] is decorated


@behaviour()
def functions_pickle_by_reference(subject: Subject) -> None:
    for function in (sample, coroutine_sample, generator_sample, async_generator_sample):
        decorated = subject.decorate(function)
        with mock.patch.object(sys.modules[__name__], function.__name__, decorated):
            assert pickle.loads(pickle.dumps(decorated)) is decorated


@behaviour("cloudpickle")
def local_functions_survive_cloudpickle(subject: Subject) -> None:
    import cloudpickle

    def double(value: int) -> int:
        return 2 * value

    assert cloudpickle.loads(cloudpickle.dumps(subject.decorate(double)))(21) == 42


@behaviour()
def repr_and_str_name_the_function(subject: Subject) -> None:
    assert repr(subject.decorate(sample)).startswith("<function sample at ")


@behaviour()
def autospec_mocks_keep_the_signature(subject: Subject) -> None:
    stand_in = mock.create_autospec(subject.decorate(coroutine_sample))
    # from Python 3.14 on the mock looks at its arguments when it is awaited
    error = raised(lambda: stand_in().send(None))
    assert isinstance(error, TypeError)
    assert "'value'" in str(error)
