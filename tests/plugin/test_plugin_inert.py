"""The plugin in runs that do not ask for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

pytest_plugins = ["pytester"]

Runs = Callable[..., Any]


@pytest.fixture
def plain(run: Runs) -> Runs:
    return partial(run, instrument=False)


def test_a_run_that_does_not_ask_loads_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others load what they like
    pytester.makepyfile(
        """
        import sys
        def test_it():
            ours = {name for name in sys.modules if name.startswith("instrument")}
            assert ours == {
                "instrument",
                "instrument._root",
                "instrument.pytest_plugin",
                "instrument.pytest_plugin.baseline_options",
                "instrument.pytest_plugin.limits",
            }
            assert not {"msgspec", "duckdb", "rich", "click", "wrapt"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess("-pinstrument").assert_outcomes(passed=1)


def test_a_run_without_tests_does_not_even_load_what_checks_budgets(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(
        """
        import sys
        def pytest_unconfigure():
            print(*(name for name in sys.modules if name.startswith("instrument")))
        """
    )
    said = pytester.runpytest_subprocess("-pinstrument", "--collect-only").outlines[-1]
    assert set(said.split()) == {
        "instrument",
        "instrument._root",
        "instrument.pytest_plugin",
        "instrument.pytest_plugin.baseline_options",
    }


def test_a_run_that_does_not_ask_is_no_session(plain: Runs) -> None:
    ran = plain("def test_it(): ask()")
    (asked,) = ran.log.operations()
    assert (asked.session_name, asked.parent_id) == (None, None)
    assert "= instrument =" not in ran.text


def test_capturing_asks_for_nothing_else(plain: Runs) -> None:
    ran = plain("def test_it(capture_operations): ask(); assert len(capture_operations) == 1")
    ran.result.assert_outcomes(passed=1)
    assert not ran.log_dir.exists()


@pytest.mark.parametrize("how", ["--instrument", "-oinstrument=true", "--instrument-json=out.json"])
def test_a_run_is_recorded_where_it_is_asked_to_be(how: str, plain: Runs) -> None:
    ran = plain("def test_it(): ask()", how)
    assert list(ran.tests) == ["test_it"]
    assert "= instrument =" in ran.text


def test_the_project_may_ask_for_all_its_runs(plain: Runs, pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\ninstrument = true\n")
    assert list(plain("def test_it(): ask()").tests) == ["test_it"]


@pytest.mark.parametrize("option", ["--collect-only", "--fixtures", "--help"])
def test_what_runs_no_tests_records_nothing(option: str, run: Runs) -> None:
    source = "import pytest\n@pytest.mark.budget(tokens=1)\ndef test_it(usage): ask()"
    ran = run(source, option)
    assert ran.result.ret == 0
    assert not ran.log_dir.exists()


def test_collecting_alone_tells_of_a_wrong_budget(plain: Runs) -> None:
    source = "import pytest\n@pytest.mark.budget(tokens=0)\ndef test_it(): ask()"
    ran = plain(source, "--collect-only")
    assert ran.result.ret == pytest.ExitCode.INTERRUPTED
    assert "budget(tokens=0): use a whole number above 0" in ran.text


def test_pytest_runs_without_the_plugin(plain: Runs) -> None:
    ran = plain("def test_it(): ask()", "-pno:instrument")
    ran.result.assert_outcomes(passed=1)
    assert "unrecognized arguments" in plain("", "-pno:instrument", "--instrument").text


def test_the_marker_is_known_where_markers_have_to_be(plain: Runs) -> None:
    assert (
        "@pytest.mark.budget(tokens=, usd=, seconds=, operations=)" in plain("", "--markers").text
    )


def test_usage_that_nobody_could_see_coming_is_an_error_with_the_cure(plain: Runs) -> None:
    ran = plain("def test_it(request): request.getfixturevalue('usage')")
    ran.result.assert_outcomes(failed=1)
    assert "usage: name it among the test's arguments, or run with --instrument" in ran.text


def test_what_a_suite_calls_usage_itself_asks_for_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os, pytest

        @pytest.mark.parametrize("usage", [1, 2])
        def test_a_parameter(usage):
            assert usage in (1, 2) and "INSTRUMENT_SESSION_ID" not in os.environ

        class TestFixture:
            @pytest.fixture
            def usage(self):
                return 3

            def test_a_fixture(self, usage):
                assert usage == 3 and "INSTRUMENT_SESSION_ID" not in os.environ
        """
    )
    pytester.runpytest_subprocess("-p", "no:hypothesispytest").assert_outcomes(passed=3)


def test_tests_beside_one_with_a_budget_are_in_no_session(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os, pytest

        @pytest.mark.budget(tokens=5)
        def test_a_budget():
            assert "INSTRUMENT_SESSION_ID" in os.environ

        def test_beside():
            assert "INSTRUMENT_SESSION_ID" not in os.environ
        """
    )
    pytester.runpytest_subprocess("-p", "no:hypothesispytest").assert_outcomes(passed=2)
