"""Probes: methods of every kind bind as before."""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Callable
from typing import Any

from .subject import Subject, behaviour


@behaviour()
def methods_bind(subject: Subject) -> None:
    class Client:
        @subject.decorate
        def ask(self, prompt: str) -> tuple[Client, str]:
            return self, prompt

    client = Client()
    assert client.ask("a") == (client, "a")
    assert inspect.ismethod(client.ask)
    assert client.ask.__self__ is client
    assert Client.ask(client, "a") == (client, "a")
    assert Client.ask.__qualname__.endswith("Client.ask")


@behaviour()
async def async_and_generator_methods_bind(subject: Subject) -> None:
    class Client:
        @subject.decorate
        async def ask(self) -> Client:
            return self

        @subject.decorate
        def stream(self) -> Any:
            yield self

        @subject.decorate
        async def async_stream(self) -> Any:
            yield self

    client = Client()
    assert await client.ask() is client
    assert list(client.stream()) == [client]
    assert [one async for one in client.async_stream()] == [client]


@behaviour()
def over_classmethod_and_staticmethod_they_stay_what_they_are(subject: Subject) -> None:
    class Client:
        @subject.decorate
        @classmethod
        def create(cls, name: str) -> tuple[type, str]:
            return cls, name

        @subject.decorate
        @staticmethod
        def double(value: int) -> int:
            return 2 * value

    class Special(Client): ...

    assert Special.create("a") == (Special, "a")
    assert Client().create("a") == (Client, "a")
    assert (Client.double(2), Client().double(2)) == (4, 4)
    kinds = (type(Client.__dict__["create"]), type(Client.__dict__["double"]))
    assert kinds == (classmethod, staticmethod)


@behaviour()
def under_classmethod_and_staticmethod_works(subject: Subject) -> None:
    class Client:
        @classmethod
        @subject.decorate
        def create(cls) -> type:
            return cls

        @staticmethod
        @subject.decorate
        def double(value: int) -> int:
            return 2 * value

    assert Client.create() is Client
    assert (Client.double(2), Client().double(2)) == (4, 4)


@behaviour()
def property_over_a_decorated_function_works(subject: Subject) -> None:
    class Client:
        amount = 1

        @property
        @subject.decorate
        def total(self) -> int:
            return self.amount

        @total.setter
        @subject.decorate
        def total(self, value: int) -> None:
            self.amount = value

        @functools.cached_property
        @subject.decorate
        def once(self) -> object:
            return object()

    client = Client()
    client.total = 5
    assert client.total == 5
    assert client.once is client.once


@behaviour()
def abstract_methods_stay_abstract(subject: Subject) -> None:
    class Base(abc.ABC):
        @subject.decorate
        @abc.abstractmethod
        def over(self) -> None: ...

        @abc.abstractmethod
        @subject.decorate
        def under(self) -> None: ...

    assert Base.__abstractmethods__ == {"over", "under"}


@behaviour()
def special_methods_can_be_decorated(subject: Subject) -> None:
    class Box:
        @subject.decorate
        def __init__(self, value: int) -> None:
            self.value = value

        @subject.decorate
        def __len__(self) -> int:
            return self.value

        @subject.decorate
        def __iter__(self) -> Any:
            yield self.value

        @subject.decorate
        def __enter__(self) -> Box:
            return self

        @subject.decorate
        def __exit__(self, *_: object) -> bool:
            return True

    with Box(3) as box:
        assert (len(box), list(box)) == (3, [3])
        raise ValueError


@behaviour()
def super_works_in_decorated_methods(subject: Subject) -> None:
    class Base:
        def ask(self) -> list[str]:
            return ["base"]

    class Client(Base):
        @subject.decorate
        def ask(self) -> list[str]:
            return [*super().ask(), __class__.__name__]

    assert Client().ask() == ["base", "Client"]


@behaviour()
def set_name_and_owner_work(subject: Subject) -> None:
    names: list[str] = []

    class Descriptor:
        def __set_name__(self, owner: type, name: str) -> None:
            names.append(name)

        def __get__(self, instance: object, owner: type) -> Callable[[], str]:
            return lambda: "bound"

        def __call__(self) -> str:
            return "called"

    class Client:
        ask = subject.decorate(Descriptor())

    assert names == ["ask"]
    assert Client().ask() == "bound"
