"""What is said at the end of a recorded run: in the terminal, as JSON, in JUnit XML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instrument.log import UsageLog
from instrument.pytest_plugin.figures import OUTCOMES, RunFigures, TestFigures
from instrument.pytest_plugin.summary import as_json, lines_of

pytest_plugins = ["pytester"]

Runs = Callable[..., Any]

SPENDING = """
    import time, pytest
    @pytest.mark.parametrize("tokens", [100, 300, 200])
    def test_it(tokens):
        with track("spend", service="fake", model="m") as op:
            op.set_usage(total_tokens=tokens, cost_usd=1 / tokens)
    def test_slow(): time.sleep(0.2)
"""


def figures(name: str, **given: Any) -> TestFigures:
    return TestFigures(node_id=name, outcome="passed", **given)


def run_of(*tests: TestFigures) -> RunFigures:
    return RunFigures(session_id="s", log_dir="/log", tests={each.node_id: each for each in tests})


def test_the_tests_that_took_and_used_most_are_named_with_the_totals(run: Runs) -> None:
    ran = run(SPENDING, "--instrument-top=2")
    ran.result.stdout.fnmatch_lines(
        [
            "*= instrument =*",
            "slowest tests",
            "  0.2? s  test_it.py::test_slow",
            "most tokens",
            "  300  test_it.py::test_it?300?  (1 operation, 0.00 s)",
            "  200  test_it.py::test_it?200?  (1 operation, 0.00 s)",
            "most expensive",
            "  $0.010000  test_it.py::test_it?100?  (1 operation, 0.00 s)",
            "  $0.005000  test_it.py::test_it?200?  (1 operation, 0.00 s)",
            "4 tests, 3 operations, 600 tokens, $0.018333, 0.00 s in tracked calls",
            f"session {ran.json['session_id']} in {ran.log_dir}",
        ]
    )


def test_quiet_is_quiet(run: Runs) -> None:
    ran = run(SPENDING, "-q")
    assert "instrument" not in ran.text.replace("instrument-kit", "")
    assert len(ran.json["tests"]) == 4


def test_no_tests_are_named_where_none_are_asked_for(run: Runs) -> None:
    ran = run(SPENDING, "--instrument-top=0")
    assert "slowest" not in ran.text
    assert "600 tokens" in ran.text


def test_without_a_terminal_the_json_is_written(run: Runs) -> None:
    assert len(run(SPENDING, "-pno:terminal").json["tests"]) == 4


def test_json_has_the_figures_of_each_test_and_of_all(run: Runs) -> None:
    found = run("def test_it(): ask(3); ask(4)").json
    (test,) = found["tests"]
    durations = test.pop("durations")
    totals = found.pop("totals")
    assert len(durations) == 2
    assert test["seconds"] == totals["seconds"] == pytest.approx(sum(durations))
    assert 0 < test["seconds"] < test.pop("wall_seconds") < totals.pop("wall_seconds")
    assert test == {
        "node_id": "test_it.py::test_it",
        "outcome": "passed",
        "attempts": 1,
        "operations": 2,
        "error_count": 0,
        "tokens": 7,
        "input_tokens": 0,
        "output_tokens": 0,
        "usd": None,
        "unpriced_models": ["unknown"],
        "seconds": test["seconds"],
        "worker": None,
    }
    assert totals == {
        "tests": 1,
        "operations": 2,
        "error_count": 0,
        "tokens": 7,
        "usd": None,
        "unpriced_models": ["unknown"],
        "seconds": test["seconds"],
    }
    assert sorted(found) == ["format", "log_dir", "session_id", "tests"]


def test_junit_has_properties_of_tests_with_calls_teardown_included(run: Runs) -> None:
    ran = run(
        """
        import pytest
        @pytest.fixture
        def late():
            yield
            ask(2)
        def test_calls(late): ask(3)
        def test_none(): pass
        """,
        "--junitxml=j.xml",
    )
    xml = (ran.log_dir.parent / "j.xml").read_text()
    with_calls, without = xml.split("</testcase>")[0], xml.split("</testcase>")[-1]
    assert '<property name="instrument_operations" value="2" />' in with_calls
    assert '<property name="instrument_tokens" value="5" />' in with_calls
    assert '<property name="instrument_seconds" value="' in with_calls
    assert "property" not in without


def test_the_run_is_recorded_where_it_is_asked_to_be(run: Runs, pytester: pytest.Pytester) -> None:
    ran = run("def test_it(): ask(3)", "--instrument-dir=here/there")
    assert not ran.log_dir.exists()
    assert ran.json["log_dir"] == str(pytester.path / "here/there")
    log = UsageLog(pytester.path / "here/there")
    assert log.stats(ran.json["session_id"]).total_tokens == 3


def test_workers_record_where_the_run_is_asked_to_be_recorded(
    run: Runs, pytester: pytest.Pytester
) -> None:
    ran = run("def test_it(): ask(3)", "--instrument-dir=here", "-n2", load=("xdist",))
    assert not ran.log_dir.exists()
    assert UsageLog(pytester.path / "here").stats(ran.json["session_id"]).total_tokens == 3


def test_a_directory_that_the_program_configures_does_not_move_the_run(run: Runs) -> None:
    ran = run(
        """
        from instrument import configure
        configure(log_dir="elsewhere")
        def test_it(usage):
            ask(3)
            assert usage.total_tokens == 3
        """
    )
    ran.result.assert_outcomes(passed=1)
    assert ran.tree() == ["test_it", "  setup", "  call", "  teardown"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--instrument-top=-1", "'-1': use a number from 0"),
        ("--instrument-top=few", "'few': use a number from 0"),
        ("--instrument-dir=test_it.py", "--instrument-dir=test_it.py: use the path of a directory"),
        ("--instrument-json=.", "--instrument-json=.: use the path of a file"),
        ("--instrument-json=", "--instrument-json=: use the path of a file"),
    ],
)
def test_an_option_that_cannot_be_used_is_told_before_anything_runs(
    option: str, said: str, run: Runs
) -> None:
    ran = run("def test_it(): ask()", option)
    assert ran.result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in ran.text
    assert not ran.log_dir.exists()


def test_json_that_cannot_be_written_is_told_and_is_a_failure(run: Runs) -> None:
    ran = run("def test_it(): ask()", "--instrument-json=test_it.py/out.json")
    assert ran.result.ret == pytest.ExitCode.USAGE_ERROR
    assert "cannot be written" in ran.text


def test_recording_that_is_switched_off_is_told(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUMENT_DISABLED", "1")
    ran = run("def test_it(): ask()")
    ran.result.assert_outcomes(passed=1)
    assert "instrument: recording is switched off, by INSTRUMENT_DISABLED" in ran.text


def test_what_is_not_known_is_not_shown_as_zero() -> None:
    run = run_of(figures("a", operations=2, seconds=1.0))
    assert (
        lines_of(run, 5)[0] == "1 test, 2 operations, tokens not reported, 1.00 s in tracked calls"
    )
    totals = as_json(run)["totals"]
    assert (totals["tokens"], totals["usd"]) == (None, None)


def test_models_without_a_price_are_named() -> None:
    run = run_of(figures("a", operations=1, tokens=5, unpriced_models=("my-model",)))
    assert "without a price: my-model" in lines_of(run, 5)


numbers = st.integers(0, 10**6)
tests = st.builds(
    TestFigures,
    node_id=st.text(),
    outcome=st.sampled_from(OUTCOMES),
    attempts=st.integers(1, 5),
    operations=numbers,
    tokens=st.none() | numbers,
    usd=st.none() | st.sampled_from([0.0, 0.25, 0.5]),
    unpriced_models=st.lists(st.text(), unique=True).map(sorted).map(tuple),
    durations=st.lists(st.sampled_from([0.25, 0.5])).map(tuple),
    worker=st.none() | st.just("gw0"),
)


@given(tests)
def test_figures_cross_to_another_process_as_they_are(test: TestFigures) -> None:
    assert TestFigures.from_dict(test.to_dict()) == test


@given(tests, tests)
def test_attempts_are_added_up(first: TestFigures, second: TestFigures) -> None:
    both = first.and_then(second)
    assert both.durations == first.durations + second.durations
    assert both.outcome == second.outcome
    known = [each.tokens for each in (first, second) if each.tokens is not None]
    assert both.tokens == (sum(known) if known else None)
