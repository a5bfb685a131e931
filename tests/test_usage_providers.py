"""What the readers make of whole responses, in every form that a program may return."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message
from anthropic.types.beta import BetaMessage
from google.genai.types import EmbedContentResponse, GenerateContentResponse
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ParsedChatCompletion
from openai.types.responses import Response
from usage_samples import namespace, response

from instrument.usage import Reading, reader_for

SDK_CLASSES = {
    "openai_chat": ChatCompletion,
    "openai_response": Response,
    "openai_embeddings": CreateEmbeddingResponse,
    "anthropic_message": Message,
    "google_generate": GenerateContentResponse,
    "google_embed": EmbedContentResponse,
}
# input, output, cache read, cache write, reasoning, total
COUNTS = {
    "openai_chat": (1200, 300, 1024, 64, 256, 1500),
    "openai_response": (2000, 500, 1536, 32, 448, 2500),
    "openai_embeddings": (8, None, None, None, None, 8),
    "anthropic_message": (130213, 10, 128955, 1253, 7, None),
    "google_generate": (1000, 200, 512, None, 160, 1200),
    "google_embed": (12, None, None, None, None, 12),
}
FORMS = {
    "dict": lambda name: response(name),
    "text": lambda name: json.dumps(response(name), indent=2),
    "bytes": lambda name: json.dumps(response(name)).encode(),
    "namespace": lambda name: namespace(response(name)),
    "validated": lambda name: SDK_CLASSES[name].model_validate(response(name)),
}


def read(result: Any) -> Reading | None:
    reader = reader_for(type(result))
    return None if reader is None else reader(result)


def counts(reading: Reading | None) -> tuple[Any, ...] | None:
    return reading and (
        reading.input_tokens,
        reading.output_tokens,
        reading.cache_read_tokens,
        reading.cache_write_tokens,
        reading.reasoning_tokens,
        reading.total_tokens,
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", COUNTS)
def test_every_form_of_a_response_reads_to_the_same_counts(name: str, form: str) -> None:
    assert counts(read(FORMS[form](name))) == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai_chat", ("openai", "chat", "gpt-5-2026-08-01", "chatcmpl-8f2")),
        ("openai_response", ("openai", "chat", "gpt-5-2026-08-01", "resp_51c")),
        ("openai_embeddings", ("openai", "embeddings", "text-embedding-3-small", None)),
        ("anthropic_message", ("anthropic", "chat", "claude-sonnet-5", "msg_01X")),
        ("google_generate", ("gcp.gemini", "generate_content", "gemini-2.5-pro", "r-77")),
        ("google_embed", ("gcp.gemini", "embeddings", None, None)),
    ],
)
def test_an_sdk_object_names_provider_kind_model_and_id(name: str, expected: object) -> None:
    found = read(FORMS["validated"](name))
    assert found is not None
    assert (found.provider, found.kind, found.model, found.response_id) == expected


def test_openai_shaped_dict_from_an_unknown_host_names_no_provider() -> None:
    found = read(response("openai_chat"))
    assert found is not None
    assert (found.provider, found.kind) == (None, "chat")


@pytest.mark.parametrize("make", [ChatCompletion.construct, ParsedChatCompletion[dict].construct])
def test_unvalidated_and_parsed_completions_read_like_validated_ones(make: Any) -> None:
    assert read(make(**response("openai_chat"))) == read(FORMS["validated"]("openai_chat"))


def test_beta_message_reads_like_message() -> None:
    wire = response("anthropic_message")
    assert read(BetaMessage.model_validate(wire)) == read(Message.model_validate(wire))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param(
            {"usage": {"prompt_tokens": 17903, "prompt_tokens_details": {"cached_tokens": 17817}}},
            (17903, None, 17817, None, None, None),
            id="openrouter: cached is part of input (langfuse#12306)",
        ),
        pytest.param(
            {
                "usage": {
                    "input_tokens": 5,
                    "output_tokens": 10,
                    "cache_read_input_tokens": 128955,
                    "cache_creation_input_tokens": 1253,
                }
            },
            (130213, 10, 128955, 1253, None, None),
            id="anthropic: caches are added (langfuse#12306)",
        ),
        pytest.param(
            {
                "usageMetadata": {
                    "promptTokenCount": 55021,
                    "candidatesTokenCount": 923,
                    "thoughtsTokenCount": 785,
                    "totalTokenCount": 56729,
                }
            },
            (55021, 1708, None, None, 785, 56729),
            id="gemini: thoughts are added to output (sub2api#554)",
        ),
        pytest.param(
            {
                "usage": {
                    "prompt_tokens": 98805,
                    "completion_tokens": 1,
                    "total_tokens": 98806,
                    "prompt_tokens_details": {
                        "cached_tokens": 66360,
                        "cache_creation_tokens": 32435,
                    },
                    "cache_read_input_tokens": 66360,
                    "cache_creation_input_tokens": 32435,
                }
            },
            (98805, 1, 66360, 32435, None, 98806),
            id="litellm: caches are already inside (litellm#11364)",
        ),
        pytest.param(
            {
                "type": "message",
                "usage": {
                    "input_tokens": 900,
                    "output_tokens": 50,
                    "cache_read_input_tokens": 700,
                    "total_tokens": 950,
                },
            },
            (900, 50, 700, None, None, 950),
            id="qwen: anthropic's names with a total include the cache",
        ),
        pytest.param(
            {
                "usage": {
                    "prompt_tokens": 100,
                    "completion_tokens": 9,
                    "total_tokens": 309,
                    "completion_tokens_details": {"reasoning_tokens": 200},
                }
            },
            (100, 209, None, None, 200, 309),
            id="xai: the total shows that reasoning is apart",
        ),
        pytest.param(
            {"usage": {"prompt_tokens": 50, "prompt_cache_hit_tokens": 30, "total_tokens": 50}},
            (50, None, 30, None, None, 50),
            id="deepseek: cache hits stand in the usage itself",
        ),
        pytest.param(
            {"usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45}},
            (14, 45, None, None, None, None),
            id="transcription",
        ),
        pytest.param(
            {"usage_metadata": {"prompt_token_count": 7, "response_token_count": 3}},
            (7, 3, None, None, None, None),
            id="gemini live",
        ),
    ],
)
def test_each_providers_own_rule_decides_what_is_included(result: Any, expected: object) -> None:
    assert counts(read(result)) == expected


def test_zero_is_reported_and_absent_is_not() -> None:
    result = {"usage": {"prompt_tokens": 0, "completion_tokens": None}}
    assert counts(read(result)) == (0, None, None, None, None, None)


def test_a_gateways_cost_is_the_providers_and_the_provider_is_not_openai() -> None:
    wire = response("openai_chat")
    wire["usage"]["cost"] = 0.0123
    found = read(ChatCompletion.model_validate(wire))
    assert found is not None
    assert (found.cost_usd, found.cost_source, found.provider) == (0.0123, "provider", None)


def test_a_cost_that_is_broken_down_is_read_by_its_total() -> None:
    cost = {"input_tokens_cost": 0.001, "request_cost": 0.005, "total_cost": 0.006}
    found = read({"usage": {"prompt_tokens": 3, "cost": cost}})
    assert found is not None
    assert found.cost_usd == 0.006


def test_vertex_is_told_apart_by_its_traffic_type() -> None:
    wire = response("google_generate")
    wire["usageMetadata"]["trafficType"] = "ON_DEMAND"
    found = read(GenerateContentResponse.model_validate(wire))
    assert found is not None
    assert found.provider == "gcp.vertex_ai"


@pytest.mark.parametrize("wrong", [-1, True, float("nan"), "12", 10**13, [], {}])
def test_an_impossible_part_of_a_sum_stays_visible_in_the_sum(wrong: Any) -> None:
    found = read({"usage": {"input_tokens": 5, "cache_read_input_tokens": wrong}})
    assert found is not None
    assert found.input_tokens is wrong or found.input_tokens == 10**13 + 5


@pytest.mark.parametrize("wrong", [7, ["gpt"], {"name": "gpt"}, b"gpt", ""])
def test_a_model_or_id_that_is_no_text_is_unknown(wrong: Any) -> None:
    found = read({"model": wrong, "id": wrong, "object": wrong, "usage": {"prompt_tokens": 1}})
    assert found is not None
    assert (found.model, found.response_id, found.kind) == (None, None, None)


def test_counts_missing_from_an_sdk_object_do_not_cost_the_others() -> None:
    broken = ChatCompletion.construct(id="c", model="m", usage={"prompt_tokens": "many"})
    found = read(broken)
    assert found is not None
    assert (found.input_tokens, found.model, found.response_id) == ("many", "m", "c")


def test_a_response_without_usage_still_names_its_model() -> None:
    wire = response("openai_chat")
    del wire["usage"]
    found = read(ChatCompletion.model_validate(wire))
    assert found is not None
    assert (counts(found), found.model) == ((None,) * 6, "gpt-5-2026-08-01")
