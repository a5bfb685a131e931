"""A run beside a baseline: what became more, what less, and what cannot be told.

Counts and money are compared exactly. Times are compared by the medians of their repeats, and a
difference is called one if the exact one-sided test of ranks (Mann and Whitney's) finds it at 5 %:
if by chance alone so few of the slower side's repeats were below one of the other side in fewer
than 1 of 20 cases. It assumes nothing about how times are distributed, only that the repeats are
independent; three and three are the fewest that it can tell apart. Each test is judged by itself,
so that of a hundred unchanged ones some few may differ: a limit above the noise keeps them out,
because a limit is exceeded only if the times differ from the baseline's, raised by the limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from statistics import median

from instrument.pytest_plugin.baselines import COUNTS, TIMES, Baseline, BaselineError, Entry

__all__ = ["METRICS", "Change", "Comparison", "compare", "limits_of"]

METRICS = (*COUNTS, *TIMES)
SURE = 0.05

_LIMIT = re.compile(r"\+?([0-9]{1,6}(?:\.[0-9]{1,6})?) ?%")
_CURE = f"write METRIC:+N%,... with the metrics {', '.join(METRICS)}; as tokens:+10%,p95:+30%"


@dataclass(frozen=True)
class Change:
    """One metric of a test, or of all that were compared (`node_id` is empty).

    `verdict` is `same`, `more`, `less`, `unknown` (not reported, then or now), or for times
    `overlap` and `too few`, where it cannot be told. `limit` is in percent; `exceeded` says that
    the change is beyond it, `in_doubt` that the medians are and the repeats do not show it.
    `repeats` says how many there were, then and now.
    """

    node_id: str
    metric: str
    before: float | None
    now: float | None
    verdict: str
    limit: Decimal | None = None
    exceeded: bool = False
    in_doubt: bool = False
    repeats: tuple[int, int] | None = None

    @property
    def percent(self) -> float | None:
        """The change in percent of what it was; `None` where that is 0 or unknown."""
        if not self.before or self.now is None:
            return None
        return 100 * (self.now - self.before) / self.before


@dataclass(frozen=True)
class Comparison:
    """What a run is beside a baseline, tests by node id.

    `changes` has every metric of every test that ran to its end then and now, the worst first.
    `new` makes calls and is not in the baseline, `unsaved` had not run to its end there. `skipped`
    and `failed` are of this run; `gone` does not exist any more, `not_run` was not asked for.
    """

    totals: Sequence[Change] = ()
    changes: Sequence[Change] = ()
    compared: Sequence[str] = ()
    new: Sequence[str] = ()
    unsaved: Sequence[str] = ()
    skipped: Sequence[str] = ()
    failed: Sequence[str] = ()
    gone: Sequence[str] = ()
    not_run: Sequence[str] = ()
    limits: Mapping[str, Decimal] = field(default_factory=dict)

    @property
    def exceeded(self) -> list[Change]:
        """What is beyond its limit, totals first."""
        return [each for each in (*self.totals, *self.changes) if each.exceeded]


def limits_of(text: str) -> dict[str, Decimal]:
    """Read `tokens:+10%,usd:+5%` as percents by metric; raises `BaselineError`."""
    limits: dict[str, Decimal] = {}
    for part in text.split(","):
        metric, _, limit = (each.strip() for each in part.partition(":"))
        found = _LIMIT.fullmatch(limit)
        if metric not in METRICS:
            raise BaselineError(f"unknown metric {metric!r}: {_CURE}")
        if found is None:
            raise BaselineError(f"{limit!r} is no limit of {metric}: {_CURE}")
        if metric in limits:
            raise BaselineError(f"{metric} has two limits: {_CURE}")
        limits[metric] = Decimal(found[1])
    return limits


def compare(
    before: Baseline,
    now: Baseline,
    limits: Mapping[str, Decimal],
    is_gone: Callable[[str], bool] = lambda node_id: True,
) -> Comparison:
    """Compare a run with a baseline; `is_gone` tells of a test that did not run that it should."""
    both = sorted(before.keys() & now.keys())
    complete = [name for name in both if now[name].is_complete]
    compared = [name for name in complete if before[name].is_complete]
    absent = sorted(before.keys() - now.keys())
    changes = [
        change for name in compared for change in _changes(name, before[name], now[name], limits)
    ]
    return Comparison(
        totals=_totals([(before[name], now[name]) for name in compared], limits),
        changes=sorted(changes, key=_rank),
        compared=compared,
        new=[
            name
            for name in sorted(now.keys() - before.keys())
            if now[name].counts.get("operations")
        ],
        unsaved=[name for name in complete if not before[name].is_complete],
        skipped=[name for name in both if now[name].outcome == "skipped"],
        failed=[name for name in both if now[name].outcome in ("failed", "error")],
        gone=[name for name in absent if is_gone(name)],
        not_run=[name for name in absent if not is_gone(name)],
        limits=dict(limits),
    )


def chance(lower: Sequence[float], higher: Sequence[float]) -> float:
    """Return how likely it is by chance alone that `higher` is as far above `lower`.

    Equal values count as if they spoke against it, so that the figure is never too small.
    """
    above = sum(low < high for low in lower for high in higher)
    sizes = len(lower), len(higher)
    ways = sum(_ways(*sizes, wins) for wins in range(above, math.prod(sizes) + 1))
    return ways / math.comb(sum(sizes), sizes[0])


def _changes(name: str, before: Entry, now: Entry, limits: Mapping[str, Decimal]) -> list[Change]:
    counts = [
        _counted(name, metric, before.counts[metric], now.counts[metric], limits.get(metric))
        for metric in COUNTS
    ]
    times = [
        _timed(name, metric, before.times[metric], now.times[metric], limits.get(metric))
        for metric in TIMES
        if before.times.get(metric) and now.times.get(metric)
    ]
    return counts + times


def _totals(pairs: Sequence[tuple[Entry, Entry]], limits: Mapping[str, Decimal]) -> list[Change]:
    """Return the sums over tests, of each metric over those that report it then and now."""
    totals = []
    for metric in COUNTS:
        reported = [(one.counts[metric], other.counts[metric]) for one, other in pairs]
        known = [each for each in reported if None not in each]
        before, now = ((_sum(each[side] for each in known) if known else None) for side in (0, 1))
        totals.append(_counted("", metric, before, now, limits.get(metric)))
    timed = [
        (one.times["seconds"], other.times["seconds"])
        for one, other in pairs
        if one.times.get("seconds") and other.times.get("seconds")
    ]
    if timed:
        then, since = (_sums([each[side] for each in timed]) for side in (0, 1))
        totals.append(_timed("", "seconds", then, since, limits.get("seconds")))
    return totals


def _sum(values: Iterable[float | None]) -> float:
    total = round(math.fsum(each or 0 for each in values), 9)
    return int(total) if total == int(total) else total


def _sums(samples: Sequence[Sequence[float]]) -> list[float]:
    """Add tests up repeat by repeat, the newest of each first, for as many as all of them have."""
    return [math.fsum(each) for each in zip(*(reversed(one) for one in samples), strict=False)]


def _counted(
    name: str, metric: str, before: float | None, now: float | None, limit: Decimal | None
) -> Change:
    if before is None or now is None:
        verdict = "same" if before is now else "unknown"
        lost = before is not None and now is None  # what is unknown must not look free
        return Change(name, metric, before, now, verdict, limit, lost and limit is not None)
    verdict = "same" if now == before else "more" if now > before else "less"
    exceeded = limit is not None and _is_beyond(before, now, limit)
    return Change(name, metric, before, now, verdict, limit, exceeded)


def _is_beyond(before: float, now: float, limit: Decimal) -> bool:
    return Decimal(repr(now)) * 100 > Decimal(repr(before)) * (100 + limit)


def _timed(
    name: str,
    metric: str,
    before: Sequence[float],
    now: Sequence[float],
    limit: Decimal | None,
) -> Change:
    medians = median(before), median(now)
    exceeded = in_doubt = False
    if limit is not None and _is_beyond(*medians, limit):
        raised = [each * float(1 + limit / 100) for each in before]
        exceeded = chance(raised, now) <= SURE
        in_doubt = not exceeded
    sizes = len(before), len(now)
    return Change(name, metric, *medians, _verdict(before, now), limit, exceeded, in_doubt, sizes)


def _verdict(before: Sequence[float], now: Sequence[float]) -> str:
    if 1 / math.comb(len(before) + len(now), len(now)) > SURE:
        return "too few"
    if chance(before, now) <= SURE:
        return "more"
    return "less" if chance(now, before) <= SURE else "overlap"


def _rank(change: Change) -> tuple[bool, int, float, str, int]:
    """Sort what exceeds a limit first, then by how much worse it became."""
    order = ("more", "unknown", "overlap", "too few", "less", "same")
    percent = change.percent
    worse = math.inf if percent is None else percent
    place = order.index("more" if change.in_doubt else change.verdict)
    return (not change.exceeded, place, -worse, change.node_id, METRICS.index(change.metric))


@cache
def _ways(lower: int, higher: int, wins: int) -> int:
    """Return in how many orders `higher` values are above `lower` ones in just `wins` pairs."""
    if wins < 0:
        return 0
    if not lower or not higher:
        return int(wins == 0)
    return _ways(lower, higher - 1, wins - lower) + _ways(lower - 1, higher, wins)
