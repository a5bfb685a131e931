"""Runs of kills: what is drawn from a seed, what is done with it, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, NamedTuple

from checks import PRUNED_DAYS, Known, KnownWithArchive
from zygote import Plan, Zygote

from instrument import UsageLog

DEFAULT_RUNS = 7
SEED = int(os.environ.get("INSTRUMENT_CRASH_SEED") or SystemRandom().randrange(10**9))
RUNS = int(os.environ.get("INSTRUMENT_CRASH_RUNS") or DEFAULT_RUNS)
PROCESSES = 2
ROUNDS = 5
Draw = Callable[[Random, "Place"], Plan]


class Place(NamedTuple):
    """Where a run takes place: the log, what a deleter keeps, and what a reader must find."""

    log_dir: Path
    grave: Path
    known: Path


class Outcome(NamedTuple):
    """What a run came to."""

    kills: int
    acknowledged: int
    torn: int
    violations: list[str]


class Scenario(NamedTuple):
    """Which processes there are in a round, beside at times a reader.

    `has_archive` says that segments are compacted, `has_past` that there are more of past days
    each round, and `prunes` that the oldest of them are pruned; where the archive `loses` its
    manifest, nobody reads before it is made anew. `share` is how many runs it gets
    for each one that a cheap scenario gets.
    """

    draws: list[Draw]
    has_archive: bool = False
    has_past: bool = False
    prunes: bool = False
    loses: bool = False
    share: float = 1.0

    @property
    def kills(self) -> int:
        """How many processes are ended in a run, at the least."""
        return ROUNDS * len(self.draws)

    def runs(self, runs: int) -> int:
        return max(1, round(runs * self.share))

    def nothing_known(self, place: Place) -> Known:
        kind = KnownWithArchive if self.has_archive else Known
        return kind(place.log_dir, place.grave, prunes=self.prunes)

    def plans(self, rng: Random, place: Place) -> list[Plan]:
        plans = [draw(rng, place) for draw in self.draws]
        is_read = rng.random() < 0.15 and not self.loses
        return [*plans, _reader(rng, place)] if is_read else plans


def run(zygote: Zygote, scenario: Scenario, seed: str, place: Path) -> Outcome:
    """Kill several generations of processes that share one log, and check it after each."""
    rng = Random(seed)
    where = Place(place / "log", place / "grave", place / "known")
    where.grave.mkdir()
    known = scenario.nothing_known(where)
    violations: list[str] = []
    for _ in range(ROUNDS):
        if scenario.has_past:
            known.write_old_days(rng)
        known.write_down(where.known)
        for life in zygote.run(scenario.plans(rng, where)):
            violations += known.heard(life)
        if scenario.loses:
            UsageLog(where.log_dir).doctor(fix=True)
        violations += known.after_round()
        if violations:
            break
    violations += known.answers()
    return Outcome(
        known.deaths, len(known.acknowledged), known.torn, list(dict.fromkeys(violations))
    )


def _plan(rng: Random, place: Place, program: str, **options: Any) -> Plan:
    end = rng.choices(("SIGKILL", "SIGTERM", "exit", "raise"), (7, 1, 1, 1))[0]
    options.setdefault("handles_sigterm", rng.random() < 0.5)
    return Plan(
        program=program,
        log_dir=str(place.log_dir),
        seed=f"{rng.getrandbits(64):x}",
        after=rng.choice((0, 0, 1, 2, rng.randrange(100))),
        delay_seconds=rng.choice((0.0, rng.uniform(0, 0.003), rng.uniform(0, 0.015))),
        end=end,
        options=options,
    )


def _killed(plan: Plan, delay_seconds: float) -> Plan:
    """Return the plan of a process that acknowledges nothing, and so is ended from outside."""
    return Plan(plan.program, plan.log_dir, plan.seed, 0, delay_seconds, "SIGKILL", plan.options)


def _reader(rng: Random, place: Place) -> Plan:
    plan = _plan(rng, place, "read", known=str(place.known), grave=str(place.grave))
    return _killed(plan, rng.uniform(0, 0.06))


def _exact_reader(rng: Random, place: Place) -> Plan:
    """Read where nobody writes, so that exactly what is known must be found."""
    return _killed(_plan(rng, place, "read_all", known=str(place.known)), rng.uniform(0.1, 0.6))


def _deleter(rng: Random, place: Place) -> Plan:
    return _killed(_plan(rng, place, "delete", grave=str(place.grave)), rng.uniform(0, 0.03))


def _one_thread(rng: Random, place: Place) -> Plan:
    return _plan(rng, place, "threads", stuck=rng.random() < 0.2)


def _threads(rng: Random, place: Place) -> Plan:
    return _plan(rng, place, "threads", strands=rng.randint(2, 4), stuck=rng.random() < 0.2)


def _tasks(rng: Random, place: Place) -> Plan:
    # asyncio itself complains of a SystemExit that comes while it starts
    return _plan(rng, place, "tasks", strands=rng.randint(1, 5), handles_sigterm=False)


def _forks(rng: Random, place: Place) -> Plan:
    plan = _plan(rng, place, "forks", strands=rng.randint(1, 3))
    return _killed(plan, rng.uniform(0.002, 0.04))


def _rotating(rng: Random, place: Place) -> Plan:
    bytes_ = rng.choice((1, 2_000, 20_000))
    plan = _plan(rng, place, "threads", strands=rng.randint(1, 2), segment_bytes=bytes_)
    return _killed(plan, rng.uniform(0, 0.06))


def _first_use(rng: Random, place: Place) -> Plan:
    """Kill where directories, the session's file and the segment are being made."""
    return _killed(_plan(rng, place, "threads", dies_at=("", rng.randrange(1, 60), 0)), 0.05)


