"""List prices as SQL: what an operation costs, and what its cached tokens saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, time

from instrument.pricing import DETAILS, SEARCHES, Key, Pricing, Rates

__all__ = ["MATTERS", "cost_of", "quoted", "saving_of"]

MATTERS = " or ".join(
    f"contains(cast(metadata as varchar), '\"{name}\"')"
    for name in ("usage_details", "impossible_usage")
)
"""Tells quickly whether a price may depend on an operation's metadata."""

_USAGE = "json_extract(metadata, '$.usage_details')"
_IMPOSSIBLE = "json_extract(metadata, '$.impossible_usage')"
_NEW = "input_tokens"
_READ, _WRITTEN = "coalesce(cache_read_tokens, 0)", "coalesce(cache_write_tokens, 0)"
_OUTPUT, _THOUGHT = "coalesce(output_tokens, 0)", "coalesce(reasoning_tokens, 0)"


def cost_of(pricing: Pricing, keys: Iterable[Key]) -> str:
    """Return an expression for the list price of an operation, which has one of the keys."""
    return _choice(pricing, keys, _cost)


def saving_of(pricing: Pricing, keys: Iterable[Key]) -> str:
    """Return an expression for what cached tokens saved of the list price."""
    saved = _choice(pricing, keys, _saving)
    return f"(case when {_READ} + {_WRITTEN} > 0 then {saved} end)"


def _choice(pricing: Pricing, keys: Iterable[Key], of: Callable[[Rates, bool], str]) -> str:
    """Return what is chosen by key, time, size and tier; what has details is looked at apart."""
    conditions = {key: _is(key) for key in keys}
    if pricing.model is not None:
        conditions = {(None, "", pricing.model): "true"}
    rates = [
        (condition, each) for key, condition in conditions.items() for each in pricing.rates_of(key)
    ]
    plain, detailed = (
        "".join(
            f" when {condition} and {_holds(pricing, each, detailed)} then {of(each, detailed)}"
            for condition, each in rates
            if detailed or each.tier is None
        )
        for detailed in (False, True)
    )
    if not detailed:
        return "cast(null as double)"
    plain = plain or " when false then null"
    return (
        f"(case when {_IMPOSSIBLE} is not null then null when {_USAGE} is null"
        f" then (case{plain} end) else (case{detailed} end) end)"
    )


def _is(key: Key) -> str:
    provider, service, model = key
    same = "is null" if provider is None else f"= {quoted(provider)}"
    # the model first: it tells most apart
    return f"model = {quoted(model)} and provider {same} and service = {quoted(service)}"


def _holds(pricing: Pricing, rates: Rates, detailed: bool) -> str:
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
    size = "coalesce(input_tokens, tokens, 0)"
    if detailed:
        size = f"coalesce(nullif({_detail('largest_input_tokens')}, 0), input_tokens, tokens, 0)"
        tier = _text("service_tier")
        parts.append(f"{tier} is null" if rates.tier is None else f"{tier} = {quoted(rates.tier)}")
    if rates.over >= 0:
        parts.append(f"{size} > {rates.over} and not {_is_sum(detailed)}")
    if rates.up_to is not None:
        parts.append(f"{size} <= {rates.up_to}")
    if rates.from_time is not None and rates.to_time is not None:
        parts.append(_between(hour, rates.from_time, rates.to_time))
    return " and ".join(parts) or "true"


def _is_sum(detailed: bool) -> str:
    by_kind = "coalesce(kind = 'invoke_agent', false)"
    if not detailed:
        return by_kind
    count = _detail("responses")
    return f"(case when {_text('responses')} is null then {by_kind} else {count} > 1 end)"


def _between(hour: str, begin: time, end: time) -> str:
    first, last = (f"time {quoted(each.isoformat())}" for each in (begin, end))
    joint = "or" if end < begin else "and"
    return f"({hour} >= {first} {joint} {hour} < {last})"


