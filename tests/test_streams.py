"""Streams of the real SDKs, from a loopback server, and other iterators: one record for each."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai.types import HttpOptions
from responses import chat, chunks, counts, named, only, parents
from usage_samples import replaying

from instrument import Usage, current_operation, session, tracked
from instrument.testing import CapturedOperations

LOCAL: dict[str, Any] = {"api_key": "none", "max_retries": 0}
ASK: dict[str, Any] = {"model": "gpt-5", "messages": [{"role": "user", "content": "?"}]}
MESSAGE: dict[str, Any] = {**ASK, "model": "claude-sonnet-5", "max_tokens": 9}
CHAT = (1500, 1200, 300)
CLAUDE = (140, 125, 15)


@pytest.fixture
def chat_stream() -> Iterator[Callable[..., Any]]:
    """A function that gives a stream of OpenAI's chat completions."""
    with replaying("openai_chat.sse") as url, openai.OpenAI(base_url=url, **LOCAL) as client:

        def ask() -> Any:
            return client.chat.completions.create(**ASK, stream=True)

        yield ask


@pytest.fixture
def claude() -> Iterator[anthropic.Anthropic]:
    with (
        replaying("anthropic_message.sse") as url,
        anthropic.Anthropic(base_url=url, **LOCAL) as client,
    ):
        yield client


def gemini(url: str) -> Any:
    with genai.Client(api_key="none", http_options=HttpOptions(base_url=url)) as client:
        return client.models.generate_content(model="gemini-2.5-pro", contents="?")


