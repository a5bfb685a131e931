"""What the readers make of results that are no provider's response, or hold several."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections import UserDict, namedtuple
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
import requests
from openai.types.chat import ChatCompletion
from usage_samples import replaying, response, sample

from instrument.usage import Reading, Readings, new_merge, reader_for, total


def read(result: Any) -> Reading | None:
    reader = reader_for(type(result))
    return None if reader is None else reader(result)


def failure(result: Any) -> tuple[Any, ...] | None:
    found = read(result)
    return found and (found.outcome, found.error_type, found.error_message)


class Colour(StrEnum):
    RED = '{"usage": {"prompt_tokens": 1}}'


class Lazy:
    """Runs its own code for every attribute that is not there."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name} was asked for")


@dataclass
class Answer:
    text: str = ""
    usage: dict[str, int] = field(default_factory=lambda: {"prompt_tokens": 3})


@dataclass(slots=True)
class SlottedAnswer:
    usage: dict[str, int] = field(default_factory=lambda: {"prompt_tokens": 3})


@pytest.mark.parametrize("cls", [int, float, bool, type(None), Colour, range, type, ValueError])
def test_types_that_never_say_anything_have_no_reader(cls: type) -> None:
    assert reader_for(cls) is None


@pytest.mark.parametrize(
    "result",
    [
        "The usage was low.",
        '{"answer": "Lisbon"}',
        '"usage"',
        '{not json, but it names "usage"',
        '{"usage": "high", "error": "none"}',
        '["usage", {"usage": 3}, null]',
        b'\xff\xfe{"usage": 1}',
        b'{"usage": "\xff"}',
        '{"usage": "\ud800"}',
        {},
        {"usage": None},
        {"usage": "12 %", "error": "none"},
        {"error": {"message": "no code"}},
        {"usage_metadata": {"input_tokens": 3}},
        {1: 2},
        [],
        (),
        [1, 2, 3],
        ["text", None, 2.5],
        object(),
        SimpleNamespace(usage=None, status_code=200),
        SimpleNamespace(status_code="500"),
        SimpleNamespace(status_code=True),
        httpx.Response(200, text="fine"),
        HTTPStatus.NOT_FOUND,
    ],
)
def test_results_that_say_nothing_read_to_nothing(result: Any) -> None:
    assert read(result) is None


def test_an_objects_own_code_for_missing_attributes_is_not_run() -> None:
    assert read(Lazy()) is None


@pytest.mark.parametrize("opening", ['{"usage":', '{"usage":{"prompt_tokens":', "["])
def test_bottomless_json_reads_to_nothing(opening: str) -> None:
    text = opening * 100_000
    assert read('{"usage": 1, "a":' + "[" * 100_000 + text) is None
    assert read(text) is None


@pytest.mark.parametrize("text", ["usage " * 2_000_000, '{"text": "' + "x" * 10_000_000 + '"}'])
def test_a_long_text_that_says_nothing_is_neither_copied_nor_parsed(text: str) -> None:
    tracemalloc.start()
    assert read(text) is None
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10_000


def test_no_provider_is_loaded_before_it_is_met() -> None:
    script = "import sys, instrument.usage; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    unwanted = {"instrument.usage.openai", "pydantic", "httpx", "openai", "asyncio"}
    assert not unwanted & set(run.stdout.split())


def test_a_structure_that_contains_itself_is_survived() -> None:
    mapping: dict[str, Any] = {}
    mapping["usage"] = mapping
    sequence: list[Any] = [mapping]
    sequence.extend([sequence] * 100)
    assert read(mapping) is None
    assert read(sequence) is None


@pytest.mark.parametrize(
    "result",
    [
        Answer(),
        SlottedAnswer(),
        SimpleNamespace(usage=SimpleNamespace(prompt_tokens=3)),
        UserDict(usage={"prompt_tokens": 3}),
        namedtuple("Point", "usage")({"prompt_tokens": 3}),
        ' \n{"usage": {"prompt_tokens": 3}}',
        '{"choices": [{"deep": [[]]}], "usage": {"prompt_tokens": 3}}',
        ("the text", Answer()),
        [[Answer()], None],
    ],
)
def test_whatever_holds_a_usage_is_read(result: Any) -> None:
    found = read(result)
    assert found is not None
    assert found.input_tokens == 3


