"""Sums over groups of operations, over the whole log and within a session."""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_writing import START, at, begin, entered, operation, write

from instrument.errors import ConfigurationError
from instrument.log import UsageLog
from instrument.operation import SummaryRow

KEYS = ("service", "model", "day", "week", "month", "session", "operation", "outcome")


def counts(rows: list[SummaryRow], key: str) -> list[tuple[Any, int]]:
    return [(getattr(row, key), row.operation_count) for row in rows]


def test_groups_come_in_the_order_of_their_keys_with_what_is_unknown_first(tmp_path: Path) -> None:
    write(tmp_path, *(operation(n, model=m) for n, m in enumerate(["b", "a", None, "b"])))
    assert counts(UsageLog(tmp_path).summary("model"), "model") == [(None, 1), ("a", 1), ("b", 2)]


def test_a_row_has_the_figures_of_a_session_of_those_operations(tmp_path: Path) -> None:
    usage = {"input_tokens": 7, "output_tokens": 3, "cache_read_tokens": 2}
    failed = {"success": False, "error_type": "RateLimitError", "tokens": None}
    write(tmp_path, operation(1, duration_seconds=4.0, **usage), operation(2, **failed))
    log = UsageLog(tmp_path)
    (row,) = log.summary("service")
    stats = log.stats("work")
    names = [name for name in stats.__struct_fields__ if name not in ("session_id", "name")]
    assert [getattr(row, n) for n in names] == [getattr(stats, n) for n in names]
    assert (row.service, row.success_rate, row.errors) == ("gemini", 0.5, {"RateLimitError": 1})


def test_percentiles_are_linear(tmp_path: Path) -> None:
    write(tmp_path, *(operation(n, duration_seconds=float(n)) for n in range(1, 5)))
    (row,) = UsageLog(tmp_path).summary(())
    found = (row.p50_seconds, row.p95_seconds, row.p99_seconds)
    assert found == pytest.approx((2.5, 3.85, 3.97))


def test_a_response_reported_twice_in_a_session_is_charged_once_and_again_in_another(
    tmp_path: Path,
) -> None:
    same = {"response_id": "r1", "input_tokens": 6, "output_tokens": 4}
    write(tmp_path, operation(1, **same), operation(2, service="outer", **same))
    write(tmp_path, operation(3, session_id="other", **same))
    rows = UsageLog(tmp_path).summary("service")
    assert [(row.service, row.total_tokens) for row in rows] == [("gemini", 20), ("outer", 0)]


def test_an_operation_that_stands_in_two_files_counts_once(tmp_path: Path) -> None:
    write(tmp_path, operation(1), operation(2))
    write(tmp_path, operation(1), name="2026-11-21-host-0001.jsonl")
    (row,) = UsageLog(tmp_path).summary("service")
    assert (row.operation_count, row.total_tokens) == (2, 20)


def test_what_an_hour_in_the_cache_costs_is_in_the_sum(tmp_path: Path) -> None:
    usage = {
        "input_tokens": 9_000,
        "output_tokens": 1,
        "cache_write_tokens": 5_000,
        "tokens": 9_001,
    }
    keys = {"service": "anthropic", "model": "claude-sonnet-4-5"} | usage
    write(
        tmp_path, operation(1, metadata={"usage_details": {"cache_write_1h_tokens": 4_000}}, **keys)
    )
    write(tmp_path, operation(2, session_id="other", **keys), name="2026-11-21-host-0001.jsonl")
    log = UsageLog(tmp_path)
    (row,) = log.summary("model")
    work, other = (log.stats(each).cost_usd or 0 for each in ("work", "other"))
    assert row.cost_usd == pytest.approx(work + other)
    assert work > other


def test_the_last_sign_of_life_is_found_in_another_file(tmp_path: Path) -> None:
    write(tmp_path, begin(1), operation(50, pid=78))
    write(tmp_path, operation(31, pid=77), name="2026-11-21-host-0001.jsonl")
    write(tmp_path, operation(90, pid=79), name="2026-11-22-host-0001.jsonl")
    (row,) = UsageLog(tmp_path).summary("outcome", outcome="interrupted")
    assert (row.operation_count, row.total_duration_seconds) == (1, 31.0)


def test_a_path_with_dots_is_read_by_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "log", begin(9), operation(1))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rows = UsageLog("../log").summary("outcome")
    assert counts(rows, "outcome") == [("interrupted", 1), ("ok", 1)]


def test_days_weeks_and_months_begin_in_the_zone_that_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, operation(1, timestamp="2026-11-30T23:30:00Z"))
    log = UsageLog(tmp_path)
    (utc,), (tokyo,) = (
        log.summary(("day", "week", "month"), zone=zone) for zone in (UTC, ZoneInfo("Asia/Tokyo"))
    )
    assert (utc.day, utc.week, utc.month) == (
        date(2026, 11, 30),
        date(2026, 11, 30),
        date(2026, 11, 1),
    )
    assert (tokyo.day, tokyo.week, tokyo.month) == (
        date(2026, 12, 1),
        date(2026, 11, 30),
        date(2026, 12, 1),
    )


@pytest.mark.parametrize("by", [None, 5, "colour", ["day", "day"], [None]])
def test_keys_that_nothing_is_summed_by_are_refused_with_those_that_are(
    tmp_path: Path, by: Any
) -> None:
    accepted = "each at most once, of service, model, day"
    with pytest.raises(ConfigurationError, match=f"{re.escape(repr(by))}.*{accepted}"):
        UsageLog(tmp_path).summary(by=by)