@pytest.mark.parametrize(
    ("sample", "ask", "recorded"),
    [
        (
            "openai_chat",
            lambda url: openai.OpenAI(base_url=url, **LOCAL).chat.completions.create(**ASK),
            ("openai", "gpt-5-2026-08-01", "chat"),
        ),
        (
            "anthropic_message",
            lambda url: anthropic.Anthropic(base_url=url, **LOCAL).messages.create(**MESSAGE),
            ("anthropic", "claude-sonnet-5", "chat"),
        ),
        (
            "google_generate",
            gemini,
            ("gcp.gemini", "gemini-2.5-pro", "generate_content"),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_sdks_response_is_read(
    capture_operations: CapturedOperations, sample: str, ask: Any, recorded: Any
) -> None:
    with replaying(f"{sample}.json") as url:
        tracked(service="s")(ask)(url)
    found = only(capture_operations)
    assert found.tokens
    assert (found.provider, str(found.model), found.kind) == recorded


def test_a_stream_that_is_exhausted_is_ok_and_timed_apart_from_its_consumer(
    capture_operations: CapturedOperations, chat_stream: Any
) -> None:
    stream = tracked(service="s")(chat_stream)()
    assert isinstance(stream, openai.Stream)
    assert list(capture_operations) == []
    seen = list(stream)
    found = only(capture_operations)
    assert (found.outcome, counts(found), found.chunks) == ("ok", CHAT, len(seen))
    assert found.active_seconds is not None
    assert found.first_chunk_seconds is not None
    assert found.active_seconds <= found.duration_seconds


def by_break(stream: Any) -> None:
    for _ in stream:
        break


def by_close(stream: Any) -> None:
    next(stream)
    stream.close()


def by_with(stream: Any) -> None:
    with stream:
        next(stream)


def by_forgetting(stream: Any) -> None:
    next(stream)


def by_never_starting(stream: Any) -> None: ...


def by_an_exception(stream: Any) -> None:
    with pytest.raises(KeyError), stream:
        raise KeyError(next(stream))


@pytest.mark.parametrize(
    "leave",
    [by_break, by_close, by_with, by_forgetting, by_never_starting, by_an_exception],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_stream_that_is_left_is_partial_once(
    capture_operations: CapturedOperations, chat_stream: Any, leave: Any
) -> None:
    leave(tracked(service="s")(chat_stream)())
    gc.collect()
    found = only(capture_operations)
    assert (found.outcome, found.success, found.error_type) == ("partial", True, None)


def until_done(stream: Any) -> None:
    stream.until_done()


def text_stream(stream: Any) -> None:
    assert "".join(stream.text_stream) == "Lisbon."


def final_message(stream: Any) -> None:
    assert stream.get_final_message().usage.output_tokens == 15


@pytest.mark.parametrize("read", [until_done, text_stream, final_message, list])
def test_every_way_of_reading_a_stream_managers_stream_is_followed(
    capture_operations: CapturedOperations, claude: anthropic.Anthropic, read: Any
) -> None:
    manager = tracked(service="s")(claude.messages.stream)(**MESSAGE)
    assert list(capture_operations) == []
    with manager as stream:
        assert isinstance(stream, anthropic.MessageStream)
        read(stream)
        found = only(capture_operations)
    assert (found.outcome, counts(found)) == ("ok", CLAUDE)
    assert len(capture_operations) == 1


def test_a_stream_manager_that_is_never_entered_leaves_nothing(
    capture_operations: CapturedOperations, claude: anthropic.Anthropic
) -> None:
    tracked(service="s")(claude.messages.stream)(**MESSAGE)
    assert list(capture_operations) == []
    assert capture_operations.log.running() == []


def test_a_stream_manager_left_early_is_partial_with_what_it_had_used(
    capture_operations: CapturedOperations, claude: anthropic.Anthropic
) -> None:
    with tracked(service="s")(claude.messages.stream)(**MESSAGE) as stream:
        next(stream)
    found = only(capture_operations)
    assert (found.outcome, found.input_tokens) == ("partial", 125)


def test_what_a_stream_manager_does_when_entered_is_inside_its_operation(
    capture_operations: CapturedOperations, claude: anthropic.Anthropic
) -> None:
    create = tracked(service="s", operation="inner")(claude._client.send)
    claude._client.send = create  # type: ignore[method-assign]
    with tracked(service="s", operation="outer")(claude.messages.stream)(**MESSAGE) as stream:
        stream.until_done()
    assert parents(capture_operations) == {"outer": None, "inner": "outer"}


async def test_async_streams_and_their_managers_are_followed(
    capture_operations: CapturedOperations,
) -> None:
    with replaying("openai_chat.sse") as url:
        async with openai.AsyncOpenAI(base_url=url, **LOCAL) as client:

            @tracked(service="s")
            async def ask() -> Any:
                return await client.chat.completions.create(**ASK, stream=True)

            assert [chunk async for chunk in await ask()]
            async with await ask() as stream:
                await anext(stream)
            async with tracked(service="s")(client.chat.completions.stream)(**ASK) as helped:
                await helped.until_done()
    assert [each.outcome for each in capture_operations] == ["ok", "partial", "ok"]
    assert [each.tokens for each in capture_operations][::2] == [1500, 1500]


def broken_off() -> Any:
    """Return an OpenAI stream whose connection breaks after the second chunk."""

    def lines() -> Iterator[bytes]:
        for chunk in chunks():
            yield b"data: %s\n\n" % json.dumps({**chunk, "created": 1}).encode()
        raise httpx.ReadError("connection reset")

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=lines())

    transport = httpx.Client(transport=httpx.MockTransport(answer))
    client = openai.OpenAI(base_url="http://localhost", http_client=transport, **LOCAL)
    return client.chat.completions.create(**ASK, stream=True)


def test_an_error_in_the_middle_of_a_stream_keeps_what_was_used(
    capture_operations: CapturedOperations,
) -> None:
    with pytest.raises(openai.APIConnectionError):
        list(tracked(service="s")(broken_off)())
    found = only(capture_operations)
    assert (found.outcome, found.error_type, found.tokens) == ("error", "APIConnectionError", 15)


@pytest.mark.parametrize("read", [list, by_close])
def test_usage_of_a_stream_is_given_the_merged_usage_however_it_ends(
    capture_operations: CapturedOperations, chat_stream: Any, read: Any
) -> None:
    given: list[Usage] = []

    def usage(merged: Usage) -> Usage:
        given.append(merged)
        return Usage(input_tokens=merged.input_tokens or 0, cost_usd=0.5)

    read(tracked(service="s", usage=usage)(chat_stream)())
    found = only(capture_operations)
    assert [each.input_tokens or 0 for each in given] == [found.input_tokens]
    assert (found.cost_usd, found.cost_source) == (0.5, "caller")


def test_a_stream_handed_on_by_an_outer_function_counts_once(
    capture_operations: CapturedOperations, chat_stream: Any
) -> None:
    inner = tracked(service="s", operation="inner")(chat_stream)
    outer = tracked(service="s", operation="outer")(lambda: inner())
    assert isinstance(outer(), openai.Stream)
    list(outer())
    gc.collect()
    finished = [each for each in capture_operations if each.outcome == "ok"]
    assert counts(named(finished, "inner")) == CHAT
    assert named(finished, "outer").tokens is None
    assert named(finished, "outer").usage_operation_id == named(finished, "inner").operation_id


def test_a_stream_may_be_read_in_another_thread(
    capture_operations: CapturedOperations, chat_stream: Any
) -> None:
    stream = tracked(service="s")(chat_stream)()
    thread = threading.Thread(target=list, args=(stream,))
    thread.start()
    thread.join()
    assert (only(capture_operations).outcome, counts(only(capture_operations))) == ("ok", CHAT)


def test_threads_that_end_a_stream_at_the_same_moment_leave_one_record(
    capture_operations: CapturedOperations,
) -> None:
    together = threading.Barrier(2, timeout=5)

    class Closable(Iterator[int]):
        def __next__(self) -> int:
            return 1

        def close(self) -> None: ...

    @tracked(service="s", stream=True, usage=lambda usage: together.wait())
    def ask() -> Any:
        return Closable()

    stream = ask()
    next(stream)
    threads = [threading.Thread(target=stream.close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (segment,) = (capture_operations.log_dir / "journal").iterdir()  # whose reader would forgive
    assert segment.read_bytes().count(b'"outcome":"partial"') == 1


def test_what_a_function_returns_and_nobody_starts_leaves_no_record(
    capture_operations: CapturedOperations,
) -> None:
    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> Any:
        yield 1

    for make in (coroutine, generator, async_generator):
        result = tracked(service="s")(lambda make=make: make())()
        if make is coroutine:
            result.close()
        del result
    gc.collect()
    assert list(capture_operations) == capture_operations.log.running() == []


def test_an_iterator_is_not_closed_because_the_stream_around_it_is_forgotten(
    capture_operations: CapturedOperations,
) -> None:
    class Stream(Iterator[int]):
        closed = False

        def __next__(self) -> int:
            return 1

        def close(self) -> None:
            self.closed = True

    iterator = Stream()
    next(tracked(service="s", stream=True)(lambda: iterator)())
    gc.collect()
    assert (iterator.closed, only(capture_operations).outcome) == (False, "partial")


def test_closing_that_fails_ends_the_operation_too(
    capture_operations: CapturedOperations,
) -> None:
    class Stream(Iterator[int]):
        def __next__(self) -> int:
            return 1

        def close(self) -> None:
            raise OSError("close")

    stream: Any = tracked(service="s", stream=True)(lambda: Stream())()
    next(stream)
    with pytest.raises(OSError, match="close"):
        stream.close()
    assert only(capture_operations).outcome == "partial"


def test_every_call_made_by_a_streams_step_is_inside_its_operation(
    capture_operations: CapturedOperations,
) -> None:
    child = tracked(service="s", operation="child")(lambda: current_operation().parent_id)

    class Stream(Iterator[Any]):
        def __next__(self) -> Any:
            return [child(), child()]

    stream = tracked(service="s", stream=True)(lambda: Stream())()
    found = {*next(stream), *next(stream)}
    assert current_operation() is None
    del stream
    assert found == {capture_operations[0].operation_id}


def test_other_iterators_come_back_untouched_unless_stream_is_asked_for(
    capture_operations: CapturedOperations, tmp_path: Any
) -> None:
    (tmp_path / "file").write_text("line")
    with (tmp_path / "file").open() as file:
        for result in (file, map(str, [1]), zip([1], [2], strict=True), iter([1]), [1], {1}, "t"):
            assert tracked(service="s")(lambda given=result: given)() is result
    assert [each.chunks for each in capture_operations] == [None] * 7


async def test_an_async_generator_left_early_is_partial(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s")
    async def generate() -> Any:
        for chunk in chunks():
            yield chunk

    async with aclosing(generate()) as generator:
        await anext(generator)
    assert (only(capture_operations).outcome, only(capture_operations).chunks) == ("partial", 1)


def test_an_async_generator_that_the_end_of_its_loop_closes_is_partial(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s")
    async def generate() -> Any:
        try:
            for chunk in chunks():
                yield chunk
        finally:
            await asyncio.sleep(9)

    async def leave() -> None:
        async for _ in generate():
            break
        await asyncio.sleep(0)  # it is being closed, and cancelled

    asyncio.run(leave())
    assert (only(capture_operations).outcome, only(capture_operations).chunks) == ("partial", 1)


def test_a_response_that_is_read_twice_is_recorded_twice_and_counted_once_in_its_session(
    capture_operations: CapturedOperations,
) -> None:
    with session() as work:
        tracked(service="s")(chat)()
        tracked(service="s")(chat)()
    assert (len(capture_operations), work.stats().total_tokens) == (2, 15)
