"""Random kills of processes that write, fork, rotate, delete, run out of disk, compact and read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from killing import DEFAULT_RUNS, RUNS, SCENARIOS, SEED, run
from zygote import Zygote

REPEAT = (
    "\nThe plan, not its timing, is repeated by\n"
    "INSTRUMENT_CRASH_SEED={seed} INSTRUMENT_CRASH_RUNS={runs}"
    " python -m pytest -q tests/crash/test_kills.py -k {name}"
)


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_was_acknowledged_is_on_record_once_whoever_is_killed(
    name: str, zygote: Zygote, kills: Counter[str], tmp_path: Path
) -> None:
    for number in range(SCENARIOS[name].runs(RUNS)):
        place = tmp_path / str(number)
        place.mkdir()
        outcome = run(zygote, SCENARIOS[name], f"{SEED} {name} {number}", place)
        kills[name] += outcome.kills
        repeat = REPEAT.format(seed=SEED, runs=RUNS, name=name)
        assert not outcome.violations, "\n".join([*outcome.violations, repeat])


def test_that_is_at_least_500_kills() -> None:
    assert sum(each.runs(DEFAULT_RUNS) * each.kills for each in SCENARIOS.values()) >= 500
