"""Budgets that many processes share, some of which are killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import child
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instrument import Budget, BudgetExceeded, UsageLog, session, track
from instrument._clock import reseed
from instrument._ledger import Ledger, read_ledger
from instrument._ledger_records import NOTHING, Header, State, name_of
from instrument.testing import CapturedOperations

WORK = """
from instrument import Budget, BudgetExceeded

@tracked(service="s", usage=int)
def spend(tokens=0):
    return tokens

def spend_all(tokens=0):
    made = 0
    try:
        while True:
            spend(tokens)
            made += 1
    except BudgetExceeded:
        return made

def in_threads(tokens=0):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(spend_all, [tokens] * 4))
"""


def together(program: str, log_dir: Path, count: int) -> list[str]:
    """Run a program in so many processes at once; return what each printed."""
    running = [child.start(WORK + child.dedent(program), log_dir) for _ in range(count)]
    return [each.communicate(timeout=120)[0].strip() for each in running]


def test_sixteen_processes_of_four_threads_make_exactly_so_many_calls(tmp_path: Path) -> None:
    program = """
    with session(id="job", budget=Budget(operations=1_000)):
        print(in_threads())
    """
    made = together(program, tmp_path, 16)
    assert sum(map(int, made)) == 1_000
    assert UsageLog(tmp_path).stats("job").operation_count == 1_000


def test_tokens_are_overspent_by_no_call(tmp_path: Path) -> None:
    program = """
    with session(id="job", budget=Budget(tokens=25_050)):
        in_threads(100)
    """
    together(program, tmp_path, 6)
    assert UsageLog(tmp_path).stats("job").total_tokens == 25_000


def test_named_budgets_are_shared_by_unrelated_processes(tmp_path: Path) -> None:
    program = """
    configure(budgets={"all": Budget(operations=100)})
    print(in_threads())
    """
    assert sum(map(int, together(program, tmp_path, 3))) == 100
    assert together(program, tmp_path, 1) == ["0"]


def test_of_periods_that_are_over_the_last_is_kept(tmp_path: Path) -> None:
    program = """
    configure(budgets={"daily": Budget(operations=5, per="day"), "other": Budget(operations=5)})
    spend()
    """
    together(program, tmp_path, 1)
    of_today, other = sorted((tmp_path / "budgets").iterdir())
    older = [of_today.with_name(f"{of_today.name[:-15]}2026-01-{day:02}T0000") for day in (1, 2, 3)]
    of_today.rename(older[0])
    for each in older[1:]:
        shutil.copytree(older[0], each)
    together(program, tmp_path, 1)
    assert sorted((tmp_path / "budgets").iterdir()) == [older[2], of_today, other]
    assert [each.spent.operations for each in UsageLog(tmp_path).budgets()] == [2, 2]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_share_the_budget_of_whoever_gives_them_work(
    capture_operations: CapturedOperations, method: str
) -> None:
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        with session(budget=Budget(operations=10)):
            made = list(pool.map(_spend_all, range(2)))
        with session("tokens", budget=Budget(tokens=5)):
            refused = pool.submit(_spend_tokens).exception()
    assert isinstance(refused, BudgetExceeded)
    assert str(refused).startswith("budget 'tokens': spent 0 of 5 tokens")
    assert sum(made) == 10
    assert len(capture_operations) == 10


def _spend_all(_: int) -> int:
    for made in range(100):
        try:
            with track("t", service="s"):
                pass
        except BudgetExceeded:
            return made
    return 100


def _spend_tokens() -> None:
    with track("t", service="s", metadata={"max_tokens": 6}):
        pass


def test_programs_share_it_through_the_environment(
    capture_operations: CapturedOperations,
) -> None:
    program = WORK + child.dedent("""
        with session("inner", budget=Budget(operations=4)) as inner:
            print(spend_all())
        print(spend_all())
        """)
    with session(budget=Budget(operations=10)) as work:
        _spend(3)
        ran = subprocess.run(
            [sys.executable, "-c", child.PRELUDE + program],
            env={**os.environ, **work.env()},
            capture_output=True,
            text=True,
            check=True,
        )
        with pytest.raises(BudgetExceeded):
            _spend(1)
    assert ran.stdout.split() == ["4", "3"]
    assert {each.parent_session_id or each.session_id for each in capture_operations} == {work.id}


@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [
        ("raise", "raise", "refused"),
        ("raise", "warn", "warned"),
        ("warn", "raise", "refused"),
        ("warn", "warn", "warned"),
        (print, "warn", "warned"),
        ("warn", print, "refused"),
    ],
)
def test_children_do_on_excess_as_the_session_that_started_them(
    capture_operations: CapturedOperations, first: Any, later: Any, expected: str
) -> None:
    program = child.PRELUDE + child.dedent("""
        import os, subprocess, sys, warnings
        from instrument import BudgetExceeded, current_session
        warnings.simplefilter("ignore")

        def acted():
            try:
                with track("t", service="s"): pass
            except BudgetExceeded:
                return "refused"
            return "warned"

        print(acted())
        if len(sys.argv) == 1:  # and so do their own
            sys.stdout.flush()
            environment = {**os.environ, **current_session().env()}
            again = [sys.executable, "-c", sys.orig_argv[-1], "again"]
            subprocess.run(again, env=environment, check=True)
        """)
    with session(id="job", budget=Budget(operations=1, on_exceed=first)):
        _spend(1)
    with session(id="job", budget=Budget(operations=1, on_exceed=later)) as work:
        ran = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **work.env()},
            capture_output=True,
            text=True,
            check=True,
        )
    assert ran.stdout.split() == [expected, expected]


def _spend(count: int) -> None:
    for _ in range(count):
        with track("t", service="s"):
            pass


def test_a_killed_process_leaves_the_budget_usable_and_exact(tmp_path: Path) -> None:
    program = (
        WORK
        + """
