"""Pairs of lines: the type of a bare callable, then of the same one decorated.

`tests/test_types.py` asks each checker for both and compares them. This file is never run.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Generic, ParamSpec, TypeVar, overload, reveal_type

from instrument import session, tracked

T = TypeVar("T")
P = ParamSpec("P")

decorate = tracked(service="openai")


def ask(prompt: str, /, *, model: str = "gpt-5") -> str:
    return prompt + model


async def ask_later(prompt: str) -> str:
    return prompt


def stream(prompt: str) -> Generator[str, int, bool]:
    yield prompt
    return True


async def stream_later(prompt: str) -> AsyncIterator[str]:
    yield prompt


@overload
def convert(value: int) -> str: ...
@overload
def convert(value: str) -> int: ...
def convert(value: int | str) -> int | str:
    return value


def first(values: list[T]) -> T:
    return values[0]


def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return function(*args, **kwargs)


def returns_awaitable(prompt: str) -> Awaitable[str]:
    return ask_later(prompt)


class Asker:
    def __call__(self, prompt: str) -> str:
        return prompt


class Client(Generic[T]):
    def __init__(self, default: T) -> None:
        self.default = default

    def ask(self, prompt: str) -> T:
        return self.default

    async def ask_later(self, prompt: str) -> T:
        return self.default

    def stream(self) -> Iterator[T]:
        yield self.default


class Bare:
    @classmethod
    def create(cls) -> Bare:
        return cls()

    @staticmethod
    def double(value: int) -> int:
        return 2 * value

    def ask(self, prompt: str) -> str:
        return prompt


class Decorated:
    @decorate
    @classmethod
    def create(cls) -> Bare:
        return Bare()

    @decorate
    @staticmethod
    def double(value: int) -> int:
        return 2 * value

    @decorate
    def ask(self, prompt: str) -> str:
        return prompt


reveal_type(ask)
reveal_type(decorate(ask))

reveal_type(ask_later)
reveal_type(decorate(ask_later))

reveal_type(stream)
reveal_type(decorate(stream))

reveal_type(stream_later)
reveal_type(decorate(stream_later))

reveal_type(convert)
reveal_type(decorate(convert))

reveal_type(first)
reveal_type(decorate(first))

reveal_type(call)
reveal_type(decorate(call))

reveal_type(returns_awaitable)
reveal_type(decorate(returns_awaitable))

reveal_type(Asker())
reveal_type(decorate(Asker()))

reveal_type(functools.partial(ask, "hello"))
reveal_type(decorate(functools.partial(ask, "hello")))

reveal_type(Bare)
reveal_type(decorate(Bare))

reveal_type(Client(1).ask)
reveal_type(decorate(Client(1).ask))

reveal_type(Client("a").ask_later)
reveal_type(decorate(Client("a").ask_later))

reveal_type(Client(1).stream)
reveal_type(decorate(Client(1).stream))

reveal_type(Bare.create)
reveal_type(Decorated.create)

reveal_type(Bare().create)
reveal_type(Decorated().create)

reveal_type(Bare.double)
reveal_type(Decorated.double)

reveal_type(Bare().ask)
reveal_type(Decorated().ask)

reveal_type(ask)
reveal_type(session("nightly")(ask))

reveal_type(ask_later)
reveal_type(session("nightly")(ask_later))

reveal_type(stream)
reveal_type(session("nightly")(stream))

reveal_type(stream_later)
reveal_type(session("nightly")(stream_later))
