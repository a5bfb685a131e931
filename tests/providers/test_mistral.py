"""Mistral's own SDK against a loopback: what is recorded of chat, embeddings and streams."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("mistralai.client")

from mistralai.client import Mistral
from mistralai.client.errors import MistralError
from wire import (
    as_json,
    as_sse,
    counts,
    drain,
    first_of,
    identity,
    recorded,
    recorded_async,
    serving,
)

from instrument import tracked
from instrument.testing import capture

ASK: list[Any] = [{"role": "user", "content": "What is the capital of Portugal?"}]
USAGE = {
    "prompt_tokens": 1_200,
    "completion_tokens": 300,
    "total_tokens": 1_500,
    "prompt_tokens_details": {"cached_tokens": 1_024},
    "completion_tokens_details": {"reasoning_tokens": 256},
}
CHAT = {
    "id": "cmpl-e5cc70bb28c444948073e77776eb30ef",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "magistral-medium-latest",
    "usage": USAGE,
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Lisbon.", "tool_calls": None},
        }
    ],
}
EMBEDDINGS = {
    "id": "emb-1",
    "object": "list",
    "model": "mistral-embed",
    "usage": {"prompt_tokens": 15, "total_tokens": 15},
    "data": [{"object": "embedding", "embedding": [0.1, 0.2], "index": 0}],
}


def chunk(content: str, **more: Any) -> dict[str, Any]:
    delta = {"role": "assistant", "content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if more else None}
    described = {"id": CHAT["id"], "object": "chat.completion.chunk", "created": 1_790_000_000}
    return {**described, "model": CHAT["model"], "choices": [choice], **more}


STREAM = as_sse([chunk("Lis"), chunk("bon."), chunk("", usage=USAGE)], ending="data: [DONE]\n\n")
WHO = ("mistral_ai", "chat", CHAT["model"], CHAT["id"])
COUNTS = (1_200, 300, 1_024, None, 256, 1_500)


def client(url: str) -> Mistral:
    return Mistral(api_key="none", server_url=url)


def test_chat_counts_cached_and_reasoning_tokens_that_the_sdk_has_no_fields_for() -> None:
    with serving(as_json(CHAT)) as url, client(url) as mistral:
        found = recorded(lambda: mistral.chat.complete(model="magistral-medium", messages=ASK))
    assert (identity(found), counts(found)) == (WHO, COUNTS)


async def test_chat_async() -> None:
    with serving(as_json(CHAT)) as url:
        async with client(url) as mistral:
            found = await recorded_async(
                lambda: mistral.chat.complete_async(model="magistral-medium", messages=ASK)
            )
    assert (identity(found), counts(found)) == (WHO, COUNTS)


def test_embeddings_report_no_output_where_the_sdk_puts_a_zero() -> None:
    with serving(as_json(EMBEDDINGS)) as url, client(url) as mistral:
        found = recorded(lambda: mistral.embeddings.create(model="mistral-embed", inputs=["a"]))
    assert identity(found) == ("mistral_ai", "embeddings", "mistral-embed", "emb-1")
    assert counts(found) == (15, None, None, None, None, 15)


def test_stream_takes_the_usage_of_the_last_chunk() -> None:
    with serving(STREAM) as url, client(url) as mistral:
        found = recorded(lambda: mistral.chat.stream(model="m", messages=ASK), list)
    assert (identity(found), counts(found), found.chunks) == (WHO, COUNTS, 3)


async def test_stream_async() -> None:
    with serving(STREAM) as url:
        async with client(url) as mistral:
            found = await recorded_async(
                lambda: mistral.chat.stream_async(model="m", messages=ASK), drain
            )
    assert (identity(found), counts(found), found.chunks) == (WHO, COUNTS, 3)


def test_stream_left_early_is_partial_and_reports_no_tokens() -> None:
    with serving(STREAM) as url, client(url) as mistral:
        found = recorded(lambda: mistral.chat.stream(model="m", messages=ASK), first_of)
    assert (found.outcome, counts(found)) == ("partial", (None,) * 6)
    assert (found.model, found.response_id) == (CHAT["model"], CHAT["id"])


def test_an_error_is_raised_and_recorded() -> None:
    answer = as_json({"object": "error", "message": "Unauthorized", "code": "1401"}, status=401)
    with serving(answer) as url, client(url) as mistral, capture() as operations:
        call = tracked(service="mistral")(mistral.chat.complete)
        with pytest.raises(MistralError):
            call(model="m", messages=ASK)
        assert [(each.outcome, each.tokens) for each in operations] == [("error", None)]


def test_a_conversation_names_the_model_of_its_outputs() -> None:
    output = {"type": "message.output", "content": "Lisbon.", "model": "mistral-large-latest"}
    wire = {
        "object": "conversation.response",
        "conversation_id": "conv_1",
        "outputs": [output],
        "usage": {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24},
    }
    with serving(as_json(wire)) as url, client(url) as mistral:
        found = recorded(lambda: mistral.beta.conversations.start(inputs="?", model="m"))
    assert identity(found) == ("mistral_ai", "chat", "mistral-large-latest", None)
    assert counts(found) == (20, 4, None, None, None, 24)
