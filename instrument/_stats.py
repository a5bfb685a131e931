"""Sums over operations: what a session came to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from instrument._lines import end_of
from instrument.operation import Operation, SessionStats

__all__ = [
    "SessionFacts",
    "billed_of",
    "cache_hit_ratio",
    "percentile",
    "session_stats",
    "success_rate_of",
]

COUNTED = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


class SessionFacts(Struct):
    """What the lines of a session say about the session itself; the latest word counts."""

    name: str | None = None
    parent_id: str | None = None
    entered_at: datetime | None = None

    def learn(self, name: str | None, parent_id: str | None) -> None:
        self.name = name or self.name
        self.parent_id = parent_id or self.parent_id

    def entered(self, at: datetime, name: str | None, parent_id: str | None) -> None:
        """Take a session line into account, in whatever order they are met."""
        if self.entered_at is None or at >= self.entered_at:
            self.learn(name, parent_id)
            self.entered_at = at
        else:
            self.name, self.parent_id = self.name or name, self.parent_id or parent_id


def session_stats(
    session_id: str,
    operations: Sequence[Operation],
    facts: SessionFacts,
    saved: Callable[[Operation], float | None],
    billed: Sequence[Operation] | None = None,
) -> SessionStats:
    """Sum `operations`, which are in start order and may include those of child sessions.

    `saved` tells what cached tokens saved of an operation's price. `billed` are those whose usage
    counts, by default `billed_of(operations)`. Without operations, `first_at` and `last_at` are
    when the session was last entered.
    """
    outcomes = Counter(each.outcome for each in operations)
    durations = sorted(each.duration_seconds for each in operations)
    billed = billed_of(operations) if billed is None else billed
    sums = {name: sum(getattr(each, name) or 0 for each in billed) for name in COUNTED}
    first, last = _span(operations, facts.entered_at)
    return SessionStats(
        session_id=session_id,
        name=facts.name,
        parent_id=facts.parent_id,
        operation_count=len(operations),
        error_count=outcomes["error"],
        cancelled_count=outcomes["cancelled"],
        partial_count=outcomes["partial"],
        interrupted_count=outcomes["interrupted"],
        retry_count=sum(each.attempt is not None and each.attempt > 1 for each in operations),
        **sums,
        total_tokens=sum(total_tokens(each) or 0 for each in billed),
        operations_without_usage=sum(map(_is_without_usage, operations)),
        success_rate=success_rate_of(outcomes),
        total_duration_seconds=math.fsum(durations),
        elapsed_seconds=(last - first).total_seconds() if first and last else 0.0,
        p50_seconds=percentile(durations, 0.50),
        p95_seconds=percentile(durations, 0.95),
        p99_seconds=percentile(durations, 0.99),
        cost_usd=_known_sum(each.cost_usd for each in billed),
        cost_coverage=_cost_coverage(billed),
        cache_hit_ratio=cache_hit_ratio(sums["cache_read_tokens"], sums["input_tokens"]),
        cache_saved_usd=_known_sum(map(saved, billed)),
        first_at=first,
        last_at=last,
        services=tuple(sorted({each.service for each in operations})),
        models=tuple(sorted({each.model for each in operations if each.model is not None})),
        errors=dict(_errors(operations)),
    )


def percentile(ascending: Sequence[float], share: float) -> float | None:
    """Return the value at `share` (0..1), linear between neighbours; `None` of nothing."""
    if not ascending:
        return None
    place = share * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (ascending[above] - ascending[below]) * (place - below)


def total_tokens(operation: Operation) -> int | None:
    """Return the total; where only its parts are known, their sum; `None` without usage."""
    if operation.tokens is not None:
        return operation.tokens
    if operation.input_tokens is None and operation.output_tokens is None:
        return None
    return (operation.input_tokens or 0) + (operation.output_tokens or 0)


def billed_of(operations: Iterable[Operation]) -> list[Operation]:
    """Leave out what repeats a response that another operation has been charged with.

    The same response has the same id, the same counts and no other model; some servers give an id
    out again. What knows no model takes no charge from what does, and so has a price, nor what
    reports nothing from what reports something.
    """
    charged: dict[tuple[object, ...], dict[str | None, Operation]] = {}
    for place, each in enumerate(operations):
        counts = (each.tokens, each.input_tokens, each.output_tokens)
        reports = total_tokens(each) is not None or each.cost_usd is not None
        named = each.response_id is not None and reports
        same = charged.setdefault((each.response_id, *counts) if named else (place,), {})
        same.setdefault(each.model, each)
    for same in charged.values():
        if len(same) > 1:
            same.pop(None, None)
    return [each for same in charged.values() for each in same.values()]


def _is_without_usage(operation: Operation) -> bool:
    return total_tokens(operation) is None and operation.usage_operation_id is None


def success_rate_of(outcomes: Mapping[str, int]) -> float | None:
    succeeded = outcomes["ok"] + outcomes["partial"]
    judged = succeeded + outcomes["error"]
    return succeeded / judged if judged else None


def _span(
    operations: Sequence[Operation], entered_at: datetime | None
) -> tuple[datetime | None, datetime | None]:
    if not operations:
        return entered_at, entered_at
    return operations[0].timestamp, max(map(end_of, operations))


def _known_sum(amounts: Iterable[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return math.fsum(known) if known else None


def cache_hit_ratio(read: int, input_tokens: int) -> float | None:
    """Return the share of the input that came from a cache; `None` where none did."""
    return read / input_tokens if read and input_tokens else None


def _cost_coverage(billed: Iterable[Operation]) -> float | None:
    bearing = [each for each in billed if total_tokens(each) is not None]
    priced = sum(each.cost_usd is not None for each in bearing)
    return priced / len(bearing) if bearing else None


def _errors(operations: Iterable[Operation]) -> Counter[str]:
    return Counter(each.error_type or "unknown" for each in operations if each.outcome == "error")
