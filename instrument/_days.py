"""What days came to: sums by day, service, model and outcome that can be added up again.

    archive/days/<batch>.parquet   a row for each such group of a day, and the percentiles of a day

Percentiles cannot be added up. They are kept for each day as a whole, by service, by model and by
both: `level` names the keys, and is empty for sums.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from itertools import chain, combinations

__all__ = [
    "DAY",
    "FIRST_OF_ITS_RESPONSE",
    "SHARES",
    "TOTAL",
    "added_up",
    "charged",
    "level_of",
    "of_days",
    "percentiles",
    "sums",
]

LEVEL_KEYS = ("model", "service")
TOTAL = (
    "coalesce(tokens, case when input_tokens is not null or output_tokens is not null"
    " then coalesce(input_tokens, 0) + coalesce(output_tokens, 0) end)"
)
_SAME = (
    "session_id, response_id, tokens, input_tokens, output_tokens,"
    " total is null and cost_usd is null"
)
FIRST_OF_ITS_RESPONSE = f"""
    response_id is null or (
        row_number() over (partition by {_SAME}, model order by timestamp, operation_id) = 1
        and (model is not null or count(model) over (partition by {_SAME}) = 0))
"""
# all at once: percentile_cont would sort for each
SHARES = "quantile_cont(duration_seconds, [0.50e0, 0.95e0, 0.99e0])"
MICROSECONDS = "cast(round({} * 1e6) as bigint)"
ENDS = (
    f"max({MICROSECONDS.format('extract(epoch from timestamp)')}"
    f" + {MICROSECONDS.format('duration_seconds')})"
)
_FIGURES = {
    "operations": "count(*)",
    "retries": "count(*) filter (attempt > 1)",
    "without_usage": "count(*) filter (total is null and usage_operation_id is null)",
    **{
        name: f"coalesce(sum({name}) filter (is_billed), 0)::bigint"
        for name in (
            "input_tokens",
            "output_tokens",
            "cache_read_tokens",
            "cache_write_tokens",
            "reasoning_tokens",
        )
    },
    "total_tokens": "coalesce(sum(total) filter (is_billed), 0)::bigint",
    "seconds": "sum(duration_seconds)",
    "cost_usd": "sum(cost_usd) filter (is_billed)",
    "cache_saved_usd": "sum(saved) filter (is_billed)",
    "bearing": "count(*) filter (is_billed and total is not null)",
    "priced": "count(*) filter (is_billed and total is not null and cost_usd is not null)",
    "first": "min(timestamp)",
    "last": "max(timestamp)",
    "ends": ENDS,
}
_KEYS = ("provider", "service", "model", "outcome")
_ERROR = "case when outcome = 'error' then coalesce(error_type, 'unknown') end"
DAY = "cast(timestamp as date)"


def charged(table: str, where: str, billed: str) -> str:
    """Return the operations of a table with what they are charged with."""
    return (
        f"(select *, {billed} as is_billed"
        f" from (select *, {TOTAL} as total from {table} where {where}))"
    )


def sums(table: str, day: str) -> str:
    """Return a query for the sums of charged operations."""
    keys = {"day": day} | {name: name for name in _KEYS} | {"error_type": _ERROR}
    columns = [f"{expression} as {name}" for name, expression in (keys | _FIGURES).items()]
    return f"select '' as level, {', '.join(columns)} from {table} group by all"


def percentiles(table: str, day: str) -> str:
    """Return a query for the percentiles of a table's days, of all levels."""
    levels = chain.from_iterable(combinations(LEVEL_KEYS, count) for count in range(3))
    return " union all by name ".join(
        f"select {_literal(level_of(level))} as level, {', '.join([f'{day} as day', *level])},"
        f" {SHARES} as shares from {table} group by all"
        for level in levels
    )


def level_of(keys: Iterable[str]) -> str:
    """Return the name of the percentiles by these keys and the day."""
    return ",".join(["day", *sorted(set(keys) & {*LEVEL_KEYS})])


def added_up(
    rows: str, by: Sequence[str], expressions: Mapping[str, str], figures: Mapping[str, str]
) -> str:
    """Return a query that adds up sums by some keys."""
    columns = [f"{expressions.get(key, key)} as key_{key}" for key in by]
    columns += [f"{expression} as {name}" for name, expression in figures.items()]
    grouped = f"group by {', '.join(f'key_{key}' for key in by)}" if by else "having count(*) > 0"
    return f"select {', '.join(columns)} from ({rows}) {grouped}"


def of_days(days: Collection[date | str]) -> str:
    """Return a list of days as SQL has it, never empty."""
    return f"({', '.join(f'date {_literal(str(day))}' for day in days) or 'null'})"


def _literal(text: str) -> str:
    return f"'{text}'"
