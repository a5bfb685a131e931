"""Arithmetic on usage that may hold anything: what is impossible is named, never guessed at."""

from __future__ import annotations

import math
from typing import Any

from msgspec.structs import replace

from instrument.usage.adding import summed_details
from instrument.usage.reading import Reading

__all__ = ["are_plausible", "impossible", "plus", "says_nothing", "tokens_of", "without"]

_MOST_TOKENS = 10**12
_ALL_BITS = 2**39 - 1
"""So many tokens, and any combination of their bits, are below the most."""

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "total_tokens",
)

_PARTS = {
    "input_tokens": ("cache_read_tokens", "cache_write_tokens"),
    "output_tokens": ("reasoning_tokens",),
}


def are_plausible(reading: Reading) -> bool:
    """Tell quickly that nothing is impossible; `False` means to look with `impossible`."""
    new, output, total = reading.input_tokens, reading.output_tokens, reading.total_tokens
    read, written = reading.cache_read_tokens, reading.cache_write_tokens
    thought = reading.reasoning_tokens
    if read is None:
        read = 0
    if written is None:
        written = 0
    if thought is None:
        thought = 0
    if (
        type(new) is int
        and type(output) is int
        and type(total) is int
        and type(read) is int
        and type(written) is int
        and type(thought) is int
        # the usual ones all at once: no bit is set above the largest
        and 0 <= new | output | total | read | written | thought <= _ALL_BITS
        and reading.cost_usd is None
        and reading.cost_source is None
    ):
        return read + written <= new and thought <= output
    return _are_plausible(reading)


def _are_plausible(reading: Reading) -> bool:
    counts = (
        reading.input_tokens,
        reading.output_tokens,
        reading.cache_read_tokens,
        reading.cache_write_tokens,
        reading.reasoning_tokens,
        reading.total_tokens,
    )
    for count in counts:
        if count is not None and (type(count) is not int or not 0 <= count <= _MOST_TOKENS):
            return False
    if reading.cost_usd is not None or reading.cost_source is not None:
        return False
    new, output, read, written, thought, _ = counts
    if new is not None and (read or written) and (read or 0) + (written or 0) > new:
        return False
    return not thought or output is None or thought <= output


def impossible(reading: Reading) -> dict[str, Any]:
    """Return the fields that cannot be: negative, bool, NaN, text, above 10^12.

    Nor can a part be that is more than its whole: cached tokens than input, reasoning than output.
    """
    counts = {name: getattr(reading, name) for name in _COUNTS}
    dropped = {name: count for name, count in counts.items() if not _is_count(count)}
    possible = {name: None if name in dropped else count for name, count in counts.items()}
    for whole, parts in _PARTS.items():
        dropped |= _too_much(possible[whole], {name: possible[name] for name in parts})
    if not _is_cost(reading.cost_usd):
        dropped["cost_usd"] = reading.cost_usd
    return dropped


def without(reading: Reading, dropped: dict[str, Any]) -> Reading:
    """Return `reading` with the fields named in `dropped` unknown."""
    return replace(reading, **dict.fromkeys(dropped))


def tokens_of(reading: Reading) -> int | None:
    """Return the provider's total, else the sum of the parts that are known."""
    if reading.total_tokens is not None:
        return reading.total_tokens
    if reading.input_tokens is None:
        return reading.output_tokens
    return reading.input_tokens + (reading.output_tokens or 0)


def says_nothing(reading: Reading | None) -> bool:
    """Tell whether a reading has neither counts nor a cost."""
    if reading is None:
        return True
    return all(getattr(reading, name) is None for name in (*_COUNTS, "cost_usd"))


def plus(first: Reading, second: Reading) -> Reading:
    """Return the sum of each field; an impossible count stays visible, the later name holds.

    A cost that is of one of two responses alone is not the cost of both, unless the caller says it
    of the first: what is added without one adds nothing to it.
    """
    total = None
    if first.total_tokens is not None or second.total_tokens is not None:
        total = _sum(_whole(first), _whole(second))
    summed = {
        name: _sum(getattr(first, name), getattr(second, name))
        for name in (*_COUNTS, "cost_usd")
        if name != "total_tokens"
    }
    both = (first, second)
    is_of_one = all(map(_whole, both)) and any(each.cost_usd is None for each in both)
    if is_of_one and first.cost_source != "caller":
        summed["cost_usd"] = None
    return replace(
        second,
        **summed,
        total_tokens=total,
        model=second.model or first.model,
        response_id=second.response_id or first.response_id,
        cost_source=second.cost_source or first.cost_source,
        details=summed_details([each for each in both if each.details or _whole(each)]),
    )


def _too_much(whole: int | None, parts: dict[str, int | None]) -> dict[str, Any]:
    """Return the parts that are more than the whole, all of them if only together they are."""
    known = {name: count for name, count in parts.items() if count}
    if whole is None or sum(known.values()) <= whole:
        return {}
    return {name: count for name, count in known.items() if count > whole} or known


def _whole(reading: Reading) -> Any:
    try:
        return tokens_of(reading)
    except TypeError:
        return None


def _sum(first: Any, second: Any) -> Any:
    if first is None or second is None:
        return second if first is None else first
    if not _can_be(first) or not _can_be(second):
        return second if _can_be(first) else first
    return first + second


def _can_be(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value <= _MOST_TOKENS)


def _is_cost(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 <= value < math.inf)
