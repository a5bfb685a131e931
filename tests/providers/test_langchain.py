"""LangChain's messages, alone and from `ChatOpenAI` against a loopback server."""

from __future__ import annotations

import functools
import json
import operator
from typing import Any

import pytest

pytest.importorskip("langchain_core")
langchain_openai = pytest.importorskip("langchain_openai")

import openai  # noqa: E402 - after the skip
from langchain_core.messages import (  # noqa: E402 - as above
    AIMessage,
    AIMessageChunk,
    HumanMessage,
)
from langchain_core.outputs import (  # noqa: E402 - as above
    ChatGeneration,
    ChatResult,
    Generation,
    LLMResult,
)
from openai_wire import (  # noqa: E402 - as above
    USED,
    chat,
    embeddings,
    failing,
    serving,
    used,
)
from responses import only  # noqa: E402 - as above
from usage_samples import replaying  # noqa: E402 - as above

from instrument import install, tracked, uninstall  # noqa: E402 - as above
from instrument.testing import capture  # noqa: E402 - as above
from instrument.usage import Reading, new_merge, reader_for  # noqa: E402 - as above

METADATA: dict[str, Any] = {
    "input_tokens": 350,
    "output_tokens": 240,
    "total_tokens": 590,
    "input_token_details": {"cache_creation": 200, "cache_read": 100},
    "output_token_details": {"reasoning": 150},
}
ABOUT = {"model_name": "claude-sonnet-5", "model_provider": "anthropic", "id": "msg_1"}


def model(url: str, **more: Any) -> Any:
    return langchain_openai.ChatOpenAI(
        model="gpt-5", base_url=url, api_key="none", max_retries=0, stream_usage=True, **more
    )


def test_chunks_in_a_list_add_up_as_those_of_a_stream_do() -> None:
    first = AIMessageChunk(
        "",
        id="run-1",
        usage_metadata={
            "input_tokens": 100,
            "output_tokens": 0,
            "total_tokens": 100,
            "input_token_details": {"cache_read": 64},
        },
    )
    counts = {"input_tokens": 0, "output_tokens": 50, "total_tokens": 50}
    chunks = [first, AIMessageChunk("a", id="run-1", usage_metadata=counts)]
    reader, merge = reader_for(list), new_merge()
    assert reader is not None
    for chunk in chunks:
        merge.add(chunk)
    found = reader(chunks)
    assert found is not None
    assert found == merge.reading()
    assert (found.input_tokens, found.output_tokens, found.cache_read_tokens) == (100, 50, 64)
    again = reader([*chunks, chunks[1], chunks[0]])  # the very same ones
    assert again == found


@tracked(service="langchain")
def invoke(url: str) -> Any:
    return model(url).invoke("?")


@tracked(service="langchain")
def stream(url: str) -> Any:
    return model(url).stream("?")


def read(result: Any) -> Reading | None:
    reader = reader_for(type(result))
    return None if reader is None else reader(result)


def counts(found: Reading | None) -> tuple[Any, ...] | None:
    return found and (
        found.total_tokens,
        found.input_tokens,
        found.output_tokens,
        found.cache_read_tokens,
        found.cache_write_tokens,
        found.reasoning_tokens,
    )


async def test_a_message_counts_cached_and_reasoning_tokens_inside() -> None:
    ainvoke = tracked(service="langchain")(lambda url: model(url).ainvoke("?"))
    with capture() as operations, serving() as url:
        invoke(url)
        await ainvoke(url)
    assert [used(each) for each in operations] == [USED] * 2
    assert {each.response_id for each in operations} == {"chatcmpl-8f2"}
    assert {each.provider for each in operations} == {"openai"}


async def test_a_stream_comes_to_the_same() -> None:
    astream = tracked(service="langchain")(lambda url: model(url).astream("?"))
    with capture() as operations, serving() as url:
        list(stream(url))
        async for _ in astream(url):
            pass
    assert [used(each) for each in operations] == [USED] * 2


def test_a_stream_of_the_responses_api_keeps_the_providers_id() -> None:
    with capture() as operations, replaying("openai_response.sse") as url:
        list(tracked(service="langchain")(model(url, use_responses_api=True).stream)("?"))
    found = only(operations)
    assert (found.response_id, found.tokens) == ("resp_51c", 2500)


@pytest.mark.parametrize("hand_on", [list, lambda chunks: functools.reduce(operator.add, chunks)])
def test_a_stream_of_openais_that_is_put_together_is_counted_once(hand_on: Any) -> None:
    @tracked(service="langchain")
    def outer(url: str) -> Any:
        return hand_on(model(url).stream("?"))

    install("openai")
    with capture() as operations, serving() as url:
        outer(url)
    uninstall()
    around, inside = operations
    assert (used(inside), used(around)) == (USED, (None,) * 5)
    assert around.usage_operation_id == inside.operation_id


def test_other_counts_than_those_inside_are_the_messages_own() -> None:
    @tracked(service="langchain")
    def outer(url: str) -> Any:
        openai.OpenAI(base_url=url, api_key="none").embeddings.create(model="e-3", input="?")
        return AIMessage("Lisbon.", id="lc_run--1", usage_metadata=METADATA)

    install("openai")
    with capture() as operations, serving(embeddings()) as url:
        outer(url)
    uninstall()
    assert [each.tokens for each in operations] == [590, 8]


