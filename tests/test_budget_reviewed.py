"""What a review of budgets found: limits that change, names that do not encode, what is unknown."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import child
import pytest
from responses import chunks

from instrument import (
    Budget,
    BudgetExceeded,
    ConfigurationError,
    UsageLog,
    configure,
    session,
    track,
    tracked,
)
from instrument.testing import CapturedOperations, FakeClock, capture


@pytest.fixture(autouse=True)
def captured(capture_operations: CapturedOperations) -> CapturedOperations:
    return capture_operations


def call(operation: str = "t", usd: float | None = None, **more: Any) -> None:
    with track(operation, service="s", **more) as op:
        if usd is not None:
            op.set_usage(input_tokens=1, cost_usd=usd)


def let_in(times: int, **more: Any) -> int:
    made = 0
    for _ in range(times):
        try:
            call(**more)
        except BudgetExceeded:
            continue
        made += 1
    return made


def test_one_unpriced_call_locks_no_other_model_out() -> None:
    with session(budget=Budget(usd=5)):
        with track("ask", service="s") as op:
            op.set_usage(input_tokens=5, model="gpt-5.4")
        with track("ask", service="s") as op:
            op.set_usage(input_tokens=5, model="nobodys")
        call("ask", model="gpt-5.4")
        call("ask")
        with pytest.raises(BudgetExceeded, match="nobodys"):
            call("ask", model="nobodys")


def test_limits_that_are_added_hold_for_children_too() -> None:
    with session(id="job", budget=Budget(operations=100)):
        call()
    program = child.PRELUDE + (
        "from instrument import BudgetExceeded\n"
        "made = 0\n"
        "for _ in range(10):\n"
        "    try:\n"
        "        with track('t', service='s') as op: op.set_usage(input_tokens=1, cost_usd=1)\n"
        "        made += 1\n"
        "    except BudgetExceeded: pass\n"
        "print(made)\n"
    )
    with session(id="job", budget=Budget(operations=100, usd=3)) as work:
        ran = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **work.env()},
            capture_output=True,
            text=True,
            check=True,
        )
    assert ran.stdout.strip() == "3"


def test_another_kind_of_limit_or_period_begins_with_what_the_log_has() -> None:
    clock = FakeClock()
    with capture(clock=clock):
        configure(budgets={"b": Budget(tokens=1_000, per="hour")})
        for _ in range(5):
            call(usd=1)
        configure(budgets={"b": Budget(tokens=1_000, usd=7, per="hour")})
        assert let_in(10, usd=1) == 2
        configure(budgets={"b": Budget(operations=9, per="day")})
        assert let_in(10) == 2
        configure(budgets={})


def test_a_session_made_elsewhere_is_in_the_budget_around_it_where_it_is_entered() -> None:
    job = session("job")
    with session(budget=Budget(operations=1)), job:
        assert let_in(5) == 1
    with job:
        assert let_in(5) == 5


def test_names_that_do_not_encode_or_end_are_counted_all_the_same() -> None:
    with session("r\udce9sum\udce9.pdf" + "x" * 1_000, budget=Budget(tokens=10)):
        for operation in ("a\udcff", "x" * 100_000):
            with track(operation, service="s\udcff") as op:
                op.set_usage(input_tokens=5, model="m\udcff" * 70_000)
        with pytest.raises(BudgetExceeded, match="spent 10 of 10"):
            call()
    with pytest.raises(ConfigurationError, match="printable names"):
        configure(budgets={"\udcff": Budget(usd=1)})


def test_a_session_id_of_any_length_has_a_ledger() -> None:
    with session(id=":" * 128, budget=Budget(operations=1)):
        assert let_in(2) == 1


def test_a_cost_that_is_not_known_is_not_free() -> None:
    with session(budget=Budget(usd=1)):
        with track("t", service="s") as op:
            op.set_usage(input_tokens=5, model="nobodys", cost_usd=0.2)
        for _ in range(4):
            with track("t", service="s") as op:
                op.set_usage(input_tokens=5, model="nobodys")
        with pytest.raises(BudgetExceeded, match=r"spent \$1\.00 of \$1\.00"):
            call()


def test_a_response_that_does_not_say_what_it_used_keeps_what_was_reserved() -> None:
    @tracked(service="openai", metadata={"max_tokens": 60})
    def stream() -> Iterator[object]:
        yield from (each for each in chunks() if "usage" not in each)

    with session(budget=Budget(tokens=100)):
        list(stream())
        with pytest.raises(BudgetExceeded, match="spent 60 of 100 tokens"):
            list(stream())


def test_first_calls_at_once_reserve_a_hundredth_each() -> None:
    for budget in (Budget(tokens=99), Budget(seconds=50), Budget(usd=1)):
        with session(budget=budget), track("outer", service="s"):
            pass
        state = UsageLog().budgets(limit=1)[0]
        assert state.spent.operations == 1


def test_a_first_call_of_another_kind_reserves_what_any_call_took() -> None:
    with session(budget=Budget(usd=100)):
        call("small", usd=8)
        call("large", usd=90)
        with pytest.raises(BudgetExceeded, match=r"the call may take \$49"):
            call("other")


def test_a_first_call_reserves_of_every_limit() -> None:
    whole = Budget(tokens=150, usd=3, seconds=1_000)
    with session(id="r", budget=whole), track("outer", service="s"):
        [state] = UsageLog().budgets()
    assert (state.spent.tokens, state.spent.usd, state.spent.seconds) == (2, 0.03, 10.0)


def test_thousands_of_budgets_leave_descriptors_to_the_program(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 400), hard))
    try:
        kept = []
        for _ in range(500):
            with session(budget=Budget(operations=2)) as work:
                call()
            kept.append(work)
        with kept[0]:
            assert let_in(3) == 1
        open(tmp_path / "free", "w").close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_asking_takes_is_not_the_calls_time(captured: CapturedOperations) -> None:
    def slowly(_: object) -> None:
        threading.Event().wait(0.2)

    with session(budget=Budget(operations=1, on_exceed=slowly)):
        call()
        call()
    assert max(each.duration_seconds for each in captured) < 0.1


def test_a_coroutine_cannot_decide() -> None:
    async def decide(_: object) -> None: ...

    with pytest.raises(ConfigurationError, match="no coroutine"):
        Budget(operations=1, on_exceed=decide)


def test_the_tighter_budget_of_a_session_in_itself_holds() -> None:
    wide, tight = Budget(operations=100), Budget(operations=1)
    with session(id="same", budget=wide), session(id="same", budget=tight):
        assert let_in(5) == 1


def test_nothing_is_written_where_nothing_is_recorded(tmp_path: Path) -> None:
    with capture(enabled=False) as inner, session(budget=Budget(operations=1)):
        assert let_in(3) == 3
    assert list(inner.log_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("usd", "shown"), [(4e-7, "$4e-07"), (0.0031, "$0.0031"), (0.5, "$0.50"), (12, "$12.00")]
)
def test_money_never_looks_like_nothing(usd: float, shown: str) -> None:
    with session(budget=Budget(usd=usd)):
        call(usd=usd)
        with pytest.raises(BudgetExceeded) as caught:
            call(usd=usd)
    assert f"spent {shown} of {shown}" in str(caught.value)
