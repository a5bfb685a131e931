"""What the chunks of a stream come to: from the SDKs' own clients, and from text and bytes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai.types import HttpOptions
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from usage_samples import events, namespace, replaying, response, sample

from instrument.usage import Reading, Readings, new_merge, reader_for, stream_for
from instrument.usage.families import BY_PACKAGE, load

ASK: list[Any] = [{"role": "user", "content": "What is the capital of Portugal?"}]
STREAMS = {
    "openai_chat": (1200, 300, 1024, None, 256, "chatcmpl-9"),
    "openai_response": (2000, 500, 1536, 32, 448, "resp_51c"),
    "anthropic_message": (125, 15, 100, 0, 4, "msg_01Y"),
    "google_generate": (900, 200, 512, None, 160, "r-78"),
}
LOCAL = {"api_key": "none", "max_retries": 0}


def merged(chunks: Iterable[Any]) -> Reading | None:
    merge = new_merge()
    for chunk in chunks:
        merge.add(chunk)
    return merge.reading()


def listed(chunks: list[Any]) -> Reading | None:
    reader = reader_for(list)
    assert reader is not None
    return reader(chunks)


def chunk_of_groq(**more: Any) -> dict[str, Any]:
    about = {"id": "g", "object": "chat.completion.chunk", "created": 1, "model": "llama"}
    return {**about, "choices": [{"index": 0, "delta": {}, "finish_reason": None}], **more}


def chunk_of_mistral(**more: Any) -> Any:
    models = pytest.importorskip("mistralai.client.models")
    return models.CompletionEvent.model_validate({"data": chunk_of_groq(**more)})


COUNTS = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
COLLECTED: dict[str, list[Any]] = {
    "Anthropic": events("anthropic_message"),
    "OpenAI": events("openai_chat"),
    "Groq": [chunk_of_groq(), chunk_of_groq(x_groq={"id": "r", "usage": COUNTS})],
    "Bedrock": [
        {"messageStart": {"role": "assistant"}},
        *[{"contentBlockDelta": {"delta": {"text": "a"}}}] * 70,
        {"metadata": {"usage": {"inputTokens": 9, "outputTokens": 5, "totalTokens": 14}}},
    ],
    "Cohere": [
        {"type": "message-start", "id": "c"},
        {"type": "message-end", "delta": {"usage": {"tokens": {"input_tokens": 9}}}},
    ],
}


@pytest.mark.parametrize("provider", COLLECTED)
def test_a_stream_in_a_list_says_what_the_stream_says(provider: str) -> None:
    chunks = COLLECTED[provider]
    for found in (listed(chunks), listed(tuple(chunks)), listed([*chunks, {"more": 1}])):
        assert found is not None
        assert found == merged(chunks)
        assert found.input_tokens
    array = reader_for(str)
    assert array is not None
    assert facts(array(json.dumps(chunks))) == facts(merged(chunks))


def test_streams_in_lists_in_a_list_are_as_many_responses() -> None:
    one = events("anthropic_message")
    other = json.loads(json.dumps(one).replace("msg_01Y", "msg_02Y"))
    found = listed([one, other])
    assert found is not None
    assert (found.input_tokens, found.output_tokens) == (250, 30)


def test_objects_of_an_sdk_in_a_list_say_what_their_stream_says() -> None:
    groq = pytest.importorskip("groq.types.chat")
    collected = {
        "groq": [groq.ChatCompletionChunk.model_validate(each) for each in COLLECTED["Groq"]],
        "mistral": [chunk_of_mistral(), chunk_of_mistral(usage=COUNTS)],
        "anthropic": [
            anthropic.types.RawMessageStartEvent.model_validate(COLLECTED["Anthropic"][0]),
            anthropic.types.RawMessageDeltaEvent.model_validate(
                {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 15}}
            ),
        ],
    }
    for chunks in collected.values():
        found = listed(chunks)
        assert found is not None
        assert found == merged(chunks)
        assert found.input_tokens


def test_chats_without_an_id_from_one_generator_are_so_many() -> None:
    chats = [{**response("openai_chat"), "id": None, "created": each} for each in (1, 2)]
    found = merged(chats)
    assert found is not None
    assert found.input_tokens == 2400


def live(**content: Any) -> dict[str, Any]:
    usage = {"promptTokenCount": 10, "responseTokenCount": 5, "totalTokenCount": 15}
    told = content.pop("told", False)
    return {"serverContent": content, **({"usageMetadata": usage} if told else {})}


@pytest.mark.parametrize(
    "turn",
    [
        [live(turnComplete=True, told=True)],
        [live(modelTurn={}), live(turnComplete=True, told=True)],
        [live(modelTurn={}, told=True), live(turnComplete=True)],
        [live(modelTurn={}), live(turnComplete=True), live(told=True)],
        [live(modelTurn={}, told=True), live(modelTurn={}, told=True), live(turnComplete=True)],
    ],
    ids=["at once", "at the end", "before the end", "after the end", "growing"],
)
@pytest.mark.parametrize("form", ["wire", "sdk"])
def test_each_turn_of_a_live_session_counts(turn: list[dict[str, Any]], form: str) -> None:
    chunks: list[Any] = turn * 3
    if form == "sdk":
        chunks = [genai.types.LiveServerMessage.model_validate(each) for each in chunks]
    found = merged(chunks)
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.total_tokens) == (30, 15, 45)


def facts(found: Reading | None) -> tuple[Any, ...] | None:
    return found and (
        found.input_tokens,
        found.output_tokens,
        found.cache_read_tokens,
        found.cache_write_tokens,
        found.reasoning_tokens,
        found.response_id,
    )


def openai_client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, **LOCAL)


def anthropic_client(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, **LOCAL)


def chat_create(url: str) -> Reading | None:
    with openai_client(url) as client:
        return merged(client.chat.completions.create(model="gpt-5", messages=ASK, stream=True))


def chat_helper(url: str) -> Reading | None:
    request = {"model": "gpt-5", "messages": ASK}
    with openai_client(url) as client, client.chat.completions.stream(**request) as stream:
        return merged(stream)


def responses_create(url: str) -> Reading | None:
    with openai_client(url) as client:
        return merged(client.responses.create(model="gpt-5", input="?", stream=True))


def responses_helper(url: str) -> Reading | None:
    request: dict[str, Any] = {"model": "gpt-5", "input": "?"}
    with openai_client(url) as client, client.responses.stream(**request) as stream:
        return merged(stream)


def messages_create(url: str) -> Reading | None:
    request = {"model": "claude-sonnet-5", "messages": ASK, "max_tokens": 99}
    with anthropic_client(url) as client:
        return merged(client.messages.create(**request, stream=True))


def messages_helper(url: str) -> Reading | None:
    request = {"model": "claude-sonnet-5", "messages": ASK, "max_tokens": 99}
    with anthropic_client(url) as client, client.messages.stream(**request) as stream:
        return merged(stream)


def generate(url: str) -> Reading | None:
    options = HttpOptions(base_url=url)
    with genai.Client(api_key="none", http_options=options) as client:
        return merged(client.models.generate_content_stream(model="gemini-2.5-pro", contents="?"))


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        (chat_create, "openai_chat"),
        (chat_helper, "openai_chat"),
        (responses_create, "openai_response"),
        (responses_helper, "openai_response"),
        (messages_create, "anthropic_message"),
        (messages_helper, "anthropic_message"),
        (generate, "google_generate"),
    ],
)
def test_an_sdks_stream_merges_to_the_final_counts(ask: Any, name: str) -> None:
    with replaying(f"{name}.sse") as url:
        assert facts(ask(url)) == STREAMS[name]


async def test_an_async_sdk_stream_merges_to_the_final_counts() -> None:
    merge = new_merge()
    with replaying("openai_chat.sse") as url:
        async with openai.AsyncOpenAI(base_url=url, **LOCAL) as client:
            request: dict[str, Any] = {"model": "gpt-5", "messages": ASK, "stream": True}
            async for chunk in await client.chat.completions.create(**request):
                merge.add(chunk)
    assert facts(merge.reading()) == STREAMS["openai_chat"]


def pieces(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [1, 7, 64, 1_000_000])
def test_bytes_cut_anywhere_after_the_first_field_name_merge_alike(name: str, size: int) -> None:
    wire = sample(f"{name}.sse")
    start = wire.index(b":") + 1
    chunks = [wire[:start], *pieces(wire[start:], size)]
    assert facts(merged(chunks)) == STREAMS[name]


@pytest.mark.parametrize("name", STREAMS)
def test_lines_dicts_namespaces_and_json_merge_alike(name: str) -> None:
    forms = (
        sample(f"{name}.sse").decode().splitlines(),
        events(name),
        namespace(events(name)),
        [json.dumps(event) for event in events(name)],
        [sample(f"{name}.sse").decode()],
    )
    assert [facts(merged(chunks)) for chunks in forms] == [STREAMS[name]] * 5


@pytest.mark.parametrize("name", STREAMS)
def test_a_whole_event_stream_that_is_the_result_reads_like_the_stream(name: str) -> None:
    text = sample(f"{name}.sse").decode()
    reader = reader_for(str)
    assert reader is not None
    assert facts(reader(text)) == STREAMS[name]


def test_anthropics_cumulative_counts_replace_and_are_never_added() -> None:
    start = {"id": "m", "usage": {"input_tokens": 25, "output_tokens": 1}}
    found = merged(
        [
            {"type": "message_start", "message": start},
            {"type": "message_delta", "usage": {"output_tokens": 9, "input_tokens": None}},
            {"type": "message_delta", "usage": {"output_tokens": 15}},
        ]
    )
    assert found is not None
    assert (found.input_tokens, found.output_tokens) == (25, 15)


def test_a_failed_response_ends_the_stream_with_the_providers_code() -> None:
    with replaying("openai_response_failed.sse") as url:
        found = responses_create(url)
    assert found is not None
    assert (found.outcome, found.error_type, found.error_message) == (
        "error",
        "server_error",
        "The model failed.",
    )


@pytest.mark.parametrize("form", [lambda event: event, namespace, json.dumps])
def test_an_error_event_makes_the_outcome_an_error(form: Any) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    found = merged([form(event) for event in (events("anthropic_message")[0], error)])
    assert found is not None
    assert (found.outcome, found.error_type, found.input_tokens) == (
        "error",
        "overloaded_error",
        125,
    )


def test_a_stream_left_before_its_usage_still_names_model_and_id() -> None:
    found = merged(events("openai_chat")[:1])
    assert found is not None
    assert (found.total_tokens, found.model, found.response_id) == (None, "gpt-5", "chatcmpl-9")


def test_several_responses_in_one_stream_are_summed_and_kept_apart() -> None:
    second = {**response("openai_chat"), "id": "other"}
    found = merged(
        [
            *events("openai_chat"),
            second,
            response("anthropic_message"),
            *events("google_generate"),
        ]
    )
    assert isinstance(found, Readings)
    assert [part.response_id for part in found.parts] == ["chatcmpl-9", "other", "msg_01X", "r-78"]
    assert found.output_tokens == 300 + 300 + 10 + 200


IMAGES = {"created": 1, "data": [{"b64_json": "aGk="}], "usage": {"input_tokens": 5}}
SPOKEN = {"text": "Hi.", "usage": {"type": "duration", "seconds": 9}}
GENERATED = {"generated_text": "Hi.", "details": {"generated_tokens": 20}}


@pytest.mark.parametrize("form", [dict, json.dumps, namespace])
@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        (IMAGES, (10, None, "image_generation", {"images": 2})),
        (SPOKEN, (None, None, "transcription", {"audio_seconds": 18})),
        (GENERATED, (None, 40, "text_completion", {})),
    ],
)
def test_whole_responses_without_an_id_are_summed_as_what_they_are(
    whole: Any, form: Any, expected: Any
) -> None:
    found = merged([form(whole), form(whole)])
    assert found is not None
    amounts = {name: (found.details or {}).get(name) for name in expected[3]}
    assert (found.input_tokens, found.output_tokens, found.kind, amounts) == expected


def test_embeddings_that_have_no_id_are_summed() -> None:
    whole = CreateEmbeddingResponse.model_validate(response("openai_embeddings"))
    found = merged([whole, whole, response("google_embed"), response("google_embed")])
    assert found is not None
    assert found.input_tokens == 8 + 8 + 12 + 12


def test_the_same_response_chunk_by_chunk_and_whole_counts_once() -> None:
    whole = ChatCompletion.model_validate({**response("openai_chat"), "id": "chatcmpl-9"})
    found = merged([*events("openai_chat"), whole])
    assert facts(found) == (1200, 300, 1024, 64, 256, "chatcmpl-9")


def test_a_chunk_after_the_usage_does_not_hide_it() -> None:
    chunks = events("openai_chat")
    found = merged([*chunks, events("anthropic_message")[0], chunks[0]])
    assert found is not None
    assert (found.input_tokens, found.output_tokens) == (1200 + 125, 300 + 1)


def test_thousands_of_responses_in_one_stream_are_summed_in_bounded_memory() -> None:
    one = {"usage": {"prompt_tokens": 2, "completion_tokens": 1}}
    found = merged({**one, "id": f"r{number}"} for number in range(5_000))
    assert isinstance(found, Readings)
    assert (found.input_tokens, found.output_tokens) == (10_000, 5_000)
    assert len(found.parts) <= 1_002


def test_chunks_that_come_in_pairs_are_looked_into() -> None:
    found = merged((event, {"node": "agent"}) for event in events("google_generate"))
    assert facts(found) == STREAMS["google_generate"]


def test_http_responses_that_a_generator_yields_are_read() -> None:
    ok = httpx.Response(200, json=response("openai_chat"))
    found = merged([ok, httpx.Response(200, json=response("google_generate"))])
    assert found is not None
    assert found.input_tokens == 1200 + 1000


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        ["Lis", "bon.", '{"answer": ', '"Lisbon"}', "\n\ndata", "data: none", b"bytes", ""],
        [None, 1, 2.5, object(), [], (), {}, {"text": "usage"}, ValueError("x")],
        [{"type": "message", "text": "hi"}, {"id": "q1", "choices": ["a", "b"]}],
        [{"candidates": ["Ada"], "error": "none"}, {"object": "list", "data": []}],
    ],
)
def test_chunks_that_say_nothing_merge_to_nothing(chunks: list[Any]) -> None:
    assert merged(chunks) is None


def test_a_line_that_never_ends_is_let_go_of() -> None:
    merge = new_merge()
    merge.add('data: {"text": "')
    for _ in range(40):
        merge.add("x" * 100_000)
    merge.add("\n\n")
    for event in events("openai_chat"):
        merge.add("data: " + json.dumps(event))
    assert facts(merge.reading()) == STREAMS["openai_chat"]


@pytest.mark.parametrize("family", ["openai", "anthropic"])
def test_every_registered_stream_class_exists_in_the_installed_sdk(family: str) -> None:
    for (module, name), expected in load(family).STREAMS.items():
        cls = getattr(importlib.import_module(module), name)
        assert stream_for(cls) == expected
        has_other = hasattr(cls, "__aenter__") or hasattr(cls, "__anext__")
        assert has_other == expected.is_async


@pytest.mark.parametrize(
    "ask",
    [
        lambda url: openai_client(url).chat.completions.create(
            model="gpt-5", messages=ASK, stream=True
        ),
        lambda url: anthropic_client(url).messages.create(
            model="claude-sonnet-5", messages=ASK, max_tokens=9, stream=True
        ),
        lambda url: openai_client(url).chat.completions.stream(model="m", messages=ASK),
        lambda url: openai_client(url).responses.stream(model="m", input="?"),
        lambda url: anthropic_client(url).messages.stream(model="m", messages=ASK, max_tokens=9),
    ],
)
def test_what_the_sdks_return_is_registered(ask: Any) -> None:
    with replaying("openai_chat.sse") as url:
        result = ask(url)
        assert stream_for(type(result)) is not None
        if hasattr(result, "close"):
            result.close()


def tap(stream: Any) -> list[Any]:
    """Put a tap at the registered place; return what will have run through it."""
    follow = stream_for(type(stream))
    assert follow is not None
    assert follow.iterator is not None
    seen: list[Any] = []
    inner = getattr(stream, follow.iterator)

    def tapped() -> Any:
        for item in inner:
            seen.append(item)
            yield item

    async def tapped_async() -> Any:
        async for item in inner:
            seen.append(item)
            yield item

    setattr(stream, follow.iterator, tapped_async() if follow.is_async else tapped())
    return seen


MESSAGE: dict[str, Any] = {"model": "claude-sonnet-5", "messages": ASK, "max_tokens": 9}
CHAT: dict[str, Any] = {"model": "gpt-5", "messages": ASK}
PROMPT: dict[str, Any] = {"model": "gpt-5", "input": "?"}


@pytest.mark.parametrize(
    ("name", "open_stream", "consume"),
    [
        (
            "openai_chat",
            lambda url: openai_client(url).chat.completions.create(**CHAT, stream=True),
            list,
        ),
        (
            "openai_chat",
            lambda url: openai_client(url).chat.completions.stream(**CHAT).__enter__(),
            lambda stream: stream.get_final_completion(),
        ),
        (
            "openai_response",
            lambda url: openai_client(url).responses.stream(**PROMPT).__enter__(),
            lambda stream: stream.until_done(),
        ),
        (
            "anthropic_message",
            lambda url: anthropic_client(url).messages.create(**MESSAGE, stream=True),
            lambda stream: [*iter(lambda: next(stream, None), None)],
        ),
        (
            "anthropic_message",
            lambda url: anthropic_client(url).messages.stream(**MESSAGE).__enter__(),
            lambda stream: list(stream.text_stream),
        ),
        (
            "anthropic_message",
            lambda url: anthropic_client(url).messages.stream(**MESSAGE).__enter__(),
            lambda stream: stream.get_final_message(),
        ),
    ],
)
def test_every_way_of_consuming_draws_on_the_registered_iterator(
    name: str, open_stream: Any, consume: Any
) -> None:
    with replaying(f"{name}.sse") as url, open_stream(url) as stream:
        seen = tap(stream)
        consume(stream)
    assert facts(merged(seen)) == STREAMS[name]


async def test_async_text_stream_draws_on_the_registered_iterator() -> None:
    with replaying("anthropic_message.sse") as url:
        client = anthropic.AsyncAnthropic(base_url=url, **LOCAL)
        async with client, client.messages.stream(**MESSAGE) as stream:
            seen = tap(stream)
            text = [piece async for piece in stream.text_stream]
    assert (text, facts(merged(seen))) == (["Lisbon."], STREAMS["anthropic_message"])


def test_other_classes_are_no_streams() -> None:
    others = (list, type(iter([])), httpx.Response, ChatCompletion, int)
    assert [stream_for(cls) for cls in others] == [None] * 5


def test_every_family_has_its_tables() -> None:
    for name in set(BY_PACKAGE.values()):
        assert load(name).CLASSES
        assert isinstance(load(name).STREAMS, dict)
