"""Cohere's own SDK against a loopback: chat, embed, rerank and chat streams of version 2."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

pytest.importorskip("cohere")

import cohere
import httpx
from cohere.core.api_error import ApiError
from wire import (
    Answer,
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

from instrument import install, tracked, uninstall
from instrument.testing import capture

ASK: list[Any] = [{"role": "user", "content": "What is the capital of Portugal?"}]
USAGE = {
    "billed_units": {"input_tokens": 500, "output_tokens": 30},
    "tokens": {"input_tokens": 560, "output_tokens": 32},
    "cached_tokens": 448,
}
CHAT = {
    "id": "c14c80c3-18eb-4519-9460-6c92edd8cfb4",
    "finish_reason": "COMPLETE",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "Lisbon."}]},
    "usage": USAGE,
}
EVENTS = [
    {
        "type": "message-start",
        "id": "29f14a5a",
        "delta": {"message": {"role": "assistant", "content": [], "tool_calls": []}},
    },
    {
        "type": "content-start",
        "index": 0,
        "delta": {"message": {"content": {"type": "text", "text": ""}}},
    },
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Lisbon."}}}},
    {"type": "content-end", "index": 0},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}},
]
COUNTS = (500, 30, 448, None, None, 530)


EMBED: dict[str, Any] = {"model": "embed-v4.0", "texts": ["a"], "input_type": "search_query"}
RERANK: dict[str, Any] = {"model": "rerank-v3.5", "query": "?", "documents": ["a", "b"]}
META = {"api_version": {"version": "2"}}


@contextmanager
def client(answer: Answer) -> Iterator[cohere.ClientV2]:
    with serving(answer) as url, httpx.Client() as http:
        yield cohere.ClientV2("none", base_url=url, httpx_client=http)


@asynccontextmanager
async def async_client(answer: Answer) -> AsyncIterator[cohere.AsyncClientV2]:
    with serving(answer) as url:
        async with httpx.AsyncClient() as http:
            yield cohere.AsyncClientV2("none", base_url=url, httpx_client=http)


def test_chat_counts_billed_units() -> None:
    with client(as_json(CHAT)) as api:
        found = recorded(lambda: api.chat(model="command-a", messages=ASK))
    assert identity(found) == ("cohere", "chat", None, CHAT["id"])
    assert counts(found) == COUNTS


async def test_chat_async() -> None:
    async with async_client(as_json(CHAT)) as api:
        found = await recorded_async(lambda: api.chat(model="command-a", messages=ASK))
    assert counts(found) == COUNTS


def test_more_cached_than_billed_tokens_are_not_reported_as_part_of_them() -> None:
    usage = {**USAGE, "cached_tokens": 544}
    with client(as_json({**CHAT, "usage": usage})) as api:
        found = recorded(lambda: api.chat(model="command-a", messages=ASK))
    assert counts(found) == (500, 30, None, None, None, 530)


def test_a_generation_that_failed_is_an_error() -> None:
    with client(as_json({**CHAT, "finish_reason": "ERROR"})) as api:
        found = recorded(lambda: api.chat(model="command-a", messages=ASK))
    assert (found.outcome, found.error_type, found.tokens) == ("error", "error", 530)


def test_embed_counts_texts_and_images() -> None:
    wire = {
        "id": "e-1",
        "embeddings": {"float": [[0.1, 0.2]]},
        "texts": ["a"],
        "meta": {**META, "billed_units": {"input_tokens": 12, "images": 1}},
        "response_type": "embeddings_by_type",
    }
    with client(as_json(wire)) as api:
        found = recorded(lambda: api.embed(**EMBED, embedding_types=["float"]))
    assert identity(found) == ("cohere", "embeddings", None, "e-1")
    assert counts(found) == (12, None, None, None, None, 12)
    assert found.metadata == {"images": 1}


def test_rerank_counts_search_units_and_no_tokens() -> None:
    wire = {
        "id": "r-1",
        "results": [{"index": 0, "relevance_score": 0.9}],
        "meta": {**META, "billed_units": {"search_units": 1}},
    }
    with client(as_json(wire)) as api:
        found = recorded(lambda: api.rerank(**RERANK))
    assert identity(found) == ("cohere", "rerank", None, "r-1")
    assert (counts(found), found.metadata) == ((None,) * 6, {"search_units": 1})


def test_stream_takes_the_usage_of_the_message_end() -> None:
    with client(as_sse(EVENTS, named=True)) as api:
        found = recorded(lambda: api.chat_stream(model="command-a", messages=ASK), list)
    assert identity(found) == ("cohere", "chat", None, "29f14a5a")
    assert (counts(found), found.chunks) == (COUNTS, 5)


async def test_stream_async() -> None:
    async with async_client(as_sse(EVENTS, named=True)) as api:

        async def ask() -> Any:
            return api.chat_stream(model="command-a", messages=ASK)

        found = await recorded_async(ask, drain)
    assert (found.response_id, counts(found)) == ("29f14a5a", COUNTS)


def test_stream_left_early_is_partial_and_reports_no_tokens() -> None:
    with client(as_sse(EVENTS, named=True)) as api:
        found = recorded(lambda: api.chat_stream(model="command-a", messages=ASK), first_of)
    assert (found.outcome, found.response_id, counts(found)) == ("partial", "29f14a5a", (None,) * 6)


def test_stream_that_ends_in_an_error_says_so() -> None:
    delta = {"finish_reason": "ERROR", "error": "the model failed", "usage": USAGE}
    with client(as_sse([*EVENTS[:-1], {"type": "message-end", "delta": delta}], named=True)) as api:
        found = recorded(lambda: api.chat_stream(model="command-a", messages=ASK), list)
    assert (found.outcome, found.error_message) == ("error", "the model failed")
    assert found.tokens == 530


def test_an_error_is_raised_and_recorded() -> None:
    answer = as_json({"message": "invalid api token"}, status=401)
    with client(answer) as api, capture() as operations:
        with pytest.raises(ApiError):
            tracked(service="cohere")(api.chat)(model="command-a", messages=ASK)
        assert [(each.outcome, each.tokens) for each in operations] == [("error", None)]


def test_a_raw_response_is_read_by_what_is_in_it() -> None:
    with serving(as_json(CHAT)) as url:
        client = cohere.ClientV2("key", base_url=url)
        found = recorded(lambda: client.with_raw_response.chat(model="command-a", messages=ASK))
    assert counts(found) == COUNTS


async def test_installed_clients_are_tracked_plain_and_raw_in_both_versions() -> None:
    install("cohere")
    first = {
        "text": "Lisbon.",
        "generation_id": "g",
        "meta": {"billed_units": USAGE["billed_units"]},
    }
    try:
        with capture() as operations:
            with serving(as_json(CHAT)) as url:
                client = cohere.ClientV2("key", base_url=url)
                client.chat(model="command-a", messages=ASK)
                client.with_raw_response.chat(model="command-a", messages=ASK)
                await cohere.AsyncClientV2("key", base_url=url).chat(
                    model="command-a", messages=ASK
                )
            with serving(as_json(first)) as url:
                cohere.Client("key", base_url=url).chat(model="command-a", message="?")
    finally:
        uninstall("cohere")
    assert [(each.operation, each.tokens) for each in operations] == [("chat", 530)] * 4
    assert {each.model for each in operations} == {"command-a"}
