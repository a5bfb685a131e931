"""The shapes of providers that differ from OpenAI's, without their SDKs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from usage_samples import namespace

from instrument import tracked
from instrument.testing import capture
from instrument.usage import Reading, new_merge, reader_for
from instrument.usage.families import load

COUNT = st.integers(0, 10**9)


def read(result: Any) -> Reading | None:
    reader = reader_for(type(result))
    return None if reader is None else reader(result)


def merged(chunks: Any) -> Reading | None:
    merge = new_merge()
    for chunk in chunks:
        merge.add(chunk)
    return merge.reading()


def mistral(new: int, cached: int, written: int, out: int, thought: int) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "model": "magistral",
        "choices": [],
        "usage": {
            "prompt_tokens": new + cached,
            "completion_tokens": out + thought,
            "total_tokens": new + cached + out + thought,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": thought},
        },
    }


def cohere(new: int, cached: int, written: int, out: int, thought: int) -> dict[str, Any]:
    billed = {"input_tokens": float(new), "output_tokens": float(out)}
    tokens = {"input_tokens": float(new + cached), "output_tokens": float(out)}
    usage = {"billed_units": billed, "tokens": tokens, "cached_tokens": float(cached)}
    return {"id": "c", "finish_reason": "COMPLETE", "message": {}, "usage": usage}


def ollama(new: int, cached: int, written: int, out: int, thought: int) -> dict[str, Any]:
    counts = {"prompt_eval_count": new, "eval_count": out}
    return {"model": "qwen3", "created_at": "", "message": {}, "done": True, **counts}


def dashscope(new: int, cached: int, written: int, out: int, thought: int) -> dict[str, Any]:
    usage = {
        "input_tokens": new + cached + written,
        "output_tokens": out + thought,
        "total_tokens": new + cached + written + out + thought,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_creation_input_tokens": written},
        "output_tokens_details": {"reasoning_tokens": thought},
    }
    return {"output": {"text": "Lisbon."}, "usage": usage, "request_id": "r"}


def bedrock(new: int, cached: int, written: int, out: int, thought: int) -> dict[str, Any]:
    usage = {
        "inputTokens": new,
        "outputTokens": out,
        "cacheReadInputTokens": cached,
        "cacheWriteInputTokens": written,
        "totalTokens": new + cached + written + out,
    }
    return {"output": {}, "stopReason": "end_turn", "usage": usage, "metrics": {}}


def bedrock_headers(new: int, cached: int, written: int, out: int, thought: int) -> dict[str, Any]:
    headers = {
        "x-amzn-bedrock-input-token-count": str(new),
        "x-amzn-bedrock-output-token-count": str(out),
        "x-amzn-bedrock-cache-read-input-token-count": str(cached),
        "x-amzn-bedrock-cache-write-input-token-count": str(written),
    }
    return {"ResponseMetadata": {"RequestId": "r", "HTTPHeaders": headers}, "body": object()}


SHAPES = [mistral, cohere, ollama, dashscope, bedrock, bedrock_headers]
JSON_SHAPES = SHAPES[:-1]
TOTALS = {mistral: "total_tokens", dashscope: "total_tokens", bedrock: "totalTokens"}
# input, output, cache read, cache write, reasoning of (100, 60, 30, 9, 4)
EXPECTED = {
    mistral: (160, 13, 60, None, 4),
    cohere: (100, 9, 60, None, None),
    ollama: (100, 9, None, None, None),
    dashscope: (190, 13, 60, 30, 4),
    bedrock: (190, 9, 60, 30, None),
    bedrock_headers: (190, 9, 60, 30, None),
}


KINDS = {ollama: "chat", bedrock_headers: None}


def counts(found: Reading | None) -> tuple[Any, ...] | None:
    return found and (
        found.input_tokens,
        found.output_tokens,
        found.cache_read_tokens,
        found.cache_write_tokens,
        found.reasoning_tokens,
    )


@pytest.mark.parametrize("shape", SHAPES)
@given(used=st.tuples(COUNT, COUNT, COUNT, COUNT, COUNT))
def test_parts_are_never_more_than_the_whole_and_totals_agree(
    shape: Any, used: tuple[int, ...]
) -> None:
    wire = shape(*used)
    found = read(wire)
    assert found is not None
    cached = (found.cache_read_tokens or 0) + (found.cache_write_tokens or 0)
    assert cached <= (found.input_tokens or 0)
    assert (found.reasoning_tokens or 0) <= (found.output_tokens or 0)
    if shape in TOTALS:
        total = wire["usage"][TOTALS[shape]]
        assert (found.input_tokens or 0) + (found.output_tokens or 0) == total


@pytest.mark.parametrize("shape", SHAPES)
def test_every_form_of_a_response_reads_to_the_same_counts(shape: Any) -> None:
    wire = shape(100, 60, 30, 9, 4)
    forms = [wire, namespace(wire)]
    if shape in JSON_SHAPES:
        forms += [json.dumps(wire), json.dumps(wire, indent=2).encode()]
    found = [read(form) for form in forms]
    assert [counts(each) for each in found] == [EXPECTED[shape]] * len(forms)
    assert {each and each.kind for each in found} == {KINDS.get(shape, "chat")}


@pytest.mark.parametrize("shape", JSON_SHAPES)
def test_a_whole_response_among_chunks_reads_like_itself(shape: Any) -> None:
    wire = shape(100, 60, 30, 9, 4)
    chunks = [{"text": "Lis"}, wire, "bon."]
    assert counts(merged(chunks)) == counts(merged([json.dumps(wire)])) == EXPECTED[shape]


@pytest.mark.parametrize("shape", JSON_SHAPES)
def test_two_responses_in_one_stream_are_summed(shape: Any) -> None:
    first, second = shape(100, 60, 30, 9, 4), shape(100, 60, 30, 9, 4)
    for name in {"id", "request_id"} & first.keys():
        second[name] = "other"
    found = merged([first, second])
    doubled = [each and 2 * each for each in EXPECTED[shape]]
    assert counts(found) == tuple(doubled)


HOSTILE: list[Any] = [
    "12",
    "",
    True,
    float("nan"),
    float("inf"),
    -1,
    -1.0,
    1.5,
    10**13,
    1e300,
    [],
    [7],
    {"input_tokens": 7},
    b"7",
]


def hostile(wire: Any, value: Any) -> Any:
    """Put `value` in the place of every number, however deep."""
    if isinstance(wire, dict):
        return {name: hostile(inner, value) for name, inner in wire.items()}
    return value if type(wire) in (int, float) else wire


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_hostile_counts_are_no_tokens(shape: Any, value: Any) -> None:
    wire = hostile(shape(1, 1, 1, 1, 1), value)
    with capture() as operations:
        assert tracked(service="s")(lambda: wire)() is wire
        list(tracked(service="s")(lambda: iter_of(wire))())
        tracked(service="s")(lambda: namespace(wire))()
        found = [(each.outcome, each.tokens, each.input_tokens) for each in operations]
    assert found == [("ok", None, None)] * 3


def iter_of(wire: Any) -> Iterator[Any]:
    yield wire


@pytest.mark.parametrize("header", ["-5", "abc", "", "\u00b2", "1e9", "9" * 400, "0x10", None, 7.5])
def test_hostile_headers_are_no_tokens(header: Any) -> None:
    wire = bedrock_headers(1, 1, 1, 1, 1)
    headers = wire["ResponseMetadata"]["HTTPHeaders"]
    headers.update(dict.fromkeys(headers, header))
    with capture() as operations:
        assert tracked(service="s")(lambda: wire)() is wire
        assert [(each.outcome, each.tokens) for each in operations] == [("ok", None)]


class Raising(dict[str, Any]):
    def __getitem__(self, name: str) -> Any:
        raise RuntimeError(name)

    def get(self, name: str, default: Any = None) -> Any:
        raise RuntimeError(name)


class Properties:
    @property
    def usage(self) -> Any:
        raise RuntimeError("usage")

    eval_count = meta = ResponseMetadata = usage


@pytest.mark.parametrize("shape", SHAPES)
def test_a_dict_whose_methods_raise_is_handed_back_without_tokens(shape: Any) -> None:
    wire = shape(1, 1, 1, 1, 1)
    inner = {name: Raising(part) for name, part in wire.items() if isinstance(part, dict)}
    for result in (Raising(wire), {**wire, **inner}):
        with capture() as operations:
            assert tracked(service="s")(lambda result=result: result)() is result
            assert [each.outcome for each in operations] == ["ok"]


def test_properties_that_raise_are_not_looked_at() -> None:
    assert read(Properties()) is None


@pytest.mark.parametrize(
    "result",
    [
        {"meta": None},
        {"meta": {"page": 2}, "data": []},
        {"meta": {"tokens": 7}},
        {"eval_count": 7},
        {"model": "m", "eval_count": None},
        {"request_id": "r", "output": "x", "usage": "12 %"},
        {"request_id": "r", "usage": {"calls": 3}, "output": "x"},
        {"ResponseMetadata": {"HTTPStatusCode": 200}, "Buckets": []},
        {"ResponseMetadata": None},
        {"usage": {"inputTokens": 3}},
        {"usage": {"billed_units": 3}},
        {"type": "message-start", "text": "hi"},
    ],
)
def test_dicts_that_only_look_alike_say_nothing(result: Any) -> None:
    assert read(result) is None
    assert merged([result]) is None


def test_lines_of_a_whole_stream_that_is_the_result_are_merged() -> None:
    last = ollama(100, 60, 30, 9, 4)
    first = {**last, "done": False, "eval_count": None, "prompt_eval_count": None}
    text = "".join(json.dumps(each) + "\n" for each in (first, last))
    assert counts(read(text)) == counts(read(text.encode())) == EXPECTED[ollama]


def test_a_stream_of_dashscope_is_read_without_its_sdk() -> None:
    event = f"id:1\nevent:result\ndata:{json.dumps(dashscope(100, 60, 30, 9, 4))}\n\n"
    found = merged([event])
    assert found is not None
    assert (found.provider, counts(found)) == ("dashscope", EXPECTED[dashscope])


def test_a_conversation_of_mistral_that_fails_in_its_stream_is_an_error() -> None:
    error = {"type": "conversation.response.error", "message": "Overloaded.", "code": 3_500}
    found = merged(
        [
            {"data": {"type": "conversation.response.started", "conversation_id": "conv_1"}},
            {"data": {"type": "message.output.delta", "id": "msg_1", "model": "mistral-large"}},
            {"data": error},
        ]
    )
    assert found is not None
    assert (found.outcome, found.error_type, found.error_message) == (
        "error",
        "3500",
        "Overloaded.",
    )


def test_a_conversation_of_mistral_ends_its_stream_with_the_usage() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    found = merged([{"data": {"type": "conversation.response.done", "usage": usage}}])
    assert found is not None
    assert (found.provider, counts(found)) == ("mistral_ai", (9, 2, None, None, None))


def test_openais_shape_with_a_request_id_is_still_openais() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    found = read({"request_id": "r", "output": "x", "id": "c", "usage": usage})
    assert found is not None
    assert (found.provider, found.response_id, found.input_tokens) == (None, "c", 3)


def test_what_nova_calls_cached_tokens_in_its_body_is_added() -> None:
    usage = {"inputTokens": 4, "outputTokens": 265, "totalTokens": 3069}
    cached = {"cacheReadInputTokenCount": 1800, "cacheWriteInputTokenCount": 1000}
    found = read({"output": {}, "stopReason": "end_turn", "usage": {**usage, **cached}})
    assert counts(found) == (2804, 265, 1800, 1000, None)


def test_bedrocks_metrics_in_a_models_last_chunk_are_read() -> None:
    metrics = {"inputTokenCount": 5, "outputTokenCount": 2}
    found = merged(
        [
            {"outputText": "Lis"},
            {"outputText": "bon.", "amazon-bedrock-invocationMetrics": metrics},
        ]
    )
    assert found is not None
    assert (found.provider, counts(found)) == ("aws.bedrock", (5, 2, None, None, None))


def test_cohere_falls_back_on_tokens_where_nothing_is_billed() -> None:
    found = read({"id": "c", "usage": {"tokens": {"input_tokens": 9.0, "output_tokens": 2.0}}})
    assert counts(found) == (9, 2, None, None, None)


def test_coheres_first_version_ends_its_stream_with_the_response() -> None:
    meta = {"billed_units": {"input_tokens": 9.0, "output_tokens": 2.0}}
    found = merged(
        [
            {"event_type": "stream-start", "generation_id": "g"},
            {"event_type": "text-generation", "text": "Lisbon."},
            {"event_type": "stream-end", "response": {"generation_id": "g", "meta": meta}},
        ]
    )
    assert found is not None
    assert (found.response_id, counts(found)) == ("g", (9, 2, None, None, None))


@pytest.mark.parametrize("family", ["mistral", "cohere", "dashscope", "bedrock"])
def test_registered_stream_classes_of_installed_sdks_exist(family: str) -> None:
    for module, name in load(family).STREAMS:
        if module.startswith("aiobotocore"):
            continue
        assert hasattr(pytest.importorskip(module), name)


@pytest.mark.parametrize("family", ["mistral", "cohere", "ollama", "dashscope", "bedrock"])
def test_a_merge_that_met_nothing_reads_to_nothing(family: str) -> None:
    module: Any = load(family)
    merge = module.new_merge(sdk=True)
    assert merge.add({"text": "Lisbon."}) is True
    assert merge.reading() is None