def _lasting(rng: Random, place: Place) -> Plan:
    """Write now and then, for as long as a compaction takes, from one segment to the next."""
    plan = _plan(rng, place, "threads", segment_bytes=2_000, pause_seconds=0.01)
    return _killed(plan, rng.uniform(0.1, 0.6))


def _compactor(rng: Random, place: Place) -> Plan:
    if rng.random() < 0.7:
        return _killed(_plan(rng, place, "compact", dies_at=rng.choice(_moments(rng))), 0.6)
    return _killed(_plan(rng, place, "compact"), rng.uniform(0, 0.3))


def _compactor_beside_losses(rng: Random, place: Place) -> Plan:
    options: dict[str, Any] = {"beside_losses": True}
    if rng.random() < 0.5:
        options["dies_at"] = rng.choice(_moments(rng))
    return _killed(_plan(rng, place, "compact", **options), rng.uniform(0, 0.6))


def _mender(rng: Random, place: Place) -> Plan:
    moments = rng.choice([*_moments(rng), ("os.truncate|os.remove", 1, rng.randrange(40))])
    return _killed(_plan(rng, place, "lose_and_mend", dies_at=moments), rng.uniform(0.1, 0.9))


def _pruner(rng: Random, place: Place) -> Plan:
    options: dict[str, Any] = {"older_than_days": PRUNED_DAYS}
    if rng.random() < 0.7:
        options["dies_at"] = rng.choice(_moments(rng))
    return _killed(_plan(rng, place, "prune", **options), rng.uniform(0, 0.3))


def _moments(rng: Random) -> list[tuple[str, int, int]]:
    """Return moments in a change of the archive: of all, and of those around what counts."""
    later = rng.randrange(4)
    return [
        ("", rng.randrange(1, 120), 0),
        ("manifest", rng.randrange(1, 12), later),
        ("os.rename", rng.randrange(1, 5), later),
        ("os.remove", rng.randrange(1, 12), later),
        ("os.remove .*/journal/", rng.randrange(1, 4), later),
    ]


def _full_disk(rng: Random, place: Place) -> Plan:
    return _plan(rng, place, "full_disk")


SCENARIOS: dict[str, Scenario] = {
    "first_use": Scenario([_first_use] * PROCESSES),
    "calls": Scenario([_one_thread] * PROCESSES),
    "threads": Scenario([_threads] * PROCESSES),
    "tasks": Scenario([_tasks] * PROCESSES),
    "forks": Scenario([_forks]),
    "rotation": Scenario([_rotating] * PROCESSES),
    "deletion": Scenario([_rotating, _deleter]),
    "full_disk": Scenario([_full_disk, _one_thread]),
}
if hasattr(UsageLog, "compact"):
    SCENARIOS["compaction"] = Scenario([_lasting, _compactor], has_archive=True, share=0.3)
    SCENARIOS["two_compactors"] = Scenario(
        [_one_thread, _compactor, _compactor], has_archive=True, share=0.3
    )
    SCENARIOS["reading"] = Scenario(
        [_compactor, _exact_reader, _exact_reader], has_archive=True, has_past=True, share=0.3
    )
if hasattr(UsageLog, "prune"):
    SCENARIOS["pruning"] = Scenario(
        [_one_thread, _compactor, _pruner],
        has_archive=True,
        has_past=True,
        prunes=True,
        share=0.3,
    )
    SCENARIOS["recovery"] = Scenario(
        [_one_thread, _compactor_beside_losses, _mender],
        has_archive=True,
        has_past=True,
        loses=True,
        share=0.3,
    )
