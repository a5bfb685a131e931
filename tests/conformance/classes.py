"""Probes: a decorated class is the same class, whatever kind of class it is."""

from __future__ import annotations

import abc
import enum
import inspect
import pickle
import sys
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable
from unittest import mock

from .errors import raised, raising
from .subject import Subject, behaviour

T = TypeVar("T")


@behaviour()
def decorated_class_is_the_same_class(subject: Subject) -> None:
    class Client:
        """Ask."""

        def __init__(self, name: str) -> None:
            self.name = name

        def ask(self) -> str:
            return self.name

    decorated = subject.decorate(Client)
    assert decorated is Client
    assert isinstance(decorated, type)
    assert isinstance(decorated("a"), Client)
    assert decorated("a").ask() == "a"
    assert inspect.signature(decorated) == inspect.signature(Client)


@behaviour()
def decorated_class_can_be_subclassed(subject: Subject) -> None:
    @subject.decorate
    class Base:
        def ask(self) -> str:
            return "base"

    class Client(Base):
        def ask(self) -> str:
            return f"{super().ask()} and more"

    assert Client().ask() == "base and more"
    assert isinstance(Client(), Base)
    assert Client.__mro__ == (Client, Base, object)


@behaviour()
def inherited_methods_are_left_alone(subject: Subject) -> None:
    class Base:
        def ask(self) -> str:
            return "base"

    before = dict(vars(Base))

    @subject.decorate
    class Client(Base): ...

    assert dict(vars(Base)) == before
    assert Client.ask is Base.ask


@behaviour()
def properties_and_nested_classes_of_a_decorated_class_are_left_alone(subject: Subject) -> None:
    class Inner:
        def ask(self) -> str:
            return "inner"

    inner_ask = Inner.ask
    size = property(lambda self: 3)

    @subject.decorate
    class Client:
        Nested = Inner
        length = size
        callback: Any = None

    assert Client.Nested is Inner
    assert Inner.ask is inner_ask
    assert vars(Client)["length"] is size


@behaviour()
async def every_kind_of_method_of_a_decorated_class_works(subject: Subject) -> None:
    @subject.decorate
    class Client:
        def ask(self) -> str:
            return "ask"

        async def async_ask(self) -> str:
            return "async"

        def stream(self) -> Any:
            yield "stream"

        @classmethod
        def create(cls) -> Client:
            return cls()

        @staticmethod
        def double(value: int) -> int:
            return 2 * value

        def __call__(self) -> str:
            return "called"

        def _private(self) -> str:
            return "private"

    client = Client.create()
    assert await client.async_ask() == "async"
    assert [client.ask(), *client.stream(), client(), client._private()] == [
        "ask",
        "stream",
        "called",
        "private",
    ]
    assert (Client.double(2), client.double(2)) == (4, 4)


@behaviour()
def class_with_slots_can_be_decorated(subject: Subject) -> None:
    @subject.decorate
    class Point:
        __slots__ = ("x",)

        def __init__(self, x: int) -> None:
            self.x = x

        def double(self) -> int:
            return 2 * self.x

    assert Point(2).double() == 4
    assert not hasattr(Point(2), "__dict__")
    assert Point.__slots__ == ("x",)


@behaviour()
def dataclass_over_and_under_works(subject: Subject) -> None:
    @subject.decorate
    @dataclass(frozen=True)
    class Under:
        x: int = 1

        def double(self) -> int:
            return 2 * self.x

    @dataclass(order=True)
    @subject.decorate
    class Over:
        x: int = 1

        def double(self) -> int:
            return 2 * self.x

    for point in (Under, Over):
        assert [field.name for field in fields(point)] == ["x"]
        assert point(2) == point(2)
        assert replace(point(), x=2).double() == 4


@behaviour()
def enum_can_be_decorated(subject: Subject) -> None:
    @subject.decorate
    class Colour(enum.Enum):
        RED = 1
        BLUE = 2

        def label(self) -> str:
            return self.name.lower()

    assert [colour.label() for colour in Colour] == ["red", "blue"]
    assert Colour(1) is Colour.RED
    assert isinstance(Colour.RED, Colour)


@behaviour()
def named_tuple_can_be_decorated(subject: Subject) -> None:
    @subject.decorate
    class Point(NamedTuple):
        x: int
        y: int = 0

        def total(self) -> int:
            return self.x + self.y

    assert Point(1, 2).total() == 3
    assert Point(1) == (1, 0)
    assert Point(1)._replace(y=5) == (1, 5)


@behaviour()
def metaclass_and_class_call_work(subject: Subject) -> None:
    made: list[str] = []

    class Registry(type):
        def __call__(cls, *args: Any) -> Any:
            made.append(cls.__name__)
            return super().__call__(*args)

    @subject.decorate
    class Client(metaclass=Registry):
        def ask(self) -> str:
            return "ask"

    assert type(Client) is Registry
    assert Client().ask() == "ask"
    assert made == ["Client"]


@behaviour()
def init_subclass_runs_once_per_subclass(subject: Subject) -> None:
    seen: list[str] = []

    class Base:
        def __init_subclass__(cls, **options: Any) -> None:
            seen.append(f"{cls.__name__} {options}")

    decorated_base = subject.decorate(Base)

    @subject.decorate
    class Client(decorated_base, colour="red"):
        def ask(self) -> None: ...

    assert seen == ["Client {'colour': 'red'}"]


@behaviour()
def generic_class_can_be_subscripted(subject: Subject) -> None:
    @subject.decorate
    class Box(Generic[T]):
        def __init__(self, value: T) -> None:
            self.value = value

        def get(self) -> T:
            return self.value

    assert Box[int](3).get() == 3


@behaviour()
def protocol_class_can_be_decorated(subject: Subject) -> None:
    @subject.decorate
    @runtime_checkable
    class Asks(Protocol):
        def ask(self) -> str: ...

    class Client:
        def ask(self) -> str:
            return "ask"

    assert isinstance(Client(), Asks)
    assert not isinstance(object(), Asks)


@behaviour()
def abstract_class_stays_abstract(subject: Subject) -> None:
    @subject.decorate
    class Base(abc.ABC):
        @abc.abstractmethod
        def ask(self) -> str: ...

    class Client(Base):
        def ask(self) -> str:
            return "ask"

    assert inspect.isabstract(Base)
    assert Client().ask() == "ask"


@behaviour()
def exception_class_can_be_decorated(subject: Subject) -> None:
    @subject.decorate
    class RefusedError(Exception):
        def advise(self) -> str:
            return "retry"

    error: Any = raised(raising(RefusedError("no")))
    assert (error.advise(), error.args) == ("retry", ("no",))


class Picklable:
    """At module level, because pickling goes by name."""

    def __init__(self, value: int) -> None:
        self.value = value

    def ask(self) -> int:
        return self.value


@behaviour()
def class_instances_and_methods_pickle(subject: Subject) -> None:
    class_dict = dict(vars(Picklable))
    decorated = subject.decorate(Picklable)
    try:
        with mock.patch.object(sys.modules[__name__], "Picklable", decorated):
            assert pickle.loads(pickle.dumps(decorated)) is decorated
            assert pickle.loads(pickle.dumps(decorated(3))).ask() == 3
            assert pickle.loads(pickle.dumps(decorated(3).ask))() == 3
            assert pickle.loads(pickle.dumps(decorated.ask)) is decorated.ask
    finally:
        Picklable.ask = class_dict["ask"]
