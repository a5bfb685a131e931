"""The sum of several readings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from instrument.usage.fields import USAGE_DETAILS, added, first
from instrument.usage.reading import Reading, Readings

__all__ = ["combined", "folded", "summed_details", "total"]

_ANSWERER = ("model", "provider", "kind")
_VERDICT = (
    "outcome",
    "error_type",
    "error_message",
    "attempt",
)
_SUMMED = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)

_AMOUNTS = frozenset({"audio_seconds", "characters", "classifications", "images", "search_units"})
_NUMBERS = frozenset({float, int})
_NONE: dict[str, Any] = {}


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


def summed_details(parts: Sequence[Reading]) -> dict[str, Any] | None:
    """Return what the details of several responses come to: amounts add up, else all must agree.

    `usage_details` says of how many responses it is, and which input was the largest: prices may
    depend on it. A service tier that not all agree on is `mixed`.
    """
    known = [part.details or _NONE for part in parts]
    if len(known) < 2:
        return known[0] or None if known else None
    usages = [each.get(USAGE_DETAILS) or _NONE for each in known]
    found = _merged([{**each, USAGE_DETAILS: None} for each in known], _AMOUNTS)
    usage = _merged([{**each, "largest_input_tokens": None} for each in usages], None)
    if any("service_tier" in each for each in usages) and "service_tier" not in usage:
        usage["service_tier"] = "mixed"
    usage["responses"] = sum(each.get("responses", 1) for each in usages)
    inputs: list[Any] = [
        each.get("largest_input_tokens", _input_of(part))
        for each, part in zip(usages, parts, strict=True)
    ]
    if all(type(count) is int for count in inputs):
        usage["largest_input_tokens"] = max(inputs, default=0)
    return {**found, USAGE_DETAILS: usage}


def _input_of(part: Reading) -> Any:
    """Return the input, which is at most the total where nothing else is known."""
    return first(part.input_tokens, part.total_tokens, 0)


def _merged(several: list[dict[str, Any]], amounts: frozenset[str] | None) -> dict[str, Any]:
    """Sum the amounts, which without names are all numbers; keep of the rest what all agree on."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for each in several for name in each):
        values = [each[name] for each in several if each.get(name) is not None]
        if (amounts is None or name in amounts) and {type(value) for value in values} <= _NUMBERS:
            found[name] = sum(values) if values else None
        else:
            found[name] = _agreed([each.get(name) for each in several])
    return {name: value for name, value in found.items() if value is not None}


def _sums(parts: tuple[Reading, ...]) -> dict[str, Any]:
    sums = {name: added(*(getattr(part, name) for part in parts)) for name in _SUMMED}
    # what failed does not say who would have answered
    counting = tuple(part for part in parts if _counts(part))
    agreed = {
        name: _agreed([getattr(part, name) for part in several])
        for names, several in ((_ANSWERER, counting or parts), (_VERDICT, parts))
        for name in names
    }
    cost = _cost(parts)
    sources = [part.cost_source for part in parts if part.cost_usd is not None]
    return {
        **sums,
        **agreed,
        "total_tokens": _total(parts),
        "cost_usd": cost,
        "cost_source": None if cost is None else _agreed(sources) or "caller",
        "details": summed_details([part for part in parts if part.details or _counts(part)]),
    }


def _counts(reading: Reading) -> bool:
    """Tell whether a response used anything."""
    return any(getattr(reading, name) for name in (*_SUMMED, "total_tokens"))


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
    """Sum the costs; where a response that used something has none, what all cost is unknown."""
    costs = [part.cost_usd for part in parts if part.cost_usd is not None]
    wrong = [cost for cost in costs if type(cost) not in (int, float)]
    if wrong:
        return wrong[0]
    if any(part.cost_usd is None and _counts(part) for part in parts):
        return None
    return sum(costs) if costs else None
