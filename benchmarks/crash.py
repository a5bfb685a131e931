"""Kills thousands of processes that use the library, at random, and checks the log after each.

python benchmarks/crash.py [--runs 20000] [--seed N] [--only SCENARIO] [--jobs N] [--json]

The kills are those of `tests/crash`, which CI does some 600 of. `--runs` is how many processes are
to be killed in all; each scenario gets the share that it has there. A log in which something was
wrong is kept, and its directory named. The exit code is 1 then. Once a minute standard error hears
how far it is; Ctrl-C ends it with the figures so far, and exit code 130.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from _measure import TESTS, options, show, table, versions

sys.path.insert(0, str(TESTS / "crash"))

from killing import SCENARIOS, SEED, Outcome, run
from zygote import Zygote

TOLD_EVERY_SECONDS = 60


class Run(NamedTuple):
    """A run of one scenario; `kept` is where its log is, if something was wrong."""

    scenario: str
    seed: str
    outcome: Outcome
    kept: str | None


def kill(scenario: str, seed: str) -> Run:
    """Do one run, in a worker process."""
    place = Path(tempfile.mkdtemp(prefix="crash-"))
    outcome = run(_zygote(), SCENARIOS[scenario], seed, place)
    if outcome.violations:
        return Run(scenario, seed, outcome, str(place))
    shutil.rmtree(place)
    return Run(scenario, seed, outcome, None)


def campaign(kills: int, seed: int, names: list[str], jobs: int) -> Iterator[Run]:
    """Yield runs, of all scenarios in turn, until there are so many kills."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        try:
            yield from _runs(pool, kills, seed, names, jobs)
        finally:  # after Ctrl-C nobody waits for what has not begun
            pool.shutdown(cancel_futures=True)


def _runs(
    pool: ProcessPoolExecutor, kills: int, seed: int, names: list[str], jobs: int
) -> Iterator[Run]:
    pending: set[Future[Run]] = set()
    for number in count():
        for name in names:
            for again in range(SCENARIOS[name].runs(2)):
                pending.add(pool.submit(kill, name, f"{seed} {name} {number}.{again}"))
        while len(pending) > jobs:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for each in done:
                kills -= each.result().outcome.kills
                yield each.result()
        if kills <= 0:
            break
    for each in pending:
        yield each.result()


def rows(runs: list[Run]) -> list[list[str]]:
    found = []
    for name in SCENARIOS:
        here = [each.outcome for each in runs if each.scenario == name]
        if here:
            sums = [sum(each[place] for each in here) for place in range(3)]
            violations = sum(len(each.violations) for each in here)
            found.append([name, *(f"{each:,}" for each in (len(here), *sums, violations))])
    return found


def main() -> int:
    parser = options(__doc__, can_be_quick=False)
    parser.add_argument("--runs", type=int, default=20_000, help="processes to kill")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    began, runs = time.monotonic(), list[Run]()
    names, is_over = arguments.only or list(SCENARIOS), False
    with suppress(KeyboardInterrupt):
        for each in _told(campaign(arguments.runs, arguments.seed, names, arguments.jobs)):
            runs.append(each)
        is_over = True
    wrong = [each for each in runs if each.outcome.violations]
    result = _result(runs, wrong, arguments.seed, time.monotonic() - began)
    show(result, _text(result, runs), as_json=arguments.json)
    return 1 if wrong else 0 if is_over else 130


def _told(runs: Iterable[Run]) -> Iterator[Run]:
    """Pass runs on; say on standard error what was wrong, and once a minute how many they are."""
    kills, told_at = 0, time.monotonic()
    for each in runs:
        kills += each.outcome.kills
        for violation in each.outcome.violations:
            print(f"{each.scenario}, seed {each.seed!r}: {violation}", file=sys.stderr)
        if time.monotonic() - told_at > TOLD_EVERY_SECONDS:
            told_at = time.monotonic()
            print(f"{kills:,} kills so far", file=sys.stderr, flush=True)
        yield each


def _result(runs: list[Run], wrong: list[Run], seed: int, seconds: float) -> dict[str, Any]:
    return {
        "versions": versions(),
        "seed": seed,
        "seconds": round(seconds, 1),
        "kills": sum(each.outcome.kills for each in runs),
        "kills_by_scenario": {
            name: sum(each.outcome.kills for each in runs if each.scenario == name)
            for name in SCENARIOS
        },
        "acknowledged": sum(each.outcome.acknowledged for each in runs),
        "violations": [
            {
                "scenario": each.scenario,
                "seed": each.seed,
                "log": each.kept,
                "found": each.outcome.violations,
            }
            for each in wrong
        ],
    }


def _text(result: dict[str, Any], runs: list[Run]) -> str:
    header = ("scenario", "runs", "kills", "acknowledged", "torn lines", "violations")
    lines = [table(header, rows(runs)), ""]
    lines.append(
        f"{result['kills']:,} kills and {result['acknowledged']:,} acknowledged operations in"
        f" {result['seconds']:,.0f} s, seed {result['seed']}:"
        f" {len(result['violations'])} runs with violations"
    )
    lines += [f"kept: {each['log']}" for each in result["violations"]]
    return "\n".join(lines)


_started: list[Zygote] = []


def _zygote() -> Zygote:
    """Return this process's zygote, which ends when its standard input is closed."""
    if not _started:
        _started.append(Zygote())
    return _started[0]


if __name__ == "__main__":
    sys.exit(main())