def completion(number: int, **fields: Any) -> ChatCompletion:
    return ChatCompletion.model_validate({**response("openai_chat"), "id": f"r{number}", **fields})


class Growing(MutableMapping[str, Any]):
    """Makes what is looked up, and counts."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}
        self.looks = 0

    def __getitem__(self, name: str) -> Any:
        self.looks += 1
        return self.made.setdefault(name, Growing())

    def __setitem__(self, name: str, value: Any) -> None:
        self.made[name] = value

    def __delitem__(self, name: str) -> None:
        del self.made[name]

    def __iter__(self) -> Iterator[str]:
        self.looks += 1
        return iter(self.made)

    def __len__(self) -> int:
        return len(self.made)


class GrowingDict(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        self[name] = GrowingDict()
        return self[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


@pytest.mark.parametrize(
    "around",
    [
        lambda inner: inner,
        lambda inner: [inner],
        lambda inner: (1, inner),
        lambda inner: {"usage": inner},
        lambda inner: {"usage": {"prompt_tokens": 3, "prompt_tokens_details": inner}},
        lambda inner: {"response": inner, "error": inner, "stats": inner},
        lambda inner: SimpleNamespace(usage=inner, status_code=200),
    ],
)
def test_looking_at_a_result_makes_nothing_in_it(around: Any) -> None:
    growing, growing_dict = Growing(), GrowingDict(usage=GrowingDict(prompt_tokens=3))
    read(around(growing))
    read(around(growing_dict))
    merge = new_merge()
    merge.add(around(growing))
    merge.add(around(growing_dict))
    assert (growing.looks, growing.made) == (0, {})
    assert (set(growing_dict), set(growing_dict["usage"])) == ({"usage"}, {"prompt_tokens"})


def test_a_dict_of_another_class_is_read_as_a_dict() -> None:
    found = read(GrowingDict(response("openai_chat")))
    assert found is not None
    assert found == read(response("openai_chat"))


def test_lists_of_another_class_are_read_without_their_own_code() -> None:
    class Elements(list[Any]):
        def __getitem__(self, place: Any) -> Any:
            raise AssertionError("it was asked for an element")

        def __iter__(self) -> Any:
            raise AssertionError("it was gone through")

    class Pair(namedtuple("Pair", "answer score")):
        def __iter__(self) -> Any:
            raise AssertionError("it was gone through")

    for found in (read(Elements([completion(1)])), read(Pair(completion(1), 0.5))):
        assert found is not None
        assert found.input_tokens == 1200


def test_a_list_of_responses_is_summed_and_keeps_its_parts() -> None:
    found = read([completion(1), None, completion(2), "text"])
    assert isinstance(found, Readings)
    assert (found.input_tokens, found.reasoning_tokens, found.total_tokens) == (2400, 512, 3000)
    assert [part.response_id for part in found.parts] == ["r1", "r2"]


def test_a_response_that_stands_twice_in_a_list_counts_once() -> None:
    assert read([completion(1), completion(1)]) == read(completion(1))


def test_a_list_names_what_all_its_responses_agree_on_and_nothing_else() -> None:
    found = read([completion(1), completion(2, model="gpt-4o")])
    assert found is not None
    assert (found.provider, found.kind, found.model, found.response_id) == (
        "openai",
        "chat",
        None,
        None,
    )


def test_a_sum_knows_a_count_if_one_part_does_and_a_total_for_every_part() -> None:
    found = total([Reading(1, 2), Reading(3, 4, total_tokens=8), Reading(reasoning_tokens=0)])
    assert (found.input_tokens, found.cache_read_tokens, found.reasoning_tokens) == (4, None, 0)
    assert found.total_tokens == 11


def test_an_impossible_count_stays_visible_in_a_sum() -> None:
    found = total([Reading(5, cost_usd=0.25), Reading(-1, cost_usd="free")])  # type: ignore[arg-type]
    assert (found.input_tokens, found.cost_usd) == (-1, "free")


def test_the_sum_of_nothing_knows_nothing() -> None:
    assert total([]) == Reading()


@pytest.mark.parametrize(
    ("before", "after"),
    [("answer", 0.5), (False, False), ({"ok": False}, {"ok": False}), (0, "err"), (1.0, [2, 3])],
    ids=["text", "flags", "dicts", "a command's output", "numbers"],
)
@pytest.mark.parametrize("form", [list, tuple])
def test_a_response_between_what_says_nothing_counts(form: Any, before: Any, after: Any) -> None:
    for middle in (completion(1), response("openai_chat"), json.dumps(response("openai_chat"))):
        found = read(form([before, middle, after]))
        assert found is not None
        assert found.input_tokens == 1200


def test_numbers_in_lists_of_lists_are_not_looked_at_one_by_one() -> None:
    class Counted(float):
        looks = 0

        def __getattribute__(self, name: str) -> Any:
            type(self).looks += 1
            return super().__getattribute__(name)

    vectors = [[0.5, *(Counted(0.1) for _ in range(50)), 0.5] for _ in range(10)]
    assert read(vectors) is None
    assert Counted.looks == 0


def test_a_class_without_a_module_is_no_trouble_in_a_list() -> None:
    cls = type("Row", (), {})
    cls.__module__ = None  # type: ignore[assignment]
    found = read([cls(), completion(1)])
    assert found is not None
    assert found.input_tokens == 1200


def test_chunks_of_documents_are_no_stream_however_they_call_themselves() -> None:
    documents = [{"object": "document.chunk", "text": "a"} for _ in range(100)]
    assert read([*documents, response("openai_chat"), *documents]) is None


def test_what_failed_takes_nothing_from_what_did_not() -> None:
    failed = {"error": {"message": "x", "type": "rate_limit", "code": "r"}}
    found = read([failed, completion(1), completion(2)])
    assert found is not None
    assert (found.model, found.provider, found.kind) == (completion(1).model, "openai", "chat")
    assert found.outcome is None


def test_a_long_list_is_read_to_its_end_only_if_its_beginning_says_something() -> None:
    late = [None] * 64 + [completion(1)]
    early = [completion(number) for number in range(100)]
    found = read(early)
    assert read(late) is None
    assert found is not None
    assert found.input_tokens == 120_000


@pytest.mark.parametrize("code", [0, 3])
def test_a_processs_exit_code_other_than_zero_is_an_error(code: int) -> None:
    script = f"import sys; print('what went wrong\\n', file=sys.stderr); sys.exit({code})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert failure(done) == (("error", "exit_3", "what went wrong") if code else None)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ('{"is_error": true, "result": "no"}', ("error", "error", "no")),
        ('{"error": {"message": "m"}}', ("error", "error", "m")),
        ('log\n{\n"error": {"code": "c"}\n}\n', ("error", "c", None)),
        ('{"response": null, "error": {"code": "c", "message": "m"}}', ("error", "c", "m")),
        ('{"is_error": false}', None),
        ('{"error": {"count": 0}, "data": []}', None),
        ('{"error": "text", "data": []}', None),
        ('["error"]', None),
    ],
)
def test_what_a_process_prints_of_its_failure_makes_it_one_whatever_it_exits_with(
    printed: str, expected: Any
) -> None:
    for form in (printed, printed.encode()):
        assert failure(subprocess.CompletedProcess(["tool"], 0, form, "")) == expected
    told = failure(subprocess.CompletedProcess(["tool"], 1, printed, ""))
    assert told is not None
    assert told[1] == ("c" if expected is not None and expected[1] == "c" else "exit_1")


def test_a_response_that_failed_before_it_had_output_is_an_error() -> None:
    error = {"code": "server_error", "message": "m"}
    body = {"object": "response", "status": "failed", "error": error}
    for form in (body, json.dumps(body)):
        assert failure(form) == ("error", "server_error", "m")


@pytest.mark.parametrize("stderr", [None, "", b"", b"\n \n", 5])
def test_a_process_that_says_nothing_has_no_message(stderr: Any) -> None:
    killed = subprocess.CompletedProcess(["true"], -9, stderr=stderr)
    assert failure(killed) == ("error", "exit_-9", None)


ERROR_BODY = {"error": {"message": "Slow down.", "type": "tokens", "code": "rate_limit_exceeded"}}


def test_an_httpx_response_of_400_and_above_is_an_error_with_the_bodys_message() -> None:
    assert failure(httpx.Response(429, json=ERROR_BODY)) == ("error", "http_429", "Slow down.")


def test_a_requests_response_of_400_and_above_is_an_error() -> None:
    with replaying("openai_chat.json", status=503) as url:
        answer = requests.post(url, timeout=9)
    assert failure(answer) == ("error", "http_503", "Service Unavailable")


def test_anything_with_such_a_status_code_is_an_error() -> None:
    assert failure(SimpleNamespace(status_code=500)) == ("error", "http_500", None)


@pytest.mark.parametrize("post", [httpx.post, requests.post])
def test_the_body_of_an_http_response_is_read(post: Any) -> None:
    with replaying("anthropic_message.json") as url:
        found = read(post(url, timeout=9))
    assert found is not None
    assert (found.input_tokens, found.provider) == (130213, "anthropic")


def test_a_known_host_names_the_provider_of_an_openai_shaped_body() -> None:
    request = httpx.Request("POST", "https://api.groq.com/openai/v1/chat/completions")
    found = read(httpx.Response(200, content=sample("openai_chat.json"), request=request))
    assert found is not None
    assert found.provider == "groq"


def test_a_body_that_was_not_read_yet_stays_unread() -> None:
    with replaying("openai_chat.json") as url:
        with httpx.stream("POST", url) as answer:
            assert read(answer) is None
            assert not answer.is_stream_consumed
        with requests.post(url, stream=True, timeout=9) as answer:
            assert read(answer) is None
            assert answer.json()["id"] == "chatcmpl-8f2"


def test_an_sdks_raw_response_is_read_through_to_the_body() -> None:
    with replaying("openai_chat.json") as url, openai.OpenAI(api_key="x", base_url=url) as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=[])
    found = read(raw)
    assert found is not None
    assert (found.total_tokens, found.response_id) == (1500, "chatcmpl-8f2")


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        (ERROR_BODY, "rate_limit_exceeded"),
        ({"error": {"message": "m", "code": 402, "metadata": {}}}, "402"),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
            "overloaded_error",
        ),
        (
            {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}},
            "RESOURCE_EXHAUSTED",
        ),
    ],
)
def test_a_providers_error_object_is_an_error_with_its_code(body: Any, error_type: str) -> None:
    found, from_text = failure(body), failure(json.dumps(body))
    assert found is not None
    assert found[:2] == ("error", error_type)
    assert from_text == found


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        ("failed", {"code": "server_error", "message": "m"}, ("error", "server_error", "m")),
        ("failed", None, ("error", "error", None)),
        ("cancelled", None, ("cancelled", None, None)),
        ("incomplete", None, (None, None, None)),
    ],
)
def test_a_response_of_the_responses_api_says_how_it_ended(
    status: str, error: Any, expected: object
) -> None:
    wire = {**response("openai_response"), "status": status, "error": error, "usage": None}
    assert failure(wire) == expected


def test_an_openai_object_that_failed_but_is_no_response_is_no_failed_call() -> None:
    job = {"object": "fine_tuning.job", "status": "failed", "error": {"code": "x", "message": "m"}}
    assert read(job) is None


def wire_events(name: str) -> bytes:
    return sample(f"{name}.sse")


def lines_of(name: str) -> bytes:
    events = [line[6:] for line in wire_events(name).splitlines() if line.startswith(b"data: {")]
    return b"\n".join(events)


@pytest.mark.parametrize("body", [wire_events, lines_of])
def test_a_whole_stream_in_a_body_that_was_read_is_read(body: Any) -> None:
    found = read(httpx.Response(200, content=body("anthropic_message")))
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.response_id) == (125, 15, "msg_01Y")


def test_lines_inside_one_json_object_are_no_responses() -> None:
    assert read('{"items": [\n{"usage": {"prompt_tokens": 3}}\n]}') is None


def test_a_response_that_failed_says_what_its_headers_and_body_say() -> None:
    found = read(httpx.Response(429, json=ERROR_BODY, headers={"retry-after-ms": "250"}))
    assert found is not None
    assert found.details == {
        "http_status": 429,
        "error_code": "rate_limit_exceeded",
        "retry_after_seconds": 0.25,
    }


def test_an_array_is_read_to_its_end_only_if_its_beginning_says_something() -> None:
    assert read(json.dumps([{}] * 64 + [response("openai_chat")])) is None
