"""Runs beside baselines: exact counts, times that can be told apart, and limits."""

from __future__ import annotations

from decimal import Decimal
from itertools import combinations

import pytest
from baseline_samples import baselines, entry
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from instrument.pytest_plugin.baselines import Baseline, BaselineError, Entry
from instrument.pytest_plugin.comparing import METRICS, Change, chance, compare, limits_of

FEW = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=4)


def changed(before: Entry, now: Entry, metric: str, limits: str = "") -> Change:
    """Return what became of one metric of one test."""
    found = compare({"t": before}, {"t": now}, limits_of(limits) if limits else {})
    (change,) = (each for each in found.changes if each.metric == metric)
    return change


@pytest.mark.parametrize(
    ("now", "verdict", "percent"), [(100, "same", 0), (110, "more", 10), (50, "less", -50)]
)
def test_counts_are_compared_exactly(now: int, verdict: str, percent: float) -> None:
    change = changed(entry(tokens=100), entry(tokens=now), "tokens")
    assert (change.verdict, change.percent) == (verdict, percent)


@pytest.mark.parametrize(
    ("before", "now", "limit", "is_exceeded"),
    [
        (100, 110, "10%", False),
        (100, 111, "10%", True),
        (100, 115, "15%", False),  # where 100 * 1.15 is below 115 as a float
        (0.1, 0.11, "10%", False),
        (0.1, 0.110000001, "10%", True),
        (0, 1, "900000%", True),
        (0, 0, "0%", False),
        (10, 9, "0%", False),
        (3, 4, "33.333333%", True),
    ],
)
def test_a_limit_is_exceeded_from_the_first_beyond_it(
    before: float, now: float, limit: str, is_exceeded: bool
) -> None:
    change = changed(entry(usd=before), entry(usd=now), "usd", f"usd:{limit}")
    assert change.exceeded is is_exceeded


def test_what_is_not_reported_any_more_exceeds_any_limit() -> None:
    lost = changed(entry(tokens=15), entry(tokens=None), "tokens", "tokens:+100%")
    found = changed(entry(tokens=None), entry(tokens=15), "tokens", "tokens:+100%")
    assert [(each.verdict, each.exceeded) for each in (lost, found)] == [
        ("unknown", True),
        ("unknown", False),
    ]


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        ((1.0,), (9.0,), "too few"),
        ((1.0, 1.1), (9.0, 9.1, 9.2), "too few"),
        ((1.0, 1.1, 1.2), (2.0, 2.1, 2.2), "more"),
        ((2.0, 2.1, 2.2), (1.0, 1.1, 1.2), "less"),
        ((1.0, 1.1, 1.2), (1.15, 2.1, 2.2), "overlap"),
        ((1.0,) * 3, (1.0,) * 3, "overlap"),
        ((1.0,) * 19, (1.1,), "more"),
        ((1.0,) * 18, (1.1,), "too few"),
    ],
)
def test_times_differ_only_where_their_ranks_do(
    before: tuple[float, ...], now: tuple[float, ...], verdict: str
) -> None:
    assert changed(entry(*before), entry(*now), "p95").verdict == verdict


def test_a_limit_of_time_is_exceeded_only_where_that_can_be_told() -> None:
    fast = (1.0, 1.1, 1.2)
    clear = changed(entry(*fast), entry(2.0, 2.1, 2.2), "p95", "p95:+30%")
    near = changed(entry(*fast), entry(1.45, 1.5, 1.55), "p95", "p95:+30%")
    few = changed(entry(1.0), entry(9.0), "p95", "p95:+30%")
    below = changed(entry(*fast), entry(1.3, 1.31, 1.32), "p95", "p95:+30%")
    assert [(each.exceeded, each.in_doubt) for each in (clear, near, few, below)] == [
        (True, False),
        (False, True),
        (False, True),
        (False, False),
    ]


@settings(deadline=None)
@given(FEW, FEW)
def test_the_chance_is_that_of_all_ways_to_deal_the_values(
    lower: list[float], higher: list[float]
) -> None:
    values = [*lower, *higher]
    assume(len(set(values)) == len(values))

    def wins(places: tuple[int, ...]) -> int:
        rest = [value for place, value in enumerate(values) if place not in places]
        return sum(values[place] > other for place in places for other in rest)

    dealt = list(combinations(range(len(values)), len(higher)))
    seen = wins(tuple(range(len(lower), len(values))))
    assert chance(lower, higher) == pytest.approx(
        sum(wins(each) >= seen for each in dealt) / len(dealt)
    )


@settings(deadline=None)
@given(FEW, FEW, st.floats(0, 1))
def test_equal_values_never_make_a_difference_likelier(
    lower: list[float], higher: list[float], step: float
) -> None:
    apart = [value + 1e-9 * (1 + place) * (1 + step) for place, value in enumerate(higher)]
    assert chance(lower, higher) >= chance(lower, apart) - 1e-12


