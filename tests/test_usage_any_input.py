"""Readers and merges meet arbitrary values: they never raise, and agree with each other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from usage_samples import events, namespace, response

from instrument.usage import new_merge, reader_for

KNOWN_NAMES = """
    usage usageMetadata usage_metadata error object type status id model message response chunk
    choices candidates code prompt_tokens completion_tokens input_tokens output_tokens
    total_tokens prompt_tokens_details cached_tokens reasoning_tokens cost
    cache_read_input_tokens promptTokenCount candidatesTokenCount thoughtsTokenCount
    completion_tokens_details responseId response_id status_code
    x_groq prompt_cache_hit_tokens cost_in_usd_ticks custom_id body raw additional_kwargs
    generated_text details generated_tokens input_token_details output_token_details cache_read
    response_metadata model_name seconds created item_id status_details _hidden_params
    meta billed_units tokens search_units cached_tokens finish_reason delta event_type
    eval_count prompt_eval_count done created_at request_id output models data
    ResponseMetadata HTTPHeaders RequestId inputTokens outputTokens cacheReadInputTokens
    metadata chunk bytes amazon-bedrock-invocationMetrics inputTokenCount stopReason stream
    x-amzn-bedrock-input-token-count trace headers payload
"""
KNOWN_WORDS = """
    message_start message_delta message error response chat.completion list failed chunk
    response.completed response.failed message-start message-end stream-end
    conversation.response conversation.response.error ERROR
    response.done realtime.response chat.completion.chunk duration ai grok-4 gen-1
    image_generation.completed
"""
NAMES, WORDS = st.sampled_from(KNOWN_NAMES.split()), st.sampled_from(KNOWN_WORDS.split())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)
FORMS = (
    lambda value: value,
    namespace,
    lambda value: json.dumps(value),
    lambda value: json.dumps(value).encode(),
    lambda value: f"data: {json.dumps(value)}\n\n",
)
COUNTS = st.none() | st.integers(0, 10**9)


@settings(deadline=None)
@given(VALUES)
def test_readers_never_raise(value: Any) -> None:
    for form in FORMS:
        result = form(value)
        reader = reader_for(type(result))
        assert reader is None or reader(result) is None or reader(result) == reader(result)


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, st.sampled_from(FORMS)), max_size=8))
def test_merges_never_raise(chunks: list[tuple[Any, Any]]) -> None:
    merge = new_merge()
    for value, form in chunks:
        merge.add(form(value))
        merge.reading()


@settings(deadline=None)
@given(st.lists(st.text(alphabet='{}":,\n data:usage', max_size=30) | st.binary(max_size=9)))
def test_merges_of_arbitrary_text_never_raise(chunks: list[Any]) -> None:
    merge = new_merge()
    for chunk in chunks:
        merge.add(chunk)
    assert merge.reading() is None or merge.reading() == merge.reading()


@pytest.mark.parametrize(
    ("name", "part", "counts"),
    [
        ("anthropic_message", "usage", ["input_tokens", "output_tokens"]),
        ("google_generate", "usageMetadata", ["promptTokenCount", "thoughtsTokenCount"]),
        ("dashscope_generation", "usage", ["input_tokens", "output_tokens"]),
        ("openai_chat", "usage", ["prompt_tokens", "completion_tokens"]),
    ],
)
@settings(deadline=None)
@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=6))
def test_a_merge_of_running_totals_equals_reading_the_last_values(
    name: str, part: str, counts: list[str], values: list[tuple[int | None, int | None]]
) -> None:
    wire, final, merge = response(name), response(name), new_merge()
    for pair in values:
        known = {
            count: value for count, value in zip(counts, pair, strict=True) if value is not None
        }
        wire[part] = {**final[part], **known}
        final[part].update(known)
        merge.add({**wire, part: dict(wire[part])})
    reader = reader_for(dict)
    assert reader is not None
    assert merge.reading() == reader(final)


@settings(deadline=None)
@given(st.data())
def test_cutting_a_stream_into_any_pieces_changes_nothing(data: st.DataObject) -> None:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events("google_generate")]
    text = "".join(lines)
    cuts = sorted(data.draw(st.sets(st.integers(6, len(text)), max_size=12)))
    whole, cut = new_merge(), new_merge()
    whole.add(text)
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        cut.add(text[start:end])
    assert cut.reading() == whole.reading()
