"""What batches give: each line's response counts once, whoever reads the lines and in what form."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from usage_samples import response

from instrument.usage import Reading, Readings, new_merge, reader_for


def openai_line(number: int) -> dict[str, Any]:
    body = {**response("openai_chat"), "id": f"chatcmpl-{number}"}
    answer = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": f"b{number}", "custom_id": f"c{number}", "response": answer, "error": None}


def anthropic_line(number: int) -> dict[str, Any]:
    message = {**response("anthropic_message"), "id": f"msg_{number}"}
    return {"custom_id": f"c{number}", "result": {"type": "succeeded", "message": message}}


def gemini_line(number: int) -> dict[str, Any]:
    return {
        "key": f"k{number}",
        "response": {**response("google_generate"), "responseId": f"{number}"},
    }


def bedrock_line(number: int) -> dict[str, Any]:
    message = {**response("anthropic_message"), "id": f"msg_{number}"}
    return {"recordId": f"r{number}", "modelInput": {"messages": []}, "modelOutput": message}


LINES: dict[str, Callable[[int], dict[str, Any]]] = {
    "openai": openai_line,
    "anthropic": anthropic_line,
    "gcp.gemini": gemini_line,
    "aws.bedrock": bedrock_line,
}
TOKENS = {"openai": 1500, "anthropic": 130_223, "gcp.gemini": 1200, "aws.bedrock": 130_223}


def as_lines(lines: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def read(value: Any) -> Reading:
    reader = reader_for(type(value))
    assert reader is not None
    found = reader(value)
    assert found is not None
    return found


def merged(lines: list[dict[str, Any]]) -> Reading:
    merge = new_merge()
    for line in lines:
        merge.add(line)
    found = merge.reading()
    assert found is not None
    return found


def tokens(found: Reading) -> int:
    return found.total_tokens or (found.input_tokens or 0) + (found.output_tokens or 0)


FORMS: list[Callable[[Any], Reading]] = [
    read,
    lambda lines: read(as_lines(lines)),
    lambda lines: read(as_lines(lines).encode()),
    lambda lines: read(json.dumps(lines)),
    merged,
]


@pytest.mark.parametrize("form", FORMS, ids=["list", "text", "bytes", "array", "stream"])
@pytest.mark.parametrize("provider", LINES)
def test_each_line_is_a_response_at_the_batchs_price(
    provider: str, form: Callable[[Any], Reading]
) -> None:
    found = form([LINES[provider](number) for number in (1, 2, 2, 3)])
    assert isinstance(found, Readings)
    assert (len(found.parts), tokens(found)) == (3, 3 * TOKENS[provider])
    assert found.details is not None
    assert found.details["usage_details"]["service_tier"] == "batch"
    assert found.provider in (provider, None)


@pytest.mark.parametrize("provider", LINES)
def test_a_single_line_is_one_response(provider: str) -> None:
    for value in (LINES[provider](1), as_lines([LINES[provider](1)])):
        assert tokens(read(value)) == TOKENS[provider]


def test_lines_that_failed_use_nothing_and_the_others_count() -> None:
    failed = [
        {"custom_id": "a", "response": None, "error": {"code": "batch_expired", "message": "x"}},
        {"custom_id": "b", "result": {"type": "errored", "error": {"type": "error", "error": {}}}},
        {"custom_id": "c", "result": {"type": "expired"}},
        {"recordId": "d", "modelInput": {}, "error": {"errorCode": 400, "errorMessage": "x"}},
    ]
    found = read(as_lines([*failed, openai_line(1)]))
    assert (tokens(found), found.outcome) == (1500, None)
    assert (found.model, found.kind) == (response("openai_chat")["model"], "chat")
    assert found.details is not None
    assert found.details["usage_details"]["service_tier"] == "batch"
    assert found.details["usage_details"].get("responses", 1) == 1


def test_geminis_responses_in_the_batch_itself_are_known_by_their_class() -> None:
    types = pytest.importorskip("google.genai.types")
    answers = [
        types.GenerateContentResponse.model_validate(gemini_line(number)["response"])
        for number in (1, 2)
    ]
    failed = types.InlinedResponse(error=types.JobError(code=3, message="no"))
    inlined = [types.InlinedResponse(response=answer) for answer in answers]
    for found in (read([*inlined, failed]), merged([*inlined, failed])):
        assert tokens(found) == 2400
        assert found.provider == "gcp.gemini"
        assert found.details is not None
        assert found.details["usage_details"]["service_tier"] == "batch"


def test_more_lines_than_are_kept_apart_still_add_up() -> None:
    found = read(as_lines([openai_line(number) for number in range(2500)]))
    assert tokens(found) == 2500 * 1500
    assert found.details is not None
    assert found.details["usage_details"] == {
        "service_tier": "batch",
        "responses": 2500,
        "largest_input_tokens": 1200,
    }


def test_a_batch_itself_is_no_response_however_often_it_is_looked_at() -> None:
    batch = {
        "id": "batch_1",
        "object": "batch",
        "status": "completed",
        "usage": {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10},
    }
    reader = reader_for(dict)
    assert reader is not None
    assert reader(batch) is None
    types = pytest.importorskip("openai.types")
    of_sdk = reader_for(types.Batch)
    assert of_sdk is None or of_sdk(types.Batch.model_construct(**batch)) is None


def test_a_file_of_openais_sdk_is_read_by_what_is_in_it() -> None:
    module = pytest.importorskip("openai._legacy_response")
    httpx = pytest.importorskip("httpx")
    content = as_lines([openai_line(1), openai_line(2)]).encode()
    file = module.HttpxBinaryResponseContent(httpx.Response(200, content=content))
    assert tokens(read(file)) == tokens(read(file.text)) == 3000


def test_results_of_anthropics_sdk_are_followed_one_by_one() -> None:
    types = pytest.importorskip("anthropic.types.messages")
    results = [
        types.MessageBatchIndividualResponse.model_validate(anthropic_line(number))
        for number in (1, 2)
    ]
    assert tokens(read(results)) == tokens(merged(results)) == 2 * 130_223
