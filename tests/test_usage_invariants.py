"""No record has more in a part than in the whole, whatever counts a provider gives."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from responses import chat, only
from test_usage_batches import LINES
from test_usage_fast import DICTS, QUIET, holders, own_fields, sdk_object
from tool_output import claude, codex, gemini, qwen
from usage_samples.objects import OBJECTS

from instrument import Operation, track, tracked
from instrument._counts import are_plausible, impossible
from instrument._finished import counted
from instrument.pricing import Pricing
from instrument.testing import CapturedOperations
from instrument.usage import Reading, new_merge, reader_for

COUNTS = st.sampled_from([0, 1, 10, 1000, 50_000, 10**12])
ANY_COUNT = [0, 1, 5, 2**39, 10**12, 10**12 + 1, -1, 2.0, "5", []]
CHAT_USAGE: dict[str, Any] = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
}


def with_counts(value: Any, data: st.DataObject) -> Any:
    """Put other counts in place of those in a response, each one by chance."""
    for holder in holders(value):
        change_counts(own_fields(holder) or {}, data)
    return value


def change_counts(fields: dict[str, Any], data: st.DataObject) -> None:
    for name, count in [*fields.items()]:
        if type(count) in (int, float) and name not in ("status_code", "HTTPStatusCode"):
            fields[name] = type(count)(data.draw(COUNTS))


def dicts_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, (dict, list)):
            yield from dicts_in(inner)


def assert_consistent(reading: Reading | None) -> None:
    if reading is None:
        return
    around = SimpleNamespace(id="x", claims={}, parent=None)
    own, _, dropped = counted(around, reading, None, None)
    if own.input_tokens is not None:
        assert (own.cache_read_tokens or 0) + (own.cache_write_tokens or 0) <= own.input_tokens
    if own.output_tokens is not None:
        assert (own.reasoning_tokens or 0) <= own.output_tokens
    priced = Pricing().priced(
        Operation(
            timestamp=datetime(2026, 11, 1, tzinfo=UTC),
            session_id="s",
            service="s",
            operation="o",
            provider=own.provider,
            model="gpt-5",
            metadata={} if dropped is None else {"impossible_usage": dropped},
            **{name: getattr(own, name) for name in _NAMES},
        )
    )
    assert priced is None or (priced[0] >= 0 and not dropped)


_NAMES = [
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
]


@given(st.lists(st.none() | st.booleans() | st.sampled_from(ANY_COUNT), min_size=6, max_size=6))
def test_what_is_told_quickly_to_be_plausible_holds_nothing_impossible(counts: list[Any]) -> None:
    reading = Reading(*counts)
    assert are_plausible(reading) == (not impossible(reading))


@pytest.mark.parametrize("name", DICTS)
@settings(deadline=None)
@given(data=st.data())
def test_dicts_with_any_counts_are_consistent(name: str, data: st.DataObject) -> None:
    changed, merge = with_counts(deepcopy(DICTS[name]), data), new_merge()
    reader = reader_for(dict)
    assert reader is not None
    assert_consistent(reader(changed))
    merge.add(changed)
    assert_consistent(merge.reading())


@QUIET
@pytest.mark.parametrize("name", OBJECTS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_objects_of_sdks_with_any_counts_are_consistent(name: str, data: st.DataObject) -> None:
    changed = with_counts(sdk_object(name), data)
    reader = reader_for(type(changed))
    assert reader is not None
    assert_consistent(reader(changed))


REALTIME = {
    "total_tokens": 1300,
    "input_tokens": 1000,
    "output_tokens": 300,
    "input_token_details": {
        "text_tokens": 600,
        "audio_tokens": 400,
        "cached_tokens": 400,
        "cached_tokens_details": {"text_tokens": 300, "audio_tokens": 100},
    },
    "output_token_details": {"text_tokens": 200, "audio_tokens": 100},
}
LANGCHAINS = {
    "input_tokens": 1000,
    "output_tokens": 300,
    "total_tokens": 1300,
    "input_token_details": {"cache_read": 400, "cache_creation": 50},
    "output_token_details": {"reasoning": 120},
}
OF_INTERACTIONS = {
    "total_input_tokens": 900,
    "total_cached_tokens": 512,
    "total_tool_use_tokens": 100,
    "total_output_tokens": 40,
    "total_thought_tokens": 160,
    "total_tokens": 1200,
}
OTHER: dict[str, Any] = {"model": "grok-4", "object": "chat.completion", "choices": []}
OTHERS: dict[str, Any] = {
    "LiteLLM": {**CHAT_USAGE, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 30},
    "Grok": {**CHAT_USAGE, "completion_tokens_details": {"reasoning_tokens": 40}},
}
SHAPES: dict[str, Any] = {
    **{name: {**OTHER, "usage": usage} for name, usage in OTHERS.items()},
    **{f"batch of {provider}": line(1) for provider, line in LINES.items()},
    "realtime": {
        "type": "response.done",
        "response": {"id": "r", "object": "realtime.response", "usage": REALTIME},
    },
    "LangChain": {"type": "ai", "content": "", "usage_metadata": LANGCHAINS},
    "LlamaIndex": {"additional_kwargs": {}, "raw": {**OTHER, "usage": CHAT_USAGE}},
    "interaction": {"id": "int-1", "status": "completed", "usage": OF_INTERACTIONS},
    "TGI": {"generated_text": "", "details": {"generated_tokens": 20, "input_length": 9}},
    "claude": claude(),
    "codex": codex((26549, 22272, 1590)),
    "qwen": qwen(),
}


@pytest.mark.parametrize("name", SHAPES)
@settings(deadline=None)
@given(data=st.data())
def test_all_other_shapes_with_any_counts_are_consistent(name: str, data: st.DataObject) -> None:
    changed, merge = deepcopy(SHAPES[name]), new_merge()
    reader = reader_for(type(changed))
    assert reader is not None
    assert reader(deepcopy(changed)) is not None
    for each in dicts_in(changed):
        change_counts(each, data)
    assert_consistent(reader(changed))
    merge.add(changed)
    assert_consistent(merge.reading())


@given(data=st.data())
def test_what_tools_print_with_any_counts_is_consistent(data: st.DataObject) -> None:
    printed = gemini()
    for model in printed["stats"]["models"].values():
        with_counts(model, data)
    reader = reader_for(dict)
    assert reader is not None
    assert_consistent(reader(printed))


@pytest.mark.parametrize(
    ("details", "dropped"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 50_000}}, {"cache_read_tokens": 50_000}),
        (
            {"prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 700}},
            {"cache_read_tokens": 600, "cache_write_tokens": 700},
        ),
        (
            {"prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 1700}},
            {"cache_write_tokens": 1700},
        ),
        ({"completion_tokens_details": {"reasoning_tokens": 101}}, {"reasoning_tokens": 101}),
    ],
)
def test_a_part_that_is_more_than_its_whole_is_dropped_and_named(
    capture_operations: CapturedOperations, details: dict[str, Any], dropped: dict[str, int]
) -> None:
    tracked(service="openai")(lambda: chat(usage={**CHAT_USAGE, **details}))()
    found = only(capture_operations)
    assert found.metadata == {"impossible_usage": dropped}
    assert (found.input_tokens, found.output_tokens, found.tokens) == (1000, 100, 1100)
    assert {getattr(found, name) for name in dropped} == {None}
    assert Pricing().priced(found) is None


def test_the_programs_own_counts_are_held_to_it_too(
    capture_operations: CapturedOperations,
) -> None:
    with track("work", service="s") as op:
        op.set_usage(input_tokens=10, cache_read_tokens=11)
    assert only(capture_operations).metadata == {"impossible_usage": {"cache_read_tokens": 11}}
