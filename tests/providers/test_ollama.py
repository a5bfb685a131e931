"""Ollama's own SDK against a loopback: chat, generate and embed, streamed and not."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("ollama")

import httpx
import ollama
from wire import (
    as_json,
    as_ndjson,
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
CREATED = {"model": "qwen3:8b", "created_at": "2026-09-14T12:30:01.123456Z"}
DONE = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 4_883_583_458,
    "load_duration": 1_334_875,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342_546_000,
    "eval_count": 282,
    "eval_duration": 4_535_599_000,
}
MESSAGE = {"role": "assistant", "content": "Lisbon.", "thinking": "Portugal."}
CHAT = {**CREATED, "message": MESSAGE, **DONE}
CHUNKS = [
    {**CREATED, "message": {"role": "assistant", "content": "Lis"}, "done": False},
    {**CREATED, "message": {"role": "assistant", "content": "bon."}, "done": False},
    {**CREATED, "message": {"role": "assistant", "content": ""}, **DONE},
]
COUNTS = (26, 282, None, None, None, 308)
WHO = ("ollama", "chat", "qwen3:8b", None)


def test_chat_counts_what_was_evaluated() -> None:
    with serving(as_json(CHAT)) as url, ollama.Client(url) as client:
        found = recorded(lambda: client.chat("qwen3:8b", ASK))
    assert (identity(found), counts(found)) == (WHO, COUNTS)


async def test_chat_async() -> None:
    with serving(as_json(CHAT)) as url:
        async with ollama.AsyncClient(url) as client:
            found = await recorded_async(lambda: client.chat("qwen3:8b", ASK))
    assert (identity(found), counts(found)) == (WHO, COUNTS)


def test_a_prompt_that_was_not_evaluated_is_not_reported_as_zero() -> None:
    wire = {name: value for name, value in CHAT.items() if name != "prompt_eval_count"}
    with serving(as_json(wire)) as url, ollama.Client(url) as client:
        found = recorded(lambda: client.chat("qwen3:8b", ASK))
    assert counts(found) == (None, 282, None, None, None, 282)


def test_generate() -> None:
    wire = {**CREATED, "response": "Lisbon.", "context": [1, 2], **DONE}
    with serving(as_json(wire)) as url, ollama.Client(url) as client:
        found = recorded(lambda: client.generate("qwen3:8b", "?"))
    assert identity(found) == ("ollama", "text_completion", "qwen3:8b", None)
    assert counts(found) == COUNTS


def test_embed() -> None:
    wire = {"model": "all-minilm", "embeddings": [[0.1, 0.2]], "prompt_eval_count": 8}
    with serving(as_json(wire)) as url, ollama.Client(url) as client:
        found = recorded(lambda: client.embed("all-minilm", "a"))
    assert identity(found) == ("ollama", "embeddings", "all-minilm", None)
    assert counts(found) == (8, None, None, None, None, 8)


def test_stream_takes_the_counts_of_the_chunk_that_is_done() -> None:
    with serving(as_ndjson(CHUNKS)) as url, ollama.Client(url) as client:
        found = recorded(lambda: client.chat("qwen3:8b", ASK, stream=True), list)
    assert (identity(found), counts(found), found.chunks) == (WHO, COUNTS, 3)


async def test_stream_async() -> None:
    with serving(as_ndjson(CHUNKS)) as url:
        async with ollama.AsyncClient(url) as client:
            found = await recorded_async(lambda: client.chat("m", ASK, stream=True), drain)
    assert (identity(found), counts(found), found.chunks) == (WHO, COUNTS, 3)


def test_stream_left_early_is_partial_and_reports_no_tokens() -> None:
    with serving(as_ndjson(CHUNKS)) as url, ollama.Client(url) as client:
        found = recorded(lambda: client.chat("qwen3:8b", ASK, stream=True), first_of)
    assert (found.outcome, found.model, counts(found)) == ("partial", "qwen3:8b", (None,) * 6)


def test_an_error_in_the_stream_is_raised_and_recorded() -> None:
    answer = as_ndjson([CHUNKS[0], {"error": "the runner has terminated"}])
    with serving(answer) as url, ollama.Client(url) as client, capture() as operations:
        stream = tracked(service="ollama")(client.chat)("m", ASK, stream=True)
        with pytest.raises(ollama.ResponseError):
            list(stream)
        assert [(each.outcome, each.tokens) for each in operations] == [("error", None)]


def test_lines_read_without_the_sdk_are_merged() -> None:
    with serving(as_ndjson(CHUNKS)) as url, httpx.Client() as http:

        def lines() -> Any:
            with http.stream("POST", f"{url}/api/chat") as response:
                yield from response.iter_lines()

        found = recorded(lines, list)
    assert (found.provider, counts(found)) == ("ollama", COUNTS)
