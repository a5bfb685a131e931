"""What runs of `claude`, `codex`, `gemini` and `qwen` become, by what the tools print."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from responses import named, only
from tool_output import (
    CLAUDE,
    HAIKU,
    SESSION,
    claude,
    claude_message,
    claude_model,
    claude_stream,
    claude_usage,
    codex,
    gemini,
    gemini_error,
    gemini_stream,
    lines,
    printing,
    qwen,
)

from instrument import Operation, tracked
from instrument.testing import CapturedOperations, capture
from instrument.usage import Reading, new_merge, reader_for


def recorded(call: Any) -> Operation:
    """Return the operation that a tracked call becomes."""
    with capture() as operations:
        tracked(service="tool", operation="run")(call)()
        return only(operations)


def run(out: str, **options: Any) -> Operation:
    """Return the operation that a process becomes which prints this."""
    return recorded(lambda: printing(out, **options))


def counts(found: Any) -> tuple[Any, ...]:
    return (
        found.input_tokens,
        found.output_tokens,
        found.cache_read_tokens,
        found.cache_write_tokens,
        found.reasoning_tokens,
    )


def ending(found: Operation) -> tuple[Any, ...]:
    return found.outcome, found.error_type, found.error_message


def told(found: Operation) -> tuple[Any, ...]:
    return found.provider, found.kind, found.model, found.metadata.get("conversation_id")


PRETTY = json.dumps(gemini(), indent=2) + "\n"


def test_gemini_sums_its_models_with_tool_use_and_thoughts_added() -> None:
    found = run(PRETTY)
    assert counts(found) == (24954 + 8993, 174 + 40, 8939, None, 184)
    assert (found.tokens, found.outcome) == (25128 + 9033, "ok")
    assert told(found) == ("gcp.gemini", "invoke_agent", None, SESSION)
    assert found.metadata["models"]["gemini-2.5-flash"] == {
        "input_tokens": 8993,
        "output_tokens": 40,
        "cache_read_tokens": 0,
        "reasoning_tokens": 30,
        "total_tokens": 9033,
    }


def test_geminis_thoughts_are_output_and_its_total_stands() -> None:
    tokens = {"prompt": 55021, "candidates": 923, "thoughts": 785, "total": 56729, "tool": 0}
    only_one = {"models": {"gemini-3-pro": {"api": {}, "tokens": tokens}}, "tools": {}}
    found = run(json.dumps(gemini(stats=only_one)))
    assert counts(found) == (55021, 1708, None, None, 785)
    assert (found.tokens, found.model) == (56729, "gemini-3-pro")
    assert "models" not in found.metadata


@pytest.mark.parametrize("models", [True, False])
def test_geminis_stream_says_its_sums_once_at_the_end(models: bool) -> None:
    found = run(lines(*gemini_stream(models=models)))
    assert counts(found) == (8965, 10, 4100, None, None)
    assert (found.tokens, ending(found)) == (9033, ("ok", None, None))
    assert told(found) == ("gcp.gemini", "invoke_agent", "gemini-2.5-pro", SESSION)


def test_claude_adds_its_caches_and_its_models_and_names_what_they_cost_together() -> None:
    found = run(json.dumps(claude()))
    assert counts(found) == (130213 + 300, 10 + 12, 128955, 1253, None)
    assert (found.cost_usd, found.cost_source) == (0.0412, "provider")
    assert told(found) == ("anthropic", "invoke_agent", None, SESSION)
    assert found.metadata["models"][HAIKU]["cost_usd"] == 0.0007
    assert found.response_id == claude()["uuid"]


def test_claudes_usage_counts_where_no_model_is_named() -> None:
    found = run(json.dumps(claude(modelUsage=None)))
    assert counts(found) == (130213, 10, 128955, 1253, None)


def test_claudes_result_repeats_its_messages_and_counts_once() -> None:
    alone = {CLAUDE: claude_model(5, 1253, 128955, 10, cost=0.0412)}
    found = run(lines(*claude_stream(claude(modelUsage=alone))))
    assert counts(found) == (130213, 10, 128955, 1253, None)
    assert told(found) == ("anthropic", "invoke_agent", CLAUDE, SESSION)


def test_a_run_of_claude_without_its_result_is_what_its_messages_say() -> None:
    found = run(lines(*claude_stream(None)), code=-9)
    assert counts(found) == (5 + 1253 + 128955, 2, 128955, 1253, None)
    assert (found.model, ending(found)) == (CLAUDE, ("error", "exit_-9", None))


def test_the_events_of_claudes_partial_messages_replace_what_they_repeat() -> None:
    start = claude_usage(3, 0, 7, 1)
    message = {"id": "msg_1", "model": CLAUDE, "usage": start}
    events = [
        {"type": "message_start", "message": message},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 321}},
    ]
    head = {"session_id": SESSION, "parent_tool_use_id": None, "uuid": "e"}
    partial = [{"type": "stream_event", "event": event, **head} for event in events]
    found = run(lines(partial[0], claude_message(1, start), partial[1]))
    assert counts(found) == (10, 321, 7, 0, None)
    assert found.response_id == "msg_1"


def test_later_results_of_one_run_of_claude_repeat_its_models_and_its_cost() -> None:
    one, both = claude_model(5, 0, 0, 10, cost=0.1), claude_model(9, 0, 0, 15, cost=0.3)
    usage, more = claude_usage(5, 0, 0, 10), claude_usage(4, 0, 0, 5)
    first = claude(usage=usage, modelUsage={CLAUDE: one}, total_cost_usd=0.1)
    second = claude(usage=more, modelUsage={CLAUDE: both}, total_cost_usd=0.3, uuid="2")
    found = run(lines(*claude_stream(first), second))
    assert (found.input_tokens, found.output_tokens, found.cost_usd) == (9, 15, 0.3)


def test_runs_of_different_sessions_are_summed() -> None:
    found = run(lines(claude(), claude(session_id="other", uuid="2")))
    assert (found.input_tokens, found.cost_usd) == (2 * 130513, 0.0824)


@pytest.mark.parametrize(
    "turns", [[(26549, 22272, 1590)], [(20000, 2272, 590), (6549, 20000, 1000)]]
)
def test_codex_sums_its_turns_with_the_cache_inside(turns: list[tuple[int, int, int]]) -> None:
    found = run(lines(*codex(*turns)))
    assert (found.tokens, counts(found)) == (28139, (26549, 1590, 22272, None, None))
    assert told(found) == ("openai", "invoke_agent", None, SESSION)


def test_codex_reasoning_is_inside_the_output() -> None:
    usage = {"input_tokens": 26549, "cached_input_tokens": 22272, "output_tokens": 1590}
    found = run(
        lines({"type": "turn.completed", "usage": {**usage, "reasoning_output_tokens": 1152}})
    )
    assert (found.tokens, counts(found)) == (28139, (26549, 1590, 22272, None, 1152))


def test_qwens_input_holds_its_cache_and_its_result_counts_once() -> None:
    found = run(json.dumps(qwen()))
    assert counts(found) == (12500, 100, 8000, None, None)
    assert found.tokens == 12600
    assert told(found) == ("qwen", "invoke_agent", "qwen3-coder-plus", SESSION)


def test_qwens_messages_without_a_result_hold_their_cache_too() -> None:
    found = recorded(lambda: qwen()[:-1])
    assert counts(found) == (12500, 100, 8000, None, None)


@pytest.mark.parametrize(
    "out",
    [
        PRETTY,
        lines(*gemini_stream()),
        json.dumps(claude()),
        lines(*codex((9, 4, 1))),
        json.dumps(qwen()),
    ],
    ids=["gemini", "gemini-stream", "claude", "codex", "qwen"],
)
def test_text_bytes_a_process_and_its_pair_of_outputs_say_the_same(out: str) -> None:
    async def communicated() -> tuple[bytes, bytes]:
        script = f"import sys; sys.stdout.write({out!r}); sys.stderr.write('cached\\n')"
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return await child.communicate()

    def pair() -> tuple[bytes, bytes]:
        return asyncio.run(communicated())

    forms = [lambda: out, out.encode, lambda: printing(out, text=False), pair]
    facts = [(counts(found), told(found), found.tokens) for found in map(recorded, forms)]
    assert facts == [facts[0]] * 4
    assert facts[0][0][0]


@pytest.mark.parametrize(
    "messages", [gemini_stream(), claude_stream(claude()), codex((9, 4, 1)), qwen()]
)
def test_messages_that_a_generator_yields_are_read_as_the_output_is(messages: list[Any]) -> None:
    def parsed() -> Iterator[Any]:
        yield from messages

    def printed() -> Iterator[str]:
        yield from lines(*messages).splitlines(keepends=True)

    whole = run(lines(*messages))
    for form in (parsed, printed):
        with capture() as operations:
            list(tracked(service="tool", operation="run")(form)())
            found = only(operations)
        assert (counts(found), told(found), found.cost_usd) == (
            counts(whole),
            told(whole),
            whole.cost_usd,
        )


@pytest.mark.parametrize("noise", ["Loaded cached credentials.\n", "\n\n", "warn: {x}\nready\n"])
def test_lines_before_the_json_do_not_hide_it(noise: str) -> None:
    assert run(noise + PRETTY).tokens == run(noise + lines(*gemini_stream())).tokens + 25128
    assert run(PRETTY + "Update available!\n").tokens == run(PRETTY).tokens


def test_a_process_and_its_own_text_count_once_however_they_are_handed_on() -> None:
    with capture() as operations:
        inner = tracked(service="s", operation="inner")(lambda: printing(PRETTY))
        tracked(service="s", operation="outer")(lambda: inner().stdout)()
    assert named(operations, "outer").tokens is None
    assert named(operations, "outer").usage_operation_id == named(operations, "inner").operation_id


def test_an_output_that_was_not_captured_says_only_its_code() -> None:
    found = run("", code=7, capture_output=False)
    assert (ending(found), found.tokens) == (("error", "exit_7", None), None)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            claude(is_error=True, result="API Error: Overloaded", api_error_status=529),
            ("error", "http_529", "API Error: Overloaded"),
        ),
        (
            claude(
                is_error=True, subtype="error_max_turns", result=None, terminal_reason="max_turns"
            ),
            ("error", "error_max_turns", None),
        ),
        (
            claude(is_error=True, subtype="error_during_execution", errors=["a", "b"], result=None),
            ("error", "error_during_execution", "a"),
        ),
        (
            claude(is_error=True, result="Not trusted", terminal_reason="api_error"),
            ("error", "api_error", "Not trusted"),
        ),
        (
            claude(
                is_error=True, subtype="error_during_execution", terminal_reason="aborted_tools"
            ),
            ("cancelled", "aborted_tools", None),
        ),
        ({"type": "result", "is_error": True}, ("error", "error", None)),
    ],
)
@pytest.mark.parametrize("code", [0, 1])
def test_claude_says_how_it_ended_whatever_its_exit_code(
    result: dict[str, Any], expected: tuple[Any, ...], code: int
) -> None:
    if expected[1] == "error" and code:
        expected = ("error", "exit_1", None)
    found = run(lines(result), code=code)
    assert ending(found) == expected


def test_a_failed_run_of_claude_has_cost_what_it_has() -> None:
    found = run(json.dumps(claude(is_error=True, result="API Error")), code=1)
    assert (found.cost_usd, found.input_tokens, found.success) == (0.0412, 130513, False)


@pytest.mark.parametrize(
    ("message", "error_type"),
    [
        ("exceeded retry limit, last status: 429 Too Many Requests", "http_429"),
        ("unexpected status 401 Unauthorized: Missing bearer", "http_401"),
        (
            '{"type":"error","error":{"type":"invalid_request_error","message":"m"}}',
            "invalid_request_error",
        ),
        ("stream disconnected", "turn.failed"),
    ],
)
def test_codex_fails_with_the_code_that_its_message_holds(message: str, error_type: str) -> None:
    end = [
        {"type": "error", "message": message},
        {"type": "turn.failed", "error": {"message": message}},
    ]
    found = recorded(lambda: lines(*codex((9, 4, 1), end=end)))
    assert ending(found) == ("error", error_type, message)
    assert found.input_tokens == 9


def test_codex_that_tried_again_did_not_fail() -> None:
    again = {"type": "error", "message": "Reconnecting... 1/5"}
    started, *rest = codex((9, 4, 1))
    assert ending(run(lines(started, again, *rest))) == ("ok", None, None)
    assert ending(run(lines(started, again), code=1))[0] == "error"


@pytest.mark.parametrize(
    ("code", "error", "expected"),
    [
        (53, gemini_error("FatalTurnLimitedError", "Reached max", 53), "FatalTurnLimitedError"),
        (1, gemini_error("ApiError", "Quota", 429), "429"),
        (1, gemini_error("Error", "boom", 1), "exit_1"),
        (1, gemini_error("GaxiosError", "no", "ECONNRESET"), "ECONNRESET"),
        (42, None, "exit_42"),
    ],
)
def test_gemini_complains_in_json_on_stderr_and_the_code_in_it_wins(
    code: int, error: Any, expected: str
) -> None:
    complaint = "" if error is None else "Warning: slow\n" + json.dumps(error, indent=2) + "\n"
    found = run("", code=code, err=complaint)
    assert ending(found) == ("error", expected, error and error["error"]["message"])


def test_a_run_of_gemini_that_was_interrupted_is_cancelled() -> None:
    error = gemini_error("FatalCancellationError", "Operation cancelled.", 130)
    found = run("", code=130, err=json.dumps(error, indent=2))
    assert found.outcome == "cancelled"


def test_geminis_stream_may_end_with_an_error() -> None:
    error = {"type": "FatalToolExecutionError", "message": "no space"}
    found = run(lines(*gemini_stream(status="error", error=error)), code=54)
    assert ending(found) == ("error", "FatalToolExecutionError", "no space")
    assert found.input_tokens == 8965


def test_qwen_says_that_it_failed() -> None:
    error = {"type": "rate_limit", "message": "Slow down."}
    messages = qwen(subtype="error_during_execution", is_error=True, error=error)
    assert ending(run(json.dumps(messages))) == ("error", "rate_limit", "Slow down.")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            {"status": "failed", "error": {"code": "card_declined", "message": "m"}},
            ("card_declined", "m"),
        ),
        ({"status": "failed"}, ("failed", None)),
        ({"status": "failed", "error": "no funds"}, ("failed", "no funds")),
        ({"type": "turn.failed", "error": {"message": "m"}}, ("turn.failed", "m")),
    ],
)
def test_a_json_object_that_says_it_failed_is_an_error(
    result: Any, expected: tuple[Any, ...]
) -> None:
    for form in (lambda: result, lambda: json.dumps(result)):
        assert ending(recorded(form)) == ("error", *expected)


def test_an_answer_of_an_aws_service_says_its_status() -> None:
    metadata = {"HTTPStatusCode": 404, "HTTPHeaders": {"x-amzn-requestid": "r-1"}}
    answer = {"ResponseMetadata": metadata, "Error": {"Code": "NoSuchKey", "Message": "m"}}
    found = recorded(lambda: answer)
    assert ending(found) == ("error", "http_404", "m")
    assert found.metadata == {"http_status": 404, "error_code": "NoSuchKey", "request_id": "r-1"}


@pytest.mark.parametrize(
    "result",
    [
        {"status": "ok"},
        {"status": "failing"},
        {"type": "result", "value": 3},
        {"type": "system", "content": "Be brief."},
        {"type": "error", "message": "m"},
        {"stats": {"models": {}}},
        {"session_id": "x", "response": "y"},
        {"ResponseMetadata": {"HTTPStatusCode": 200}},
    ],
)
def test_objects_that_only_look_alike_say_nothing(result: dict[str, Any]) -> None:
    found = recorded(lambda: result)
    assert (found.outcome, found.tokens, found.provider) == ("ok", None, None)


def read(value: Any) -> Reading | None:
    reader = reader_for(type(value))
    return None if reader is None else reader(value)


COUNT = st.integers(0, 10**9)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
SAMPLES = [*gemini_stream(), *claude_stream(claude()), *codex((9, 4, 1)), *qwen(), gemini()]


@given(st.data())
def test_messages_with_anything_in_place_of_anything_never_raise(data: st.DataObject) -> None:
    messages = data.draw(st.lists(st.sampled_from(SAMPLES), min_size=1, max_size=6))
    changed = [_changed(data, message) for message in messages]
    merge = new_merge()
    for message in changed:
        merge.add(message)
        read(message)
    merge.reading()
    text = lines(*changed)
    for form in (changed, text, text.encode(), subprocess.CompletedProcess("x", 3, text, text)):
        read(form)


def _changed(data: st.DataObject, message: dict[str, Any]) -> dict[str, Any]:
    name = data.draw(st.sampled_from(sorted(message)))
    inner = message[name]
    if isinstance(inner, dict) and inner and data.draw(st.booleans()):
        return {**message, name: _changed(data, inner)}
    return {**message, name: data.draw(JUNK)}


@given(st.text() | st.text(alphabet='{}[]":,\n usagestats'), st.integers(-20, 200))
def test_any_output_of_a_process_is_survived(text: str, code: int) -> None:
    for out in (text, text.encode("utf-8", "replace"), "{" + text, "log\n{" + text):
        found = read(subprocess.CompletedProcess("x", code, out, out))
        assert (found is None or found.outcome is None) == (code == 0) or code == 0


@given(COUNT, COUNT, COUNT, COUNT, COUNT)
def test_the_cache_is_in_the_input_and_reasoning_in_the_output(
    new: int, cached: int, written: int, output: int, thoughts: int
) -> None:
    tokens = {"prompt": new + cached, "cached": cached, "candidates": output, "thoughts": thoughts}
    usage = {"input_tokens": new + cached, "cached_input_tokens": cached}
    for document in (
        gemini(stats={"models": {"m": {"tokens": tokens}}}),
        claude(usage=claude_usage(new, written, cached, output), modelUsage=None),
        claude(modelUsage={"m": claude_model(new, written, cached, output, cost=1)}),
        {"type": "turn.completed", "usage": {**usage, "output_tokens": output}},
    ):
        found = read(json.dumps(document))
        assert found is not None
        assert (found.cache_read_tokens or 0) + (
            found.cache_write_tokens or 0
        ) <= found.input_tokens
        assert (found.reasoning_tokens or 0) <= found.output_tokens


TEN_MB = 10_000_000
NOISE = {
    "letters": "x" * TEN_MB,
    "braces": "{\n" * (TEN_MB // 2),
    "objects": "{}\n" * (TEN_MB // 3),
    "words": '{"a": "usage"}\n' * (TEN_MB // 15),
    "usages": '{"usage"}\n' * (TEN_MB // 10),
    "array": "[" + '{"usage":1},' * (TEN_MB // 12) + "1]",
    "run": '[{"type":"system","session_id":"s"}' + ',{"usage":1}' * (TEN_MB // 12) + "]",
    "logs": "log line with some words in it\n" * (TEN_MB // 31),
    "late": "log line\n" * (TEN_MB // 9) + PRETTY,
}


@pytest.mark.parametrize("noise", NOISE)
def test_ten_megabytes_of_noise_are_read_quickly(noise: str) -> None:
    process = subprocess.CompletedProcess("x", 0, NOISE[noise], "")
    started = time.process_time()
    read(process)
    assert time.process_time() - started < 5


def test_a_tracked_run_returns_the_process_itself(capture_operations: CapturedOperations) -> None:
    done = subprocess.CompletedProcess("x", 0, PRETTY, "")
    assert tracked(service="s")(lambda: done)() is done
    assert only(capture_operations).input_tokens == 33947
