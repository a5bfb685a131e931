"""Baselines: from figures to the file that is committed, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from baseline_samples import baselines, entry, figures
from hypothesis import given, settings
from hypothesis import strategies as st

from instrument.pytest_plugin.baselines import (
    Baseline,
    BaselineError,
    Entry,
    baseline_of,
    dumps,
    loads,
    merged,
    path_of,
)

ONE = """\
{
"format": "instrument-baseline",
"version": 1,
"tests": {
"t.py::test": {
 "outcome": "passed",
 "tokens": 15,
 "input_tokens": 10,
 "output_tokens": 5,
 "usd": 0.0000625,
 "operations": 2,
 "errors": 0,
 "seconds": [1.5],
 "p50": [0.75],
 "p95": [0.975],
 "p99": [0.995]
},
"t.py::test_other": {
 "outcome": "failed"
}
}
}
"""


def test_the_file_has_one_line_for_each_number() -> None:
    run = baseline_of(
        [
            figures("t.py::test_other", 1.0, outcome="failed"),
            figures("t.py::test", 0.5, 1.0, usd=6.25e-05),
            figures("t.py::test_without_calls"),
        ]
    )
    assert dumps(merged({}, run)) == ONE


@settings(deadline=None)
@given(baselines)
def test_what_is_saved_is_read_back(baseline: Baseline) -> None:
    assert loads(dumps(baseline), "f.json") == baseline


@settings(deadline=None)
@given(baselines, st.randoms())
def test_the_order_of_tests_changes_nothing(baseline: Baseline, random: st.DataObject) -> None:
    shuffled = list(baseline.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert dumps(dict(shuffled)) == dumps(baseline)
    json.loads(dumps(baseline))


@settings(deadline=None)
@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_other_text_is_refused_with_the_files_name(text: str) -> None:
    with pytest.raises(BaselineError, match=r"f\.json"):
        loads(text, "f.json")


@settings(deadline=None)
@given(baselines, st.data())
def test_a_torn_file_is_refused_or_whole(baseline: Baseline, data: st.DataObject) -> None:
    text = dumps(baseline)
    torn = text[: data.draw(st.integers(0, len(text) - 3))]
    with pytest.raises(BaselineError, match="it is no JSON"):
        loads(torn, "f.json")


DAMAGED = {
    "another file": ('"instrument-baseline"', '"other"', 'no "format"'),
    "a newer format": ('"version": 1', '"version": 2', "has format 2, .* reads 1: update"),
    "no version": ('"version": 1', '"version": true', 'no "version": 1'),
    "a negative count": ('"tokens": 15', '"tokens": -1', "tokens of t.py::test is no number"),
    "a count that is text": ('"tokens": 15', '"tokens": "15"', "tokens of t.py::test is no number"),
    "no number": ('"usd": 0.0000625', '"usd": NaN', "NaN is no number"),
    "too large": ('"usd": 0.0000625', '"usd": 1e999', "usd of t.py::test is no number"),
    "a metric left out": (' "operations": 2,\n', "", "operations of t.py::test is no number"),
    "times that are none": ("[1.5]", '["1.5"]', "seconds of t.py::test is no list"),
    "an outcome that is none": ('"failed"', '"lost"', "test_other has no outcome of passed"),
    "a conflict": ('"tests"', '<<<<<<< HEAD\n"tests"', "it is no JSON"),
}


@pytest.mark.parametrize(("found", "instead", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_baseline_says_what_is_wrong(found: str, instead: str, said: str) -> None:
    with pytest.raises(BaselineError, match=said):
        loads(ONE.replace(found, instead), "f.json")


def test_runs_under_one_name_add_samples_and_replace_counts() -> None:
    saved = merged({"t": entry(1.0, 2.0, tokens=1)}, {"t": entry(3.0, tokens=2)})
    assert saved == {"t": entry(1.0, 2.0, 3.0, tokens=2)}


def test_the_latest_twenty_samples_are_kept() -> None:
    baseline: Baseline = {}
    for number in range(25):
        baseline = merged(baseline, {"t": entry(float(number))})
    assert baseline["t"].times["p95"] == tuple(map(float, range(5, 25)))


def test_samples_of_another_number_of_calls_are_dropped() -> None:
    assert merged({"t": entry(1.0)}, {"t": entry(9.0, operations=2)})["t"].times["p50"] == (9.0,)


def test_a_test_that_fails_keeps_what_was_saved_of_it() -> None:
    assert merged({"t": entry(1.0)}, {"t": Entry("failed")}) == {"t": entry(1.0)}
    assert merged({"t": Entry("failed")}, {"t": entry(1.0)}) == {"t": entry(1.0)}


def test_tests_that_are_gone_are_dropped_and_those_not_run_stay() -> None:
    before = {"gone": entry(), "elsewhere": entry(), "t": entry()}
    assert list(merged(before, {}, gone={"gone"})) == ["elsewhere", "t"]


def test_repeats_by_count_are_one_test_with_a_sample_each() -> None:
    run = [figures(f"t.py::test[a-{n}-3]", float(n), tokens=n) for n in (1, 2, 3)]
    found = baseline_of(run, repeats=3)
    assert list(found) == ["t.py::test[a]"]
    assert found["t.py::test[a]"].times["seconds"] == (1.0, 2.0, 3.0)
    assert found["t.py::test[a]"].counts["tokens"] == 2


def test_repeats_by_marker_are_one_test_only_if_they_are_complete() -> None:
    run = [figures(f"t.py::test[{n}-3]", 1.0) for n in (1, 2)]
    assert list(baseline_of(run, repeats=1)) == ["t.py::test[1-3]", "t.py::test[2-3]"]
    assert list(baseline_of([*run, figures("t.py::test[3-3]", 1.0)], repeats=1)) == ["t.py::test"]


def test_parameters_that_look_like_repeats_are_not_touched_without_the_plugin() -> None:
    run = [figures(f"t.py::test[{n}-2]", 1.0) for n in (1, 2)]
    assert list(baseline_of(run)) == ["t.py::test[1-2]", "t.py::test[2-2]"]


def test_one_repeat_that_fails_fails_the_test() -> None:
    run = [
        figures("t.py::test[1-2]", 1.0),
        figures("t.py::test[2-2]", 1.0, outcome="failed"),
    ]
    assert baseline_of(run, repeats=2) == {"t.py::test": Entry("failed")}


def test_what_is_unknown_is_not_free() -> None:
    unknown = {"tokens": None, "usd": None}
    found = baseline_of([figures("a", 1.0, **unknown), figures("b", **unknown)])
    assert [found[name].counts["usd"] for name in "ab"] == [None, 0]
    assert [found[name].counts["tokens"] for name in "ab"] == [None, 0]


def test_money_of_which_a_part_has_no_price_is_unknown() -> None:
    found = baseline_of([figures("a", 1.0, usd=0.5, unpriced_models=("m",))])
    assert found["a"].counts["usd"] is None


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "-x", ".x", "a b", "ä", "x" * 101])
def test_a_name_that_is_no_plain_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="no name of a baseline"):
        path_of(tmp_path, name)


def test_a_baseline_is_a_file_below_the_rootdir(tmp_path: Path) -> None:
    assert path_of(tmp_path, "v1.2") == tmp_path / ".instrument" / "baselines" / "v1.2.json"