def _cost(rates: Rates, detailed: bool) -> str:
    kinds = _of_kinds(rates) if detailed else []
    other_new, other_read, other_output = (
        "".join(f" - {each[place]}" for each in kinds) for place in (1, 2, 3)
    )
    text = (
        f"{_NEW} - {_READ} - {_WRITTEN}{other_new}",
        f"{_READ}{other_read}",
        f"{_OUTPUT} - {_THOUGHT}{other_output}",
    )
    parts = [
        *(cost for cost, *_ in kinds),
        _times(text[0], rates.input),
        _times(text[1], rates.cache_read, rates.input),
        *_written(rates, detailed),
        _times(text[2], rates.output),
        _times(_THOUGHT, rates.reasoning, rates.output),
        *_by_the_piece(rates, detailed),
    ]
    clear = [f"tokens is null or tokens = {_NEW} + {_OUTPUT}", *(f"{each} >= 0" for each in text)]
    clear += [_UNKNOWN_NAMES, *_clear_kinds(rates)] if detailed else []
    alone = f"tokens * {_number(rates.input)}" if rates.output is None and rates.input else "null"
    return (
        f"(case when {_NEW} is null then case when output_tokens is null then {alone} end"
        f" when {' and '.join(f'({each})' for each in clear)} then {' + '.join(parts)} end)"
    )


def _saving(rates: Rates, detailed: bool) -> str:
    if rates.input is None:
        return "0e0"
    read = _times(_READ, rates.cache_read, rates.input)
    paid = " + ".join([read, *_written(rates, detailed)])
    return f"(({_READ} + {_WRITTEN}) * {_number(rates.input)} - ({paid}))"


def _written(rates: Rates, detailed: bool) -> list[str]:
    if not detailed or rates.cache_write_1h is None:
        return [_times(_WRITTEN, rates.cache_write, rates.input)]
    long_lived = f"least({_WRITTEN}, {_detail('cache_write_1h_tokens')})"
    return [
        _times(f"{_WRITTEN} - {long_lived}", rates.cache_write, rates.input),
        _times(long_lived, rates.cache_write_1h),
    ]


def _by_the_piece(rates: Rates, detailed: bool) -> list[str]:
    request = _number(rates.request or 0.0)
    if not detailed:
        return [request]
    searches = [_times(_detail(name), rates.searches.get(name)) for name in SEARCHES]
    return [f"greatest(1, {_detail('responses')}) * {request}", *searches]


def _of_kinds(rates: Rates) -> list[tuple[str, str, str, str]]:
    """Return for each kind with rates of its own its cost, and its input, cached and output."""
    found = []
    for each in rates.kinds:
        of_input = _detail(f"input_{each.kind}_tokens") if each.input else "0"
        of_output = _detail(f"output_{each.kind}_tokens") if each.output else "0"
        cached = f"least({of_input}, {_detail(f'cache_{each.kind}_read_tokens')})"
        new = f"({of_input} - {cached})"
        cost = (
            f"{new} * {_number(each.input or 0)} + {of_output} * {_number(each.output or 0)}"
            f" + {cached} * {_number(_known(each.cache_read, rates.cache_read, each.input))}"
        )
        found.append((cost, new, cached, of_output))
    return found


def _clear_kinds(rates: Rates) -> list[str]:
    """Return what must hold for it to be known of which kind cached tokens are."""
    return [
        f"{_READ} = 0 or {_detail(f'input_{each.kind}_tokens')} = 0"
        f" or {_text(f'cache_{each.kind}_read_tokens')} is not null"
        for each in rates.kinds
        if each.input
    ]


def _text(name: str) -> str:
    return f"json_extract_string(metadata, '$.usage_details.{name}')"


def _detail(name: str) -> str:
    """Return a count in `usage_details`, 0 where it is not one."""
    whole = f"json_type(metadata, '$.usage_details.{name}') in ('UBIGINT', 'BIGINT')"
    return f"(case when {whole} then greatest(0, cast({_text(name)} as bigint)) else 0 end)"


def _times(count: str, *rates: float | None) -> str:
    """Return the product with the first rate that is known; null for any count without one."""
    rate = next((rate for rate in rates if rate is not None), None)
    if rate is None:
        return f"(case when {count} = 0 then 0 end)"
    return f"({count}) * {_number(rate)}"


def _known(*rates: float | None) -> float:
    return next((rate for rate in rates if rate is not None), 0.0)


def _number(amount: float) -> str:
    """Return a literal that is a double everywhere."""
    return f"{amount:.17e}"


def quoted(text: str) -> str:
    """Return a literal of a text."""
    return "'" + text.replace("'", "''") + "'"


def _moment(moment: datetime) -> str:
    return f"timestamptz {quoted(moment.isoformat())}"


_UNKNOWN_NAMES = (
    "len(list_filter(json_keys(metadata, '$.usage_details'),"
    f" lambda name: name not in ({', '.join(map(quoted, DETAILS))}))) = 0"
)
