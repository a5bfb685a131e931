"""Measures what a budget costs a call, and whether it holds over many processes.

python benchmarks/budget.py [--quick] [--json]

"Check" is what happens before a call, alone; "budget" is check and settling together, the
difference between a tracked call in a session with a budget and one in a session without. The
floor is what the check cannot do without: one `os.write` of a record, and one look where it went,
`os.lseek`. All are CPU time of the calling thread, in turns in one process. Then 16 processes of 4
threads make calls until the budget refuses them; some are killed meanwhile.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from _measure import environment_with, median, options, show, table, verdict, versions

from instrument import Budget, UsageLog, configure, session, track, tracked
from instrument.budget import BudgetState

FLOOR, CHECK, WHOLE = "floor of a check", "check", "budget"
KINDS = {
    "operations": Budget(operations=10**12),
    "tokens": Budget(tokens=10**14),
    "usd": Budget(usd=10**8),
}
MOST_MICROSECONDS = 4.0
PROCESSES, LIMIT = 16, 20_000
SPENDER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from instrument import Budget, BudgetExceeded, session, tracked

@tracked(service="s")
def call(): pass

def spend(_):
    made = 0
    try:
        while True:
            call()
            made += 1
    except BudgetExceeded:
        return made

with session(id="job", budget=Budget(operations=int(sys.argv[1]))), ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(spend, range(4))))
"""

Loop = Callable[[int], float]  # a number of calls -> seconds

RESPONSE = {
    "object": "chat.completion",
    "model": "gpt-5.4",
    "choices": [],
    "usage": {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100},
}


@tracked(service="openai")
def call() -> Any:
    return RESPONSE


def calling(calls: int) -> float:
    began = time.thread_time()
    for _ in range(calls):
        call()
    return time.thread_time() - began


def in_session(budget: Budget | None) -> Loop:
    work = session(budget=budget)

    def loop(calls: int) -> float:
        with work:
            return calling(calls)

    return loop


def checking(budget: Budget) -> Loop:
    """Ask the gate again and again about one call, which never ends."""
    work = session(budget=budget)

    def loop(calls: int) -> float:
        with work:
            call()
            with track("call", service="openai", model="gpt-5.4") as operation:
                admit: Any = work.gate.admit if work.gate is not None else None
                began = time.thread_time()
                for _ in range(calls):
                    admit(operation)
                    operation.reserved = None
                return time.thread_time() - began

    return loop


@contextmanager
def floor(directory: Path) -> Iterator[Loop]:
    record = b"\nr,0123456789abcdef,100,0,0;"
    file = os.open(directory / "floor", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)

    def loop(calls: int) -> float:
        began = time.thread_time()
        for _ in range(calls):
            os.write(file, record)
            os.lseek(file, 0, os.SEEK_CUR)
        return time.thread_time() - began

    try:
        yield loop
    finally:
        os.close(file)


def costs(directory: Path, *, rounds: int, calls: int) -> dict[str, tuple[float, float]]:
    """Return median and least microseconds by row."""
    with floor(directory) as bare:
        loops = {FLOOR: bare, "without": in_session(None)}
        for kind, budget in KINDS.items():
            loops[f"{CHECK}: {kind}"] = checking(budget)
            loops[f"{WHOLE}: {kind}"] = in_session(budget)
        samples: dict[str, list[float]] = {name: [] for name in loops}
        for loop in loops.values():
            loop(200)
        for _ in range(rounds):
            gc.collect()
            spent = {name: loop(calls) / calls * 1e6 for name, loop in loops.items()}
            for name, found in spent.items():
                before = spent["without"] if name.startswith(WHOLE) else 0
                samples[name].append(found - before)
    return {name: (median(found), min(found)) for name, found in samples.items()}


def together(limit: int, *, kill: int) -> dict[str, Any]:
    """Spend one budget in many processes, killing some; return what happened."""
    directory = Path(tempfile.mkdtemp())
    order = Random(1)
    began = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDER, str(limit)],
            env=environment_with(INSTRUMENT_DIR=str(directory)),
            stdout=subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]
    time.sleep(1)
    for process in running[:kill]:
        time.sleep(order.uniform(0, 0.2))
        process.kill()
    made = [process.communicate()[0] for process in running]
    [state] = (each for each in UsageLog(directory).budgets() if isinstance(each, BudgetState))
    return {
        "admitted": state.spent.operations,
        "recorded": UsageLog(directory).stats("job").operation_count,
        "returned": sum(int(found or 0) for found in made),
        "seconds": time.monotonic() - began,
    }


def main() -> None:
    parser = options(__doc__)
    arguments = parser.parse_args()
    rounds, calls = (5, 500) if arguments.quick else (41, 1_000)
    limit = LIMIT // 10 if arguments.quick else LIMIT
    with tempfile.TemporaryDirectory() as directory:
        configure(log_dir=directory)
        found = costs(Path(directory), rounds=rounds, calls=calls)
        configure(enabled=False)
    spent = together(limit, kill=0)
    killed = together(limit, kill=8)
    rows = [(name, f"{mid:.2f}", f"{least:.2f}") for name, (mid, least) in found.items()]
    check = max(found[f"{CHECK}: {kind}"][0] for kind in KINDS)
    text = "\n".join(
        [
            table(("µs a call", "median", "least"), rows),
            "",
            table(
                (f"{PROCESSES} processes of 4 threads", "admitted", "recorded", "returned", "s"),
                [
                    ("undisturbed", *_cells(spent)),
                    ("8 of them killed", *_cells(killed)),
                ],
            ),
            "",
            verdict(
                f"the check takes {check:.2f} µs ({check / found[FLOOR][0]:.1f} times its floor); "
                f"at most {MOST_MICROSECONDS:g}",
                holds=check <= MOST_MICROSECONDS,
            ),
            verdict(
                f"of {limit:,} operations exactly {spent['recorded']:,} happened",
                holds=spent["recorded"] == spent["returned"] == spent["admitted"] == limit,
            ),
            verdict(
                f"with kills {killed['admitted']:,} were admitted, {killed['recorded']:,} ended",
                holds=killed["admitted"] == limit and limit - killed["recorded"] <= 8 * 4,
            ),
            "",
            versions("instrument-kit", "genai-prices"),
        ]
    )
    show({"costs": found, "together": spent, "killed": killed}, text, as_json=arguments.json)


def _cells(found: dict[str, Any]) -> tuple[str, ...]:
    counts = (f"{found[name]:,}" for name in ("admitted", "recorded", "returned"))
    return (*counts, f"{found['seconds']:.1f}")


if __name__ == "__main__":
    main()