async def test_a_stream_left_early_is_partial_without_tokens() -> None:
    astream = tracked(service="langchain")(lambda url: model(url).astream("?"))
    with capture() as operations, serving() as url:
        chunks = stream(url)
        next(chunks)
        chunks.close()
        later = astream(url)
        await anext(later)
        await later.aclose()
    expected = [("partial", (None,) * 5)] * 2
    assert [(each.outcome, used(each)) for each in operations] == expected


def test_an_error_of_the_provider_is_an_error_without_tokens() -> None:
    with capture() as operations, failing() as url, pytest.raises(openai.RateLimitError):
        invoke(url)
    found = only(operations)
    assert (found.outcome, found.tokens) == ("error", None)
    assert found.error_type is not None
    assert "RateLimitError" in found.error_type


def test_an_openai_call_inside_is_counted_once() -> None:
    @tracked(service="openai")
    def inner(url: str) -> Any:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        return client.chat.completions.create(model="m", messages=[])

    @tracked(service="langchain")
    def outer(url: str) -> Any:
        inner(url)
        return model(url).invoke("?")  # the loopback server gives both the same id

    with capture() as operations, serving() as url:
        outer(url)
    assert sorted(each.tokens or 0 for each in operations) == [0, 1500]


@pytest.mark.parametrize(
    "form",
    [
        lambda message: message,
        lambda message: message.model_dump(),
        lambda message: message.model_dump_json(),
        lambda message: json.dumps(message.model_dump()).encode(),
    ],
)
def test_every_form_of_a_message_reads_to_the_same(form: Any) -> None:
    message = AIMessage("Lisbon.", usage_metadata=METADATA, response_metadata=ABOUT)
    found = read(form(message))
    assert counts(found) == (590, 350, 240, 100, 200, 150)
    assert found is not None
    assert (found.provider, found.model, found.response_id, found.kind) == (
        "anthropic",
        "claude-sonnet-5",
        "msg_1",
        "chat",
    )


def test_a_message_of_a_person_says_nothing() -> None:
    assert read(HumanMessage("?")) is None


def pieces() -> list[AIMessageChunk]:
    """Return what Anthropic's messages become: the input first, the output by and by."""
    usages = [(350, 0), (0, 90), (0, 150)]
    return [
        AIMessageChunk(
            "Lis",
            id="lc_run--1",
            usage_metadata={
                "input_tokens": before,
                "output_tokens": after,
                "total_tokens": before + after,
            },
        )
        for before, after in usages
    ]


@pytest.mark.parametrize("form", [lambda each: each, lambda each: each.model_dump()])
def test_the_usage_of_chunks_adds_up(form: Any) -> None:
    merge = new_merge()
    for each in pieces():
        merge.add(form(each))
    assert counts(merge.reading()) == (590, 350, 240, None, None, None)


def test_the_sum_is_what_langchain_itself_makes_of_the_chunks() -> None:
    first, second, third = pieces()
    merge = new_merge()
    for each in (first, second, third):
        merge.add(each)
    assert counts(merge.reading()) == counts(read(first + second + third))


def test_a_whole_message_after_its_chunks_is_not_added() -> None:
    merge = new_merge()
    for each in pieces():
        merge.add(each)
    merge.add(AIMessage("Lisbon.", id="lc_run--1", usage_metadata=METADATA))
    assert counts(merge.reading()) == (590, 350, 240, 100, 200, 150)


def message(identity: str) -> AIMessage:
    return AIMessage("x", usage_metadata=METADATA, response_metadata={**ABOUT, "id": identity})


def test_alternatives_for_one_prompt_are_one_response() -> None:
    found = read(ChatResult(generations=[ChatGeneration(message=message("m"))] * 3))
    assert counts(found) == (590, 350, 240, 100, 200, 150)


def test_several_prompts_are_summed() -> None:
    generations = [[ChatGeneration(message=message(name))] * 2 for name in ("m", "n")]
    assert counts(read(LLMResult(generations=generations))) == (1180, 700, 480, 200, 400, 300)


def test_a_result_without_messages_reports_in_its_output() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    output = {"token_usage": usage, "model_name": "gpt-3.5-turbo-instruct"}
    found = read(LLMResult(generations=[[Generation(text="x")]], llm_output=output))
    assert counts(found) == (9, 7, 2, None, None, None)
    assert found is not None
    assert (found.model, found.kind) == ("gpt-3.5-turbo-instruct", "text_completion")


def test_structured_output_with_its_raw_message_is_read() -> None:
    found = read({"raw": message("m"), "parsed": {"a": 1}, "parsing_error": None})
    assert counts(found) == (590, 350, 240, 100, 200, 150)


def test_generate_reads_each_prompts_response() -> None:
    generate = tracked(service="langchain")(lambda url: model(url).generate([[HumanMessage("?")]]))
    with capture() as operations, serving(chat(id="chatcmpl-2")) as url:
        generate(url)
    assert used(only(operations)) == USED
