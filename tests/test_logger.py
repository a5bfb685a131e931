"""`UsageLogger` and `correlate_sessions`: the original's interface over this log.

The examples are those of the original's notes: claude-night-market, (c) 2025 athola, MIT licence.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from tempfile import gettempdir
from types import SimpleNamespace
from typing import Any

import pytest
from child import raw_ids, raw_lines, run, start
from log_writing import operation as line
from log_writing import write
from responses import chat, only

from instrument import (
    ConfigurationError,
    InstrumentWarning,
    UsageLog,
    UsageLogger,
    configure,
    correlate_sessions,
    current_session,
    session,
    track,
    tracked,
)
from instrument.testing import CapturedOperations, capture

# As the original wrote them: the files `my-service.jsonl` and `my-service_session.json`.
ORIGINAL = b"""\
{"timestamp": "2026-11-24T18:48:15.081877Z", "session_id": "session_1795546095", \
"service": "my-service", "operation": "analyze_files", "tokens": 5000, "success": true, \
"duration_seconds": 2.5, "error_type": null, "error_message": null, "metadata": {"files": 10}}
{"timestamp": "2026-11-24T18:48:15.082097Z", "session_id": "session_1795546095", \
"service": "my-service", "operation": "ask", "tokens": 0, "success": false, \
"duration_seconds": 0.5, "error_type": "RateLimitError", \
"error_message": "Rate limit exceeded", "metadata": {}}
"""
ORIGINAL_SESSION = (
    '{"session_id": "session_1795546095", "created_at": 1795546095.08, "last_activity": 1.0}'
)
SUMMARY_OF_NOTHING = {
    "error_count": 0,
    "total_tokens": 0,
    "operations_without_usage": 0,
    "success_rate": 0.0,
    "total_duration": 0.0,
    "estimated_cost": 0.0,
}


class Quiet:
    """Something whose every method fails."""

    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __bool__ = __repr__


@pytest.fixture
def log() -> Iterator[CapturedOperations]:
    with capture() as operations:
        yield operations


def segment(log_dir: Path) -> Path:
    (found,) = (log_dir / "journal").iterdir()
    return found


def written(log_dir: Path) -> Any:
    """Return the one line of the journal."""
    return json.loads(only(raw_lines(log_dir)))


def names(entries: list[dict[str, Any]]) -> list[str]:
    return [each["operation"] for each in entries]


# The examples of the original's notes (SKILL.md, session-patterns.md), as they stand there.


def test_quick_start_of_the_notes(log: CapturedOperations) -> None:
    logger = UsageLogger(service="my-service")
    logger.log_usage(
        operation="analyze_files", tokens=5000, success=True, duration=2.5, metadata={"files": 10}
    )
    recent = logger.get_recent_operations(hours=24)
    summary = logger.get_usage_summary(days=7)
    errors = logger.get_recent_errors(count=10)
    assert names(recent) == ["analyze_files"]
    assert f"Total tokens: {summary['total_tokens']}" == "Total tokens: 5000"
    assert f"Total cost: ${summary['estimated_cost']:.2f}" == "Total cost: $0.00"
    assert errors == []


def _get_or_create_session(self: Any) -> Any:
    session_file = self.log_dir / "session.json"
    if session_file.exists():
        session = json.loads(session_file.read_text())
        if time.time() - session["last_activity"] < 3600:
            return session["session_id"]
    session_id = f"session_{int(time.time())}"
    session_file.write_text(
        json.dumps(
            {"session_id": session_id, "created_at": time.time(), "last_activity": time.time()}
        )
    )
    return session_id


def _update_session_activity(self: Any) -> None:
    session_file = self.log_dir / "session.json"
    if session_file.exists():
        session = json.loads(session_file.read_text())
        session["last_activity"] = time.time()
        session_file.write_text(json.dumps(session))


def get_session_operations(self: Any, session_id: str) -> list[dict[str, Any]]:
    operations = []
    for line in self.log_file.read_text().splitlines():  # noqa: F402 - as the notes have it
        entry = json.loads(line)
        if entry.get("session_id") == session_id:
            operations.append(entry)
    return operations


def get_session_stats(self: Any, session_id: str) -> dict[str, Any]:
    ops = self.get_session_operations(session_id)
    return {
        "operation_count": len(ops),
        "total_tokens": sum(o.get("tokens", 0) for o in ops),
        "success_rate": sum(1 for o in ops if o["success"]) / len(ops),
        "total_duration": sum(o.get("duration_seconds", 0) for o in ops),
    }


def correlate_sessions_of_the_notes(loggers: list[UsageLogger]) -> list[dict[str, Any]]:
    all_ops = []
    for logger in loggers:
        all_ops.extend(logger.get_recent_operations(hours=1))
    all_ops.sort(key=lambda x: x["timestamp"])
    return all_ops


def test_creation_of_the_notes_finds_the_session_that_we_made(log: CapturedOperations) -> None:
    logger = UsageLogger("gemini")
    logger.log_usage("ask")
    notes = SimpleNamespace(log_dir=log.log_dir)
    assert _get_or_create_session(notes) == logger.session_id == log[0].session_id


def test_we_resume_a_session_that_the_notes_made(log: CapturedOperations) -> None:
    made = _get_or_create_session(SimpleNamespace(log_dir=log.log_dir))
    UsageLogger("gemini").log_usage("ask")
    assert only(log).session_id == made


def test_activity_of_the_notes_keeps_our_session_alive(log: CapturedOperations) -> None:
    stale = {"session_id": "early", "created_at": 1.0, "last_activity": time.time() - 3599.9}
    (log.log_dir / "session.json").write_text(json.dumps(stale))
    _update_session_activity(SimpleNamespace(log_dir=log.log_dir))
    time.sleep(0.2)
    UsageLogger("gemini").log_usage("ask")
    assert only(log).session_id == "early"


def test_query_of_the_notes_reads_our_lines(log: CapturedOperations) -> None:
    with session(id="shared"):
        UsageLogger("gemini").log_usage("ask", tokens=7)
    UsageLogger("gemini").log_usage("other")
    found = get_session_operations(SimpleNamespace(log_file=segment(log.log_dir)), "shared")
    assert [(each["operation"], each["tokens"]) for each in found[1:]] == [("ask", 7)]


def test_statistics_of_the_notes_are_those_of_the_method(log: CapturedOperations) -> None:
    logger = UsageLogger("gemini", session_id="shared")
    logger.log_usage("ask", tokens=100, duration=1.5)
    logger.log_usage("ask", tokens=20, duration=0.5, success=False, error_type="RateLimitError")
    theirs = get_session_stats(logger, "shared")
    assert theirs.items() <= logger.get_session_stats("shared").items()
    assert list(theirs.values()) == [2, 120, 0.5, 2.0]


def test_shared_ids_of_the_notes_make_one_session(log: CapturedOperations) -> None:
    shared_session = "session_1733394600"
    logger1 = UsageLogger(service="gemini", session_id=shared_session)
    logger2 = UsageLogger(service="qwen", session_id=shared_session)
    logger1.log_usage("ask", tokens=1)
    logger2.log_usage("check", tokens=2)
    assert log.stats(shared_session).services == ("gemini", "qwen")
    assert names(correlate_sessions([logger1, logger2])) == ["ask", "check"]


def test_correlation_of_the_notes_is_ours_within_one_session(log: CapturedOperations) -> None:
    loggers = [UsageLogger("gemini"), UsageLogger("qwen")]
    for number in range(6):
        loggers[number % 2].log_usage(f"step {number}")
    assert correlate_sessions(loggers) == correlate_sessions_of_the_notes(loggers)
    assert names(correlate_sessions(loggers)) == [f"step {number}" for number in range(6)]


def test_a_line_has_the_keys_of_the_record(log: CapturedOperations) -> None:
    logger = UsageLogger("gemini")
    logger.log_usage("ask", 5, success=False, error_type="E", error_message="m", metadata={"a": 1})
    found = written(log.log_dir)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", found.pop("timestamp"))
    assert re.fullmatch("[0-9a-f]{16}", found.pop("operation_id"))
    assert found == {
        "session_id": logger.session_id,
        "service": "gemini",
        "operation": "ask",
        "success": False,
        "duration_seconds": 0.0,
        "tokens": 5,
        "metadata": {"a": 1},
        "error_type": "E",
        "error_message": "m",
        "pid": os.getpid(),
    }


@pytest.mark.parametrize("tokens", [{}, {"tokens": 0}])
def test_tokens_are_always_written(log: CapturedOperations, tokens: dict[str, int]) -> None:
    UsageLogger("gemini").log_usage("ask", **tokens)
    assert written(log.log_dir)["tokens"] == 0


def test_the_timestamp_is_the_start_though_it_is_logged_at_the_end(
    log: CapturedOperations,
) -> None:
    before = datetime.now(UTC)
    UsageLogger("gemini").log_usage("ask", duration=90.5)
    after = datetime.now(UTC)
    began = only(log).timestamp + timedelta(seconds=90.5)
    assert before - timedelta(milliseconds=1) <= began <= after


def test_what_is_logged_belongs_to_the_tracked_call_around_it(log: CapturedOperations) -> None:
    with session("job") as outer, session("part") as inner, track("step", service="s") as step:
        UsageLogger("gemini").log_usage("ask")
    found = log.log.operations(operation="ask")[0]
    assert (found.parent_id, found.session_id) == (step.id, inner.id)
    assert (found.session_name, found.parent_session_id) == ("part", outer.id)


def test_a_process_logs_into_what_it_was_started_from(tmp_path: Path) -> None:
    with session("parent") as work:
        handed = work.env() | {"INSTRUMENT_DIR": str(tmp_path), "INSTRUMENT_PARENT_ID": "a" * 16}
    program = """
    from instrument import UsageLogger
    UsageLogger("gemini").log_usage("current")
    UsageLogger("gemini", session_id="mine").log_usage("given")
    """
    assert run(program, tmp_path, env=handed) == ("", "")
    current, given = UsageLog(tmp_path).operations()
    assert (current.session_id, given.session_id) == (work.id, "mine")
    assert (current.parent_id, current.trace_id) == (given.parent_id, given.trace_id)
    assert (given.parent_id, given.trace_id) == ("a" * 16, handed["TRACEPARENT"].split("-")[1])


def test_the_session_is_looked_up_at_each_call(log: CapturedOperations) -> None:
    logger = UsageLogger("gemini")
    with session() as first:
        logger.log_usage("a")
        assert logger.session_id == first.id
    with session() as second:
        logger.log_usage("b")
    assert [each.session_id for each in log] == [first.id, second.id]
    assert logger.session_id == current_session().id


def test_a_given_session_is_kept_inside_of_another(log: CapturedOperations) -> None:
    logger = UsageLogger("gemini", session_id="mine")
    with session("other"):
        logger.log_usage("ask")
    found = only(log)
    assert (found.session_id, found.session_name, logger.session_id) == ("mine", None, "mine")


def test_a_given_session_is_named_where_it_is_entered(log: CapturedOperations) -> None:
    with session("job", id="mine"), session("part"):
        UsageLogger("gemini", session_id="mine").log_usage("ask")
    assert (only(log).session_id, only(log).session_name) == ("mine", "job")


def test_a_given_session_and_reading_are_no_activity_of_the_ambient_one(
    log: CapturedOperations,
) -> None:
    logger = UsageLogger("gemini", session_id="mine")
    logger.log_usage("ask")
    logger.get_session_operations()
    logger.get_recent_operations()
    assert not (log.log_dir / "session.json").exists()


def test_logging_refreshes_the_ambient_session_and_asking_for_it_does_not(
    log: CapturedOperations,
) -> None:
    stored = log.log_dir / "session.json"
    early = {"session_id": "early", "created_at": 1.0, "last_activity": time.time() - 60}
    stored.write_text(json.dumps(early))
    logger = UsageLogger("gemini")
    assert logger.session_id == "early"
    assert json.loads(stored.read_text()) == early
    logger.log_usage("ask")
    assert json.loads(stored.read_text())["last_activity"] > early["last_activity"] + 59


IMPOSSIBLE = {
    "negative tokens": ({"tokens": -5}, {"tokens": -5}),
    "absurd tokens": ({"tokens": 10**13}, {"tokens": 10**13}),
    "tokens that are no count": ({"tokens": float("nan")}, {"tokens": "nan"}),
    "tokens as text": ({"tokens": "5"}, {"tokens": "5"}),
    "tokens as truth": ({"tokens": True}, {"tokens": True}),
    "negative duration": ({"duration": -1.0}, {"duration_seconds": -1.0}),
    "duration that is no number": ({"duration": float("nan")}, {"duration_seconds": "nan"}),
    "endless duration": ({"duration": float("inf")}, {"duration_seconds": "inf"}),
    "longer than time": ({"duration": 1e15}, {"duration_seconds": 1e15}),
    "duration as text": ({"duration": "fast"}, {"duration_seconds": "fast"}),
}


@pytest.mark.parametrize(("given", "named"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_is_impossible_is_left_out_and_named(
    log: CapturedOperations, given: dict[str, Any], named: dict[str, Any]
) -> None:
    UsageLogger("gemini").log_usage("ask", **{"tokens": 3, "duration": 2.0, **given})
    found = only(log)
    assert found.metadata == {"impossible_usage": named}
    assert (found.tokens, found.duration_seconds) == (
        None if "tokens" in given else 3,
        0.0 if "duration" in given else 2.0,
    )


STRANGE: dict[str, dict[str, Any]] = {
    "long text": {"metadata": {"text": "x" * 10_000_000}},
    "too long for a line": {"metadata": {"text": "x" * 20_000_000}},
    "NaN": {"metadata": {"value": float("nan")}},
    "lone surrogates": {"operation": "a\ud800", "error_type": "\udfff", "metadata": {"\ud800": 1}},
    "no JSON": {"metadata": {"object": object(), 3: {4, 5}}},
    "failing objects": {"metadata": {"a": Quiet()}, "success": Quiet(), "error_message": Quiet()},
    "no dict": {"metadata": 5},
    "no text": {"operation": None, "error_type": ValueError, "error_message": ValueError("m")},
}


@pytest.mark.filterwarnings("ignore::instrument.InstrumentWarning")
@pytest.mark.parametrize("given", STRANGE.values(), ids=STRANGE)
def test_no_record_is_lost_for_what_it_holds(
    log: CapturedOperations, given: dict[str, Any]
) -> None:
    UsageLogger("gemini").log_usage(**{"operation": "ask", "tokens": 3, **given})
    assert (only(log).service, only(log).tokens, only(log).success) == ("gemini", 3, True)


def test_messages_follow_the_settings() -> None:
    def redact(field: str, value: Any) -> Any:
        return None if field == "secret" else value

    with capture(redact=redact) as log:
        metadata = {"secret": 1, "open": 2}
        UsageLogger("gemini").log_usage("ask", error_message="m" * 600, metadata=metadata)
    assert (only(log).error_message, only(log).metadata) == ("m" * 500, {"open": 2})
    with capture(error_messages=False) as log:
        UsageLogger("gemini").log_usage("ask", error_message="m")
    assert only(log).error_message is None


def test_logging_while_a_record_is_made_leaves_none(log: CapturedOperations) -> None:
    logger = UsageLogger("gemini")

    def redact(field: str, value: Any) -> Any:
        logger.log_usage("inner", metadata={"a": 1})
        return value

    with capture(redact=redact) as inner:
        logger.log_usage("outer", metadata={"a": 1})
    assert [each.operation for each in inner] == ["outer"]


def test_nothing_is_written_where_recording_is_off(tmp_path: Path) -> None:
    program = """
    from instrument import UsageLogger
    logger = UsageLogger("gemini")
    logger.log_usage("ask")
    print(logger.session_id.startswith("session_"), logger.get_recent_operations())
    """
    off = {"INSTRUMENT_DISABLED": "1"}
    assert run(program, tmp_path / "log", env=off) == ("True []", "")
    assert not (tmp_path / "log").exists()


def test_a_directory_of_its_own_has_its_own_log_and_ambient_session(
    log: CapturedOperations, tmp_path: Path
) -> None:
    usual, own = UsageLogger("gemini"), UsageLogger("gemini", log_dir=tmp_path)
    usual.log_usage("here")
    own.log_usage("there")
    assert names(own.get_recent_operations()) == ["there"]
    assert names(usual.get_recent_operations()) == ["here"]
    assert own.session_id == json.loads((tmp_path / "session.json").read_text())["session_id"]
    assert own.session_id != usual.session_id


def test_an_explicit_session_holds_in_every_directory(
    log: CapturedOperations, tmp_path: Path
) -> None:
    with session() as work:
        UsageLogger("gemini", log_dir=tmp_path).log_usage("there")
    assert only(UsageLog(tmp_path).operations()).session_id == work.id


def test_the_configured_directory_is_looked_up_at_each_call(tmp_path: Path) -> None:
    logger = UsageLogger("gemini")
    with capture() as first:
        logger.log_usage("a")
    with capture() as second:
        logger.log_usage("b")
        assert names(logger.get_recent_operations()) == ["b"]
    assert [each.operation for each in (*first, *second)] == ["a", "b"]


def test_a_directory_of_its_own_follows_the_other_settings(tmp_path: Path) -> None:
    logger = UsageLogger("gemini", log_dir=tmp_path)
    with capture():
        logger.log_usage("a", error_message="m")
        configure(error_messages=False)
        logger.log_usage("b", error_message="m")
        configure(enabled=False)
        logger.log_usage("c")
    found = UsageLog(tmp_path).operations()
    assert [(each.operation, each.error_message) for each in found] == [("a", "m"), ("b", None)]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"service": ""}, "service=''"),
        ({"service": 5}, "service=5"),
        ({"session_id": "two words"}, "session id='two words'"),
        ({"session_id": ""}, "session id=''"),
        ({"log_dir": 5}, "log_dir=5"),
        ({"log_dir": "\0"}, "log_dir='\\x00'"),
    ],
)
def test_mistakes_are_told_at_once(options: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(wrong)):
        UsageLogger(**{"service": "gemini", **options})


def test_entries_have_the_original_keys_and_what_else_is_known(log: CapturedOperations) -> None:
    with session(id="work"), track("ask", service="gemini", model="m") as op:
        op.set_usage(input_tokens=10, output_tokens=5, cost_usd=0.5)
    (found,) = UsageLogger("gemini").get_session_operations("work")
    duration, start_at = found.pop("duration_seconds"), only(log).timestamp
    assert duration == only(log).duration_seconds
    assert datetime.fromisoformat(found.pop("timestamp")) == start_at
    assert found == {
        "session_id": "work",
        "service": "gemini",
        "operation": "ask",
        "tokens": 15,
        "success": True,
        "error_type": None,
        "error_message": None,
        "metadata": {},
        "outcome": "ok",
        "operation_id": op.id,
        "model": "m",
        "input_tokens": 10,
        "output_tokens": 5,
        "cost_usd": 0.5,
        "cost_source": "caller",
        "pid": os.getpid(),
    }


def test_tokens_that_were_not_reported_can_be_summed_and_say_so(log: CapturedOperations) -> None:
    logger = UsageLogger("gemini", session_id="work")
    logger.log_usage("zero", tokens=0)
    logger.log_usage("unknown", tokens=None)
    found = logger.get_session_operations()
    assert [each["tokens"] for each in found] == [0, 0]
    assert [each.get("tokens_reported", True) for each in found] == [True, False]
    assert logger.get_session_stats()["operations_without_usage"] == 1


def test_a_logger_reads_its_own_service_alone(log: CapturedOperations) -> None:
    UsageLogger("gemini").log_usage("ask", tokens=1)
    UsageLogger("qwen").log_usage("check", tokens=2)
    logger = UsageLogger("qwen")
    assert names(logger.get_recent_operations()) == ["check"]
    assert names(logger.get_session_operations()) == ["check"]
    assert logger.get_session_stats()["total_tokens"] == 2
    assert logger.get_usage_summary()["total_tokens"] == 2


def test_what_was_tracked_is_read_too(log: CapturedOperations) -> None:
    tracked(service="openai")(chat)()
    assert UsageLogger("openai").get_usage_summary()["total_tokens"] == 15


@pytest.mark.parametrize(
    ("hours", "count"),
    [(24, 1), (0.5, 1), (0, 0), (-3, 0), (10**400, 1), (-(10**400), 0), (float("inf"), 1)],
)
def test_any_number_is_a_window(log: CapturedOperations, hours: float, count: int) -> None:
    logger = UsageLogger("gemini")
    logger.log_usage("ask")
    assert len(logger.get_recent_operations(hours)) == count
    assert logger.get_usage_summary(days=hours)["total_operations"] == count


def test_windows_leave_out_what_began_earlier(log: CapturedOperations) -> None:
    logger = UsageLogger("gemini")
    logger.log_usage("early", duration=7201)
    logger.log_usage("late", duration=7199)
    assert names(logger.get_recent_operations(hours=2)) == ["late"]
    assert logger.get_usage_summary(days=1)["total_operations"] == 2


@pytest.mark.parametrize("wrong", [float("nan"), "a day", None])
def test_what_is_no_number_is_told(log: CapturedOperations, wrong: Any) -> None:
    logger = UsageLogger("gemini")
    for ask in (logger.get_recent_operations, logger.get_usage_summary, logger.get_recent_errors):
        with pytest.raises(ConfigurationError, match="use a"):
            ask(wrong)


@pytest.mark.parametrize(
    ("count", "found"),
    [
        (2, ["c", "b"]),
        (2.7, ["c", "b"]),
        (10**30, ["c", "b", "a"]),
        (float("inf"), ["c", "b", "a"]),
        (0, []),
        (-1, []),
        (float("-inf"), []),
    ],
)
def test_errors_come_newest_first(log: CapturedOperations, count: int, found: list[str]) -> None:
    logger = UsageLogger("gemini")
    for name in "abc":
        logger.log_usage(name, success=False, error_type="TimeoutError")
        logger.log_usage("fine")
    assert names(logger.get_recent_errors(count)) == found


def test_rates_of_nothing_are_zero(log: CapturedOperations) -> None:
    logger = UsageLogger("gemini")
    assert logger.get_usage_summary() == {"total_operations": 0, **SUMMARY_OF_NOTHING}
    assert logger.get_session_stats("none") == {
        "session_id": "none",
        "operation_count": 0,
        **SUMMARY_OF_NOTHING,
    }
    assert logger.get_recent_errors() == []


def test_costs_are_summed_and_never_guessed(log: CapturedOperations) -> None:
    with session(id="work"):
        for cost in (0.25, 0.5, None):
            with track("ask", service="gemini") as op:
                op.set_usage(total_tokens=1_000_000, cost_usd=cost)
    logger = UsageLogger("gemini")
    assert logger.get_session_stats("work")["estimated_cost"] == 0.75
    assert logger.get_usage_summary()["estimated_cost"] == 0.75


def test_a_response_that_two_operations_report_is_charged_once(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path, line(number, response_id="r", tokens=10, cost_usd=0.5))
    logger = UsageLogger("gemini", log_dir=tmp_path)
    stats = logger.get_session_stats("work")
    assert (stats["operation_count"], stats["total_tokens"], stats["estimated_cost"]) == (
        2,
        10,
        0.5,
    )


def test_files_of_the_original_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "my-service.jsonl").write_bytes(ORIGINAL)
    (tmp_path / "my-service_session.json").write_text(ORIGINAL_SESSION)
    logger = UsageLogger("my-service", log_dir=tmp_path)
    found = logger.get_session_operations("session_1795546095")
    assert [each.pop("outcome") for each in found] == ["ok", "error"]
    assert found == [json.loads(each) for each in ORIGINAL.splitlines()]
    assert logger.get_session_stats("session_1795546095")["success_rate"] == 0.5
    assert names(logger.get_recent_errors()) == ["ask"]


def test_logging_beside_files_of_the_original_leaves_them_alone(tmp_path: Path) -> None:
    (tmp_path / "my-service.jsonl").write_bytes(ORIGINAL)
    logger = UsageLogger("my-service", log_dir=tmp_path, session_id="session_1795546095")
    logger.log_usage("new", tokens=1)
    assert (tmp_path / "my-service.jsonl").read_bytes() == ORIGINAL
    assert logger.get_session_stats()["total_tokens"] == 5001


def test_correlation_has_each_operation_once_in_order(
    log: CapturedOperations, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    write(tmp_path, line(2, service="qwen"), line(1), line(1, operation_id="0" * 15 + "0"))
    write(tmp_path, line(3, operation_id=None), line(0, session_id="other"))
    loggers = [
        UsageLogger("gemini", log_dir=tmp_path),
        UsageLogger("gemini", log_dir=tmp_path / "link"),
        UsageLogger("qwen", log_dir=tmp_path),
    ]
    found = correlate_sessions(iter(loggers), "work")
    assert [(each["timestamp"][17:19], each.get("operation_id", "")[-1:]) for each in found] == [
        ("01", "0"),
        ("01", "1"),
        ("02", "2"),
        ("03", ""),
    ]


def test_a_copy_of_a_log_adds_nothing(log: CapturedOperations, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, line(1))
    loggers = [UsageLogger("gemini", log_dir=tmp_path / name) for name in ("a", "b")]
    assert len(correlate_sessions(loggers, "work")) == 1


def test_correlation_of_nobody_is_empty() -> None:
    assert correlate_sessions([]) == []


def test_processes_agree_on_one_session(tmp_path: Path) -> None:
    program = """
    from instrument import UsageLogger
    logger = UsageLogger("gemini")
    for _ in range(50): logger.log_usage("ask", tokens=1)
    print(logger.session_id)
    """
    several = [start(program, tmp_path) for _ in range(4)]
    said = {process.communicate(timeout=60) for process in several}
    stats = UsageLog(tmp_path).stats(only([output.strip() for output, _ in said]))
    assert (stats.operation_count, stats.total_tokens) == (200, 200)


def test_a_fork_logs_as_itself_into_both_kinds_of_directory(tmp_path: Path) -> None:
    program = """
    from instrument import UsageLogger
    there = Path(os.environ["INSTRUMENT_DIR"], "there")
    loggers = [UsageLogger("gemini"), UsageLogger("gemini", log_dir=there)]
    def log():
        for each in loggers: each.log_usage("ask")
    log()
    child = os.fork()
    log()
    if child: os.waitpid(child, 0); print(child, os.getpid())
    else: os._exit(0)
    """
    output, errors = run(program, tmp_path)
    child, parent = map(int, output.split())
    for log_dir in (tmp_path, tmp_path / "there"):
        pids = [each.pid for each in UsageLog(log_dir).operations()]
        assert sorted(pids, key=str) == sorted([parent, parent, child], key=str)
        assert len(set(raw_ids(log_dir))) == 3
    assert errors == ""


def test_threads_share_a_logger(log: CapturedOperations, tmp_path: Path) -> None:
    logger = UsageLogger("gemini", log_dir=tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(logger.log_usage, ["ask"] * 100))
    assert logger.get_session_stats()["operation_count"] == 100


def test_a_logger_pickles_without_what_it_has_open(tmp_path: Path) -> None:
    logger = UsageLogger("gemini", session_id="work", log_dir=tmp_path)
    with capture(redact=lambda field, value: value):
        logger.log_usage("a")
        pickle.loads(pickle.dumps(logger)).log_usage("b")
    assert names(logger.get_session_operations()) == ["a", "b"]


UNUSABLE = {
    "a file in its place": "log_dir.touch()",
    "a file above it": "log_dir.parent.rmdir(); log_dir.parent.touch()",
    "another user's": "log_dir.mkdir(mode=0o700); os.setuid(65534)",
    "read-only": "log_dir.mkdir(mode=0o555); os.setuid(65534)",
}


@pytest.mark.parametrize("given", ["", ", log_dir=log_dir"], ids=["configured", "given"])
@pytest.mark.parametrize("fault", UNUSABLE)
def test_an_unusable_directory_raises_nothing_and_is_told_once(
    fault: str, given: str, tmp_path: Path
) -> None:
    if "setuid" in UNUSABLE[fault] and os.getuid() != 0:
        pytest.skip("becomes another user")
    opened = takewhile(lambda place: place != Path(gettempdir()), (tmp_path, *tmp_path.parents))
    for place in opened:
        place.chmod(0o755)
    log_dir = tmp_path / "above" / "log"
    log_dir.parent.mkdir()
    program = f"""
    from instrument import UsageLogger, correlate_sessions
    log_dir = Path({str(log_dir)!r})
    {UNUSABLE[fault]}
    told = []
    warnings.showwarning = lambda message, *rest: told.append(" ".join(str(message).split()[:2]))
    warnings.simplefilter("always")
    logger = UsageLogger("gemini"{given})
    for _ in range(3): logger.log_usage("ask")
    print(logger.get_recent_operations(), logger.get_session_operations())
    print(logger.get_recent_errors(), correlate_sessions([logger]))
    print(logger.get_usage_summary()["success_rate"], logger.get_session_stats()["success_rate"])
    print(*told, sep=", ")
    """
    warned = "cannot write" if fault == "read-only" else "cannot write, cannot read"
    assert run(program, log_dir) == (f"[] []\n[] []\n0.0 0.0\n{warned}", "")


def test_what_cannot_be_read_warns(
    log: CapturedOperations, tmp_path: Path, fresh_warnings: None
) -> None:
    (tmp_path / "file").touch()
    logger = UsageLogger("gemini", log_dir=tmp_path / "file")
    with pytest.warns(InstrumentWarning, match="cannot read the log in") as told:
        assert [logger.get_recent_operations() for _ in range(3)] == [[], [], []]
    assert len(told) == 1


def test_correlating_what_is_no_logger_says_so() -> None:
    with pytest.raises(ConfigurationError, match="correlate_sessions: logger=5: use UsageLoggers"):
        correlate_sessions([5])  # type: ignore[list-item]
