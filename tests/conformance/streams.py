"""Probes: the OpenAI SDK's own streams, from a loopback server, stay what they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from .loopback import answering
from .quiet import quiet
from .subject import Subject, behaviour

QUESTION: Any = {"model": "gpt-5", "messages": [{"role": "user", "content": "Say one two."}]}


def _chunk(**delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-5",
        "choices": [choice],
    }


def _events() -> bytes:
    last = _chunk() | {"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
    chunks = [_chunk(role="assistant", content="one"), _chunk(content=" two"), last]
    lines = [*map(json.dumps, chunks), "[DONE]"]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


@contextmanager
def client() -> Iterator[Any]:
    import openai

    with (
        answering(_events(), "text/event-stream") as address,
        openai.OpenAI(api_key="none", base_url=f"{address}/v1", max_retries=0) as made,
    ):
        yield made


@asynccontextmanager
async def async_client() -> AsyncIterator[Any]:
    import openai

    with answering(_events(), "text/event-stream") as address:
        async with openai.AsyncOpenAI(
            api_key="none", base_url=f"{address}/v1", max_retries=0
        ) as made:
            yield made


def text_of(chunk: Any) -> str:
    return chunk.choices[0].delta.content or ""


def open_stream(subject: Subject, source: Any) -> Any:
    def ask() -> Any:
        return source.chat.completions.create(**QUESTION, stream=True)

    return subject.decorate(ask)()


async def open_async_stream(subject: Subject, source: Any) -> Any:
    async def ask() -> Any:
        return await source.chat.completions.create(**QUESTION, stream=True)

    return await subject.decorate(ask)()


@behaviour("openai")
def provider_stream_keeps_type_and_attributes(subject: Subject) -> None:
    import openai

    with client() as source:
        stream = open_stream(subject, source)
        assert isinstance(stream, openai.Stream)
        assert stream.response.status_code == 200
        assert stream.__class__ is openai.Stream
        stream.close()
        assert stream.response.is_closed


@behaviour("openai")
def provider_stream_can_be_iterated(subject: Subject) -> None:
    with client() as source:
        assert "".join(map(text_of, open_stream(subject, source))) == "one two"


@behaviour("openai")
def provider_stream_takes_next(subject: Subject) -> None:
    with client() as source:
        stream = open_stream(subject, source)
        assert [text_of(next(stream)) for _ in range(3)] == ["one", " two", ""]
        assert next(stream, "end") == "end"


@behaviour("openai")
def provider_stream_is_a_context_manager(subject: Subject) -> None:
    import openai

    with client() as source:
        stream = open_stream(subject, source)
        with stream as entered:
            assert isinstance(entered, openai.Stream)
            assert text_of(next(iter(entered))) == "one"
        assert stream.response.is_closed


@behaviour("openai")
async def async_provider_stream_keeps_type_and_attributes(subject: Subject) -> None:
    import openai

    async with async_client() as source:
        stream = await open_async_stream(subject, source)
        assert isinstance(stream, openai.AsyncStream)
        assert stream.response.status_code == 200
        await stream.close()
        assert stream.response.is_closed


@behaviour("openai")
async def async_provider_stream_can_be_iterated(subject: Subject) -> None:
    async with async_client() as source:
        stream = await open_async_stream(subject, source)
        assert text_of(await anext(stream)) == "one"
        assert "".join([text_of(chunk) async for chunk in stream]) == " two"


@behaviour("openai")
async def async_provider_stream_is_a_context_manager(subject: Subject) -> None:
    import openai

    async with async_client() as source:
        stream = await open_async_stream(subject, source)
        async with stream as entered:
            assert isinstance(entered, openai.AsyncStream)
            async for _ in entered:
                break
        assert stream.response.is_closed


@behaviour("openai")
def stream_manager_can_be_entered(subject: Subject) -> None:
    with client() as source:

        def ask() -> Any:
            return source.chat.completions.stream(**QUESTION)

        with subject.decorate(ask)() as stream:
            types = [event.type for event in stream]
            assert stream.get_final_completion().choices[0].message.content == "one two"
        assert types.count("content.delta") == 2


@behaviour("openai")
async def async_stream_manager_can_be_entered(subject: Subject) -> None:
    async with async_client() as source:

        def ask() -> Any:
            return source.chat.completions.stream(**QUESTION)

        async with subject.decorate(ask)() as stream:
            types = [event.type async for event in stream]
        assert types.count("content.delta") == 2


@behaviour("openai")
def abandoned_provider_stream_is_silent(subject: Subject) -> None:
    with client() as source, quiet():
        for _ in open_stream(subject, source):
            break


@behaviour("openai")
def raw_response_of_the_sdk_is_untouched(subject: Subject) -> None:
    with client() as source:

        def ask() -> Any:
            return source.chat.completions.with_raw_response.create(**QUESTION, stream=True)

        assert subject.decorate(ask)().status_code == 200
