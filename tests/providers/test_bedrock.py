"""boto3's `bedrock-runtime` client against a loopback: dicts, headers and binary event streams."""

from __future__ import annotations

import base64
import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("boto3")

import boto3
from botocore.config import Config
from botocore.eventstream import EventStream
from botocore.exceptions import ClientError, EventStreamError
from wire import Answer, as_event_stream, as_json, counts, identity, message, recorded, serving

from instrument import tracked
from instrument.testing import capture

REQUEST = "7c3b0d0e-5d0c-4b5b-8c39-5a1c4f1f8f2e"
ASK: Any = {
    "modelId": "anthropic.claude-sonnet-5-v1:0",
    "messages": [{"role": "user", "content": [{"text": "What is the capital of Portugal?"}]}],
}
INVOKE = {"modelId": "anthropic.claude-sonnet-5-v1:0", "body": "{}"}
USAGE = {
    "inputTokens": 4,
    "outputTokens": 265,
    "totalTokens": 3_069,
    "cacheReadInputTokens": 1_800,
    "cacheWriteInputTokens": 1_000,
    "cacheDetails": [{"ttl": "5m", "inputTokens": 1_000}],
}
CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Lisbon."}]}},
    "stopReason": "end_turn",
    "usage": USAGE,
    "metrics": {"latencyMs": 551},
}
COUNTS = (2_804, 265, 1_800, 1_000, None, 3_069)
METRICS = {
    "inputTokenCount": 4,
    "outputTokenCount": 265,
    "cacheReadInputTokenCount": 1_800,
    "cacheWriteInputTokenCount": 1_000,
    "invocationLatency": 551,
    "firstByteLatency": 240,
}
WHO = ("aws.bedrock", "chat", None, REQUEST)


def event(name: str, value: Any) -> bytes:
    headers = {
        ":event-type": name,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return message(headers, json.dumps(value).encode())


def exception(name: str, text: str) -> bytes:
    headers = {
        ":exception-type": name,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return message(headers, json.dumps({"message": text}).encode())


def model_chunk(value: Any) -> bytes:
    wrapped = base64.b64encode(json.dumps(value).encode()).decode()
    return event("chunk", {"bytes": wrapped, "p": "abcdefgh"})


BEGINNING = [
    event("messageStart", {"role": "assistant"}),
    event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Lisbon."}}),
    event("contentBlockStop", {"contentBlockIndex": 0}),
    event("messageStop", {"stopReason": "end_turn"}),
]
METADATA = event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 551}})
INVOKED = [
    model_chunk({"type": "content_block_delta", "delta": {"text": "Lisbon."}}),
    model_chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": METRICS}),
]


@contextmanager
def client(answer: Answer) -> Iterator[Any]:
    named = answer._replace(headers={**answer.headers, "x-amzn-RequestId": REQUEST})
    with serving(named) as url:
        made = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id="none",
            aws_secret_access_key="none",
            config=Config(retries={"total_max_attempts": 1}),
        )
        try:
            yield made
        finally:
            made.close()


def consumed(name: str) -> Callable[[Any], None]:
    return lambda response: [None for _ in response[name]] and None


def test_converse_adds_the_caches_to_the_input_and_agrees_with_the_total() -> None:
    with client(as_json(CONVERSE)) as bedrock:
        found = recorded(lambda: bedrock.converse(**ASK))
    assert (identity(found), counts(found)) == (WHO, COUNTS)
    assert found.tokens == found.input_tokens + found.output_tokens


def test_a_router_names_the_model() -> None:
    model = "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0"
    wire = {**CONVERSE, "trace": {"promptRouter": {"invokedModelId": model}}}
    with client(as_json(wire)) as bedrock:
        found = recorded(lambda: bedrock.converse(**ASK))
    assert found.model == model


def test_invoke_model_is_read_by_its_headers_and_its_body_is_left_to_the_program() -> None:
    headers = {
        "x-amzn-bedrock-input-token-count": "4",
        "x-amzn-bedrock-output-token-count": "265",
        "x-amzn-bedrock-cache-read-input-token-count": "1800",
        "x-amzn-bedrock-cache-write-input-token-count": "1000",
    }
    bodies: list[bytes] = []
    with client(as_json({"content": []}, headers=headers)) as bedrock:
        found = recorded(
            lambda: bedrock.invoke_model(**INVOKE),
            lambda response: bodies.append(response["body"].read()),
        )
    assert identity(found) == ("aws.bedrock", None, None, REQUEST)
    assert counts(found) == (2_804, 265, 1_800, 1_000, None, 3_069)
    assert bodies == [b'{"content": []}']


def test_invoke_model_without_counts_reports_none() -> None:
    with client(as_json({"content": []})) as bedrock:
        found = recorded(
            lambda: bedrock.invoke_model(**INVOKE), lambda response: response["body"].read()
        )
    assert (found.outcome, counts(found)) == ("ok", (None,) * 6)


