"""Probes: partials, bound methods, builtins, callable objects and what `functools` makes."""

from __future__ import annotations

import copy
import functools
import inspect
import operator
import pickle
import types
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from .subject import Subject, behaviour


def power(base: int, exponent: int) -> int:
    return base**exponent


async def async_power(base: int, exponent: int) -> int:
    return base**exponent


class Adder:
    """Adds, when called."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, value: int) -> int:
        return value + self.amount

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adder) and self.amount == other.amount

    def __hash__(self) -> int:
        return hash(self.amount)

    def method(self, value: int) -> int:
        return value * self.amount

    async def async_method(self, value: int) -> int:
        return value * self.amount


class AsyncAdder(Adder):
    async def __call__(self, value: int) -> int:
        return value + self.amount


class Counter(Adder):
    def __call__(self, value: int) -> Iterator[int]:
        yield from range(value)


@behaviour()
def partial_keeps_type_and_attributes(subject: Subject) -> None:
    partial = functools.partial(power, exponent=2)
    decorated = subject.decorate(partial)
    assert decorated(7) == 49
    assert isinstance(decorated, functools.partial)
    assert (decorated.func, decorated.args, decorated.keywords) == (power, (), {"exponent": 2})
    assert inspect.signature(decorated) == inspect.signature(partial)


@behaviour()
async def partial_of_a_coroutine_function_is_one(subject: Subject) -> None:
    decorated = subject.decorate(functools.partial(async_power, exponent=2))
    assert inspect.iscoroutinefunction(decorated)
    assert await decorated(7) == 49


@behaviour()
def callable_object_keeps_type_attributes_and_state(subject: Subject) -> None:
    adder = Adder(2)
    decorated = subject.decorate(adder)
    assert decorated(1) == 3
    decorated.amount = 10
    assert (decorated(1), adder.amount) == (11, 10)
    assert isinstance(decorated, Adder)
    assert (decorated, hash(decorated)) == (adder, hash(adder))
    assert inspect.signature(decorated) == inspect.signature(adder)


@behaviour()
async def async_callable_object_works(subject: Subject) -> None:
    decorated = subject.decorate(AsyncAdder(2))
    assert await decorated(1) == 3
    assert inspect.iscoroutinefunction(decorated.__call__)
    assert decorated.amount == 2


@behaviour()
def generator_callable_object_works(subject: Subject) -> None:
    decorated = subject.decorate(Counter(2))
    assert list(decorated(3)) == [0, 1, 2]
    assert inspect.isgeneratorfunction(decorated.__call__)


@behaviour()
def callable_object_can_be_pickled_and_copied(subject: Subject) -> None:
    decorated = subject.decorate(Adder(2))
    assert pickle.loads(pickle.dumps(decorated))(1) == 3
    assert copy.copy(decorated)(1) == 3
    assert copy.deepcopy(decorated)(1) == 3


@behaviour()
def partial_can_be_pickled(subject: Subject) -> None:
    decorated = subject.decorate(functools.partial(power, exponent=2))
    assert pickle.loads(pickle.dumps(decorated))(7) == 49


@behaviour()
async def bound_method_stays_a_bound_method(subject: Subject) -> None:
    adder = Adder(3)
    decorated = subject.decorate(adder.method)
    assert decorated(2) == 6
    assert decorated.__self__ is adder
    assert (decorated.__name__, decorated.__func__) == ("method", Adder.method)
    assert inspect.ismethod(decorated)
    assert await subject.decorate(adder.async_method)(2) == 6


@behaviour()
def bound_method_of_a_class_and_a_builtin_type_work(subject: Subject) -> None:
    values: list[int] = []
    subject.decorate(values.append)(1)
    assert values == [1]
    assert subject.decorate(dict.fromkeys)("a") == {"a": None}


@behaviour()
def builtin_functions_work(subject: Subject) -> None:
    decorated = subject.decorate(len)
    assert decorated("four") == 4
    assert inspect.isbuiltin(decorated)
    assert decorated.__name__ == "len"
    assert subject.decorate(operator.itemgetter(1))("ab") == "b"


@behaviour()
def lru_cache_keeps_caching_and_its_methods(subject: Subject) -> None:
    calls: list[int] = []

    @functools.lru_cache
    def double(value: int) -> int:
        calls.append(value)
        return 2 * value

    decorated = subject.decorate(double)
    assert (decorated(1), decorated(1), calls) == (2, 2, [1])
    assert decorated.cache_info().hits == 1
    decorated.cache_clear()
    assert decorated.cache_info().currsize == 0


@behaviour()
def lru_cache_over_a_decorated_function_works(subject: Subject) -> None:
    cached = functools.lru_cache(subject.decorate(power))
    assert (cached(2, 3), cached(2, 3)) == (8, 8)
    assert cached.cache_info().hits == 1


@behaviour()
def wraps_over_a_decorated_function_works(subject: Subject) -> None:
    decorated = subject.decorate(power)

    @functools.wraps(decorated)
    def outer(*args: Any) -> int:
        return decorated(*args) + 1

    assert outer(2, 3) == 9
    assert (outer.__name__, outer.__qualname__) == ("power", "power")
    assert inspect.signature(outer) == inspect.signature(power)
    assert inspect.unwrap(outer) is power


@behaviour()
def decorated_decorator_works(subject: Subject) -> None:
    def shouting(function: Any) -> Any:
        return lambda: function().upper()

    @subject.decorate(shouting)
    def say() -> str:
        return "hey"

    assert say() == "HEY"


@behaviour()
def singledispatch_over_and_under_works(subject: Subject) -> None:
    over: Any = functools.singledispatch(subject.decorate(lambda value: "other"))
    over.register(int, subject.decorate(lambda value: "int"))
    under: Any = subject.decorate(functools.singledispatch(lambda value: "other"))
    under.register(int, lambda value: "int")
    for dispatching in (over, under):
        assert (dispatching(1), dispatching("a")) == ("int", "other")
        assert dispatching.dispatch(int)(1) == "int"


@behaviour()
def singledispatch_reads_the_annotations(subject: Subject) -> None:
    dispatching: Any = functools.singledispatch(lambda value: "other")

    def for_int(value: int) -> str:
        return "int"

    dispatching.register(subject.decorate(for_int))
    assert (dispatching(1), dispatching("a")) == ("int", "other")


@behaviour()
def partialmethod_inside_a_class_works(subject: Subject) -> None:
    class Shape:
        def scale(self, factor: int) -> tuple[Shape, int]:
            return self, factor

        double = functools.partialmethod(subject.decorate(scale), 2)

    shape = Shape()
    assert shape.double() == (shape, 2)


@behaviour()
def partial_in_a_class_body_is_not_bound(subject: Subject) -> None:
    class Shape:
        square = staticmethod(subject.decorate(functools.partial(power, exponent=2)))

    assert Shape().square(3) == 9


@behaviour()
def callable_object_in_a_class_body_is_not_bound(subject: Subject) -> None:
    class Shape:
        add = subject.decorate(Adder(1))

    assert Shape().add(3) == 4


@behaviour()
def lru_cache_in_a_class_body_is_bound(subject: Subject) -> None:
    class Shape:
        @functools.lru_cache  # noqa: B019 - the class lives for this probe alone
        def scale(self, factor: int) -> tuple[Shape, int]:
            return self, factor

        scaled = subject.decorate(scale)

    shape = Shape()
    assert shape.scaled(2) == (shape, 2)
    assert Shape.scaled(shape, 2) == (shape, 2)


@behaviour()
def decorated_function_fulfils_a_runtime_protocol(subject: Subject) -> None:
    @runtime_checkable
    class Named(Protocol):
        __name__: str

        def __call__(self, base: int, exponent: int) -> int: ...

    assert isinstance(subject.decorate(power), Named)
    assert isinstance(subject.decorate(power), types.FunctionType)


@behaviour()
def lambda_works(subject: Subject) -> None:
    decorated = subject.decorate(lambda value: value + 1)
    assert decorated(1) == 2
    assert decorated.__name__ == "<lambda>"


@behaviour()
def decorating_twice_works(subject: Subject) -> None:
    assert subject.decorate(subject.decorate(power))(2, 3) == 8
