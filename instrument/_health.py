"""How recording goes: what this process knows of it, and what the log tells of losses."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from itertools import chain
from pathlib import Path

from instrument._account import Account, accounts, internal_error_count
from instrument._gather import Reading
from instrument._lines import record_of
from instrument._scan import Line, Skipped, scan
from instrument._stats import percentile
from instrument.operation import MAX_COUNT, Health

__all__ = ["Dropped", "health", "ours"]


class Dropped:
    """Adds up what the lines of a log tell about operations that could not be written."""

    def __init__(self) -> None:
        self.count = 0
        self.last_at: datetime | None = None
        self.reason: str | None = None

    def add(self, line: Line) -> None:
        if line.head.type != "dropped":
            return
        try:
            record = record_of(line.data)
        except (ValueError, RecursionError):
            return
        count, reason = record.get("count"), record.get("reason")
        if type(count) is int and 0 < count <= MAX_COUNT:
            self.count += count
        if self.last_at is None or line.moment >= self.last_at:
            self.last_at = line.moment
            self.reason = reason if isinstance(reason, str) else None


def health(reading: Reading, log_dirs: Iterable[Path]) -> Health:
    """Return how recording into these directories goes."""
    told = Dropped()
    for line in chain(reading.about_log(), scan(reading.sources, Skipped(), [b'"dropped"'])):
        told.add(line)
    known = ours(log_dirs)
    costs = sorted(cost / 1e9 for each in known for cost in each.costs_ns)
    return Health(
        recorded_count=sum(each.recorded_count for each in known),
        dropped_count=sum(each.dropped_count for each in known),
        internal_error_count=internal_error_count(),
        recording_p50_seconds=percentile(costs, 0.5),
        recording_p99_seconds=percentile(costs, 0.99),
        dropped_in_log_count=told.count,
        last_dropped_at=told.last_at,
        last_dropped_reason=told.reason,
    )


def ours(log_dirs: Iterable[Path]) -> list[Account]:
    """Return this process's accounts with these directories, however their paths are written."""
    places = {os.path.realpath(each) for each in log_dirs}
    return [each for path, each in accounts().items() if os.path.realpath(path) in places]
