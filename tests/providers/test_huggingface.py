"""Hugging Face's Inference client against a loopback server."""

from __future__ import annotations

import json
from typing import Any

import pytest

hub = pytest.importorskip("huggingface_hub")

from openai_wire import ASK, USED, failing, serving, used  # noqa: E402 - after the skip
from responses import only  # noqa: E402 - as above
from wire import recorded  # noqa: E402 - as above

from instrument import InstrumentWarning, tracked  # noqa: E402 - as above
from instrument.testing import capture  # noqa: E402 - as above
from instrument.usage import new_merge, reader_for  # noqa: E402 - as above

WITH_USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}

CLIENTS: list[Any] = []
"""They close their streams when they are dropped."""


@tracked(service="huggingface")
def ask(url: str, **more: Any) -> Any:
    client = hub.InferenceClient(base_url=url, api_key="none")
    CLIENTS.append(client)
    return client.chat_completion(ASK, **more)


@tracked(service="huggingface")
async def ask_async(url: str, **more: Any) -> Any:
    client = hub.AsyncInferenceClient(base_url=url, api_key="none")
    CLIENTS.append(client)
    return await client.chat_completion(ASK, **more)


async def test_a_completion_counts_cached_and_reasoning_tokens_inside() -> None:
    with capture() as operations, serving() as url:
        ask(url)
        await ask_async(url)
    assert [(used(each), each.provider) for each in operations] == [(USED, "huggingface")] * 2


async def test_a_stream_that_was_asked_for_usage_has_it() -> None:
    with capture() as operations, serving() as url:
        list(ask(url, **WITH_USAGE))
        async for _ in await ask_async(url, **WITH_USAGE):
            pass
    assert [(used(each), each.provider) for each in operations] == [(USED, "huggingface")] * 2


@pytest.mark.usefixtures("fresh_warnings")
def test_a_stream_without_usage_has_no_tokens_and_a_hint() -> None:
    with capture() as operations, serving() as url, pytest.warns(InstrumentWarning, match="usage"):
        list(ask(url, stream=True))
    assert used(only(operations)) == (None,) * 5


async def test_a_stream_left_early_is_partial_without_tokens() -> None:
    with capture() as operations, serving() as url:
        stream = ask(url, **WITH_USAGE)
        next(stream)
        stream.close()
        later = await ask_async(url, **WITH_USAGE)
        await anext(later)
        await later.aclose()
    expected = [("partial", (None,) * 5)] * 2
    assert [(each.outcome, used(each)) for each in operations] == expected


def test_an_error_of_the_provider_is_an_error_without_tokens() -> None:
    with capture() as operations, failing() as url, pytest.raises(hub.errors.HfHubHTTPError):
        ask(url)
    assert (only(operations).outcome, only(operations).tokens) == ("error", None)


def test_generated_text_reports_its_output_alone() -> None:
    wire = {"generated_text": "x", "details": {"generated_tokens": 12, "prefill": []}}
    found = [hub.TextGenerationOutput.parse_obj(wire), wire]
    for each in found:
        reader = reader_for(type(each))
        assert reader is not None
        reading = reader(each)
        assert reading is not None
        assert (reading.input_tokens, reading.output_tokens) == (None, 12)


@pytest.mark.parametrize("form", [list, json.dumps, lambda each: json.dumps(each).encode()])
def test_generated_text_is_read_in_every_form(form: Any) -> None:
    wire = {"generated_text": "Lisbon.", "details": {"generated_tokens": 20}}
    found = recorded(lambda: form([wire]))
    assert (found.output_tokens, found.provider) == (20, "huggingface")


def test_lines_of_generated_text_report_input_and_output_at_their_end() -> None:
    token = {"index": 1, "token": {"text": "Lisbon."}, "details": None}
    last = {**token, "details": {"generated_tokens": 20, "input_length": 9}}
    found = recorded(lambda: (f"data:{json.dumps(each)}\n\n" for each in (token, last)), list)
    assert (found.input_tokens, found.output_tokens) == (9, 20)


def test_generated_text_without_details_says_nothing() -> None:
    reader = reader_for(hub.TextGenerationOutput)
    assert reader is not None
    assert reader(hub.TextGenerationOutput.parse_obj({"generated_text": "x"})) is None


def test_a_stream_of_text_reports_input_and_output_at_its_end() -> None:
    token = {"id": 1, "text": "x", "logprob": 0.1, "special": False}
    details = {"finish_reason": "length", "generated_tokens": 2, "input_length": 7}
    merge = new_merge()
    for each in ({"index": 1, "token": token}, {"index": 2, "token": token, "details": details}):
        merge.add(hub.TextGenerationStreamOutput.parse_obj(each))
    found = merge.reading()
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.kind) == (7, 2, "text_completion")
