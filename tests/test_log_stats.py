"""What a session comes to."""

from __future__ import annotations

import math
import tempfile
from datetime import timedelta
from pathlib import Path
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_writing import START, entered, operation, write

from instrument._stats import percentile
from instrument.log import UsageLog
from instrument.operation import SessionStats


def test_a_session_sums_up_in_every_figure(tmp_path: Path) -> None:
    write(
        tmp_path,
        entered("work", session_name="nightly", parent_session_id="week"),
        operation(
            0, input_tokens=7, output_tokens=3, cache_read_tokens=2, cost_usd=0.25, model="a"
        ),
        operation(1, success=False, error_type="RateLimit", tokens=None, duration_seconds=3.0),
        operation(2, success=False, outcome="cancelled", tokens=None, service="qwen"),
        operation(3, outcome="partial", model="b", duration_seconds=5.0),
    )
    assert UsageLog(tmp_path).stats("work") == SessionStats(
        session_id="work", name="nightly", parent_id="week", operation_count=4, error_count=1,
        cancelled_count=1, partial_count=1, input_tokens=7, output_tokens=3, cache_read_tokens=2,
        total_tokens=20, operations_without_usage=2, success_rate=2 / 3,
        total_duration_seconds=10.0, elapsed_seconds=8.0, p50_seconds=2.0,
        p95_seconds=pytest.approx(4.7), p99_seconds=pytest.approx(4.94), cost_usd=0.25,
        cost_coverage=0.5, cache_hit_ratio=2 / 7,
        first_at=START, last_at=START + timedelta(seconds=8),
        services=("gemini", "qwen"), models=("a", "b"), errors={"RateLimit": 1},
    )  # type: ignore[arg-type] # fmt: skip


def test_what_is_known_to_be_another_attempt_is_counted_and_nothing_is_guessed(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        operation(0, success=False, error_type="RateLimit"),
        operation(1, success=False, error_type="RateLimit", attempt=2),
        operation(2, attempt=3),
        operation(3, attempt=1),
    )
    log = UsageLog(tmp_path)
    assert log.stats("work").retry_count == 2
    assert [row.retry_count for row in log.summary("outcome")] == [1, 1]


def test_an_unknown_session_has_zero_operations_and_no_rates(tmp_path: Path) -> None:
    write(tmp_path, operation(1))
    assert UsageLog(tmp_path).stats("nobody") == SessionStats(session_id="nobody")


def test_a_response_reported_twice_is_charged_once_but_both_operations_count(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        operation(0, response_id="r", tokens=None),
        operation(1, response_id="r", tokens=30, cost_usd=0.5),
        operation(2, response_id="r", tokens=30, cost_usd=0.5),
        operation(3, tokens=1),
    )
    stats = UsageLog(tmp_path).stats("work")
    assert (stats.operation_count, stats.total_tokens, stats.cost_usd) == (4, 31, 0.5)


def test_a_response_is_charged_to_who_knows_its_model_and_so_its_price(tmp_path: Path) -> None:
    same = {"response_id": "r", "input_tokens": 1_000_000, "output_tokens": 0, "tokens": None}
    priced = operation(1, model="gpt-4.1", provider="openai", **same)
    write(tmp_path, operation(0, **same), priced, operation(2, model="another", **same))
    log = UsageLog(tmp_path)
    (row,) = log.summary("session")
    stats = log.stats("work")
    assert (stats.input_tokens, stats.cost_usd) == (row.input_tokens, row.cost_usd)
    assert (stats.input_tokens, stats.cost_usd) == (2_000_000, 2.0)


def test_an_operation_whose_usage_another_holds_is_not_without_usage(tmp_path: Path) -> None:
    write(tmp_path, operation(0, tokens=None, usage_operation_id="x"), operation(1, tokens=None))
    stats = UsageLog(tmp_path).stats("work")
    assert (stats.operation_count, stats.operations_without_usage) == (2, 1)