def test_filters_choose_what_is_summed(tmp_path: Path) -> None:
    write(tmp_path, operation(1), operation(2, service="qwen"), operation(9, success=False))
    log = UsageLog(tmp_path)
    assert counts(log.summary("service", service="qwen"), "service") == [("qwen", 1)]
    since, until = START + timedelta(seconds=1), START + timedelta(seconds=9)
    assert counts(log.summary("outcome", since=since, until=until), "outcome") == [("ok", 2)]


def test_interrupted_operations_are_summed_and_an_empty_log_has_no_rows(tmp_path: Path) -> None:
    assert UsageLog(tmp_path).summary(()) == UsageLog(tmp_path).summary("day") == []
    write(tmp_path, begin(1))
    (row,) = UsageLog(tmp_path).summary("outcome")
    assert (row.outcome, row.interrupted_count, row.success_rate) == ("interrupted", 1, None)


def test_a_session_is_summed_with_its_children_and_named_when_grouped_by(tmp_path: Path) -> None:
    child = {"session_id": "child", "parent_session_id": "work", "session_name": "inner"}
    write(tmp_path, operation(1), operation(2, **child), operation(3, session_id="other"))
    rows = UsageLog(tmp_path).summary("session", session="work")
    assert [(r.session, r.session_id, r.name, r.parent_id) for r in rows] == [
        ("child", "child", "inner", "work"),
        ("work", "work", None, None),
    ]


@pytest.mark.parametrize("by", ["colour", ("day", "day"), ("service", 5)])
def test_unknown_keys_are_refused_with_the_known(tmp_path: Path, by: Any) -> None:
    with pytest.raises(ConfigurationError, match="service, model, day"):
        UsageLog(tmp_path).summary(by)


def test_unknown_filters_are_refused_with_the_known(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="servce='x': use service, operation"):
        UsageLog(tmp_path).summary("day", servce="x")  # type: ignore[call-arg]


names = st.sampled_from(["a", "b", "ä", ""])
numbers = st.none() | st.integers(0, 1000)
records = st.fixed_dictionaries(
    {
        "timestamp": st.integers(0, 3_000_000).map(at),
        "service": names,
        "model": st.none() | names,
        "operation": names,
        "duration_seconds": st.integers(0, 10**12).map(lambda microseconds: microseconds / 1e6),
        "outcome": st.none() | st.sampled_from(["partial", "cancelled", "error"]),
        "success": st.booleans(),
        "tokens": numbers,
        "input_tokens": numbers,
        "response_id": st.none() | st.sampled_from(["r1", "r2"]),
        "cost_usd": st.none() | st.floats(0, 10),
        "colour": st.none() | names,
    }
)


@settings(max_examples=40, deadline=None)
@given(
    lines=st.lists(records, max_size=12),
    by=st.lists(st.sampled_from(KEYS), unique=True, max_size=3),
    zone=st.sampled_from([UTC, ZoneInfo("America/St_Johns"), ZoneInfo("Pacific/Apia")]),
)
def test_the_whole_log_and_a_session_are_summed_alike(
    lines: list[dict[str, Any]], by: list[str], zone: Any
) -> None:
    with tempfile.TemporaryDirectory() as log_dir:
        write(Path(log_dir), entered("work"))
        write(Path(log_dir), *(operation(n, **line) for n, line in enumerate(lines)))
        log = UsageLog(log_dir)
        everything = log.summary(by, zone=zone)
        assert figures(log.summary(by, session="work", zone=zone)) == near(figures(everything))
        assert sum(row.operation_count for row in everything) == len(lines)


def figures(rows: list[SummaryRow]) -> list[Any]:
    return [getattr(row, name) for row in rows for name in row.__struct_fields__]


def near(values: list[Any]) -> list[Any]:
    return [pytest.approx(each, abs=1e-9) if isinstance(each, float) else each for each in values]


@pytest.mark.parametrize("zone", ["UTC", None, 5])
def test_a_zone_that_is_none_is_refused(tmp_path: Path, zone: Any) -> None:
    write(tmp_path, operation(1))
    for ask in (UsageLog(tmp_path).summary, UsageLog(tmp_path).overview):
        with pytest.raises(ConfigurationError, match=r"zone=.*: use a tzinfo: UTC, or"):
            ask("day", zone=zone)


def test_odd_lines_are_the_same_to_every_reader(tmp_path: Path) -> None:
    write(
        tmp_path,
        operation(1, success=False, error_type=""),
        operation(2, duration_seconds=1e12),
        operation(3, tokens="१२"),
        operation(4, tokens="12\u00a0"),
        operation(5, timestamp="9999-12-31T23:59:59-05:00"),
        operation(6),
    )
    log = UsageLog(tmp_path)
    for _ in range(2):
        for by in ((), ("operation",), ("day",), ("session",)):
            (row,) = log.summary(by=by)
            stats = log.stats("work")
            assert row.operation_count == stats.operation_count == 5
            assert row.errors == stats.errors == {"unknown": 1}
            assert row.total_tokens == stats.total_tokens == 30
            assert row.last_at == stats.last_at == START + timedelta(seconds=7)
        assert log.sql("select count(*), sum(tokens) from operations").fetchall() == [(5, 30)]
        log.compact(all=True)
