"""Groq's own SDK against a loopback server."""

from __future__ import annotations

from typing import Any

import pytest

groq = pytest.importorskip("groq")

from openai_wire import (  # noqa: E402 - after the skip
    ASK,
    USED,
    chat,
    failing,
    groq_chunks,
    serving,
    used,
)
from responses import only  # noqa: E402 - as above

from instrument import tracked  # noqa: E402 - as above
from instrument.testing import capture  # noqa: E402 - as above
from instrument.usage import new_merge, reader_for  # noqa: E402 - as above

CHAT: dict[str, Any] = {"model": "llama-5", "messages": ASK}


def local(url: str) -> dict[str, Any]:
    return {"api_key": "none", "max_retries": 0, "base_url": url.removesuffix("/v1")}


@tracked(service="groq")
def ask(url: str, **more: Any) -> Any:
    return groq.Groq(**local(url)).chat.completions.create(**CHAT, **more)


@tracked(service="groq")
async def ask_async(url: str, **more: Any) -> Any:
    return await groq.AsyncGroq(**local(url)).chat.completions.create(**CHAT, **more)


async def test_a_completion_counts_cached_and_reasoning_tokens_inside() -> None:
    with capture() as operations, serving(chat(x_groq={"id": "req_1"})) as url:
        ask(url)
        await ask_async(url)
    assert [(used(each), each.provider) for each in operations] == [(USED, "groq")] * 2


async def test_a_stream_reports_in_its_last_chunk_without_being_asked() -> None:
    with capture() as operations, serving(stream=groq_chunks()) as url:
        list(ask(url, stream=True))
        async for _ in await ask_async(url, stream=True):
            pass
    assert [(used(each), each.provider) for each in operations] == [(USED, "groq")] * 2


async def test_a_stream_left_early_is_partial_without_tokens() -> None:
    with capture() as operations, serving(stream=groq_chunks()) as url:
        with ask(url, stream=True) as stream:
            next(stream)
        async with await ask_async(url, stream=True) as stream:
            await anext(stream)
    expected = [("partial", (None,) * 5)] * 2
    assert [(each.outcome, used(each)) for each in operations] == expected


def test_an_error_of_the_provider_is_an_error_without_tokens() -> None:
    with capture() as operations, failing() as url, pytest.raises(groq.RateLimitError):
        ask(url)
    found = only(operations)
    assert (found.outcome, found.error_type, found.tokens) == ("error", "RateLimitError", None)


def test_chunks_of_groq_as_dicts_name_groq() -> None:
    merge = new_merge()
    for chunk in groq_chunks():
        merge.add(chunk)
    found = merge.reading()
    assert found is not None
    assert (found.provider, found.total_tokens) == ("groq", 1500)


def test_a_dict_of_groqs_names_groq() -> None:
    reader = reader_for(dict)
    assert reader is not None
    found = reader(chat(x_groq={"id": "req_1"}))
    assert found is not None
    assert found.provider == "groq"
