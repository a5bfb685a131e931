"""DashScope's own SDK against a loopback: Qwen's text and multimodal models, and embeddings."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("dashscope")

import aiohttp
from dashscope import (
    AioGeneration,
    Application,
    Generation,
    MultiModalConversation,
    TextEmbedding,
    TextReRank,
)
from dashscope.api_entities.http_request import close_shared_sync_session
from wire import (
    Answer,
    as_json,
    counts,
    drain,
    first_of,
    identity,
    recorded,
    recorded_async,
    serving,
)

ASK: list[Any] = [{"role": "user", "content": "What is the capital of Portugal?"}]
REQUEST = "902fee3b-f7f0-9a8c-96a1-6b4ea25af114"
CHOICE = {"finish_reason": "stop", "message": {"role": "assistant", "content": "Lisbon."}}
USAGE = {
    "input_tokens": 1_200,
    "output_tokens": 300,
    "total_tokens": 1_500,
    "prompt_tokens_details": {"cached_tokens": 1_024},
    "output_tokens_details": {"reasoning_tokens": 256},
}
CHAT = {"output": {"choices": [CHOICE]}, "usage": USAGE, "request_id": REQUEST}
COUNTS = (1_200, 300, 1_024, None, 256, 1_500)
WHO = ("dashscope", "chat", None, REQUEST)


@pytest.fixture(autouse=True)
def _no_connections_left() -> Any:
    yield
    close_shared_sync_session()


def chunk(content: str, **usage: Any) -> dict[str, Any]:
    choice = {"finish_reason": "null", "message": {"role": "assistant", "content": content}}
    return {"output": {"choices": [choice]}, "usage": usage, "request_id": REQUEST}


def as_events(chunks: list[dict[str, Any]], name: str = "result") -> Answer:
    """Give events as DashScope writes them, without spaces after the names."""
    status = "200" if name == "result" else "400"
    lines = [
        f"id:{number}\nevent:{name}\n:HTTP_STATUS/{status}\nstatus:{status}\n"
        f"data:{json.dumps(each)}\n\n"
        for number, each in enumerate(chunks, 1)
    ]
    return Answer("".join(lines).encode(), "text/event-stream")


RUNNING_TOTALS = as_events(
    [
        chunk("Lis", input_tokens=1_200, output_tokens=150, total_tokens=1_350),
        chunk("bon.", input_tokens=1_200, output_tokens=290, total_tokens=1_490),
        CHAT,
    ]
)


def call(what: Any, url: str, **request: Any) -> Any:
    return what.call(api_key="none", base_address=url, **request)


def chat(url: str, **more: Any) -> Any:
    return call(Generation, url, model="qwen-plus", messages=ASK, result_format="message", **more)


def test_generation_counts_cached_and_reasoning_tokens_as_parts() -> None:
    with serving(as_json(CHAT)) as url:
        found = recorded(lambda: chat(url))
    assert (identity(found), counts(found)) == (WHO, COUNTS)


async def test_generation_async() -> None:
    with serving(as_json(CHAT)) as url:
        async with aiohttp.ClientSession() as session:
            found = await recorded_async(
                lambda: call(AioGeneration, url, model="qwen-plus", messages=ASK, session=session)
            )
    assert (identity(found), counts(found)) == (WHO, COUNTS)


@pytest.mark.parametrize("usage", [{}, None])
def test_zeros_that_the_sdk_puts_where_usage_is_absent_are_not_reported(usage: Any) -> None:
    with serving(as_json({**CHAT, "usage": usage})) as url:
        found = recorded(lambda: chat(url))
    assert (identity(found), counts(found)) == (WHO, (None,) * 6)


def test_multimodal_conversation_counts_image_tokens_as_part_of_the_input() -> None:
    content = [{"text": "A dog."}]
    choice = {**CHOICE, "message": {"role": "assistant", "content": content}}
    usage = {
        "input_tokens": 1_276,
        "output_tokens": 51,
        "image_tokens": 1_247,
        "input_tokens_details": {"image_tokens": 1_247, "text_tokens": 29},
        "total_tokens": 1_327,
    }
    wire = {"output": {"choices": [choice]}, "usage": usage, "request_id": REQUEST}
    with serving(as_json(wire)) as url:
        found = recorded(
            lambda: call(MultiModalConversation, url, model="qwen-vl-max", messages=ASK)
        )
    assert (identity(found), counts(found)) == (WHO, (1_276, 51, None, None, None, 1_327))
    assert found.metadata == {}


def test_embeddings_report_a_total_which_is_all_input() -> None:
    vectors = [{"embedding": [0.1, 0.2], "text_index": 0}]
    wire = {"output": {"embeddings": vectors}, "usage": {"total_tokens": 23}, "request_id": REQUEST}
    with serving(as_json(wire)) as url:
        found = recorded(lambda: call(TextEmbedding, url, model="text-embedding-v4", input="a"))
    assert identity(found) == ("dashscope", "embeddings", None, REQUEST)
    assert counts(found) == (23, None, None, None, None, 23)


def test_rerank() -> None:
    results = [{"index": 0, "relevance_score": 0.9}]
    wire = {"output": {"results": results}, "usage": {"total_tokens": 79}, "request_id": REQUEST}
    request: dict[str, Any] = {"model": "gte-rerank-v2", "query": "?", "documents": ["a"]}
    with serving(as_json(wire)) as url:
        found = recorded(lambda: call(TextReRank, url, **request))
    assert (found.kind, counts(found)) == ("rerank", (79, None, None, None, None, 79))


def test_an_applications_models_are_summed() -> None:
    models = [{"model_id": "qwen-max", "input_tokens": 70, "output_tokens": 9}] * 2
    output = {"text": "Lisbon.", "finish_reason": "stop", "session_id": "s"}
    wire = {"output": output, "usage": {"models": models}, "request_id": REQUEST}
    with serving(as_json(wire)) as url:
        found = recorded(lambda: call(Application, url, app_id="a", prompt="?"))
    assert identity(found) == ("dashscope", "chat", "qwen-max", REQUEST)
    assert counts(found) == (140, 18, None, None, None, 158)


def test_stream_keeps_the_last_running_total() -> None:
    with serving(RUNNING_TOTALS) as url:
        found = recorded(lambda: chat(url, stream=True, incremental_output=True), list)
    assert (identity(found), counts(found), found.chunks) == (WHO, COUNTS, 3)


async def test_stream_async() -> None:
    with serving(RUNNING_TOTALS) as url:
        async with aiohttp.ClientSession() as session:
            request: dict[str, Any] = {"model": "qwen-plus", "messages": ASK, "session": session}
            found = await recorded_async(
                lambda: call(AioGeneration, url, stream=True, incremental_output=True, **request),
                drain,
            )
    assert (identity(found), counts(found)) == (WHO, COUNTS)


def test_stream_left_early_is_partial_with_the_last_running_total() -> None:
    with serving(RUNNING_TOTALS) as url:
        found = recorded(lambda: chat(url, stream=True, incremental_output=True), first_of)
    assert (found.outcome, counts(found)) == ("partial", (1_200, 150, None, None, None, 1_350))


def test_stream_left_before_its_usage_reports_no_tokens() -> None:
    with serving(as_events([chunk("Lis"), CHAT])) as url:
        found = recorded(lambda: chat(url, stream=True, incremental_output=True), first_of)
    assert (found.outcome, counts(found)) == ("partial", (None,) * 6)


def test_an_error_that_is_returned_is_an_error() -> None:
    error = {"code": "InvalidApiKey", "message": "Invalid API-key.", "request_id": REQUEST}
    with serving(as_json(error, status=401)) as url:
        found = recorded(lambda: chat(url))
    assert (found.outcome, found.error_type, found.error_message) == (
        "error",
        "InvalidApiKey",
        "Invalid API-key.",
    )
    assert (found.response_id, found.tokens) == (REQUEST, None)
    told = {"http_status": 401, "error_code": "InvalidApiKey", "request_id": REQUEST}
    assert found.metadata == told


def test_an_error_in_the_stream_is_an_error() -> None:
    error = {"code": "DataInspectionFailed", "message": "Unsafe.", "request_id": REQUEST}
    with serving(as_events([error], "error")) as url:
        found = recorded(lambda: chat(url, stream=True, incremental_output=True), list)
    assert (found.outcome, found.error_type) == ("error", "DataInspectionFailed")