with session(id="job", budget=Budget(operations=6_000, tokens=10**9)):
    print(in_threads(10), flush=True)
"""
    )
    order = random.Random(7)
    running = [child.start(program, tmp_path) for _ in range(6)]
    sleep(1.0)
    for process in running[:4]:
        sleep(order.uniform(0, 0.15))
        process.kill()
    for process in running:
        process.communicate(timeout=120)
    made = UsageLog(tmp_path).stats("job")
    _, state = read_ledger(tmp_path / "budgets" / "session-job")
    # of each of the killed threads at most one call was let in and did not end
    assert state.operations == 6_000
    assert 6_000 - 16 <= made.operation_count <= 6_000
    assert made.total_tokens <= state.tokens


def test_who_joins_an_inner_session_is_inside_of_the_budgets_around_it(tmp_path: Path) -> None:
    program = """
    from instrument import Budget
    with session(id="all", budget=Budget(operations=5)), session(id="job", budget=Budget(tokens=9)):
        with session(id="step"), track("t", service="s"):
            pass
    """
    child.run(program, tmp_path)
    program = """
    from instrument import Budget, BudgetExceeded
    def calls_until_refused():
        for number in range(9):
            try:
                with track("t", service="s"): pass
            except BudgetExceeded as error:
                return number, error.name
    with session(id="step"):
        print(*calls_until_refused())
    with session(id="other"):
        print(calls_until_refused())
    with session(id="next", budget=Budget(operations=3)), session(id="step"):
        print(*calls_until_refused())
    with session(id="step"):
        print(*calls_until_refused())
    """
    assert child.run(program, tmp_path) == ("4 all\nNone\n3 next\n0 next", "")


def test_what_a_dead_process_reserved_stays_spent(tmp_path: Path) -> None:
    program = """
    from instrument import Budget, BudgetExceeded
    with session(id="job", budget=Budget(tokens=100)):
        with track("t", service="s", metadata={"max_tokens": 90}):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    child.run(program, tmp_path)
    program = """
    from instrument import BudgetExceeded
    with session(id="job"):
        with track("t", service="s", metadata={"max_tokens": 10}):
            print("fits")
        try:
            track("t", service="s", metadata={"max_tokens": 11}).__enter__()
        except BudgetExceeded as error:
            print(error)
    """
    output, errors = child.run(program, tmp_path)
    assert output.startswith("fits\nbudget 'job': spent 90 of 100 tokens"), errors


def test_a_signal_handler_that_spends_hangs_nothing_and_loses_nothing(tmp_path: Path) -> None:
    program = (
        WORK
        + """
made = 0
def handler(*_):
    global made
    try:
        ask()
        made += 1
    except BudgetExceeded:
        pass
with session(id="job", budget=Budget(operations=5_000)):
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    by_loop = 0
    try:
        while True:
            ask()
            by_loop += 1
    except BudgetExceeded:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
print(by_loop + made, made > 0)
"""
    )
    assert child.run(program, tmp_path) == ("5000 True", "")


AMOUNTS = st.integers(0, 40)
STEPS = st.lists(st.tuples(st.integers(0, 2), st.booleans(), AMOUNTS, AMOUNTS), max_size=60)


