"""What several responses come to, and what of it can be priced."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from responses import USAGE, chat, only
from tool_output import gemini
from usage_samples import response

from instrument import Operation, track, tracked
from instrument.pricing import Pricing
from instrument.testing import CapturedOperations

pytest.importorskip("genai_prices")
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def generated(number: int, tokens: int, model: str = "gemini-2.5-pro") -> dict[str, Any]:
    usage = {"promptTokenCount": tokens, "candidatesTokenCount": 0, "totalTokenCount": tokens}
    return {"responseId": f"r{number}", "modelVersion": model, "usageMetadata": usage}


def cost(operation: Operation) -> float | None:
    found = Pricing().priced(replace(operation, timestamp=NOW))
    return None if found is None else round(found[0], 9)


def test_a_list_is_priced_by_the_size_of_each_response(
    capture_operations: CapturedOperations,
) -> None:
    tracked(service="s")(lambda: [generated(1, 150_000), generated(2, 150_000)])()
    found = only(capture_operations)
    assert found.metadata["usage_details"] == {"responses": 2, "largest_input_tokens": 150_000}
    assert (found.tokens, cost(found)) == (300_000, 0.375)


def test_a_list_with_a_response_in_a_higher_tier_has_no_price(
    capture_operations: CapturedOperations,
) -> None:
    tracked(service="s")(lambda: [generated(1, 1000), generated(2, 250_000)])()
    assert cost(only(capture_operations)) is None


def test_so_has_what_a_generator_yields_and_a_block_adds(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s")
    def generator() -> Iterator[Any]:
        yield from (generated(number, 150_000) for number in range(2))

    list(generator())
    with track("block", service="s", model="gemini-2.5-pro") as op:
        op.add_usage(input_tokens=150_000)
        op.add_usage(input_tokens=150_000, output_tokens=0)
    with track("one", service="s", model="gemini-2.5-pro") as op:
        op.set_usage(input_tokens=300_000, output_tokens=0)
    assert [cost(each) for each in capture_operations] == [0.375, 0.375, 0.75]


def test_a_run_of_gemini_is_one_response_only_if_it_says_so(
    capture_operations: CapturedOperations,
) -> None:
    for requests in (1, 2):
        printed = gemini()
        tokens = {"prompt": 300_000, "candidates": 0, "total": 300_000, "cached": 0}
        entry = {"api": {"totalRequests": requests}, "tokens": {**tokens, "thoughts": 0, "tool": 0}}
        printed["stats"]["models"] = {"gemini-2.5-pro": entry}
        tracked(service="s")(lambda found: found)(printed)
    assert [cost(each) for each in capture_operations] == [0.75, None]


@pytest.mark.parametrize("both", [list, tuple])
def test_a_cost_of_one_response_alone_is_not_that_of_both(
    capture_operations: CapturedOperations, both: Any
) -> None:
    priced = chat("a", usage={**USAGE, "cost": 0.5}, model="private")
    tracked(service="s")(lambda: both([priced, chat("b", model="private")]))()
    tracked(service="s")(lambda: both([priced, {**priced, "id": "c"}]))()
    assert [each.cost_usd for each in capture_operations] == [None, 1.0]


def test_a_cost_that_is_added_to_tokens_without_one_is_not_that_of_all(
    capture_operations: CapturedOperations,
) -> None:
    with track("work", service="s") as op:
        op.add_usage(input_tokens=10)
        op.add_usage(input_tokens=10, cost_usd=0.5)
    with track("work", service="s") as op:
        op.add_usage(input_tokens=10)
        op.add_usage(cost_usd=0.5)
    assert [each.cost_usd for each in capture_operations] == [None, 0.5]


def test_what_is_added_without_a_cost_leaves_the_one_that_the_caller_said(
    capture_operations: CapturedOperations,
) -> None:
    with track("work", service="s") as op:
        op.set_usage(input_tokens=10, cost_usd=0.5)
        op.add_usage(output_tokens=5)
    found = only(capture_operations)
    assert (found.tokens, found.cost_usd, found.cost_source) == (15, 0.5, "caller")


def test_tokens_are_summed_over_models_and_the_cost_is_unknown(
    capture_operations: CapturedOperations,
) -> None:
    tracked(service="s")(lambda: [chat("a"), chat("b", model="gpt-5-mini")])()
    found = only(capture_operations)
    assert (found.tokens, found.model, cost(found)) == (30, None, None)


def test_what_is_counted_inside_has_no_part_in_the_details_of_the_rest(
    capture_operations: CapturedOperations,
) -> None:
    inner = tracked(service="s")(lambda: generated(1, 250_000))
    tracked(service="s")(lambda: [inner(), generated(2, 1000)])()
    outer = next(each for each in capture_operations if each.parent_id is None)
    assert (outer.input_tokens, outer.metadata, cost(outer)) == (1000, {}, 0.00125)


def test_different_service_tiers_have_no_price_together(
    capture_operations: CapturedOperations,
) -> None:
    sample = response("openai_chat")
    usual = [{**sample, "id": f"c{number}"} for number in range(2)]
    flexible = {**sample, "id": "f", "service_tier": "flex"}
    tracked(service="s")(lambda: usual)()
    tracked(service="s")(lambda: [*usual, flexible])()
    first, second = sorted(capture_operations, key=lambda each: each.tokens or 0)
    assert first.metadata["usage_details"].keys() == {"responses", "largest_input_tokens"}
    assert second.metadata["usage_details"]["service_tier"] == "mixed"
    assert cost(second) is None


def test_what_an_hour_of_cache_a_search_and_a_fast_lane_cost_is_recorded(
    capture_operations: CapturedOperations,
) -> None:
    message = response("anthropic_message")
    message["usage"] |= {
        "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 253},
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
        "service_tier": "priority",
    }
    tracked(service="s")(lambda: message)()
    assert only(capture_operations).metadata == {
        "usage_details": {
            "cache_write_1h_tokens": 1000,
            "web_searches": 2,
            "service_tier": "priority",
        }
    }


def test_bedrock_names_what_it_wrote_for_an_hour(capture_operations: CapturedOperations) -> None:
    answer = response("bedrock_converse")
    written = answer["usage"]["cacheWriteInputTokens"]
    answer["usage"]["cacheDetails"] = [{"ttl": "1h", "inputTokens": written}]
    tracked(service="s")(lambda: answer)()
    details = only(capture_operations).metadata["usage_details"]
    assert details == {"cache_write_1h_tokens": written}


def test_gemini_and_openai_name_tokens_that_are_no_text(
    capture_operations: CapturedOperations,
) -> None:
    answer = response("google_generate")
    answer["usageMetadata"] |= {
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 100},
            {"modality": "AUDIO", "tokenCount": 800},
        ],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 512}],
    }
    tracked(service="s")(lambda: answer)()
    spoken = response("openai_chat")
    spoken["usage"]["completion_tokens_details"]["audio_tokens"] = 44
    tracked(service="s")(lambda: spoken)()
    assert [each.metadata["usage_details"] for each in capture_operations] == [
        {
            "input_audio_tokens": 800,
            "cache_audio_read_tokens": 512,
            "cache_image_read_tokens": 0,
            "cache_video_read_tokens": 0,
        },
        {"output_audio_tokens": 44},
    ]


def test_searches_of_the_responses_api_are_counted_by_what_it_did(
    capture_operations: CapturedOperations,
) -> None:
    answer = response("openai_response")
    calls = [
        {"type": "web_search_call", "action": {"type": "search"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "file_search_call"},
    ]
    answer |= {"tools": [{"type": "web_search"}], "output": [*answer["output"], *calls]}
    tracked(service="s")(lambda: answer)()
    details = only(capture_operations).metadata["usage_details"]
    assert details == {"web_searches": 1, "storage_searches": 1}
