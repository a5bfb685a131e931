"""What days came to: sums by day, service, model and outcome that can be added up again.

    archive/days/<batch>.parquet   a row for each such group of a day, and the percentiles of a day

Percentiles cannot be added up. They are kept for each day as a whole, by service, by model and by
both: `level` names the keys, and is empty for sums. `gone` says that the operations which a row is
about are in the archive no more; a day may have others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from itertools import chain, combinations
from typing import Any

__all__ = [
    "ADDED",
    "DAY",
    "ENDS",
    "ERROR_TYPE",
    "FIRST_OF_ITS_RESPONSE",
    "LAST_US",
    "NEEDED",
    "OF_DAY",
    "SHARES",
    "TOTAL",
    "added_up",
    "charged",
    "errors_added_up",
    "gone_of",
    "in_part",
    "keyed",
    "level_of",
    "marked",
    "of_days",
    "once_each",
    "percentiles",
    "sums",
]

NEEDED = (
    *("timestamp", "provider", "service", "model", "outcome", "error_type", "duration_seconds"),
    *("tokens", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "cost_usd", "cost_source", "usage_operation_id", "metadata", "kind"),
    "attempt",
)
"""What operations have to say for sums, those of their list prices included."""
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
_BEGIN = MICROSECONDS.format("extract(epoch from timestamp)")
_LASTED = MICROSECONDS.format("duration_seconds")
LAST_US = 253_402_300_799_999_999
"""The end of the calendar; what ends after it ends as it begins."""
ENDS = f"max({_BEGIN} + case when {_BEGIN} + {_LASTED} <= {LAST_US} then {_LASTED} else 0 end)"
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
    "last": "max(timestamp)",  # which earlier versions ask for
    "ends": ENDS,
}
_KEYS = ("provider", "service", "model", "outcome")
ERROR_TYPE = "coalesce(nullif(error_type, ''), 'unknown')"
_ERROR = f"case when outcome = 'error' then {ERROR_TYPE} end"
DAY = "cast(timestamp as date)"
OF_DAY = {
    "day": "day",
    "week": "cast(date_trunc('week', day) as date)",
    "month": "cast(date_trunc('month', day) as date)",
}
"""What day, week and month are of sums that have a day."""


def _added(amount: str, condition: str = "true") -> str:
    return f"cast(coalesce(sum({amount}) filter ({condition}), 0) as bigint)"


ADDED = {
    "operation_count": _added("operations"),
    **{
        f"{outcome}_count": _added("operations", f"outcome = '{outcome}'")
        for outcome in ("error", "cancelled", "partial", "interrupted")
    },
    # days that were summed up before they were counted have none, and then it is unknown
    "retry_count": "case when count(retries) = count(*) then cast(sum(retries) as bigint) end",
    "input_tokens": _added("input_tokens"),
    "output_tokens": _added("output_tokens"),
    "cache_read_tokens": _added("cache_read_tokens"),
    "cache_write_tokens": _added("cache_write_tokens"),
    "reasoning_tokens": _added("reasoning_tokens"),
    "total_tokens": _added("total_tokens"),
    "operations_without_usage": _added("without_usage"),
    "total_duration_seconds": "sum(seconds)",
    "cost_usd": "sum(cost_usd)",
    "cache_saved_usd": "sum(cache_saved_usd)",
    "ok_count": _added("operations", "outcome = 'ok'"),
    "bearing": _added("bearing"),
    "priced": _added("priced"),
    "first": "min(first)",
    "ends": "max(ends)",
    "services": "array_agg(distinct service)",
    "models": "array_agg(distinct model) filter (where model is not null)",
}
"""The figures of a group out of sums."""


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
    """Return a query for the percentiles of a table's days, of all levels at once."""
    levels = list(chain.from_iterable(combinations(LEVEL_KEYS, count) for count in range(3)))
    keys = ", ".join(LEVEL_KEYS)
    sets = ", ".join(f"({', '.join(['day', *level])})" for level in levels)
    named = " ".join(f"when {_left_out(each)} then {_literal(level_of(each))}" for each in levels)
    return (
        f"select case grouping({keys}) {named} end as level, day, {keys}, {SHARES} as shares"
        f" from (select {day} as day, {keys}, duration_seconds from {table})"
        f" group by grouping sets ({sets})"
    )


def _left_out(level: Collection[str]) -> int:
    """Return what SQL's `grouping` makes of the keys that a level does not have: a bit of each."""
    return int("".join(str(int(key not in level)) for key in LEVEL_KEYS), 2)


def level_of(keys: Iterable[str]) -> str:
    """Return the name of the percentiles by these keys and the day."""
    return ",".join(["day", *sorted(set(keys) & {*LEVEL_KEYS})])


def keyed(name: str) -> str:
    """Return the column of a key that is grouped by."""
    return f"{OF_DAY.get(name, name)} as key_{name}"


def added_up(
    rows: str, by: Sequence[str], expressions: Mapping[str, str], figures: Mapping[str, str]
) -> str:
    """Return a query that adds up sums by some keys."""
    columns = [f"{expressions.get(key, key)} as key_{key}" for key in by]
    columns += [f"{expression} as {name}" for name, expression in figures.items()]
    grouped = f"group by {', '.join(f'key_{key}' for key in by)}" if by else "having count(*) > 0"
    return f"select {', '.join(columns)} from ({rows}) {grouped}"


def errors_added_up(rows: str, by: Sequence[str]) -> str:
    """Return a query for how often each type of error is in each group of sums."""
    columns = [*map(keyed, by), "error_type", f"{_added('operations')} as count"]
    return f"select {', '.join(columns)} from ({rows}) where error_type is not null group by all"


def marked(table: str, dates: Collection[date | str]) -> str:
    """Return the rows of what days came to, those marked whose operations are gone.

    `dates` are the days of which there are operations. What older files do not have is unknown.
    """
    newer = "select null::bigint as retries, null::boolean as gone where false"
    others = f"day not in {of_days(dates)}" if dates else "true"
    return (
        f"(select * replace (coalesce(gone, false) or {others} as gone)"
        f" from (from {table} union all by name {newer}))"
    )


def once_each(rows: Iterable[tuple[Any, ...]]) -> tuple[dict[tuple[Any, ...], Any], set[Any]]:
    """Return the percentiles by their keys, and the keys that stand there more than once."""
    pairs = [(row[:-1], row[-1]) for row in rows]
    counts = Counter(key for key, _ in pairs)
    several = {key for key, count in counts.items() if count > 1}
    return {key: shares for key, shares in pairs if key not in several}, several


def gone_of(rows: str, by: Sequence[str]) -> str:
    """Return a query for the groups of sums of which some operations are gone, and others not."""
    columns = [*map(keyed, by), "bool_or(coalesce(gone, false))", "bool_or(gone is not true)"]
    return f"select {', '.join(columns)} from {rows} where level = '' group by all"


def in_part(
    found: Iterable[tuple[Any, ...]], by: Sequence[str], others: Collection[Any] = ()
) -> set[tuple[Any, ...]]:
    """Return the groups whose percentiles nobody knows, because some durations are gone.

    `found` is what `gone_of` gives; `others` are groups that have more operations than these.
    """
    groups = ((row[:-2], *row[-2:]) for row in found)
    return {
        key for key, gone, there in groups if gone and (there or "day" not in by or key in others)
    }


def of_days(days: Collection[date | str]) -> str:
    """Return a list of days as SQL has it, never empty."""
    return f"({', '.join(f'date {_literal(str(day))}' for day in days) or 'null'})"


def _literal(text: str) -> str:
    return f"'{text}'"
