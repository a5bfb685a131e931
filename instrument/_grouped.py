"""Sums over groups of operations that are in memory: a session's by service, model and so on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta, tzinfo
from typing import Any

from instrument._stats import SessionFacts, billed_of, session_stats
from instrument.operation import Operation, SummaryRow
from instrument.pricing import Pricing

__all__ = ["PERIODS", "in_order", "period_of", "summed_in_session"]

PERIODS = ("day", "week", "month")


def summed_in_session(
    operations: Sequence[Operation], by: Sequence[str], zone: tzinfo, pricing: Pricing
) -> list[SummaryRow]:
    """Sum the operations of one session and its children by the keys `by`, in their order.

    A response that several of them report is charged once.
    """
    groups: dict[tuple[Any, ...], list[Operation]] = defaultdict(list)
    for each in operations:
        groups[tuple(_value(key, each, zone) for key in by)].append(each)
    charged = {id(each) for each in billed_of(operations)}
    rows = [
        _summed_group(dict(zip(by, values, strict=True)), group, charged, pricing)
        for values, group in groups.items()
    ]
    return sorted(rows, key=lambda row: in_order(by, row))


def _summed_group(
    keys: dict[str, Any], group: list[Operation], charged: set[int], pricing: Pricing
) -> SummaryRow:
    facts, session_id = SessionFacts(), keys.get("session", "")
    for each in group if session_id else ():
        facts.learn(each.session_name, each.parent_session_id)
    billed = [each for each in group if id(each) in charged]
    stats = session_stats(session_id, group, facts, pricing.saved, billed)
    figures = {name: getattr(stats, name) for name in stats.__struct_fields__}
    return SummaryRow(**figures, **keys)


def _value(key: str, operation: Operation, zone: tzinfo) -> Any:
    if key == "session":
        return operation.session_id
    if key not in PERIODS:
        return getattr(operation, key)
    return period_of(key, operation.timestamp.astimezone(zone).date())


def period_of(key: str, day: date) -> date:
    """Return the day, the Monday of its week or the first of its month."""
    if key == "week":
        return day - timedelta(days=day.weekday())
    return day if key == "day" else day.replace(day=1)


def in_order(by: Sequence[str], row: SummaryRow) -> tuple[Any, ...]:
    """Return what groups are sorted by: their keys, with what is unknown first."""
    values = [getattr(row, key) for key in by]
    return tuple((value is not None, "" if value is None else value) for value in values)
