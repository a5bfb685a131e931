"""OpenAI's own SDK against a loopback server, and what its other APIs report."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest

openai = pytest.importorskip("openai")

from openai.types import Batch, ImagesResponse  # noqa: E402 - after the skip
from openai.types.audio import Transcription, TranscriptionVerbose  # noqa: E402 - as above
from openai.types.chat import ChatCompletion  # noqa: E402 - as above
from openai.types.realtime import ResponseDoneEvent  # noqa: E402 - as above
from openai_wire import (  # noqa: E402 - as above
    ASK,
    USAGE,
    USED,
    chat,
    chunk,
    chunks,
    embeddings,
    failing,
    images,
    response,
    serving,
    used,
)
from responses import only  # noqa: E402 - as above
from usage_samples import sample  # noqa: E402 - as above

from instrument import InstrumentWarning, tracked  # noqa: E402 - as above
from instrument.testing import capture  # noqa: E402 - as above
from instrument.usage import Reading, new_merge, reader_for  # noqa: E402 - as above

LOCAL: dict[str, Any] = {"api_key": "none", "max_retries": 0}
CHAT: dict[str, Any] = {"model": "gpt-5", "messages": ASK}
WITH_USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@tracked(service="openai")
def ask(url: str, **more: Any) -> Any:
    return openai.OpenAI(base_url=url, **LOCAL).chat.completions.create(**CHAT, **more)


@tracked(service="openai")
async def ask_async(url: str, **more: Any) -> Any:
    client = openai.AsyncOpenAI(base_url=url, **LOCAL)
    return await client.chat.completions.create(**CHAT, **more)


def read(result: Any) -> Reading | None:
    reader = reader_for(type(result))
    return None if reader is None else reader(result)


def merged(*chunks: Any) -> Reading | None:
    merge = new_merge()
    for each in chunks:
        merge.add(each)
    return merge.reading()


def counts(found: Reading | None) -> tuple[Any, ...] | None:
    return found and (
        found.total_tokens,
        found.input_tokens,
        found.output_tokens,
        found.cache_read_tokens,
        found.reasoning_tokens,
    )


def test_a_completion_counts_cached_and_reasoning_tokens_inside() -> None:
    with capture() as operations, serving() as url:
        ask(url)
    found = only(operations)
    assert used(found) == USED
    assert (found.provider, found.kind, found.response_id) == ("openai", "chat", "chatcmpl-8f2")


async def test_an_async_completion_counts_the_same() -> None:
    with capture() as operations, serving() as url:
        await ask_async(url)
    assert used(only(operations)) == USED


def test_a_stream_that_was_asked_for_usage_has_it() -> None:
    with capture() as operations, serving() as url:
        list(ask(url, **WITH_USAGE))
    assert (used(only(operations)), only(operations).chunks) == (USED, 42)


async def test_an_async_stream_that_was_asked_for_usage_has_it() -> None:
    with capture() as operations, serving() as url:
        async for _ in await ask_async(url, **WITH_USAGE):
            pass
    assert used(only(operations)) == USED


@pytest.mark.usefixtures("fresh_warnings")
def test_a_stream_without_usage_has_no_tokens_and_one_hint_in_a_process() -> None:
    with capture() as operations, serving() as url:
        with pytest.warns(InstrumentWarning, match='stream_options={"include_usage": True}'):
            list(ask(url, stream=True))
        list(ask(url, stream=True))  # a second warning would be an error
    assert [used(each) for each in operations] == [(None,) * 5] * 2


@pytest.mark.usefixtures("fresh_warnings")
def test_a_stream_whose_usage_the_program_gives_has_no_hint() -> None:
    measured = tracked(service="openai", usage=lambda reading: 7)(
        lambda: iter_of(chunks(usage=None))
    )
    with capture() as operations:
        list(measured())
    assert only(operations).tokens == 7


def iter_of(items: list[Any]) -> Any:
    yield from items


@pytest.mark.usefixtures("fresh_warnings")
def test_a_stream_left_early_is_partial_without_tokens_or_hint() -> None:
    with capture() as operations, serving() as url, ask(url, **WITH_USAGE) as stream:
        next(stream)
    found = only(operations)
    assert (found.outcome, used(found)) == ("partial", (None,) * 5)
    assert found.response_id == "chatcmpl-8f2"


async def test_an_async_stream_left_early_is_partial() -> None:
    with capture() as operations, serving() as url:
        async with await ask_async(url, **WITH_USAGE) as stream:
            await anext(stream)
    assert (only(operations).outcome, used(only(operations))) == ("partial", (None,) * 5)


def test_a_stream_left_after_its_usage_keeps_it() -> None:
    early = [{**chunk(), "usage": USAGE}, *chunks(usage=None)]
    with capture() as operations, serving(stream=early) as url, ask(url, **WITH_USAGE) as stream:
        next(stream)
    assert (only(operations).outcome, used(only(operations))) == ("partial", USED)


def test_an_error_of_the_provider_is_an_error_without_tokens() -> None:
    with capture() as operations, failing() as url, pytest.raises(openai.RateLimitError):
        ask(url)
    found = only(operations)
    assert (found.outcome, found.error_type, found.tokens) == ("error", "RateLimitError", None)


def test_a_stream_helper_reports_through_its_events() -> None:
    @tracked(service="openai")
    def helper(url: str) -> Any:
        client = openai.OpenAI(base_url=url, **LOCAL)
        return client.chat.completions.stream(**CHAT, stream_options={"include_usage": True})

    with capture() as operations, serving() as url, helper(url) as stream:
        list(stream)
    assert used(only(operations)) == USED


def test_azure_is_told_by_its_filter_results() -> None:
    marked = chat(prompt_filter_results=[{"prompt_index": 0}])
    begun = {**chunk(), "choices": [], "prompt_filter_results": []}
    with capture() as operations, serving(marked, [begun, *chunks()]) as url:
        client = openai.AzureOpenAI(azure_endpoint=url, api_version="2026-01-01", **LOCAL)
        azure = tracked(service="azure")(client.chat.completions.create)
        azure(**CHAT)
        list(azure(**CHAT, **WITH_USAGE))
    assert [(each.provider, used(each)) for each in operations] == [("azure.ai.openai", USED)] * 2


def test_a_raw_response_is_read_by_its_body() -> None:
    with capture() as operations, serving() as url:
        client = openai.OpenAI(base_url=url, **LOCAL)
        raw = tracked(service="openai")(client.chat.completions.with_raw_response.create)
        assert raw(**CHAT).parse().id == "chatcmpl-8f2"
    assert used(only(operations)) == USED


def test_a_response_that_is_read_in_a_block_is_read_by_its_body() -> None:
    with capture() as operations, serving() as url:
        client = openai.OpenAI(base_url=url, **LOCAL)
        ask_raw = tracked(service="openai")(client.chat.completions.with_streaming_response.create)
        with ask_raw(**CHAT) as answer:
            assert answer.parse().id == "chatcmpl-8f2"
        with ask_raw(**CHAT):
            pass
    was_read, unread = operations
    assert (used(was_read), was_read.outcome) == (USED, "ok")
    assert (used(unread), unread.outcome) == ((None,) * 5, "ok")


async def test_an_async_response_that_is_read_in_a_block_is_read_by_its_body() -> None:
    with capture() as operations, serving() as url:
        client = openai.AsyncOpenAI(base_url=url, **LOCAL)
        ask_raw = tracked(service="openai")(client.chat.completions.with_streaming_response.create)
        async with ask_raw(**CHAT) as answer:
            assert (await answer.parse()).id == "chatcmpl-8f2"
    assert used(only(operations)) == USED


def test_a_raw_response_is_of_the_same_provider_as_the_plain_one() -> None:
    with capture() as operations, serving() as url:
        completions = openai.OpenAI(base_url=url, **LOCAL).chat.completions
        tracked(service="s")(completions.create)(**CHAT)
        tracked(service="s")(completions.with_raw_response.create)(**CHAT)
        ask_unread = tracked(service="s")(completions.with_streaming_response.create)
        with ask_unread(**CHAT) as answer:
            answer.parse()
    assert [each.provider for each in operations] == ["openai"] * 3


def raw_stream(url: str) -> Any:
    client = openai.OpenAI(base_url=url, **LOCAL)
    ask_raw = tracked(service="openai")(client.chat.completions.with_raw_response.create)
    return ask_raw(**CHAT, **WITH_USAGE)


def test_a_raw_response_with_a_stream_is_followed_to_the_streams_end() -> None:
    with capture() as operations, serving() as url:
        raw = raw_stream(url)
        assert isinstance(raw, openai._legacy_response.LegacyAPIResponse)
        assert raw.parse() is raw.parse()
        assert isinstance(raw.parse(), openai.Stream)
        assert len(list(raw.parse())) == 42
    found = only(operations)
    assert (used(found), found.chunks, found.outcome) == (USED, 42, "ok")


def test_a_raw_responses_stream_left_early_is_partial() -> None:
    with capture() as operations, serving() as url, raw_stream(url).parse() as stream:
        next(stream)
    assert (only(operations).outcome, only(operations).chunks) == ("partial", 1)


def test_a_raw_response_that_is_dropped_unread_is_partial() -> None:
    with capture() as operations, serving() as url:
        raw = raw_stream(url)
        raw.http_response.close()
        del raw
        gc.collect()
        assert (only(operations).outcome, only(operations).tokens) == ("partial", None)


@pytest.mark.parametrize("read", ["iter_lines", "iter_text", "iter_bytes"])
def test_a_streams_lines_text_and_bytes_are_merged_in_a_block(read: str) -> None:
    with capture() as operations, serving() as url:
        client = openai.OpenAI(base_url=url, **LOCAL)
        ask_raw = tracked(service="openai")(client.chat.completions.with_streaming_response.create)
        with ask_raw(**CHAT, **WITH_USAGE) as answer:
            list(getattr(answer, read)())
    assert (used(only(operations)), only(operations).outcome) == (USED, "ok")


def test_a_stream_left_early_in_a_block_is_partial() -> None:
    with capture() as operations, serving() as url:
        client = openai.OpenAI(base_url=url, **LOCAL)
        ask_raw = tracked(service="openai")(client.chat.completions.with_streaming_response.create)
        with ask_raw(**CHAT, **WITH_USAGE) as answer:
            next(answer.parse())
    assert (only(operations).outcome, only(operations).chunks) == ("partial", 1)


def test_anthropics_raw_responses_are_read_by_their_body() -> None:
    anthropic = pytest.importorskip("anthropic")
    wire = sample("anthropic_message.json")
    with capture() as operations, serving(json.loads(wire)) as url:
        messages = anthropic.Anthropic(base_url=url, **LOCAL).messages
        request: dict[str, Any] = {"model": "m", "messages": ASK, "max_tokens": 9}
        tracked(service="anthropic")(messages.with_raw_response.create)(**request)
        in_block = tracked(service="anthropic")(messages.with_streaming_response.create)
        with in_block(**request) as answer:
            answer.parse()
    assert [each.input_tokens for each in operations] == [130213, 130213]


def test_a_response_and_its_headers_are_read_from_a_tuple() -> None:
    @tracked(service="openai")
    def both(url: str) -> Any:
        client = openai.OpenAI(base_url=url, **LOCAL)
        raw = client.responses.with_raw_response.create(model="gpt-5", input="?")
        return raw.parse(), dict(raw.headers)

    with capture() as operations, serving(response()) as url:
        both(url)
    assert (used(only(operations)), only(operations).response_id) == (USED, "resp_51c")


def test_embeddings_have_input_alone() -> None:
    with capture() as operations, serving(embeddings()) as url:
        client = openai.OpenAI(base_url=url, **LOCAL)
        tracked(service="openai")(client.embeddings.create)(model="e-3", input="?")
    found = only(operations)
    assert (found.kind, used(found)) == ("embeddings", (8, 8, None, None, None))


def test_images_are_counted_beside_their_tokens() -> None:
    with capture() as operations, serving(images()) as url:
        client = openai.OpenAI(base_url=url, **LOCAL)
        tracked(service="openai")(client.images.generate)(model="gpt-image-1", prompt="?")
    found = only(operations)
    assert (found.kind, found.metadata["images"]) == ("image_generation", 2)
    assert found.metadata["usage_details"].keys() == {"input_image_tokens"}
    assert used(found) == (1106, 50, 1056, None, None)


@pytest.mark.parametrize("form", [dict, json.dumps, lambda wire: json.dumps(wire).encode()])
def test_images_are_counted_in_dicts_and_text_too(form: Any) -> None:
    found = read(form(images()))
    assert found is not None
    assert (found.details or {}).get("images") == 2
    assert found.input_tokens == 50


def test_images_without_usage_have_a_number_and_no_tokens() -> None:
    found = read(ImagesResponse.model_validate({"created": 1, "data": [{"url": "https://x"}]}))
    assert found is not None
    assert (found.details, counts(found)) == ({"images": 1}, (None,) * 5)


def test_a_transcription_by_duration_has_seconds_and_no_tokens() -> None:
    wire = {"text": "Lisbon.", "usage": {"type": "duration", "seconds": 12.5}}
    verbose = {**wire, "duration": 12.5, "language": "en"}
    found = [
        read(Transcription.model_validate(wire)),
        read(TranscriptionVerbose.model_validate(verbose)),
        read(wire),
        read(json.dumps(wire)),
    ]
    assert [each and each.details for each in found] == [{"audio_seconds": 12.5}] * 4
    assert [counts(each) for each in found] == [(None,) * 5] * 4


def test_a_transcription_by_tokens_has_tokens() -> None:
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
    wire = {"text": "Lisbon.", "usage": {**usage, "input_token_details": {"audio_tokens": 14}}}
    event = {"type": "transcript.text.done", **wire}
    assert counts(read(Transcription.model_validate(wire))) == (59, 14, 45, None, None)
    assert counts(merged({"type": "transcript.text.delta", "delta": "L"}, event)) == (
        59,
        14,
        45,
        None,
        None,
    )


REALTIME = {
    "type": "response.done",
    "event_id": "event_1",
    "response": {
        "id": "resp_1",
        "object": "realtime.response",
        "status": "completed",
        "output": [],
        "usage": {
            "total_tokens": 150,
            "input_tokens": 120,
            "output_tokens": 30,
            "input_token_details": {
                "cached_tokens": 64,
                "text_tokens": 20,
                "audio_tokens": 100,
                "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 64},
            },
            "output_token_details": {"text_tokens": 10, "audio_tokens": 20},
        },
    },
}


def test_a_realtime_response_is_read_alone_and_in_a_stream() -> None:
    event = ResponseDoneEvent.model_validate(REALTIME)
    again = {**REALTIME, "response": {**REALTIME["response"], "id": "resp_2"}}  # type: ignore[dict-item]
    assert counts(read(REALTIME)) == counts(read(event)) == (150, 120, 30, 64, None)
    assert counts(merged(event, {"type": "response.created"}, again))[:2] == (300, 240)


def test_a_realtime_transcription_does_not_hide_the_response() -> None:
    heard = {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "item_1",
        "usage": {"type": "tokens", "input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
    }
    assert counts(merged(REALTIME, heard))[:3] == (157, 125, 32)


def test_a_failed_realtime_response_is_an_error() -> None:
    error = {"type": "invalid_request_error", "code": "bad_voice"}
    failed = {
        **REALTIME["response"],  # type: ignore[dict-item]
        "status": "failed",
        "status_details": {"type": "failed", "error": error},
    }
    found = read({"type": "response.done", "response": failed})
    assert found is not None
    assert (found.outcome, found.error_type) == ("error", "bad_voice")


def test_a_batch_that_is_looked_at_is_no_response_its_lines_are() -> None:
    usage = {"input_tokens": 120, "output_tokens": 30, "total_tokens": 150}
    batch = Batch.construct(id="batch_1", object="batch", status="completed", usage=usage)
    assert read(batch) is None


def test_the_output_of_a_batch_is_the_sum_of_its_lines() -> None:
    lines = [
        {"custom_id": name, "response": {"status_code": 200, "body": chat(id=name)}}
        for name in ("a", "b")
    ]
    assert counts(read(lines)) == (3000, 2400, 600, 2048, 512)


def test_rejected_predictions_are_inside_the_output() -> None:
    wire = chat()
    wire["usage"] = {**USAGE, "completion_tokens_details": {"rejected_prediction_tokens": 90}}
    assert counts(read(ChatCompletion.model_validate(wire))) == (1500, 1200, 300, 1024, None)


def test_a_streamed_image_is_counted_with_its_usage() -> None:
    done = {
        "type": "image_generation.completed",
        "created_at": 1790000000,
        "b64_json": "aGk=",
        "usage": images()["usage"],
    }
    found = merged({"type": "image_generation.partial_image", "b64_json": "a"}, done)
    assert found is not None
    assert (found.details, found.input_tokens, found.kind) == (
        {"images": 1, "usage_details": {"input_image_tokens": 40}},
        50,
        "image_generation",
    )
