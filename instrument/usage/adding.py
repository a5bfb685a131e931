"""The sum of several readings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from instrument.usage.fields import added
from instrument.usage.reading import Reading, Readings

__all__ = ["combined", "folded", "total"]

_AGREED = (
    "model",
    "provider",
    "kind",
    "outcome",
    "error_type",
    "error_message",
    "cost_source",
    "details",
    "attempt",
)
_SUMMED = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


def combined(readings: Iterable[Reading]) -> Reading | None:
    """Return the one reading, the `Readings` of several, or `None`.

    Of two with the same `response_id` the later counts, unless it knows no count.
    """
    unique: dict[object, Reading] = {}
    for place, reading in enumerate(readings):
        key = reading.response_id or place
        if key not in unique or _knows_a_count(reading):
            unique[key] = reading
    parts = tuple(unique.values())
    if len(parts) < 2:
        return parts[0] if parts else None
    return Readings(**_sums(parts), parts=parts)


def total(readings: Iterable[Reading]) -> Reading:
    """Return the same; of none, a `Reading` that knows nothing."""
    return combined(readings) or Reading()


def folded(readings: Iterable[Reading]) -> list[Reading]:
    """Return the sum alone, without its parts, as the one element of a new list."""
    return [Reading(**_sums(tuple(readings)))]


def _sums(parts: tuple[Reading, ...]) -> dict[str, Any]:
    sums = {name: added(*(getattr(part, name) for part in parts)) for name in _SUMMED}
    agreed = {name: _agreed([getattr(part, name) for part in parts]) for name in _AGREED}
    return {**sums, **agreed, "total_tokens": _total(parts), "cost_usd": _cost(parts)}


def _knows_a_count(reading: Reading) -> bool:
    return any(getattr(reading, name) is not None for name in (*_SUMMED, "total_tokens"))


def _agreed(values: list[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else None


def _total(parts: tuple[Reading, ...]) -> Any:
    """Sum the totals, and the counts of parts without one, if any part has one."""
    if all(part.total_tokens is None for part in parts):
        return None
    totals = (
        added(part.input_tokens, part.output_tokens)
        if part.total_tokens is None
        else part.total_tokens
        for part in parts
    )
    return added(*totals)


def _cost(parts: tuple[Reading, ...]) -> Any:
    costs = [part.cost_usd for part in parts if part.cost_usd is not None]
    wrong = [cost for cost in costs if type(cost) not in (int, float)]
    return wrong[0] if wrong else sum(costs) if costs else None