@settings(deadline=None, max_examples=60)
@given(STEPS, st.integers(100, 900))
def test_all_who_share_a_ledger_agree_whatever_they_do(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, bool, int, int]],
    generation_bytes: int,
) -> None:
    """Against a plain model: one who asks everybody in turn."""
    directory = tmp_path_factory.mktemp("ledger") / "budgets" / "b"
    limits = (50, 600, None, None)
    opening = Header(name="b", limits=limits, generation_bytes=generation_bytes)
    ledgers = [Ledger(directory, lambda: opening) for _ in range(3)]
    operations, tokens = 0, 0
    for who, settles, reserve, use in steps:
        ledger = ledgers[who]
        fits = operations < 50 and tokens + max(reserve, 1) <= 600
        number = ledger.reserve((reserve, 0, 0))
        assert (number is not None) == fits
        if number is not None:
            operations, tokens = operations + 1, tokens + reserve
            if settles:
                name = name_of("s;,\n", f"o{who}", None)
                ledger.settle(number, (reserve, 0, 0), (use, 0, 0), name, unpriced=0)
                tokens += use - reserve
    for ledger in ledgers:
        state = ledger.caught_up()
        assert (state.operations, state.tokens) == (operations, tokens)
    _, state = read_ledger(directory)
    assert state == ledgers[0].caught_up() == Ledger(directory, None).caught_up()
    assert len([each for each in directory.iterdir() if each.stat().st_size]) <= 2


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200), st.integers(0, 3))
def test_a_torn_or_strange_record_counts_for_nothing(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, after: int
) -> None:
    directory = tmp_path_factory.mktemp("ledger") / "b"
    opening = Header(name="b", limits=(100, None, None, None))
    ledger = Ledger(directory, lambda: opening)
    ledger.reserve(NOTHING)
    with open(next(directory.iterdir()), "ab") as file:
        file.write(b"\n" + noise.replace(b";", b"").replace(b"\n", b"\nx"))
    assert None not in [ledger.reserve(NOTHING) for _ in range(after)]
    assert ledger.caught_up().operations == 1 + after
    assert read_ledger(directory)[1].operations == 1 + after


def test_threads_that_share_a_ledger_over_its_generations_lose_nothing(tmp_path: Path) -> None:
    opening = Header(name="b", limits=(2_000, None, None, None), generation_bytes=4_000)
    ledger = Ledger(tmp_path / "b", lambda: opening)
    barrier = threading.Barrier(8)

    def spend(_: int) -> int:
        barrier.wait()
        let_in = 0
        for _ in range(400):
            number = ledger.reserve(NOTHING)
            if number is not None:
                ledger.settle(number, NOTHING, NOTHING, name_of("s", "o", None), unpriced=0)
                let_in += 1
        return let_in

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(8))) == 2_000
    state = ledger.caught_up()
    assert (state.operations, state.refused) == (2_000, 1_200)
    assert [kind.operations for kind in state.kinds.values()] == [2_000]


def test_a_ledger_may_be_used_in_a_fork(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "b", lambda: Header(name="b", limits=(10, None, None, None)))
    ledger.reserve(NOTHING)
    pid = os.fork()
    if pid == 0:
        os._exit(int(None in [ledger.reserve(NOTHING) for _ in range(5)]))
    assert os.waitpid(pid, 0)[1] == 0
    assert ledger.caught_up().operations == 6


def test_forks_that_share_a_ledgers_descriptor_at_once_lose_nothing(tmp_path: Path) -> None:
    limit = 2_000
    opening = Header(name="b", limits=(limit, None, None, None), generation_bytes=8_000)
    ledger = Ledger(tmp_path / "b", lambda: opening)
    ledger.open()
    reading, writing = os.pipe()
    children: list[int] = []
    while len(children) < 3 and 0 not in children:
        children.append(os.fork())
    reseed()  # as the recorder has it done in every fork
    made = 0
    while ledger.reserve(NOTHING) is not None:
        made += 1
    os.write(writing, f"{made}\n".encode())
    if 0 in children:
        os._exit(0)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    os.close(writing)
    with open(reading) as counts:
        assert sum(map(int, counts)) == ledger.caught_up().operations == limit


LIMITS = st.tuples(*[st.integers(1, 3) | st.just(1 << 62)] * 4)


@given(LIMITS, st.tuples(*[st.integers(0, 3)] * 4), st.tuples(*[st.integers(0, 3)] * 3))
def test_what_is_refused_lacks_something(
    limits: tuple[int, int, int, int], spent: tuple[int, ...], held: tuple[int, int, int]
) -> None:
    state = State(limits, *spent)
    assert (state.reserved(*held) is None) == (state.lacks(*held) is not None)


def test_a_descriptor_that_the_program_closed_is_opened_anew(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "b", lambda: Header(name="b", limits=(4, None, None, None)))
    for _ in range(3):
        assert ledger.reserve(NOTHING) is not None
        before = ledger.now().opened
        os.close(before.descriptor)
    assert ledger.reserve(NOTHING) is not None
    assert ledger.reserve(NOTHING) is None
    # the one that was closed has the number of the one in its place, and shall not close that
    after = ledger.now().opened
    assert before.descriptor == after.descriptor
    del before
    os.fstat(after.descriptor)


def test_where_a_file_has_no_position_records_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "lseek", lambda *_: 0)
    opening = Header(name="b", limits=(5, None, None, None))
    ledgers = [Ledger(tmp_path / "b", lambda: opening) for _ in range(2)]
    made = [each.reserve(NOTHING) is not None for _ in range(4) for each in ledgers]
    assert made == [True] * 5 + [False] * 3
    assert {each.caught_up().refused for each in ledgers} == {3}
