"""Which tracked calls are a test's, and what they come to."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from time import time_ns

from msgspec import Struct

from instrument import _config
from instrument._stats import SessionFacts, session_stats, total_tokens
from instrument.log import UsageLog
from instrument.operation import Operation, SessionStats
from instrument.pricing import Pricing
from instrument.pytest_plugin.arrivals import Arrivals
from instrument.pytest_plugin.figures import NAMELESS, TestFigures
from instrument.pytest_plugin.stage import SERVICE

__all__ = ["Spending", "Spent", "figures_from", "figures_of_dead", "spent_on"]

_IDS_KEPT = 20_000
_PATIENCE_SECONDS = 1.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Spent(Struct, frozen=True):
    """What operations come to, in start order. `seconds` counts a call within another once."""

    stats: SessionStats
    operations: list[Operation]
    seconds: float
    unpriced: list[Operation]

    @property
    def tokens(self) -> int | None:
        """The tokens used; `None` where no call reported any."""
        reported = any(total_tokens(each) is not None for each in self.operations)
        return self.stats.total_tokens if reported else None


class Spending:
    """The tracked calls of the test that is running.

    What has one of the test's own operations among its ancestors is the test's; so is what this
    process calls meanwhile outside of every context that knows of the test, or inside of an
    operation that an earlier test, or a fixture of several, left open. That one is of no test.
    """

    def __init__(self, log_dir: Path) -> None:
        self._arrivals = Arrivals()
        self._log_dir = log_dir
        self._pricing = Pricing()
        self._prices: object = None
        self._tests: dict[str, int] = {}
        self._test = 0
        self._parents: dict[str, str | None] = {}
        self._found: list[Operation] = []
        self._left_open: set[str] = set()
        self._begun = _EPOCH
        self._pid = os.getpid()
        self._looking = threading.RLock()
        self._arrivals.watch(log_dir)
        self.settings_changed()

    def begin(self, operation_id: str) -> None:
        """Count from nothing, for another test or attempt, whose operation this is."""
        self._test += 1
        self._parents, self._found, self._left_open = {}, [], set()
        self._begun = _EPOCH + timedelta(microseconds=time_ns() // 1000)
        if self._arrivals.several:
            self._arrivals.only({self._log_dir, _told()})
        if len(self._tests) > 2 * _IDS_KEPT:
            self._tests = dict(list(self._tests.items())[-_IDS_KEPT:])
        self.add(operation_id)

    def add(self, operation_id: str) -> None:
        """Count what happens inside of this operation, which is one of the test's own."""
        self._tests[operation_id] = self._test

    def pass_over(self) -> None:
        """Count nothing of what has been recorded since the last look."""
        self._arrivals.new()

    def look(self) -> None:
        """Read what has been recorded since the last look."""
        # a fork may have left the lock with a thread that is not there any more
        is_ours = self._looking.acquire(timeout=_PATIENCE_SECONDS)
        try:
            for each in self._arrivals.new():
                self._found.append(each)
                if each.operation_id is not None:
                    self._parents[each.operation_id] = each.parent_id
                    if each.timestamp < self._begun:
                        self._left_open.add(each.operation_id)
        finally:
            if is_ours:
                self._looking.release()

    def settings_changed(self) -> None:
        """Go on where calls are recorded from now on; what was recorded before may soon be gone."""
        self.look()
        log_dir = _told()
        if log_dir is not None:
            self._arrivals.watch(log_dir)

    def operations(self) -> list[Operation]:
        """Return the test's calls that have ended, in start order, with their list prices."""
        self.look()
        ours = [each for each in self._found if self._is_ours(each)]
        if not ours:
            return []
        pricing = self._current_pricing()
        return sorted(map(pricing.apply, ours), key=attrgetter("timestamp"))

    def spent(self, session_id: str) -> Spent:
        """Return what they come to."""
        operations = self.operations()
        if not operations:
            return Spent(SessionStats(session_id=session_id), [], 0.0, [])
        return spent_on(session_id, operations, self._current_pricing())

    def _is_ours(self, operation: Operation) -> bool:
        parent_id = operation.parent_id
        for _ in range(len(self._parents) + 1):
            if parent_id is None or parent_id in self._tests:
                break
            parent_id = None if parent_id in self._left_open else self._parents.get(parent_id)
        if parent_id is None:
            return operation.pid == self._pid
        return self._tests.get(parent_id) == self._test

    def _current_pricing(self) -> Pricing:
        prices = _config.settings().prices
        if prices is not self._prices:
            self._pricing, self._prices = Pricing(prices), prices
        return self._pricing


def _told() -> Path | None:
    """Return where the program asked for its log, if it did; nothing is decided by asking this."""
    log_dir = _config.told().get("log_dir") or os.environ.get("INSTRUMENT_DIR")
    return Path(log_dir).expanduser().absolute() if log_dir else None


def spent_on(session_id: str, operations: Sequence[Operation], pricing: Pricing) -> Spent:
    """Sum up operations that are in start order."""
    stats = session_stats(session_id, operations, SessionFacts(), pricing.saved)
    ids = {each.operation_id for each in operations}
    outermost = (each for each in operations if each.parent_id not in ids)
    unpriced = [each for each in operations if each.cost_usd is None and total_tokens(each)]
    return Spent(stats, list(operations), math.fsum(map(_seconds, outermost)), unpriced)


def figures_from(
    spent: Spent, node_id: str, outcome: str, wall_seconds: float, worker: str | None = None
) -> TestFigures:
    """Return the figures of a test that spent this."""
    stats = spent.stats
    if not spent.operations:
        return TestFigures(
            node_id=node_id, outcome=outcome, wall_seconds=wall_seconds, worker=worker
        )
    return TestFigures(
        node_id=node_id,
        outcome=outcome,
        operations=stats.operation_count,
        error_count=stats.error_count,
        tokens=spent.tokens,
        input_tokens=stats.input_tokens,
        output_tokens=stats.output_tokens,
        usd=stats.cost_usd,
        unpriced_models=tuple(sorted({each.model or NAMELESS for each in spent.unpriced})),
        seconds=spent.seconds,
        wall_seconds=wall_seconds,
        durations=tuple(each.duration_seconds for each in spent.operations),
        worker=worker,
    )


def figures_of_dead(log: UsageLog, session_id: str, node_id: str) -> TestFigures:
    """Return the figures of a test whose process died in it, by what the log has of it."""
    recorded = log.operations(session_id, children=True)
    tests = [each for each in recorded if each.service == SERVICE and each.operation == node_id]
    parents = {each.operation_id: each.parent_id for each in recorded}
    ours = {each.operation_id for each in tests}
    called = [
        each
        for each in recorded
        if each.service != SERVICE and ours.intersection(_ancestors(each, parents))
    ]
    spent = spent_on(session_id, called, log.pricing)
    wall_seconds = math.fsum(each.duration_seconds for each in tests)
    worker = next((each.metadata.get("worker") for each in tests), None)
    return figures_from(spent, node_id, "failed", wall_seconds, worker)


def _ancestors(
    operation: Operation, parents: Mapping[str | None, str | None]
) -> Iterator[str | None]:
    parent_id = operation.parent_id
    for _ in parents:
        if parent_id is None:
            return
        yield parent_id
        parent_id = parents.get(parent_id)


def _seconds(operation: Operation) -> float:
    # of a stream only what its producer took
    active = operation.active_seconds
    return operation.duration_seconds if active is None else active
