"""LlamaIndex, alone and with its OpenAI client against a loopback server."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
)
from openai_wire import USED, chat, chunk, chunks, failing, serving, used
from responses import only

from instrument import tracked
from instrument.testing import capture
from instrument.usage import new_merge, reader_for

ASK = [ChatMessage(role="user", content="?")]
SAID = ChatMessage(role="assistant", content="Lisbon.")
WITH_USAGE = {"stream_options": {"include_usage": True}}


def model(url: str, **more: Any) -> Any:
    client = pytest.importorskip("llama_index.llms.openai")
    return client.OpenAI(model="gpt-4o", api_base=url, api_key="none", max_retries=0, **more)


async def test_a_response_counts_cached_and_reasoning_tokens_inside() -> None:
    ask = tracked(service="llamaindex")(lambda url: model(url).chat(ASK))
    ask_async = tracked(service="llamaindex")(lambda url: model(url).achat(ASK))
    with capture() as operations, serving() as url:
        ask(url)
        await ask_async(url)
    assert [used(each) for each in operations] == [USED] * 2
    assert {each.response_id for each in operations} == {"chatcmpl-8f2"}


async def test_a_stream_that_was_asked_for_usage_has_it() -> None:
    ask = tracked(service="llamaindex")(lambda url: model(url).stream_chat(ASK, **WITH_USAGE))
    with capture() as operations, serving() as url:
        list(ask(url))
        later = tracked(service="llamaindex")(model(url).astream_chat)
        async for _ in await later(ASK, **WITH_USAGE):
            pass
    assert [used(each) for each in operations] == [USED] * 2


def test_a_stream_left_early_is_partial_without_tokens() -> None:
    ask = tracked(service="llamaindex")(lambda url: model(url).stream_chat(ASK, **WITH_USAGE))
    with capture() as operations, serving() as url:
        stream = ask(url)
        next(stream)
        stream.close()
    assert (only(operations).outcome, used(only(operations))) == ("partial", (None,) * 5)


def test_an_error_of_the_provider_is_an_error_without_tokens() -> None:
    openai = pytest.importorskip("openai")
    ask = tracked(service="llamaindex")(lambda url: model(url).chat(ASK))
    with capture() as operations, failing() as url, pytest.raises(openai.RateLimitError):
        ask(url)
    assert (only(operations).outcome, only(operations).tokens) == ("error", None)


def answers() -> list[Any]:
    whole = chat()
    return [
        ChatResponse(message=SAID, raw=whole),
        CompletionResponse(text="Lisbon.", raw=whole),
        ChatResponse(message=SAID, raw=whole).model_dump(),
        ChatResponse(message=SAID, raw=whole).model_dump_json(),
    ]


def test_the_providers_response_inside_is_read_in_every_form() -> None:
    for answer in answers():
        reader = reader_for(type(answer))
        assert reader is not None
        found = reader(answer)
        assert found is not None
        assert (found.total_tokens, found.response_id) == (1500, "chatcmpl-8f2")


def test_token_counts_beside_a_silent_response_are_read() -> None:
    counts = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    answer = ChatResponse(message=SAID, raw={"text": "x"}, additional_kwargs=counts)
    reader = reader_for(ChatResponse)
    assert reader is not None
    found = reader(answer)
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.total_tokens) == (7, 2, 9)


def test_chunks_are_merged_by_the_providers_rule() -> None:
    merge = new_merge()
    for each in chunks():
        merge.add(ChatResponse(message=SAID, raw=each))
    found = merge.reading()
    assert found is not None
    assert (found.total_tokens, found.cache_read_tokens) == (1500, 1024)


def test_a_response_that_holds_itself_is_survived() -> None:
    answer = ChatResponse(message=SAID)
    answer.raw = answer
    reader = reader_for(ChatResponse)
    assert reader is not None
    assert reader(answer) is None
    merge = new_merge()
    merge.add(answer)
    merge.add(ChatResponse(message=SAID, raw=chunk()))
