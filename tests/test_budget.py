"""Budgets in one process: what is refused, what is counted, and how it is said."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from responses import chat, only

from instrument import (
    Budget,
    BudgetExceeded,
    ConfigurationError,
    InstrumentWarning,
    configure,
    extract,
    session,
    track,
    tracked,
)
from instrument.budget import BudgetUnavailable, window
from instrument.testing import CapturedOperations


@tracked(service="openai")
def ask(tokens: int = 15) -> Any:
    usage = {"prompt_tokens": tokens - 5, "completion_tokens": 5, "total_tokens": tokens}
    return chat(None, model="gpt-test", usage=usage)


def enter(operation: str, **more: Any) -> None:
    with track(operation, service="s", **more):
        pass


def calls_until_refused(at_most: int = 100) -> int:
    for made in range(at_most):
        try:
            ask()
        except BudgetExceeded:
            return made
    return at_most


@pytest.fixture(autouse=True)
def captured(capture_operations: CapturedOperations) -> CapturedOperations:
    return capture_operations


@pytest.fixture
def no_budgets_afterwards() -> Iterator[None]:
    yield
    configure(budgets={})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "Budget()=None: use at least one of operations, tokens, usd, seconds"),
        ({"tokens": 0}, "Budget(tokens=)=0: use a whole number from 1 to 10^15"),
        ({"tokens": True}, "Budget(tokens=)=True: use a whole number above 0"),
        ({"operations": -1}, "Budget(operations=)=-1: use a whole number from 1 to 10^15"),
        ({"operations": 1.5}, "Budget(operations=)=1.5: use a whole number above 0"),
        ({"usd": float("nan")}, "Budget(usd=)=nan: use US dollars above 0"),
        ({"usd": "5"}, "Budget(usd=)='5': use US dollars above 0"),
        ({"seconds": float("inf")}, "Budget(seconds=)=inf: use seconds above 0"),
        ({"usd": 1, "per": "year"}, "use minute or hour or day or week or month"),
        ({"usd": 1, "on_exceed": "stop"}, "use 'raise', 'warn' or a callable"),
        ({"dollars": 1}, "unknown argument dollars=1: use tokens, usd, seconds, operations"),
    ],
)
def test_what_is_no_budget_is_told_at_once(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Budget(**wrong)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: session(budget=5),  # type: ignore[arg-type]
        lambda: session(budget=Budget(usd=1, per="day")),
        lambda: configure(budgets=Budget(usd=1)),  # type: ignore[arg-type]
        lambda: configure(budgets={"daily": 20}),  # type: ignore[dict-item]
        lambda: configure(budgets={"": Budget(usd=1)}),
    ],
)
def test_what_takes_a_budget_takes_nothing_else(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="udget"):
        wrong()


def test_a_budget_is_a_value() -> None:
    budget = Budget(usd=5, tokens=1_000, per="day")
    assert repr(budget) == "Budget(tokens=1000, usd=5.0, per='day')"
    assert pickle.loads(pickle.dumps(budget)) == budget == eval(repr(budget))
    assert len({budget, Budget(usd=5.0, tokens=1_000, per="day")}) == 1
    with pytest.raises(AttributeError, match="make another one"):
        budget.usd = 6  # type: ignore[misc]


def test_exactly_so_many_operations_happen(captured: CapturedOperations) -> None:
    with session("night", budget=Budget(operations=3)) as work:
        assert calls_until_refused() == 3
        with pytest.raises(BudgetExceeded) as caught:
            ask()
    assert len(captured) == 3
    assert str(caught.value) == (
        "budget 'night': spent 3 of 3 operations; by openai ask gpt-test 3 operations"
    )
    assert (caught.value.metric, caught.value.limit) == ("operations", 3)
    assert (caught.value.session_id, caught.value.spent.tokens) == (work.id, 45)
    assert pickle.loads(pickle.dumps(caught.value)).by == caught.value.by


def test_a_call_is_refused_where_the_mean_of_its_kind_does_not_fit() -> None:
    with session(budget=Budget(tokens=44)):
        assert calls_until_refused() == 2  # 30, and 15 more are too many
    with session(budget=Budget(tokens=45)):
        assert calls_until_refused() == 3


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_what_the_caller_allows_is_reserved(name: str) -> None:
    with session(budget=Budget(tokens=100)):
        with pytest.raises(BudgetExceeded, match="the call may take 101 tokens"):
            enter("t", metadata={name: 101})
        with track("t", service="s", metadata={name: 100}) as op:
            with pytest.raises(BudgetExceeded, match="100 of 100 tokens"):
                ask()
            op.set_usage(input_tokens=5, output_tokens=5)
        ask()


def test_calls_at_once_cannot_all_slip_under_the_line() -> None:
    with session(budget=Budget(tokens=60)) as work:
        ask()
        with track("ask", service="openai", model="gpt-test"):  # a kind of its own
            assert calls_until_refused() == 2
    assert work.stats().total_tokens == 45


def test_failed_and_cancelled_calls_settle_to_what_they_used() -> None:
    @tracked(service="s")
    def fail() -> None:
        raise OSError("down")

    @tracked(service="s")
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with session(budget=Budget(tokens=100, operations=4)) as work:
        with pytest.raises(OSError, match="down"):
            fail()
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(cancelled())
        with track("t", service="s", metadata={"max_tokens": 100}):
            pass
        ask(100)
        with pytest.raises(BudgetExceeded, match="4 of 4 operations"):
            ask()
    assert work.stats().operation_count == 4


def test_nested_the_tightest_wins_and_both_are_charged() -> None:
    with session("outer", budget=Budget(operations=4)):
        with session("inner", budget=Budget(operations=2)):
            assert calls_until_refused() == 2
        with session("wide", budget=Budget(operations=50)):
            assert calls_until_refused() == 2
        with session("none"), pytest.raises(BudgetExceeded, match="'outer'"):
            ask()
    ask()


def test_what_the_inner_budget_refuses_costs_the_outer_one_nothing() -> None:
    with session("outer", budget=Budget(operations=3, tokens=1_000)):
        with session("inner", budget=Budget(operations=1)):
            calls_until_refused()
            calls_until_refused()
        assert calls_until_refused() == 2


def test_a_session_that_is_joined_has_the_budget_it_began_with() -> None:
    with session(id="job", budget=Budget(operations=2)):
        ask()
    with session(id="job"):
        assert calls_until_refused() == 1
    with session(id="job", budget=Budget(operations=5)):
        assert calls_until_refused() == 3


def test_a_decorated_function_has_a_budget_for_each_call() -> None:
    @session("job", budget=Budget(operations=2))
    def work() -> int:
        return calls_until_refused()

    assert (work(), work()) == (2, 2)


def test_each_first_step_is_asked_about_and_nothing_else_counts() -> None:
    @tracked(service="s")
    async def wait() -> None: ...

    @tracked(service="s")
    def chunks() -> Iterator[int]:
        yield 1

    @tracked(service="s")
    def returned() -> Any:
        return (each for each in (1, 2))

    with session(budget=Budget(operations=3)):
        wait().close()
        chunks()
        for _ in range(5):
            returned()
        asyncio.run(wait())
        assert [list(chunks()), list(returned())] == [[1], [1, 2]]
        with pytest.raises(BudgetExceeded):
            asyncio.run(wait())
        with pytest.raises(BudgetExceeded):
            next(chunks())
        with pytest.raises(BudgetExceeded):
            next(returned())


def test_a_refused_coroutine_that_was_returned_is_closed() -> None:
    async def wait() -> None: ...

    @tracked(service="s")
    def returned() -> Any:
        return wait()

    with session(budget=Budget(operations=1)):
        asyncio.run(returned())
        refused = returned
        with pytest.raises(BudgetExceeded):
            asyncio.run(refused())  # no "never awaited", which would be an error here


def test_seconds_count_the_time_of_outermost_calls() -> None:
    @tracked(service="s")
    def outer() -> None:
        with track("inner", service="s"):
            threading.Event().wait(0.06)

    with session(budget=Budget(seconds=0.1)) as work:
        outer()
        with pytest.raises(BudgetExceeded, match=r"of 0\.1 seconds") as caught:
            outer()
    [_, first] = sorted(each.duration_seconds for each in work.operations())
    assert caught.value.spent.seconds == pytest.approx(first, abs=1e-6)


def test_dollars_are_those_of_the_price_list_or_the_callers() -> None:
    configure(prices={"gpt-test": {"input": 1_000_000, "output": 1_000_000}})
    with session(budget=Budget(usd=50)):
        ask(15)
        with track("t", service="s") as op:
            op.set_usage(input_tokens=1, cost_usd=20)
        message = r"spent \$35.00 of \$50.00, and the call may take \$17.50"
        with pytest.raises(BudgetExceeded, match=message):
            enter("big", model="gpt-test", metadata={"max_tokens": 16})
        for _ in range(2):
            ask(5)
        with pytest.raises(BudgetExceeded, match=r"may take \$16.00"):
            enter("small", model="gpt-test", metadata={"max_tokens": 16})


def test_a_model_without_a_price_is_refused_and_not_free() -> None:
    with session(budget=Budget(usd=5, operations=3)):
        with pytest.raises(BudgetExceeded, match=r"'no-such-model' has no price.*prices=") as told:
            enter("t", model="no-such-model")
        assert told.value.model == "no-such-model"
        with track("t", service="s") as op:  # nobody can know before
            op.set_usage(input_tokens=5, model="never-heard-of")
        with pytest.raises(BudgetExceeded, match="never-heard-of"):
            enter("t")
        with track("t", service="s", model="gpt-5.4"):
            pass
        configure(prices={"never-heard-of": {"input": 1, "output": 1}})
    with session(id="priced", budget=Budget(usd=5)), track("t", service="s") as op:
        op.set_usage(input_tokens=5, model="never-heard-of")
    with session(id="priced"), track("t", service="s"):
        pass


def test_warning_says_it_once_and_lets_everything_go_on(fresh_warnings: None) -> None:
    with session("w", budget=Budget(operations=1, on_exceed="warn")) as work:
        ask()
        with pytest.warns(InstrumentWarning, match=r"'w': spent 1 of 1 .*goes on"):
            ask()
        ask()
    assert work.stats().operation_count == 3


def test_a_callable_decides() -> None:
    told: list[Any] = []

    def decide(exceeded: Any) -> None:
        told.append(exceeded)
        ask()  # not tracked in here, and so not asked about either
        if len(told) == 2:
            raise PermissionError("enough")

    with session(budget=Budget(operations=1, on_exceed=decide)) as work:
        ask()
        ask()
        with pytest.raises(PermissionError, match="enough"):
            ask()
    assert [type(each) for each in told] == [BudgetExceeded] * 2
    assert told[1].spent.operations == 2
    assert work.stats().operation_count == 2


def test_a_refusal_says_what_is_held_for_calls_that_did_not_say_what_they_cost() -> None:
    with session("work", budget=Budget(usd=5)):
        for _ in range(100):
            with track("nameless", service="s") as op:
                op.set_usage(input_tokens=10)
        with pytest.raises(BudgetExceeded, match=r"by s nameless \$0.00; \$5.00 is held for calls"):
            enter("another")


def test_a_named_budget_is_over_everything_in_the_log(no_budgets_afterwards: None) -> None:
    ask()
    with session():
        ask()
    configure(budgets={"daily": Budget(operations=5, per="day")})
    assert calls_until_refused() == 3
    with (
        session(),
        pytest.raises(BudgetExceeded, match=r"'daily': spent 5 of 5 .*T00:00Z"),
    ):
        ask()
    configure(budgets={"daily": Budget(operations=6, per="day")})
    assert calls_until_refused() == 1
    configure(budgets={})
    ask()


def test_a_refusal_by_one_budget_leaves_the_others_as_they_were(
    no_budgets_afterwards: None,
) -> None:
    configure(budgets={"all": Budget(operations=3), "tokens": Budget(tokens=15)})
    with session(budget=Budget(operations=3)) as work:
        assert calls_until_refused() == 1
        assert calls_until_refused() == 0
        configure(budgets={"all": Budget(operations=3)})
        assert calls_until_refused() == 2
    assert work.stats().operation_count == 3


@pytest.mark.parametrize(
    ("per", "since", "until"),
    [
        (None, None, None),
        ("minute", "2026-12-31T23:59", "2027-01-01T00:00"),
        ("hour", "2026-12-31T23:00", "2027-01-01T00:00"),
        ("day", "2026-12-31T00:00", "2027-01-01T00:00"),
        ("week", "2026-12-28T00:00", "2027-01-04T00:00"),
        ("month", "2026-12-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_periods_are_those_of_the_calendar_in_utc(per: Any, since: Any, until: Any) -> None:
    found = window(per, datetime(2026, 12, 31, 23, 59, 30, tzinfo=UTC))
    assert [each and f"{each:%Y-%m-%dT%H:%M}" for each in found] == [since, until]


def test_a_session_id_from_outside_opens_no_budget_and_leaves_none() -> None:
    with session(id="known", budget=Budget(operations=1)) as known:
        ask()
        headers = known.headers()
    with extract(headers):
        ask()  # an id that somebody sends spends nobody's budget
    with session(budget=Budget(operations=1)), extract(headers):
        ask()
        with pytest.raises(BudgetExceeded):
            ask()


def test_an_id_of_dots_stays_inside_the_log(captured: CapturedOperations) -> None:
    for name in ("..", ".", "a:b~c", "x" * 128):
        with session(id=name, budget=Budget(operations=1)):
            assert calls_until_refused() == 1
    found = {each.name for each in (captured.log_dir / "budgets").iterdir()}
    assert found == {"session-..", "session-.", "session-a%3Ab~c", f"session-{'x' * 128}"}


def test_files_of_budgets_are_this_users_alone(captured: CapturedOperations) -> None:
    with session(id="s", budget=Budget(operations=1)):
        ask()
    places = [captured.log_dir / "budgets", captured.log_dir / "budgets" / "session-s"]
    assert [place.stat().st_mode & 0o777 for place in places] == [0o700, 0o700]
    assert [each.stat().st_mode & 0o777 for each in places[1].iterdir()] == [0o600]


def test_a_ledger_that_cannot_be_written_is_said_as_the_budget_wants_it(
    tmp_path: Path, fresh_warnings: None
) -> None:
    (tmp_path / "budgets").write_text("in the way")
    with pytest.raises(BudgetUnavailable, match="can be written"):
        refuse_in(tmp_path, Budget(operations=1))
    with pytest.warns(InstrumentWarning, match="can be written.*goes on"):
        refuse_in(tmp_path, Budget(operations=1, on_exceed="warn"))


def refuse_in(log_dir: Path, budget: Budget) -> None:
    from instrument import _config

    with _config.override(log_dir=log_dir), session(budget=budget):
        ask()


def test_a_damaged_ledger_names_the_cure(captured: CapturedOperations) -> None:
    with session(id="s", budget=Budget(operations=2)):
        ask()
    [ledger] = (captured.log_dir / "budgets" / "session-s").iterdir()
    ledger.write_text("{")
    with session(id="s"), pytest.raises(BudgetUnavailable, match=r"damaged.*remove its directory"):
        ask()


def test_a_log_that_is_removed_does_not_make_the_budget_new(captured: CapturedOperations) -> None:
    with session(budget=Budget(operations=3)):
        ask()
        for each in sorted((captured.log_dir / "budgets").rglob("*"), reverse=True):
            each.unlink() if each.is_file() else each.rmdir()
        threading.Event().wait(1.05)  # noticed at the next second's look
        assert calls_until_refused() == 2


def test_budgets_change_nothing_of_what_is_recorded(captured: CapturedOperations) -> None:
    with session(budget=Budget(operations=1)) as work:
        ask()
    assert only(captured).session_id == work.id
