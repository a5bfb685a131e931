"""List prices in SQL: what an operation costs, and what its cached tokens saved.

The rates of all models are a table, which is joined with the operations; so the query stays as
short as one model's.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from instrument._rates import DETAILS, KINDS, SEARCHES, Key, Rates
from instrument.pricing import Pricing

__all__ = ["MATTERS", "make_rates", "priced", "quoted", "rates_table"]

MOST_TABLES = 64

MATTERS = " or ".join(
    f"contains(cast(metadata as varchar), '\"{name}\"')"
    for name in ("usage_details", "impossible_usage")
)
"""Tells quickly whether a price may depend on an operation's metadata."""


def make_rates(connection: DuckDBPyConnection, pricing: Pricing, keys: Iterable[Key]) -> None:
    """Make the temporary table `rates` of the rates of operations that have one of these keys."""
    declared = ", ".join(f"{name} {kind}" for name, kind in _RATES.items())
    connection.execute(f"create or replace temp table rates ({declared})")
    if pricing.model is not None:
        keys = [(None, "", pricing.model)]
    found = (_row(pricing, key, each) for key in keys for each in pricing.rates_of(key))
    rows = [row for row in found if row is not None]
    if rows:
        marks = ", ".join([f"({', '.join('?' * len(_RATES))})"] * len(rows))
        values = [value for row in rows for value in row]
        connection.execute(f"insert into rates values {marks}", values)


def priced(rows: str, pricing: Pricing, rates: str = "rates", *, is_detailed: bool = True) -> str:
    """Return a query for the operations in `rows` with their cost, and `saved` beside it.

    The cost is what was given, else the list price. `is_detailed` says that it may depend on the
    metadata of any of them.
    """
    cost, source = "listed", "case when listed is not null then 'list' end"
    if not pricing.replaces:
        source = f"coalesce(case when cost_usd is null then {source} end, cost_source)"
        cost = "coalesce(cost_usd, listed)"
    is_of = _IS_OF if pricing.model is None else "true"
    dropped = ", ".join(["is_detailed", "listed", *_RATES])
    saved, listed, detailed = _SAVED, _COST, f"coalesce({MATTERS}, false)"
    holds = _holds(detailed=is_detailed)
    if not is_detailed:
        # of a fourth of the text, which takes longer to understand than thousands of rows to price
        saved, listed, detailed = _saved(detailed=False), _cost(detailed=False), "false"
    saved = f"case when is_known and {_READ} + {_WRITTEN} > 0 then {saved} end"
    looked = f"select *, {detailed} as is_detailed from ({rows})"
    listed = f"select *, case when is_known then {listed} end as listed"
    joined = f"({looked}) left join {rates} on {is_of} and {holds}"
    return (
        f"select * exclude ({dropped}) replace ({cost} as cost_usd, {source} as cost_source),"
        f" {saved} as saved from ({listed} from {joined})"
    )


def rates_table(connection: DuckDBPyConnection, pricing: Pricing, keys: Iterable[Key]) -> str:
    """Return the name of a table of rates, which is made once in a database for the same keys."""
    import hashlib  # it loads OpenSSL

    named = (pricing.version, pricing.as_of, pricing.model, sorted(keys, key=str))
    name = f"rates_{hashlib.blake2b(repr(named).encode(), digest_size=8).hexdigest()}"
    known = "select table_name from duckdb_tables() where starts_with(table_name, 'rates_')"
    made = {each for (each,) in connection.execute(known).fetchall()}
    if name in made:
        return name
    make_rates(connection, pricing, named[-1])
    if len(made) >= MOST_TABLES:
        return "rates"
    try:
        connection.execute(f"create table {name} as from rates")
    except (duckdb.CatalogException, duckdb.TransactionException):
        return "rates"  # another thread makes it at this moment
    return name


