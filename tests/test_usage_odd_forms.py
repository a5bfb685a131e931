"""JSON in forms that are rare, and objects that only look like a response."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tool_output import gemini
from usage_samples import response

from instrument.usage import Reading, reader_for

NOISE = "Loaded cached credentials.\n"


def read(value: Any) -> Reading | None:
    reader = reader_for(type(value))
    return None if reader is None else reader(value)


CHAT = json.dumps(response("openai_chat"))


@pytest.mark.parametrize(
    "form",
    [
        lambda text: bytearray(text, "utf-8"),
        lambda text: "\ufeff" + text,
        lambda text: ("\ufeff" + text).encode(),
    ],
)
def test_json_is_read_from_bytes_that_may_change_and_after_a_byte_order_mark(
    form: Callable[[str], Any],
) -> None:
    found = read(form(CHAT))
    assert found is not None
    assert found.total_tokens == 1500


@pytest.mark.parametrize("form", [str, str.encode])
def test_what_a_tool_prints_is_read_after_other_lines(form: Callable[[str], Any]) -> None:
    found = read(form(NOISE + json.dumps(gemini(), indent=2) + "\n"))
    assert found is not None
    assert (found.total_tokens, found.kind) == (34161, "invoke_agent")


def test_an_answer_that_shows_a_response_as_an_example_is_no_response() -> None:
    example = json.dumps(response("openai_chat"), indent=2)
    assert read(f"This is what the API returns:\n{example}\n") is None


@pytest.mark.parametrize(
    "document",
    [
        {"usage": {"total_tokens": 5_000_000, "limit": 10_000_000}},
        {"account": "a", "usage": {"total_tokens": 5_000_000}},
    ],
)
def test_the_total_of_an_account_is_nobodys_response(document: dict[str, Any]) -> None:
    assert read(document) is None


def test_a_total_alone_is_read_where_the_rest_is_a_response() -> None:
    found = read({"object": "list", "data": [], "model": "e", "usage": {"total_tokens": 8}})
    assert found is not None
    assert found.total_tokens == 8


def test_a_failed_call_of_dashscope_names_its_request() -> None:
    told = {"status_code": 400, "request_id": "r-1", "code": "Throttling", "message": "x"}
    found = read({**told, "output": None, "usage": None})
    assert found is not None
    assert found.details == {"http_status": 400, "error_code": "Throttling", "request_id": "r-1"}
