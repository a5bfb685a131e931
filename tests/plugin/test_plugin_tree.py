"""What a recorded run looks like in the log."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

pytest_plugins = ["pytester"]

Runs = Callable[..., Any]


def test_a_run_is_a_session_of_tests_of_phases_of_calls(run: Runs) -> None:
    ran = run(
        """
        import pytest
        @pytest.fixture
        def fixture():
            ask(); yield; ask()
        def test_it(fixture):
            with track("outer", service="fake"):
                ask()
        """
    )
    assert ran.tree() == [
        "test_it",
        "  setup",
        "    ask",
        "  call",
        "    outer",
        "      ask",
        "  teardown",
        "    ask",
    ]
    assert {(each.session_name, each.session_id) for each in ran.log.operations()} == {
        ("pytest", ran.json["session_id"])
    }


def test_class_and_module_fixtures_are_of_the_tests_that_set_them_up_and_tear_them_down(
    run: Runs,
) -> None:
    ran = run(
        """
        import pytest
        @pytest.fixture(scope="module")
        def module():
            ask(1); yield; ask(2)
        @pytest.fixture(scope="class")
        def of_class():
            ask(3); yield; ask(4)
        @pytest.mark.usefixtures("module", "of_class")
        class TestClass:
            def test_a(self): ask(5)
            def test_b(self): ask(6)
        def test_c(): ask(7)
        """
    )
    assert ran.places() == [
        ("test_a", "setup", 1),
        ("test_a", "setup", 3),
        ("test_a", "call", 5),
        ("test_b", "call", 6),
        ("test_b", "teardown", 4),
        ("test_c", "call", 7),
        ("test_c", "teardown", 2),
    ]


def test_each_set_of_parameters_is_a_test_of_its_own(run: Runs) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.parametrize("tokens", [1, 2])
        def test_it(tokens): ask(tokens)
        """
    )
    assert ran.places() == [("test_it[1]", "call", 1), ("test_it[2]", "call", 2)]


def test_outcomes_are_told_apart(run: Runs) -> None:
    ran = run(
        """
        import pytest
        @pytest.fixture
        def broken(): raise KeyError("no such thing")
        @pytest.fixture
        def breaks():
            yield
            raise OSError
        def test_passed(): pass
        def test_failed(): assert False
        def test_error(broken): pass
        def test_late(breaks): pass
        @pytest.mark.skip(reason="later")
        def test_skipped(): pass
        def test_skips(): pytest.skip("no key")
        @pytest.mark.xfail(reason="known")
        def test_xfailed(): assert False
        @pytest.mark.xfail
        def test_xpassed(): pass
        @pytest.mark.xfail(strict=True)
        def test_strict(): pass
        """
    )
    told = {
        name: (each.metadata["outcome"], each.outcome, each.error_type)
        for name, each in ran.tests.items()
    }
    assert told == {
        "test_passed": ("passed", "ok", None),
        "test_failed": ("failed", "error", "AssertionError"),
        "test_error": ("error", "error", "KeyError"),
        "test_late": ("error", "error", "OSError"),
        "test_skipped": ("skipped", "cancelled", "Skipped"),
        "test_skips": ("skipped", "cancelled", "Skipped"),
        "test_xfailed": ("xfailed", "ok", None),
        "test_xpassed": ("xpassed", "ok", None),
        "test_strict": ("failed", "error", "XPassStrict"),
    }
    assert ran.tests["test_error"].error_message == "test_it.py:5: KeyError: 'no such thing'"
    assert ran.tests["test_skips"].error_message == "no key"
    assert ran.tests["test_xfailed"].metadata["reason"] == "known"
    outcomes = {each["node_id"].rpartition("::")[2]: each["outcome"] for each in ran.json["tests"]}
    assert outcomes == {name: outcome for name, (outcome, *_) in told.items()}


def test_what_a_failed_comparison_compares_is_not_recorded(run: Runs) -> None:
    ran = run("def test_it(): assert 'what the model said' == ''")
    assert "what the model said" in ran.text
    assert ran.tests["test_it"].error_message == "test_it.py:2"


def test_a_test_that_is_run_again_is_an_operation_each_time(run: Runs) -> None:
    ran = run(
        """
        import pytest
        runs = []
        @pytest.mark.flaky(reruns=3)
        def test_it():
            runs.append(ask(len(runs)))
            assert len(runs) == 3
        """,
        load=("rerunfailures",),
    )
    ran.result.assert_outcomes(passed=1)
    attempts = [
        (each.attempt, each.metadata["outcome"], each.outcome, each.error_type)
        for each in ran.log.operations(operation="test_it.py::test_it")
    ]
    assert attempts == [
        (1, "rerun", "error", "AssertionError"),
        (2, "rerun", "error", "AssertionError"),
        (3, "passed", "ok", None),
    ]
    assert ran.places() == [("test_it", "call", 0), ("test_it", "call", 1), ("test_it", "call", 2)]
    (figures,) = ran.json["tests"]
    assert (figures["attempts"], figures["tokens"], figures["outcome"]) == (3, 3, "passed")


@pytest.mark.parametrize("kind", ["subtests.test", "self.subTest"])
def test_calls_in_subtests_are_of_the_test_and_a_failed_one_fails_it(kind: str, run: Runs) -> None:
    fixture = "def test_it(subtests):"
    case = "class TestCase(__import__('unittest').TestCase):\n  def test_it(self):"
    ran = run(
        f"""
{fixture if kind.startswith("subtests") else case}
    for tokens in range(3):
        with {kind}(tokens=tokens):
            ask(tokens)
            assert tokens != 1
"""
    )
    assert ran.places() == [("test_it", "call", tokens) for tokens in range(3)]
    test = ran.tests["test_it"]
    assert (test.error_type, test.metadata["outcome"]) == ("AssertionError", "failed")
    assert test.metadata["subtests_failed"] == 1


