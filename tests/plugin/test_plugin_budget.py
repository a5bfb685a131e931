"""The marker `budget` and the fixture `usage`, without `--instrument`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instrument.operation import SessionStats
from instrument.pytest_plugin.limits import NAMES, mistakes_of

pytest_plugins = ["pytester"]

Runs = Callable[..., Any]


@pytest.fixture
def budgeted(run: Runs) -> Runs:
    return partial(run, instrument=False)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("tokens=10", "used 11 tokens, of a budget of 10"),
        ("operations=1", "used 2 operations, of a budget of 1"),
        ("usd=0.5", "used $1.100000, of a budget of $0.500000"),
        ("seconds=0.01", "used 0.0?? s in tracked calls, of a budget of 0.010"),
    ],
)
def test_a_test_that_uses_more_than_its_budget_fails_with_what_used_it(
    budget: str, said: str, budgeted: Runs
) -> None:
    ran = budgeted(
        f"""
        import pytest, time
        def spend(tokens):
            with track("spend", service="fake", model="m") as op:
                time.sleep(0.01)
                op.set_usage(total_tokens=tokens, cost_usd=tokens / 10)
        @pytest.mark.budget({budget})
        def test_more():
            spend(4); spend(7)
        @pytest.mark.budget(tokens=11, operations=2, usd=1.11, seconds=10)
        def test_no_more():
            spend(4); spend(7)
        """
    )
    ran.result.assert_outcomes(passed=1, failed=1)
    ran.result.stdout.fnmatch_lines(
        [said, "", "calls  tokens * what", "    2      11 * fake spend m"]
    )


def test_time_outside_of_tracked_calls_and_in_calls_within_calls_does_not_count(
    budgeted: Runs,
) -> None:
    ran = budgeted(
        """
        import pytest, time
        @pytest.mark.budget(seconds=10)
        def test_it(usage):
            began = time.perf_counter()
            with track("outer", service="fake"), track("inner", service="fake"):
                time.sleep(0.1)
            took = time.perf_counter() - began
            time.sleep(0.1)
            assert 0.1 <= usage.seconds <= took
            assert usage.operation_count == 2
        """
    )
    ran.result.assert_outcomes(passed=1)


def test_usage_that_an_inner_call_counted_is_not_counted_again(budgeted: Runs) -> None:
    ran = budgeted(
        """
        import pytest
        @tracked(service="fake", operation="around")
        def around(response):
            return inner(response)
        @tracked(service="fake", operation="inner")
        def inner(response):
            return response
        @pytest.mark.budget(tokens=15)
        def test_it(usage):
            around({
                "id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            })
            assert (usage.operation_count, usage.total_tokens) == (2, 15)
        """
    )
    ran.result.assert_outcomes(passed=1)


def test_a_model_without_a_price_breaches_a_budget_in_dollars_and_the_cure_is_named(
    budgeted: Runs,
) -> None:
    ran = budgeted(
        """
        import pytest
        from instrument import configure
        def spend():
            with track("spend", service="fake", model="my-model") as op:
                op.set_usage(input_tokens=1_000_000, output_tokens=0)
        @pytest.mark.budget(usd=5)
        def test_unknown(): spend()
        @pytest.mark.budget(usd=5)
        def test_nameless(): ask(3)
        @pytest.mark.budget(usd=5)
        def test_priced(usage):
            configure(prices={"my-model": {"input": 4, "output": 1}})
            spend()
            assert usage.cost_usd == 4
        """
    )
    ran.result.assert_outcomes(passed=1, failed=2)
    assert "no price is known for 'my-model'; configure(prices={'my-model': " in ran.text
    assert "a model without a name used tokens; name it with @tracked(model=...)" in ran.text


def test_a_call_without_tokens_is_no_breach_of_a_budget_in_dollars(budgeted: Runs) -> None:
    ran = budgeted(
        """
        import pytest
        @pytest.mark.budget(usd=5)
        def test_it():
            with track("charge", service="stripe"): pass
        """
    )
    ran.result.assert_outcomes(passed=1)


def test_what_setup_and_teardown_use_counts(budgeted: Runs) -> None:
    ran = budgeted(
        """
        import pytest
        @pytest.fixture
        def setup(): ask(3)
        @pytest.fixture
        def teardown():
            yield
            ask(3)
        @pytest.mark.budget(tokens=2)
        def test_setup(setup): pass
        @pytest.mark.budget(tokens=2)
        def test_teardown(teardown): pass
        """
    )
    ran.result.assert_outcomes(passed=1, failed=1, errors=1)


def test_calls_of_other_tests_and_those_of_pytest_do_not_count(budgeted: Runs) -> None:
    ran = budgeted(
        """
        import pytest
        def test_before(): ask(10)
        @pytest.mark.budget(tokens=1, operations=1)
        def test_it(): ask(1)
        """
    )
    ran.result.assert_outcomes(passed=2)


def test_the_closest_marker_counts_for_each_limit(budgeted: Runs) -> None:
    ran = budgeted(
        """
        import pytest
        pytestmark = pytest.mark.budget(tokens=1, operations=1)
        @pytest.mark.budget(tokens=5)
        def test_more_tokens(): ask(5)
        @pytest.mark.budget(tokens=5)
        def test_more_calls(): ask(1); ask(1)
        """
    )
    ran.result.assert_outcomes(passed=1, failed=1)
    assert "used 2 operations, of a budget of 1" in ran.text


def test_a_test_that_fails_anyway_fails_once_and_for_its_own_reason(budgeted: Runs) -> None:
    ran = budgeted(
        """
        import pytest
        @pytest.mark.budget(tokens=1)
        def test_it():
            ask(5)
            assert False
        """
    )
    ran.result.assert_outcomes(failed=1)
    assert "of a budget of" not in ran.text


def test_each_attempt_has_the_whole_budget(budgeted: Runs) -> None:
    ran = budgeted(
        """
        import pytest
        runs = []
        @pytest.mark.budget(tokens=5)
        @pytest.mark.flaky(reruns=1)
        def test_it(usage):
            runs.append(ask(4))
            assert usage.total_tokens == 4
            assert len(runs) == 2
        """,
        load=("rerunfailures",),
    )
    ran.result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "isolated", ["capture_operations", "configured", "captured"], ids=lambda name: name
)
def test_calls_that_are_recorded_elsewhere_count_as_well(isolated: str, budgeted: Runs) -> None:
    ran = budgeted(
        f"""
        import pytest
        from instrument import configure
        from instrument.testing import capture
        @pytest.fixture
        def configured(tmp_path):
            configure(log_dir=tmp_path / "elsewhere")
        @pytest.fixture
        def captured():
            with capture():
                ask(1)
        @pytest.mark.budget(tokens=5)
        def test_it({isolated}, usage):
            with capture():
                ask(3)
            ask(3)
            assert usage.total_tokens == 6 + ("{isolated}" == "captured")
        """
    )
    ran.result.assert_outcomes(failed=1)
    assert "of a budget of 5" in ran.text


def test_what_child_processes_use_counts(budgeted: Runs) -> None:
    ran = budgeted(
        """
        import pytest, subprocess, sys
        @pytest.mark.budget(tokens=5)
        def test_it():
            subprocess.run([sys.executable, "-c", "from calls import *; ask(7)"], check=True)
        """
    )
    ran.result.assert_outcomes(failed=1)


def test_usage_is_live_and_stays_when_the_test_is_over(budgeted: Runs) -> None:
    ran = budgeted(
        """
        kept = []
        def test_it(usage):
            assert (usage.operation_count, usage.operations, usage.total_tokens) == (0, [], 0)
            ask(2)
            assert usage.total_tokens == 2
            assert [each.tokens for each in usage.operations] == [2]
            assert usage.services == ("fake",)
            kept.append(usage)
        def test_later():
            ask(5)
            assert kept[0].total_tokens == 2
            assert "1 operation, 2 tokens" in repr(kept[0])
        """
    )
    ran.result.assert_outcomes(passed=2)


def test_usage_has_every_attribute_of_session_stats_and_no_other(budgeted: Runs) -> None:
    names = SessionStats.__struct_fields__
    ran = budgeted(
        f"""
        def test_it(usage):
            assert all(hasattr(usage, name) and name in dir(usage) for name in {names})
            assert not hasattr(usage, "spelling")
        """
    )
    ran.result.assert_outcomes(passed=1)


def test_without_the_option_nothing_is_summed_up_and_other_tests_are_no_operations(
    budgeted: Runs,
) -> None:
    ran = budgeted("def test_a(usage): ask()\ndef test_b(): ask()")
    assert list(ran.tests) == ["test_a"]
    assert "= instrument =" not in ran.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "token=5",
            "budget(token=5): unknown argument: use tokens=, usd=, seconds= or operations=",
        ),
        ("5", "budget(5): use keywords: tokens=, usd=, seconds= or operations="),
        ("", "budget(): use at least one of tokens=, usd=, seconds= or operations="),
        ("tokens=0", "budget(tokens=0): use a whole number above 0"),
        ("tokens=1.5", "budget(tokens=1.5): use a whole number above 0"),
        ("operations=True", "budget(operations=True): use a whole number above 0"),
        ("usd=-1", "budget(usd=-1): use a number above 0"),
        ("seconds='1'", "budget(seconds='1'): use a number above 0"),
        ("usd=float('nan')", "budget(usd=nan): use a number above 0"),
    ],
)
def test_a_budget_that_is_none_is_an_error_of_collection(
    arguments: str, said: str, budgeted: Runs
) -> None:
    ran = budgeted(
        f"""
        import pytest
        @pytest.mark.budget({arguments})
        def test_it(): pass
        """
    )
    ran.result.assert_outcomes(errors=1)
    assert f"test_it.py::test_it: {said}" in ran.text


def test_a_wrong_budget_that_a_plugin_adds_is_told_before_anything_runs(
    budgeted: Runs, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        """
        import pytest
        def pytest_collection_modifyitems(items):
            items[0].add_marker(pytest.mark.budget(cost=5))
        """
    )
    ran = budgeted("def test_it(): ask()")
    assert ran.result.ret == pytest.ExitCode.USAGE_ERROR
    assert "test_it.py::test_it: budget(cost=5): unknown argument" in ran.text


def test_a_wrong_budget_of_a_class_is_told_for_each_of_its_tests(budgeted: Runs) -> None:
    ran = budgeted(
        """
        import pytest
        @pytest.mark.budget(tokens="many")
        class TestClass:
            def test_a(self): pass
            def test_b(self): pass
        """
    )
    assert "test_it.py::TestClass::test_b: budget(tokens='many'): use a whole" in ran.text


@given(
    st.dictionaries(
        st.sampled_from([*NAMES, "token", "cost"]),
        st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans()),
        min_size=1,
    )
)
def test_limits_are_numbers_above_zero_under_their_names(arguments: dict[str, Any]) -> None:
    wrong = [
        name
        for name, value in arguments.items()
        if name not in NAMES
        or type(value) not in ((int,) if name in ("tokens", "operations") else (int, float))
        or not 0 < value < float("inf")
    ]
    said = list(mistakes_of(pytest.mark.budget(**arguments).mark))
    assert [each.partition("(")[2].partition("=")[0] for each in said] == wrong


LATE = """
    import pytest
    @pytest.fixture
    def limited(request):
        request.node.add_marker(pytest.mark.budget(tokens=5))
    def test_in_a_fixture(limited, usage): ask(7)
    def test_in_the_test(request, usage):
        ask(7)
        request.node.add_marker(pytest.mark.budget(tokens=5))
    def test_wrong(request, usage):
        request.node.add_marker(pytest.mark.budget(token=5))
    def test_enough(request, usage):
        request.node.add_marker(pytest.mark.budget(tokens=5))
        ask(5)
"""


def test_a_budget_that_a_test_gets_while_it_runs_is_checked_too(budgeted: Runs) -> None:
    ran = budgeted(LATE)
    ran.result.assert_outcomes(passed=1, failed=3)
    assert ran.text.count("used 7 tokens, of a budget of 5") >= 2
    assert "budget(token=5): unknown argument: use tokens=" in ran.text


@pytest.mark.parametrize("others", ["", "    def test_other(usage): ask()"], ids=["alone", "among"])
def test_a_budget_that_comes_too_late_to_be_checked_is_told(others: str, budgeted: Runs) -> None:
    ran = budgeted(LATE.replace(", usage", "") + others, strict=False)
    ran.result.assert_outcomes(passed=4 + bool(others), warnings=4)
    assert "its marker was added while it ran; name the fixture `usage`" in ran.text


def test_calls_inside_of_what_a_fixture_of_several_tests_left_open_are_of_the_test_that_makes_them(
    run: Runs,
) -> None:
    ran = run(
        """
        import pytest
        @pytest.fixture(scope="module")
        def server():
            with track("serve", service="fake") as operation:
                ask(1)
                yield
                ask(2)
                operation.set_usage(total_tokens=100)
        def test_first(server): ask(10)
        def test_second(server): ask(20)
        def test_last(server, usage):
            ask(40)
            assert usage.total_tokens == 40
        """
    )
    ran.result.assert_outcomes(passed=3)
    tokens = {each["node_id"].rpartition("_")[2]: each["tokens"] for each in ran.json["tests"]}
    assert tokens == {"first": 11, "second": 20, "last": 42}


def test_a_budget_is_not_checked_silently_where_recording_is_switched_off(
    budgeted: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUMENT_DISABLED", "1")
    ran = budgeted(
        """
        import pytest
        @pytest.mark.budget(tokens=5)
        def test_it(): ask(7)
        """,
        strict=False,
    )
    ran.result.assert_outcomes(passed=1, warnings=1)
    assert "budget is not checked: recording is switched off" in ran.text