@settings(deadline=None)
@given(st.lists(st.floats(0, 9), min_size=1, max_size=20))
def test_what_is_the_same_never_differs(values: list[float]) -> None:
    change = changed(entry(*values), entry(*values), "p50", "p50:+0%")
    assert change.verdict in ("overlap", "too few")
    assert not change.exceeded


def test_totals_are_those_of_the_tests_that_ran_to_their_end_both_times() -> None:
    before = {"a": entry(1.0), "b": entry(2.0), "gone": entry(9.0), "failed": entry(9.0)}
    now = {"a": entry(4.0, tokens=20), "b": entry(5.0), "failed": Entry("failed"), "new": entry()}
    totals = {each.metric: (each.before, each.now) for each in compare(before, now, {}).totals}
    assert totals["tokens"] == (30, 35)
    assert totals["usd"] == (0.002, 0.002)
    assert totals["seconds"] == (3.0, 9.0)
    assert "p95" not in totals


def test_the_times_of_all_tests_are_added_up_repeat_by_repeat() -> None:
    before = {"a": entry(1.0, 2.0, 3.0), "b": entry(99.0, 10.0, 20.0, 30.0)}
    now = {"a": entry(4.0, 5.0, 6.0), "b": entry(40.0, 50.0, 60.0)}
    (total,) = (each for each in compare(before, now, {}).totals if each.metric == "seconds")
    assert (total.before, total.now, total.verdict) == (22.0, 55.0, "more")
    assert total.repeats == (3, 3)


def test_a_metric_that_is_unknown_in_one_test_is_summed_over_the_others() -> None:
    before = {"a": entry(usd=None), "b": entry(usd=0.5)}
    (total,) = (each for each in compare(before, before, {}).totals if each.metric == "usd")
    assert (total.before, total.now) == (0.5, 0.5)


def test_tests_are_told_apart() -> None:
    before = {name: entry() for name in ("same", "fails", "errs", "skips", "gone", "away")}
    before |= {"failed": Entry("failed")}
    now = {"same": entry(), "failed": entry(), "new": entry(), "free": entry(operations=0)}
    now |= {"fails": Entry("failed"), "errs": Entry("error"), "skips": Entry("skipped")}
    found = compare(before, now, {}, is_gone=lambda node_id: node_id == "gone")
    assert (found.compared, found.new, found.unsaved) == (["same"], ["new"], ["failed"])
    assert (found.failed, found.skipped) == (["errs", "fails"], ["skips"])
    assert (found.gone, found.not_run) == (["gone"], ["away"])


@settings(deadline=None)
@given(baselines, baselines)
def test_every_test_is_in_one_list_and_no_limit_exceeded_is_lost(
    before: Baseline, now: Baseline
) -> None:
    found = compare(before, now, dict.fromkeys(METRICS, Decimal(0)))
    lists = (found.compared, found.unsaved, found.skipped, found.failed, found.gone)
    told = [name for names in lists for name in names]
    assert sorted(told) == sorted(before)
    count = sum(each.exceeded for each in (*found.totals, *found.changes))
    assert len(found.exceeded) == count


def test_the_worst_comes_first() -> None:
    before = {"a": entry(tokens=100), "b": entry(tokens=10), "c": entry(tokens=0)}
    now = {"a": entry(tokens=150), "b": entry(tokens=30), "c": entry(tokens=1)}
    first = [each for each in compare(before, now, {}).changes if each.verdict == "more"]
    assert [each.node_id for each in first] == ["c", "b", "a"]


def test_limits_are_percents_by_metric() -> None:
    limits = limits_of("tokens:+10%, usd:+5.5 %,p95:30%")
    assert limits == {"tokens": Decimal(10), "usd": Decimal("5.5"), "p95": Decimal(30)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "unknown metric ''"),
        ("token:+10%", "unknown metric 'token'"),
        ("tokens", "'' is no limit of tokens"),
        ("tokens:10", "'10' is no limit"),
        ("tokens:-10%", "'-10%' is no limit"),
        ("tokens:+nan%", "is no limit"),
        ("tokens:+1e3%", "is no limit"),
        ("tokens:+\u0661%", "is no limit"),
        ("tokens:+10%,", "unknown metric ''"),
        ("tokens:+10%,tokens:+20%", "tokens has two limits"),
    ],
)
def test_a_malformed_limit_names_what_is_accepted(text: str, said: str) -> None:
    with pytest.raises(BaselineError, match=said) as caught:
        limits_of(text)
    assert all(metric in str(caught.value) for metric in METRICS)


@settings(deadline=None)
@given(st.text(alphabet="tokensudp95:+10.%, ") | st.text())
def test_any_text_is_limits_or_an_error_of_ours(text: str) -> None:
    try:
        limits = limits_of(text)
    except BaselineError:
        return
    assert limits
    assert all(limit >= 0 for limit in limits.values())
