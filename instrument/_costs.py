"""List prices as SQL: what an operation costs, and what its cached tokens saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, time

from instrument.pricing import Key, Pricing, Rates

__all__ = ["cost_of", "quoted", "saving_of"]

_LONG_LIVED = (
    "(case when cache_write_tokens > 0 then least(cache_write_tokens,"
    " coalesce(try_cast(metadata->>'cache_write_1h_tokens' as bigint), 0)) else 0 end)"
)
_READ, _WRITTEN = "coalesce(cache_read_tokens, 0)", "coalesce(cache_write_tokens, 0)"
_THOUGHT = "coalesce(reasoning_tokens, 0)"
_SIZE = "coalesce(input_tokens, tokens, 0)"


def cost_of(pricing: Pricing, keys: Iterable[Key]) -> str:
    """Return an expression for the list price of an operation, which has one of the keys."""
    return _choice(pricing, keys, _cost)


def saving_of(pricing: Pricing, keys: Iterable[Key]) -> str:
    """Return an expression for what cached tokens saved of the list price."""
    saved = _choice(pricing, keys, _saving)
    return f"(case when {_READ} + {_WRITTEN} > 0 then {saved} end)"


def _choice(pricing: Pricing, keys: Iterable[Key], of: Callable[[Rates], str]) -> str:
    conditions = {key: _is(key) for key in keys}
    if pricing.model is not None:
        conditions = {(None, "", pricing.model): "true"}
    branches = [
        f" when {condition} and {_holds(pricing, rates)} then {of(rates)}"
        for key, condition in conditions.items()
        for rates in pricing.rates_of(key)
    ]
    return f"(case{''.join(branches)} end)" if branches else "cast(null as double)"


def _is(key: Key) -> str:
    provider, service, model = key
    same = "is null" if provider is None else f"= {quoted(provider)}"
    # the model first: it tells most apart
    return f"model = {quoted(model)} and provider {same} and service = {quoted(service)}"


def _holds(pricing: Pricing, rates: Rates) -> str:
    parts = []
    if pricing.as_of is not None:
        if not rates.since <= pricing.as_of < rates.until:
            return "false"
        hour = f"time {quoted(pricing.as_of.time().isoformat())}"
    else:
        hour = "cast(timestamp at time zone 'UTC' as time)"
        if rates.since.year > 1:
            parts.append(f"timestamp >= {_moment(rates.since)}")
        if rates.until.year < 9999:
            parts.append(f"timestamp < {_moment(rates.until)}")
    if rates.over >= 0:
        parts.append(f"{_SIZE} > {rates.over}")
    if rates.up_to is not None:
        parts.append(f"{_SIZE} <= {rates.up_to}")
    if rates.from_time is not None and rates.to_time is not None:
        parts.append(_between(hour, rates.from_time, rates.to_time))
    return " and ".join(parts) or "true"


def _between(hour: str, begin: time, end: time) -> str:
    first, last = (f"time {quoted(each.isoformat())}" for each in (begin, end))
    joint = "or" if end < begin else "and"
    return f"({hour} >= {first} {joint} {hour} < {last})"


def _cost(rates: Rates) -> str:
    parts = [
        _times(f"coalesce(input_tokens, 0) - {_READ} - {_WRITTEN}", rates.input),
        *_cached(rates),
        _times(f"coalesce(output_tokens, 0) - {_THOUGHT}", rates.output),
        _times(_THOUGHT, rates.reasoning, rates.output),
        _number(rates.request or 0.0),
    ]
    known = "input_tokens is not null or output_tokens is not null"
    alone = f"tokens * {_number(rates.input)}" if rates.output is None and rates.input else "null"
    return f"(case when {known} then {' + '.join(parts)} else {alone} end)"


def _saving(rates: Rates) -> str:
    if rates.input is None:
        return "0e0"
    paid = " + ".join(_cached(rates))
    return f"(({_READ} + {_WRITTEN}) * {_number(rates.input)} - ({paid}))"


def _cached(rates: Rates) -> list[str]:
    read = _times(_READ, rates.cache_read, rates.input)
    if rates.cache_write_1h is None:
        return [read, _times(_WRITTEN, rates.cache_write, rates.input)]
    return [
        read,
        _times(f"{_WRITTEN} - {_LONG_LIVED}", rates.cache_write, rates.input),
        _times(_LONG_LIVED, rates.cache_write_1h),
    ]


def _times(count: str, *rates: float | None) -> str:
    """Return the product with the first rate that is known; null for any count without one."""
    rate = next((rate for rate in rates if rate is not None), None)
    if rate is None:
        return f"(case when {count} = 0 then 0 end)"
    return f"({count}) * {_number(rate)}"


def _number(amount: float) -> str:
    """Return a literal that is a double everywhere."""
    return f"{amount:.17e}"


def quoted(text: str) -> str:
    """Return a literal of a text."""
    return "'" + text.replace("'", "''") + "'"


def _moment(moment: datetime) -> str:
    return f"timestamptz {quoted(moment.isoformat())}"
