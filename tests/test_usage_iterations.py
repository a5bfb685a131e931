"""What Anthropic's usage leaves out: the compaction of a context, and an adviser's answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from anthropic.types.beta import BetaMessage

from instrument import tracked
from instrument.testing import CapturedOperations
from instrument.usage import Reading, new_merge, reader_for

ANSWER, COMPACTION, ADVICE = "message", "compaction", "advisor_message"


def iteration(kind: str, new: int, output: int, **more: Any) -> dict[str, Any]:
    counts = {"input_tokens": new, "output_tokens": output}
    caches = {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    return {"type": kind, **counts, **caches, **more}


def message(new: int, output: int, *iterations: dict[str, Any], **more: Any) -> dict[str, Any]:
    usage = iteration("", new, output, iterations=list(iterations), **more)
    usage.pop("type")
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [],
        "stop_reason": "end_turn",
        "usage": usage,
    }


COMPACTED = message(
    23_000, 1_000, iteration(COMPACTION, 180_000, 3_500), iteration(ANSWER, 23_000, 1_000)
)
ADVISED = message(
    412,
    531,
    iteration(ANSWER, 412, 89),
    iteration(ADVICE, 823, 1_612, model="claude-opus-4-6"),
    iteration(ANSWER, 1_348, 442, cache_read_input_tokens=412),
)


def streamed(whole: dict[str, Any]) -> list[dict[str, Any]]:
    begun = {**whole, "usage": {"input_tokens": 1, "output_tokens": 1}}
    return [
        {"type": "message_start", "message": begun},
        {"type": "message_delta", "delta": {}, "usage": whole["usage"]},
        {"type": "message_stop"},
    ]


def of_stream(whole: dict[str, Any]) -> Reading | None:
    merge = new_merge()
    for event in streamed(whole):
        merge.add(event)
    return merge.reading()


def of_result(result: Any) -> Reading | None:
    reader = reader_for(type(result))
    assert reader is not None
    return reader(result)


FORMS: dict[str, Callable[[dict[str, Any]], Reading | None]] = {
    "a dict": of_result,
    "JSON": lambda whole: of_result(json.dumps(whole)),
    "an object of the SDK": lambda whole: of_result(BetaMessage.model_validate(whole)),
    "a stream": of_stream,
    "a stream in a list": lambda whole: of_result(streamed(whole)),
}


def counts(found: Reading | None) -> tuple[Any, ...]:
    assert found is not None
    return found.input_tokens, found.output_tokens, found.cache_read_tokens, found.response_id


@pytest.mark.parametrize("form", FORMS)
def test_what_a_compaction_took_is_added(form: str) -> None:
    found = FORMS[form](COMPACTED)
    assert counts(found) == (203_000, 4_500, 0, "msg_1")
    assert found is not None
    assert found.model == "claude-sonnet-4-5-20250929"


@pytest.mark.parametrize("form", FORMS)
def test_what_an_adviser_took_is_added_and_each_models_share_is_named(form: str) -> None:
    found = FORMS[form](ADVISED)
    assert counts(found) == (2_995, 2_143, 412, "msg_1")
    assert found is not None
    assert found.details is not None
    assert found.model is None  # so that no price of one is taken for both
    assert {name: share["input_tokens"] for name, share in found.details["models"].items()} == {
        "claude-sonnet-4-5-20250929": 2_172,
        "claude-opus-4-6": 823,
    }


@pytest.mark.parametrize(
    "iterations",
    [[], [iteration(ANSWER, 100, 5), iteration(ANSWER, 300, 15)], ["odd", None], "odd", {"a": 1}],
    ids=["none", "answers alone", "no objects", "text", "a dict"],
)
def test_without_anything_apart_the_usage_is_that_at_the_top(iterations: Any) -> None:
    whole = message(300, 20)
    whole["usage"]["iterations"] = iterations
    assert counts(of_result(whole)) == (300, 20, 0, "msg_1")


def test_a_compaction_alone_is_added_to_what_is_at_the_top() -> None:
    assert counts(of_result(message(7, 1, iteration(COMPACTION, 50, 5))))[:2] == (57, 6)


def test_searches_and_the_tier_stay_what_they_were() -> None:
    more = {"server_tool_use": {"web_search_requests": 3}, "service_tier": "priority"}
    found = of_result(message(9, 1, iteration(COMPACTION, 50, 5), iteration(ANSWER, 9, 1), **more))
    assert found is not None
    assert found.details is not None
    assert found.details["usage_details"] == {
        "web_searches": 3,
        "service_tier": "priority",
        "responses": 2,
        "largest_input_tokens": 50,
    }


def test_a_fallback_names_the_model_that_declined(capture_operations: CapturedOperations) -> None:
    declined = iteration(ANSWER, 10, 0, model="claude-fable-5")
    served = iteration("fallback_message", 10, 5, model="claude-sonnet-4-5")
    whole = message(10, 5, declined, iteration(COMPACTION, 90, 9), served)
    tracked(service="anthropic")(lambda: whole)()
    (operation,) = capture_operations
    assert operation.input_tokens == 110
    assert {
        name: share["input_tokens"] for name, share in operation.metadata["models"].items()
    } == {
        "claude-fable-5": 10,
        "claude-sonnet-4-5-20250929": 100,
    }


def test_an_impossible_count_in_an_iteration_is_named(
    capture_operations: CapturedOperations,
) -> None:
    whole = message(10, 5, iteration(COMPACTION, -90, 9), iteration(ANSWER, 10, 5))
    tracked(service="anthropic")(lambda: whole)()
    (operation,) = capture_operations
    assert operation.input_tokens is None
    assert operation.output_tokens == 14
    assert operation.metadata["impossible_usage"] == {"input_tokens": -90}
