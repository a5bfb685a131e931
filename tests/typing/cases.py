"""What a type checker accepts and refuses of decorated code. This file is never run.

Every `ignore` is a claim: the checkers report one that suppresses nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar, assert_type, overload

from instrument import (
    Operation,
    Session,
    SessionStats,
    Usage,
    UsageLog,
    current_session,
    propagate,
    session,
    track,
    tracked,
)

T = TypeVar("T")


@tracked(service="openai", operation="ask", model="gpt-5", metadata={"team": "search"})
def ask(prompt: str, *, retries: int = 3) -> list[str]:
    return [prompt] * retries


assert_type(ask("hello"), list[str])
assert_type(ask(prompt="hello", retries=1), list[str])
ask(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ask("hello", 2)  # type: ignore[call-arg, misc, unused-ignore]  # pyright: ignore[reportCallIssue]
ask()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@tracked(service="openai")
async def ask_later(prompt: str) -> int:
    return len(prompt)


@tracked(service="openai")
def stream(prompt: str) -> Generator[str, bytes, int]:
    sent = yield prompt
    return len(sent)


@tracked(service="openai", stream=True)
async def stream_later(prompt: str) -> AsyncIterator[str]:
    yield prompt


@tracked(service="openai", usage=len, success=lambda text: bool(text))
def with_readers(prompt: str) -> str:
    return prompt


@tracked(service="openai", usage=lambda answer: Usage(input_tokens=1))
def with_usage(prompt: str) -> Any:
    return prompt


def check_generator() -> Generator[str, bytes, None]:
    assert_type((yield from stream("hello")), int)
    stream("hello").send(b"sent")
    stream("hello").send("sent")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def check_async() -> None:
    assert_type(await ask_later("hello"), int)
    assert_type([word async for word in stream_later("hello")], list[str])
    await ask_later(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@overload
def convert(value: int) -> str: ...
@overload
def convert(value: str) -> int: ...
@tracked(service="local")
def convert(value: int | str) -> int | str:
    return value


assert_type(convert(1), str)
assert_type(convert("a"), int)


@tracked(service="local")
def first(values: Sequence[T]) -> T:
    return values[0]


assert_type(first([1]), int)
assert_type(first("ab"), str)


@tracked(service="local")
class Box(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value

    def get(self) -> T:
        return self.value

    @classmethod
    def empty(cls) -> Box[None]:
        return Box(None)

    @staticmethod
    def double(value: int) -> int:
        return 2 * value


assert_type(Box(1), Box[int])
assert_type(Box("a").get(), str)
assert_type(Box.empty(), Box[None])
assert_type(Box.double(1), int)


class Client:
    @tracked(service="openai")
    def ask(self, prompt: str) -> str:
        return prompt

    @tracked(service="openai")
    @classmethod
    def create(cls, name: str) -> Client:
        return cls()

    @classmethod
    @tracked(service="openai")
    def under(cls) -> Client:
        return cls()

    @tracked(service="openai")
    @staticmethod
    def double(value: int) -> int:
        return 2 * value

    @property
    @tracked(service="openai")
    def size(self) -> int:
        return 1


assert_type(Client().ask("hello"), str)
assert_type(Client.create("a"), Client)
assert_type(Client().create("a"), Client)
assert_type(Client.under(), Client)
assert_type(Client.double(1), int)
assert_type(Client().size, int)
Client().ask(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@session("nightly")
def nightly(day: int) -> str:
    return str(day)


@session()
async def nightly_later(day: int) -> str:
    return str(day)


@session("nightly", metadata={"team": "search"})
def nightly_stream() -> Iterator[int]:
    yield 1


assert_type(nightly(1), str)
assert_type(list(nightly_stream()), list[int])
nightly("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def check_session() -> None:
    with session("nightly") as work:
        assert_type(work, Session)
    assert_type(work.id, str)
    assert_type(work.name, str | None)
    assert_type(work.parent_id, str | None)
    assert_type(work.started_at, datetime)
    assert_type(work.stats(), SessionStats)
    assert_type(work.operations(), list[Operation])
    assert_type(work.env(), dict[str, str])
    assert_type(current_session().id, str)


async def check_async_session() -> None:
    async with session("nightly", id="job-1") as work:
        assert_type(work, Session)
    assert_type(await nightly_later(1), str)


def check_track() -> None:
    with track("summarise", service="openai", model="gpt-5") as operation:
        operation.set_usage(input_tokens=1, cost_usd=0.1)
        operation.add_usage(Usage(output_tokens=1))
        operation.fail("refused")
    assert_type(operation.id, str)
    assert_type(operation.parent_id, str | None)
    assert_type(operation.session_id, str)


async def check_async_track() -> None:
    async with track("summarise", service="openai") as operation:
        operation.set_usage(Usage(total_tokens=3))


def check_reading() -> None:
    log = UsageLog()
    assert_type(log.operations(service="openai"), list[Operation])
    assert_type(log.running(), list[Operation])
    assert_type(log.errors(limit=3), list[Operation])
    assert_type(log.sessions(), list[SessionStats])
    assert_type(log.stats("session_1_abcdef01").cost_usd, float | None)


def check_propagate() -> None:
    assert_type(propagate(ask)("hello"), list[str])


tracked()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
tracked(service=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
tracked(service="openai", colour="red")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