def _row(pricing: Pricing, key: Key, rates: Rates) -> list[Any] | None:
    provider, service, model = key
    since, until = rates.since, rates.until
    begin, end = rates.from_time, rates.to_time
    if pricing.as_of is not None:
        tier, size, several = rates.tier, max(rates.over + 1, 0), False
        if not rates.holds(pricing.as_of, size, tier, several=several):
            return None
        since, until, begin, end = datetime.min, datetime.max, None, None
    known = {each.kind: each for each in rates.kinds}
    of_kinds: list[float | None] = []
    for kind in KINDS:
        each = known.get(kind)
        cached = None if each is None else _first(each.cache_read, rates.cache_read, each.input)
        of_kinds += [None, None, None] if each is None else [each.input, each.output, cached]
    return [
        True,
        provider,
        service,
        model,
        None if since.year == date.min.year else since,
        None if until.year == date.max.year else until,
        begin,
        end,
        rates.over,
        rates.up_to,
        rates.tier,
        rates.input,
        _first(rates.cache_read, rates.input),
        _first(rates.cache_write, rates.input),
        _first(rates.cache_write_1h, rates.cache_write, rates.input),
        rates.output,
        _first(rates.reasoning, rates.output),
        rates.request or 0.0,
        *(rates.searches.get(name) for name in SEARCHES),
        *of_kinds,
    ]


def _first(*rates: float | None) -> float | None:
    return next((rate for rate in rates if rate is not None), None)


def quoted(text: str) -> str:
    """Return a literal of a text."""
    return "'" + text.replace("'", "''") + "'"


def _text(name: str) -> str:
    return f"json_extract_string(metadata, '$.usage_details.{name}')"


def _detail(name: str) -> str:
    """Return a count in `usage_details`, 0 where it is not one."""
    kind = f"json_type(metadata, '$.usage_details.{name}')"
    count = f"greatest(0, cast({_text(name)} as bigint))"
    return f"(case when is_detailed and {kind} in ('UBIGINT', 'BIGINT') then {count} else 0 end)"


def _times(count: str, rate: str) -> str:
    """Return the product; null for any count without a rate."""
    return f"(case when {rate} is not null then ({count}) * {rate} when ({count}) = 0 then 0 end)"


_RATES = {
    "is_known": "BOOLEAN",
    "rate_provider": "VARCHAR",
    "rate_service": "VARCHAR",
    "rate_model": "VARCHAR",
    "rate_since": "TIMESTAMPTZ",
    "rate_until": "TIMESTAMPTZ",
    "rate_from": "TIME",
    "rate_to": "TIME",
    "rate_over": "BIGINT",
    "rate_up_to": "BIGINT",
    "rate_tier": "VARCHAR",
    **dict.fromkeys(
        (
            "new_rate",
            "read_rate",
            "written_rate",
            "written_1h_rate",
            "output_rate",
            "thought_rate",
            "request_rate",
            *(f"{name}_rate" for name in SEARCHES),
            *(f"{kind}_{side}_rate" for kind in KINDS for side in ("input", "output", "read")),
        ),
        "DOUBLE",
    ),
}
_IS_OF = (
    "rate_model = model and rate_service = service and rate_provider is not distinct from provider"
)
_READ, _WRITTEN = "coalesce(cache_read_tokens, 0)", "coalesce(cache_write_tokens, 0)"
_OUTPUT, _THOUGHT = "coalesce(output_tokens, 0)", "coalesce(reasoning_tokens, 0)"
_HOUR = "cast(timestamp at time zone 'UTC' as time)"


def _holds(*, detailed: bool) -> str:
    """Return the condition on which a row of rates is that of an operation of its model."""
    tier, size, is_sum = "null", "input_tokens", "coalesce(kind = 'invoke_agent', false)"
    if detailed:
        tier = f"(case when is_detailed then {_text('service_tier')} end)"
        size = f"nullif({_detail('largest_input_tokens')}, 0), input_tokens"
        is_sum = (
            f"(case when is_detailed and {_text('responses')} is not null"
            f" then {_detail('responses')} > 1 else {is_sum} end)"
        )
    size = f"coalesce({size}, tokens, 0)"
    return (
        "(rate_since is null or timestamp >= rate_since)"
        " and (rate_until is null or timestamp < rate_until)"
        f" and rate_tier is not distinct from {tier}"
        f" and (rate_over < 0 or {size} > rate_over and not {is_sum})"
        f" and (rate_up_to is null or {size} <= rate_up_to)"
        f" and (rate_from is null or case when rate_to < rate_from"
        f" then {_HOUR} >= rate_from or {_HOUR} < rate_to"
        f" else {_HOUR} >= rate_from and {_HOUR} < rate_to end)"
    )


