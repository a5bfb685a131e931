"""xAI's own SDK: its responses and chunks, put together from protocol buffers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("xai_sdk")

from openai_wire import USED, used
from responses import only
from xai_sdk.chat import Chunk, Response
from xai_sdk.proto import chat_pb2, usage_pb2

from instrument import tracked
from instrument.testing import capture

USAGE = usage_pb2.SamplingUsage(
    prompt_tokens=1200,
    completion_tokens=44,
    reasoning_tokens=256,
    total_tokens=1500,
    cached_prompt_text_tokens=1024,
)


def response(usage: Any = USAGE) -> Any:
    return Response(chat_pb2.GetChatCompletionResponse(id="r1", model="grok-4", usage=usage), 0)


def chunk(usage: Any = None) -> Any:
    return Chunk(chat_pb2.GetChatCompletionChunk(id="r1", model="grok-4", usage=usage), 0)


def pairs() -> Iterator[tuple[Any, Any]]:
    """Yield what `chat.stream()` does: the response so far, and the chunk."""
    for _ in range(3):
        yield response(None), chunk()
    yield response(), chunk(USAGE)


def test_reasoning_is_added_to_the_completion() -> None:
    with capture() as operations:
        tracked(service="xai")(response)()
    found = only(operations)
    assert used(found) == USED
    assert (found.provider, found.model, found.response_id) == ("x_ai", "grok-4", "r1")


def test_reasoning_that_the_total_shows_inside_is_not_added() -> None:
    inside = usage_pb2.SamplingUsage(
        prompt_tokens=1200, completion_tokens=300, reasoning_tokens=256, total_tokens=1500
    )
    with capture() as operations:
        tracked(service="xai")(response)(inside)
    assert only(operations).output_tokens == 300


def test_a_price_in_ticks_is_the_providers() -> None:
    priced = usage_pb2.SamplingUsage(prompt_tokens=9, total_tokens=9, cost_in_usd_ticks=12300000)
    with capture() as operations:
        tracked(service="xai")(response)(priced)
    found = only(operations)
    assert (found.cost_usd, found.cost_source) == (pytest.approx(0.00123), "provider")


def test_a_response_whose_usage_is_all_zeros_has_none() -> None:
    with capture() as operations:
        tracked(service="xai")(response)(None)
    assert used(only(operations)) == (None,) * 5


async def test_a_stream_takes_the_last_usage() -> None:
    async def later() -> Any:
        for pair in pairs():
            yield pair

    with capture() as operations:
        list(tracked(service="xai")(pairs)())
        async for _ in tracked(service="xai")(later)():
            pass
    assert [used(each) for each in operations] == [USED] * 2


def test_a_stream_left_early_is_partial_without_tokens() -> None:
    with capture() as operations:
        stream = tracked(service="xai")(pairs)()
        next(stream)
        stream.close()
    assert (only(operations).outcome, used(only(operations))) == ("partial", (None,) * 5)


def test_several_samples_of_one_request_count_once() -> None:
    with capture() as operations:
        tracked(service="xai")(lambda: [response(), response()])()
    assert only(operations).tokens == 1500
