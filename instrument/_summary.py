"""Sums over groups of operations: by service, model, day and so on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

from duckdb import DuckDBPyConnection

from instrument._costs import saving_of
from instrument._gather import Reading
from instrument._grouped import PERIODS, in_order
from instrument._looks import has_repeats, keys_of
from instrument._sql import database
from instrument._stats import cache_hit_ratio, success_rate_of
from instrument._wanted import Wanted, condition
from instrument.operation import SummaryRow

__all__ = ["summed"]

_OF_DAY = {
    "day": "day",
    "week": "cast(date_trunc('week', day) as date)",
    "month": "cast(date_trunc('month', day) as date)",
}


def summed(
    reading: Reading, groupings: Sequence[Sequence[str]], wanted: Wanted, zone: tzinfo
) -> list[list[SummaryRow]]:
    """Sum the whole log once for each of several lists of keys; groups are in their order.

    A response that several operations of a session report is charged once.
    """
    where, params = condition(wanted)
    keys = {key for by in groupings for key in by}
    with database(reading, wanted.since, _columns(keys | params.keys())) as connection:
        billed = _FIRST_OF_ITS_RESPONSE if has_repeats(connection) else "true"
        saved = saving_of(reading.pricing, keys_of(connection))
        results = []
        for by in groupings:
            query = _query(by, where, billed, _days(connection, by, zone), saved)
            rows = [_row(by, row) for row in connection.execute(query, params).fetchall()]
            results.append(sorted(rows, key=lambda row: in_order(by, row)))
    return results


def _columns(named: set[str]) -> list[str]:
    """Return the columns that grouping and filtering by what is `named` takes."""
    columns = [*_NEEDED]
    if "operation" in named:
        columns.append("operation")
    if named & {"session", "sessions"}:
        columns.extend(["session_id", "session_name", "parent_session_id"])
    return columns


def _days(connection: DuckDBPyConnection, by: Sequence[str], zone: tzinfo) -> str:
    """Return what gives the operations of `charged` the column `day`."""
    if not set(PERIODS) & set(by):
        return "charged"
    if zone is UTC:
        return "(select *, cast(timestamp as date) as day from charged)"
    query = "select distinct cast(timestamp as date) from operations"
    dates = {found for (found,) in connection.execute(query).fetchall()}
    nearby = (-1, 0, 1)
    days = {found + timedelta(days=off) for found in dates if _is_usual(found) for off in nearby}
    connection.execute("create table days (day date, begins timestamptz, ends timestamptz)")
    for day in days:
        bounds = [_begin_of(day, zone), _begin_of(day + timedelta(days=1), zone)]
        connection.execute("insert into days values (?, ?, ?)", [day, *bounds])
    return "charged join days on timestamp >= begins and timestamp < ends"


def _is_usual(day: date) -> bool:
    """Leave out the ends of the calendar, where zones have no days."""
    return date.min + timedelta(days=7) < day < date.max - timedelta(days=7)


def _begin_of(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time.min, zone).astimezone(UTC)


def _query(by: Sequence[str], where: str, billed: str, charged: str, saved: str) -> str:
    expressions = {"session": "session_id", **_OF_DAY}
    keys = [f"{expressions.get(key, key)} as key_{key}" for key in by]
    figures = [f"{expression} as {name}" for name, expression in _figures(by).items()]
    return f"""
        with known as (select *, {_TOTAL} as total, {saved} as saved
                       from operations where {where}),
             charged as (select *, {billed} as is_billed from known)
        select {", ".join([*keys, *figures])}
        from {charged}
        {"group by" if by else "having count(*) > 0"} {", ".join(f"key_{key}" for key in by)}
    """


def _figures(by: Sequence[str]) -> dict[str, str]:
    return _FIGURES | _OF_SESSION if "session" in by else _FIGURES


def _row(by: Sequence[str], values: Sequence[Any]) -> SummaryRow:
    keys = dict(zip(by, values, strict=False))
    found = dict(zip(_figures(by), values[len(by) :], strict=True))
    told = {name: found.pop(name) for name in [*found] if name in _RAW}
    first, last = told["first"], _last(told["last"], told["ends"])
    outcomes = {
        "ok": told["ok_count"],
        "partial": found["partial_count"],
        "error": found["error_count"],
    }
    if "session" in keys:
        keys |= {"session_id": keys["session"], "name": told["name"], "parent_id": told["parent"]}
    p50, p95, p99 = told["shares"]
    return SummaryRow(
        **found,
        **keys,
        p50_seconds=p50,
        p95_seconds=p95,
        p99_seconds=p99,
        services=tuple(sorted(told["services"])),
        models=tuple(sorted(told["models"] or ())),
        errors=dict(Counter(told["error_types"] or ())),
        success_rate=success_rate_of(outcomes),
        cache_hit_ratio=cache_hit_ratio(found["cache_read_tokens"], found["input_tokens"]),
        cost_coverage=told["priced"] / told["bearing"] if told["bearing"] else None,
        elapsed_seconds=(last - first).total_seconds(),
        first_at=first.astimezone(UTC),
        last_at=last.astimezone(UTC),
    )


def _last(latest_start: datetime, ends_us: int) -> datetime:
    try:
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=ends_us)
    except OverflowError:
        return latest_start


def _counted(condition: str) -> str:
    return f"cast(sum(case when {condition} then 1 else 0 end) as bigint)"


def _charged(amount: str) -> str:
    return f"cast(coalesce(sum(case when is_billed then {amount} end), 0) as bigint)"


_TOTAL = (
    "coalesce(tokens, case when input_tokens is not null or output_tokens is not null"
    " then coalesce(input_tokens, 0) + coalesce(output_tokens, 0) end)"
)
_SAME = (
    "session_id, response_id, tokens, input_tokens, output_tokens,"
    " total is null and cost_usd is null"
)
_FIRST_OF_ITS_RESPONSE = f"""
    response_id is null or (
        row_number() over (partition by {_SAME}, model order by timestamp, operation_id) = 1
        and (model is not null or count(model) over (partition by {_SAME}) = 0))
