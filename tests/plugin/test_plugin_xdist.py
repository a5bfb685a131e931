"""Runs over several workers of pytest-xdist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

pytest_plugins = ["pytester"]

Runs = Callable[..., Any]


def test_all_workers_are_one_session_and_their_tests_are_summed_up_once(run: Runs) -> None:
    ran = run(
        """
        import os, pytest
        @pytest.mark.parametrize("tokens", range(1, 9))
        def test_it(tokens): ask(tokens)
        """,
        "-n2",
        "--dist=loadscope",
        "--junitxml=j.xml",
        load=("xdist",),
    )
    ran.result.assert_outcomes(passed=8)
    (work,) = ran.log.sessions()
    assert work.session_id == ran.json["session_id"]
    assert (work.operation_count, work.total_tokens) == (8 * 5, 36)
    assert sorted(ran.places()) == [(f"test_it[{n}]", "call", n) for n in range(1, 9)]
    assert sum(each["tokens"] for each in ran.json["tests"]) == 36
    ran.result.stdout.fnmatch_lines(["*8 tests, 8 operations, 36 tokens,*"])


def test_each_test_says_which_worker_ran_it(run: Runs) -> None:
    ran = run(
        """
        import time, pytest
        @pytest.mark.parametrize("n", range(4))
        def test_it(n, worker_id): time.sleep(0.2); assert worker_id in ("gw0", "gw1")
        """,
        "-n2",
        load=("xdist",),
    )
    ran.result.assert_outcomes(passed=4)
    assert {each.metadata["worker"] for each in ran.tests.values()} == {"gw0", "gw1"}
    assert {each["worker"] for each in ran.json["tests"]} == {"gw0", "gw1"}


def test_properties_and_reruns_come_from_workers(run: Runs) -> None:
    ran = run(
        """
        import pytest
        runs = []
        @pytest.mark.flaky(reruns=2)
        def test_it():
            runs.append(ask(5))
            assert len(runs) == 2
        """,
        "-n2",
        "--junitxml=j.xml",
        load=("xdist", "rerunfailures"),
    )
    ran.result.assert_outcomes(passed=1)
    (figures,) = ran.json["tests"]
    assert (figures["attempts"], figures["tokens"]) == (2, 10)
    xml = (ran.log_dir.parent / "j.xml").read_text()
    assert '<property name="instrument_tokens" value="10"' in xml


def test_budgets_hold_in_workers_without_the_option(run: Runs) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.budget(tokens=2)
        @pytest.mark.parametrize("tokens", [1, 2, 3, 4])
        def test_it(tokens): ask(tokens)
        """,
        "-n2",
        load=("xdist",),
        instrument=False,
    )
    ran.result.assert_outcomes(passed=2, failed=2)
    assert len({each.session_id for each in ran.log.operations()}) == 1


def test_a_wrong_budget_is_an_error_of_collection_in_workers(run: Runs) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.budget(token=2)
        def test_it(): pass
        """,
        "-n2",
        load=("xdist",),
        instrument=False,
    )
    ran.result.assert_outcomes(errors=1)
    assert "budget(token=2): unknown argument: use tokens=, usd=, seconds= or" in ran.text


def test_the_test_in_which_a_worker_dies_is_interrupted_and_counted(run: Runs) -> None:
    ran = run(
        """
        import os
        def test_dies():
            ask(7)
            os._exit(1)
        def test_lives(): ask(1)
        """,
        "-n2",
        load=("xdist",),
    )
    assert ran.tests["test_dies"].outcome == "interrupted"
    figures = {each["node_id"]: (each["outcome"], each["tokens"]) for each in ran.json["tests"]}
    assert figures == {
        "test_it.py::test_dies": ("failed", 7),
        "test_it.py::test_lives": ("passed", 1),
    }