def test_zero_tokens_are_reported_usage_and_missing_ones_are_not(tmp_path: Path) -> None:
    write(tmp_path, operation(0, tokens=0), operation(1, tokens=None))
    stats = UsageLog(tmp_path).stats("work")
    assert (stats.total_tokens, stats.operations_without_usage) == (0, 1)
    assert (stats.cost_usd, stats.cost_coverage) == (None, 0.0)


def test_nothing_but_cancelled_operations_has_no_success_rate(tmp_path: Path) -> None:
    write(tmp_path, operation(0, success=False, outcome="cancelled"))
    assert UsageLog(tmp_path).stats("work").success_rate is None


def test_children_roll_up_through_every_generation_and_on_request_only(tmp_path: Path) -> None:
    write(
        tmp_path,
        operation(0, session_id="root"),
        entered("child", parent_session_id="root"),
        operation(1, session_id="child"),
        operation(2, session_id="grandchild", parent_session_id="child"),
        operation(3, session_id="stranger"),
    )
    log = UsageLog(tmp_path)
    assert log.stats("root").operation_count == 3
    assert log.stats("root", children=False).operation_count == 1
    assert [each.session_id for each in log.operations(session="root", children=True)] == [
        "root",
        "child",
        "grandchild",
    ]


def test_more_children_than_can_be_searched_for_singly_roll_up_too(tmp_path: Path) -> None:
    children = [
        operation(n, session_id=f"child{n}", parent_session_id="root") for n in range(1, 40)
    ]
    write(tmp_path, operation(0, session_id="root"), *children)
    assert UsageLog(tmp_path).stats("root").operation_count == 40


def test_sessions_that_claim_to_be_each_others_parents_end(tmp_path: Path) -> None:
    write(
        tmp_path,
        operation(0, session_id="a", parent_session_id="b"),
        operation(1, session_id="b", parent_session_id="a"),
        operation(2, session_id="a", parent_session_id="a"),
    )
    assert UsageLog(tmp_path).stats("a").operation_count == 3


def test_joining_a_session_without_a_name_keeps_the_name_it_has(tmp_path: Path) -> None:
    write(tmp_path, entered("work", session_name="nightly"), entered("work"), operation(1))
    assert UsageLog(tmp_path).stats("work").name == "nightly"


durations = st.floats(0, 1e6, allow_nan=False)


@given(st.lists(durations, min_size=2))
def test_percentiles_are_those_of_the_inclusive_method(values: list[float]) -> None:
    expected = quantiles(values, n=100, method="inclusive")
    for share in (50, 95, 99):
        assert percentile(sorted(values), share / 100) == pytest.approx(expected[share - 1])


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "outcome": st.sampled_from([None, "ok", "error", "cancelled", "partial"]),
                "tokens": st.none() | st.integers(0, 10**9),
                "cost_usd": st.none() | st.floats(0, 100),
                "response_id": st.none() | st.sampled_from(["r1", "r2"]),
                "duration_seconds": durations,
                "success": st.booleans(),
            }
        )
    )
)
def test_the_parts_of_stats_add_up(keys: list[dict[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory), *[operation(n, **each) for n, each in enumerate(keys)])
        stats = UsageLog(directory).stats("work")
    assert stats.operation_count == len(keys)
    assert sum(stats.errors.values()) == stats.error_count
    assert stats.success_rate is None or 0 <= stats.success_rate <= 1
    assert stats.cost_coverage is None or 0 <= stats.cost_coverage <= 1
    assert stats.total_tokens <= sum(each["tokens"] or 0 for each in keys)  # type: ignore[misc]
    total = math.fsum(each["duration_seconds"] for each in keys)  # type: ignore[misc]
    assert stats.total_duration_seconds == pytest.approx(total)
    assert (stats.p50_seconds or 0) <= (stats.p95_seconds or 0) <= (stats.p99_seconds or 0)