def _of(name: str, rate: str) -> str:
    """Return how many tokens of a kind there are that has a rate of its own."""
    return f"(case when coalesce({rate}, 0) = 0 then 0 else {_detail(name)} end)"


def _cost(*, detailed: bool) -> str:
    kinds = [_Kind(name) for name in KINDS] if detailed else []
    text = (
        "".join([f"input_tokens - {_READ} - {_WRITTEN}", *(f" - {each.new}" for each in kinds)]),
        "".join([_READ, *(f" - {each.cached}" for each in kinds)]),
        "".join([f"{_OUTPUT} - {_THOUGHT}", *(f" - {each.output}" for each in kinds)]),
    )
    long_lived = f"least({_WRITTEN}, {_detail('cache_write_1h_tokens')})"
    written = [_times(_WRITTEN, "written_rate")]
    pieces = ["request_rate"]
    clear = [
        f"tokens is null or tokens = input_tokens + {_OUTPUT}",
        *(f"{one} >= 0" for one in text),
    ]
    if detailed:
        written = [
            _times(f"{_WRITTEN} - {long_lived}", "written_rate"),
            _times(long_lived, "written_1h_rate"),
        ]
        pieces = [f"greatest(1, {_detail('responses')}) * request_rate"]
        pieces += [_times(_detail(name), f"{name}_rate") for name in SEARCHES]
        clear += [each.is_clear for each in kinds]
    parts = [
        *(each.cost for each in kinds),
        _times(text[0], "new_rate"),
        _times(text[1], "read_rate"),
        *written,
        _times(text[2], "output_rate"),
        _times(_THOUGHT, "thought_rate"),
        *pieces,
    ]
    alone = "output_tokens is null and output_rate is null"
    cost = (
        f"case when input_tokens is null then case when {alone} then tokens * new_rate end"
        f" when {' and '.join(f'({each})' for each in clear)} then {' + '.join(parts)} end"
    )
    return f"case when {_IS_POSSIBLE} then {cost} end" if detailed else cost


def _saved(*, detailed: bool) -> str:
    long_lived = f"least({_WRITTEN}, {_detail('cache_write_1h_tokens')})" if detailed else "0"
    paid = (
        f"{_READ} * read_rate + ({_WRITTEN} - {long_lived}) * written_rate"
        f" + {long_lived} * written_1h_rate"
    )
    return f"coalesce(({_READ} + {_WRITTEN}) * new_rate - ({paid}), 0)"


class _Kind:
    """What is said of the tokens of one kind that are no text."""

    def __init__(self, kind: str) -> None:
        rates = {side: f"{kind}_{side}_rate" for side in ("input", "output", "read")}
        of_input = _of(f"input_{kind}_tokens", rates["input"])
        told = f"cache_{kind}_read_tokens"
        self.cached = f"least({of_input}, {_detail(told)})"
        self.new = f"({of_input} - {self.cached})"
        self.output = _of(f"output_{kind}_tokens", rates["output"])
        self.cost = " + ".join(
            f"{count} * coalesce({rates[side]}, 0)"
            for count, side in ((self.new, "input"), (self.output, "output"), (self.cached, "read"))
        )
        self.is_clear = f"{_READ} = 0 or {of_input} = 0 or {_text(told)} is not null"


# an unknown name may be one of a price that is not known
_IS_POSSIBLE = (
    "json_extract(metadata, '$.impossible_usage') is null"
    " and coalesce(len(list_filter(json_keys(metadata, '$.usage_details'),"
    f" lambda name: name not in ({', '.join(map(quoted, DETAILS))}))), 0) = 0"
)
_COST = f"case when is_detailed then {_cost(detailed=True)} else {_cost(detailed=False)} end"
_SAVED = f"case when is_detailed then {_saved(detailed=True)} else {_saved(detailed=False)} end"