"""
_MICROSECONDS = "cast(round({} * 1e6) as bigint)"
_FIGURES = {
    "operation_count": "count(*)",
    "error_count": _counted("outcome = 'error'"),
    "cancelled_count": _counted("outcome = 'cancelled'"),
    "partial_count": _counted("outcome = 'partial'"),
    "interrupted_count": _counted("outcome = 'interrupted'"),
    "input_tokens": _charged("input_tokens"),
    "output_tokens": _charged("output_tokens"),
    "cache_read_tokens": _charged("cache_read_tokens"),
    "cache_write_tokens": _charged("cache_write_tokens"),
    "reasoning_tokens": _charged("reasoning_tokens"),
    "total_tokens": _charged("total"),
    "operations_without_usage": _counted("total is null and usage_operation_id is null"),
    "total_duration_seconds": "sum(duration_seconds)",
    "cost_usd": "sum(case when is_billed then cost_usd end)",
    "cache_saved_usd": "sum(case when is_billed then saved end)",
    # what `_row` makes the rest of
    "ok_count": _counted("outcome = 'ok'"),
    # all at once: percentile_cont would sort for each
    "shares": "quantile_cont(duration_seconds, [0.50e0, 0.95e0, 0.99e0])",
    "bearing": _counted("is_billed and total is not null"),
    "priced": _counted("is_billed and total is not null and cost_usd is not null"),
    "first": "min(timestamp)",
    "last": "max(timestamp)",
    "ends": f"max({_MICROSECONDS.format('extract(epoch from timestamp)')}"
    f" + {_MICROSECONDS.format('duration_seconds')})",
    "services": "array_agg(distinct service)",
    "models": "array_agg(distinct model) filter (where model is not null)",
    "error_types": "array_agg(coalesce(error_type, 'unknown')) filter (where outcome = 'error')",
}
_OF_SESSION = {"name": "max(session_name)", "parent": "max(parent_session_id)"}
_RAW = {*[*_FIGURES][[*_FIGURES].index("ok_count") :], *_OF_SESSION}
_NEEDED = (
    *("timestamp", "provider", "service", "model", "outcome", "error_type", "duration_seconds"),
    *("tokens", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "cost_usd", "cost_source", "usage_operation_id", "metadata"),
)