def test_converse_stream_is_followed_inside_of_the_dict_which_stays_as_it_was() -> None:
    kept: list[Any] = []

    def consume(response: Any) -> None:
        kept.append((type(response), sorted(response), type(response["stream"])))
        kept.append([next(iter(each)) for each in response["stream"]])

    with client(as_event_stream([*BEGINNING, METADATA])) as bedrock:
        found = recorded(lambda: bedrock.converse_stream(**ASK), consume)
    names = ["messageStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"]
    assert kept == [(dict, ["ResponseMetadata", "stream"], EventStream), names]
    assert (identity(found), counts(found), found.chunks) == (WHO, COUNTS, 5)


def test_a_stream_that_two_operations_return_counts_once() -> None:
    with client(as_event_stream([*BEGINNING, METADATA])) as bedrock, capture() as operations:
        ask = tracked(service="inner")(bedrock.converse_stream)
        response = tracked(service="outer")(lambda: ask(**ASK))()
        list(response["stream"])
        outer, inner = operations
    assert (inner.tokens, outer.tokens) == (3_069, None)
    assert outer.usage_operation_id == inner.operation_id


def test_converse_stream_alone_is_followed_too() -> None:
    with client(as_event_stream([*BEGINNING, METADATA])) as bedrock:
        found = recorded(lambda: bedrock.converse_stream(**ASK)["stream"], list)
    assert (found.provider, counts(found)) == ("aws.bedrock", COUNTS)


def test_converse_stream_that_a_generator_reads_is_merged_from_its_events() -> None:
    def ask() -> Iterator[Any]:
        yield from bedrock.converse_stream(**ASK)["stream"]

    with client(as_event_stream([*BEGINNING, METADATA])) as bedrock:
        found = recorded(ask, list)
    assert (found.provider, counts(found)) == ("aws.bedrock", COUNTS)


def test_converse_stream_left_early_is_partial_and_reports_no_tokens() -> None:
    def leave(response: Any) -> None:
        next(iter(response["stream"]))
        response["stream"].close()

    with client(as_event_stream([*BEGINNING, METADATA])) as bedrock:
        found = recorded(lambda: bedrock.converse_stream(**ASK), leave)
    assert (found.outcome, found.response_id, counts(found)) == ("partial", REQUEST, (None,) * 6)


@pytest.mark.parametrize("read", [lambda stream: None, lambda stream: next(iter(stream))])
def test_converse_stream_that_is_dropped_is_partial(read: Any) -> None:
    def drop(response: Any) -> None:
        socket = response["stream"]._raw_stream
        read(response.pop("stream"))
        gc.collect()  # botocore's stream refers to itself
        socket.close()

    with client(as_event_stream(BEGINNING)) as bedrock:
        found = recorded(lambda: bedrock.converse_stream(**ASK), drop)
    assert (found.outcome, counts(found)) == ("partial", (None,) * 6)


def test_an_exception_in_the_stream_is_raised_and_recorded() -> None:
    messages = [*BEGINNING[:2], exception("modelStreamErrorException", "The model failed.")]

    def consume(response: Any) -> None:
        with pytest.raises(EventStreamError):
            list(response["stream"])

    with client(as_event_stream(messages)) as bedrock:
        found = recorded(lambda: bedrock.converse_stream(**ASK), consume)
    assert (found.outcome, found.response_id, found.tokens) == ("error", REQUEST, None)
    assert (found.error_type, found.error_message) == (
        "modelStreamErrorException",
        "The model failed.",
    )


def test_invoke_model_with_response_stream_takes_the_metrics_of_the_last_chunk() -> None:
    with client(as_event_stream(INVOKED)) as bedrock:
        found = recorded(
            lambda: bedrock.invoke_model_with_response_stream(**INVOKE), consumed("body")
        )
    assert identity(found) == ("aws.bedrock", None, None, REQUEST)
    assert (counts(found), found.chunks) == (COUNTS, 2)


def test_invoke_model_with_response_stream_that_a_generator_reads_is_merged() -> None:
    def ask() -> Iterator[Any]:
        yield from bedrock.invoke_model_with_response_stream(**INVOKE)["body"]

    with client(as_event_stream(INVOKED)) as bedrock:
        found = recorded(ask, list)
    assert counts(found) == COUNTS


def test_an_error_is_raised_and_recorded() -> None:
    answer = as_json(
        {"message": "Too many requests"},
        status=429,
        headers={"x-amzn-ErrorType": "ThrottlingException"},
    )
    with client(answer) as bedrock, capture() as operations:
        with pytest.raises(ClientError):
            tracked(service="bedrock")(bedrock.converse)(**ASK)
        assert [(each.outcome, each.tokens) for each in operations] == [("error", None)]


def test_a_dict_of_another_aws_service_says_nothing() -> None:
    found = recorded(lambda: {"Buckets": [], "ResponseMetadata": {"HTTPStatusCode": 200}})
    assert (found.outcome, found.provider, found.tokens) == ("ok", None, None)
