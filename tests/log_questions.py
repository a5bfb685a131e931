"""Everything that can be asked of a log, so that two states of it can be compared."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from instrument.log import UsageLog
from instrument.operation import Operation

KEYS = ("service", "model", "day", "session", "operation", "outcome")


def answers(log: UsageLog, *, thorough: bool = False) -> dict[str, Any]:
    """Return what a log says, in a form in which answers that are equal compare equal.

    `thorough` adds sums in more forms, each of which takes as long as ten other questions.
    """
    operations = log.operations()
    names = sorted({each.session_id for each in operations} | {"work", "nobody"})[:4]
    middle = operations[len(operations) // 2].timestamp if operations else datetime.now(UTC)
    found: dict[str, Any] = {
        "operations": operations,
        "newest": log.operations(limit=3),
        "since": log.operations(since=middle),
        "until": log.operations(until=middle, limit=2),
        "errors": log.errors(),
        "running": _ids(log.running()),
        "iterate": list(log.iterate()),
        "sessions": log.sessions(limit=None),
        "latest": log.sessions(limit=2),
        "since sessions": log.sessions(since=middle),
        "failed sessions": log.find_sessions(outcome="error"),
        "prefix": log.find_sessions("w", limit=3),
        "stats": [log.stats(name) for name in names],
        "alone": [log.stats(name, children=False) for name in names],
        "correlate": [log.correlate(name) for name in names],
        "reports": [_ids(log.report(name).operations) for name in names],
        "outcome": log.operations(outcome="interrupted"),
        "all keys": log.summary(by=KEYS),
        "service and day": log.summary(by=("service", "day")),
        "rows": log.sql("select * from operations order by timestamp, operation_id").fetchall(),
    }
    if thorough:
        found |= {
            "all": log.summary(by=()),
            "model": log.summary(by="model"),
            "zone": log.summary(by=("day", "service"), zone=ZoneInfo("Asia/Kolkata")),
            "week": log.summary(by=("week", "month")),
            "of middle": log.summary(since=middle - timedelta(hours=1), until=middle),
        }
    return {name: plain(answer) for name, answer in found.items()}


def few_answers(log: UsageLog) -> dict[str, Any]:
    """Return what shows every value that was read, in each of the ways in which lines are read."""
    found = {
        "operations": log.operations(),
        "sessions": log.sessions(limit=None),
        "all keys": log.summary(by=KEYS),
        "service and day": log.summary(by=("service", "day")),
        "rows": log.sql("select * from operations order by timestamp, operation_id").fetchall(),
    }
    return {name: plain(answer) for name, answer in found.items()}


def _ids(operations: list[Operation]) -> list[tuple[str | None, datetime]]:
    # what runs lasts longer at each look
    return [(each.operation_id, each.timestamp) for each in operations]


def plain(value: Any) -> Any:
    """Return a value with its sums of floats rounded, because their order is free."""
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.9g}")
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value