def test_what_was_running_when_the_process_was_killed_is_interrupted(run: Runs) -> None:
    ran = run(
        """
        import os, signal
        def test_before(): ask(1)
        def test_it():
            ask(2)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert ran.result.ret == -signal.SIGKILL
    assert {name: each.outcome for name, each in ran.tests.items()} == {
        "test_before": "ok",
        "test_it": "interrupted",
    }
    assert ran.log.stats(ran.tests["test_it"].session_id).total_tokens == 3


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "pytest.exit.Exception"])
def test_an_interrupted_run_ends_what_is_running(error: str, run: Runs) -> None:
    ran = run(
        f"""
        import pytest
        def test_it():
            ask()
            raise {error}("enough")
        """
    )
    assert ran.tree() == ["test_it", "  setup", "  call", "    ask"]
    assert ran.tests["test_it"].outcome == "error"


def test_the_first_failure_ends_the_run_where_pytest_is_told_so(run: Runs) -> None:
    ran = run("def test_a(): assert 0\ndef test_b(): ask()", "-x")
    assert list(ran.tests) == ["test_a"]
    assert [each["node_id"] for each in ran.json["tests"]] == ["test_it.py::test_a"]


def test_last_failed_runs_what_failed(run: Runs) -> None:
    source = "def test_a(): assert 0\ndef test_b(): pass"
    run(source, load=("cacheprovider",))
    sessions = run(source, "--lf", load=("cacheprovider",)).log.sessions()
    assert [each.operation_count for each in sessions] == [4, 8]


def test_a_session_that_a_fixture_enters_stays_current_and_is_a_child(run: Runs) -> None:
    ran = run(
        """
        import pytest
        from instrument import current_session
        @pytest.fixture(scope="module")
        def work():
            with session("work") as work:
                yield work
        def test_a(work):
            assert current_session() is work
            ask(1)
        def test_b(work):
            assert current_session() is work
            ask(2)
        def test_c(): ask(3)
        """
    )
    ran.result.assert_outcomes(passed=3)
    assert ran.places() == [("test_a", "call", 1), ("test_b", "call", 2), ("test_c", "call", 3)]
    asked = ran.log.operations(service="fake")
    assert [each.session_name for each in asked] == ["work", "work", "work"]
    assert asked[0].parent_session_id == ran.json["session_id"]


def test_calls_at_import_are_of_the_session_and_of_no_test(run: Runs) -> None:
    ran = run("ask(7)\ndef test_it(): pass")
    (asked,) = ran.log.operations(service="fake")
    assert (asked.parent_id, asked.session_id) == (None, ran.json["session_id"])


def test_child_processes_and_threads_are_of_the_test_that_starts_them(run: Runs) -> None:
    ran = run(
        """
        import subprocess, sys, threading
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        def test_process():
            subprocess.run([sys.executable, "-c", "from calls import *; ask(1)"], check=True)
        def test_pool_is_made(): pool.submit(ask, 2).result()
        def test_pool_is_used(): pool.submit(ask, 3).result()
        def test_thread():
            thread = threading.Thread(target=ask, args=[4])
            thread.start()
            thread.join()
        """
    )
    assert ran.places() == [
        ("test_process", "call", 1),
        ("test_pool_is_made", "call", 2),
        ("test_pool_is_used", "call", 3),
        ("test_thread", "call", 4),
    ]


def test_a_run_inside_of_a_session_is_its_child(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUMENT_SESSION_ID", "around")
    ran = run("def test_it(): ask()")
    assert {each.parent_session_id for each in ran.log.operations()} == {"around"}


def test_captured_calls_reach_no_log_but_their_own(run: Runs) -> None:
    ran = run(
        """
        def test_it(capture_operations):
            ask(5)
            assert [each.tokens for each in capture_operations] == [5]
            assert capture_operations.log.running() == []
        """
    )
    ran.result.assert_outcomes(passed=1)
    assert ran.tree() == ["test_it", "  setup", "  call", "  teardown"]


def test_the_environment_is_as_it_was_when_the_run_is_over(
    run: Runs, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        """
        import os, pytest
        before = dict(os.environ)
        def pytest_unconfigure():
            after = dict(os.environ)
            names = {*before, *after} - {"PYTEST_CURRENT_TEST"}
            print({name for name in names if before.get(name) != after.get(name)})
        """
    )
    assert "set()" in run("def test_it(): ask()", "-s").text


def test_nested_runs_in_one_process_do_not_disturb_each_other(run: Runs) -> None:
    ran = run(
        """
        pytest_plugins = ["pytester"]
        def test_outer(pytester):
            pytester.makepyfile("from calls import *\\ndef test_inner(): ask(2)")
            ask(1)
            pytester.syspathinsert(pytester.path)
            pytester.runpytest_inprocess("--instrument").assert_outcomes(passed=1)
            elsewhere = "--instrument-dir=elsewhere"
            pytester.runpytest_inprocess("--instrument", elsewhere).assert_outcomes(passed=1)
            ask(3)
        """,
        strict=False,
    )
    ran.result.assert_outcomes(passed=1)
    assert ran.places() == [
        ("test_outer", "call", 1),
        ("test_inner", "call", 2),
        ("test_outer", "call", 3),
    ]
