"""Sums over groups of operations: by service, model, day and so on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import partial
from typing import Any

from msgspec import Struct

from instrument._archived import days_in
from instrument._costs import quoted
from instrument._days import (
    ADDED,
    DAY,
    ENDS,
    ERROR_TYPE,
    FIRST_OF_ITS_RESPONSE,
    LAST_US,
    NEEDED,
    OF_DAY,
    SHARES,
    added_up,
    charged,
    errors_added_up,
    gone_of,
    in_part,
    keyed,
    level_of,
    marked,
    of_days,
    once_each,
    sums,
)
from instrument._gather import Reading
from instrument._grouped import PERIODS, in_order
from instrument._looks import has_repeats
from instrument._sql import View, database
from instrument._stats import cache_hit_ratio, success_rate_of
from instrument._sums import (
    Row,
    asked_of_days,
    begin_of,
    is_usual,
    of_whole_days,
    only_sums,
    out_of_sums,
)
from instrument._wanted import Wanted, condition
from instrument.operation import SummaryRow

__all__ = ["summed"]


def summed(
    reading: Reading, groupings: Sequence[Sequence[str]], wanted: Wanted, zone: tzinfo
) -> list[list[SummaryRow]]:
    """Sum the whole log once for each of several lists of keys; groups are in their order.

    A response that several operations of a session report is charged once.
    """
    found = out_of_sums(reading, groupings, wanted, zone)
    if found is None:
        found = _asked(reading, groupings, wanted, zone)
    return [
        sorted((_row(by, row) for row in rows), key=partial(in_order, by))
        for by, rows in zip(groupings, found, strict=True)
    ]


def _asked(
    reading: Reading, groupings: Sequence[Sequence[str]], wanted: Wanted, zone: tzinfo
) -> list[list[Row]]:
    """Do the same through DuckDB, whatever is asked."""
    where, params = condition(wanted)
    keys = {key for by in groupings for key in by}
    with database(reading, wanted.since, _columns(keys | params.keys())) as view:
        repeats = has_repeats(view.connection)
        billed = FIRST_OF_ITS_RESPONSE if repeats else "true"
        results: list[list[Row]] = []
        for by in groupings:
            kept = _kept(reading, view, by, wanted, zone, may_stand_in=not repeats)
            rows = charged(view.charged if kept is None else kept.table, where, billed)
            if kept is None:
                query = _query(by, rows, _days(view, by, zone))
                found = view.connection.execute(query, params).fetchall()
            else:
                found = _with_kept(view, by, zone, wanted, kept, rows)
            results.append(found)
    return results


class _Kept(Struct, frozen=True):
    """The rows of what days came to that are wanted, beside the operations in `table`.

    `stand_in` says that they stand for all that is archived.
    """

    table: str
    rows: str
    stand_in: bool = False


def _kept(
    reading: Reading,
    view: View,
    by: Sequence[str],
    wanted: Wanted,
    zone: tzinfo,
    *,
    may_stand_in: bool,
) -> _Kept | None:
    """Return what archived days came to, or only those without operations, if it is any use."""
    archive = reading.archive
    if archive is None or not only_sums(reading, by, wanted):
        return None
    asked, dates = asked_of_days(wanted), archive.dates()
    files = archive.days(reading.pricing.version)
    if files and may_stand_in and of_whole_days(wanted, zone, dates):
        rows = f"(select * from {marked(days_in(files), dates)} where {asked})"
        return _Kept(view.fresh, rows, stand_in=True)
    if files := archive.days():
        rows = f"(select * from {marked(days_in(files), dates)} where {asked} and gone)"
        return _Kept(view.charged, rows)
    return None


def _with_kept(
    view: View,
    by: Sequence[str],
    zone: tzinfo,
    wanted: Wanted,
    kept: _Kept,
    charged: str,
) -> list[Row]:
    """Add up operations and what days came to."""
    params = condition(wanted)[1]
    day = "day" if set(PERIODS) & set(by) else DAY
    rows = f"{sums(_days(view, by, zone), day)} union all by name select * from {kept.rows}"
    made = f"create or replace temp table summed as with these as {charged} {rows}"
    view.connection.execute(made, params)
    added = added_up("select * from summed where level = ''", by, OF_DAY, ADDED)
    found = view.connection.execute(added).fetchall()
    errors = _errors_of(view, by)
    shares = _shares(view, by, zone, wanted, kept)
    for key in in_part(view.connection.execute(gone_of("summed", by)).fetchall(), by):
        shares.pop(key, None)
    return [
        (*row, errors.get(row[: len(by)], {}), shares.get(row[: len(by)], (None, None, None)))
        for row in found
    ]


def _errors_of(view: View, by: Sequence[str]) -> dict[Row, dict[str, int]]:
    """Return how often each type of error is in each group of what is summed."""
    query = errors_added_up("select * from summed where level = ''", by)
    found: dict[Row, dict[str, int]] = defaultdict(dict)
    for *key, error_type, count in view.connection.execute(query).fetchall():
        found[tuple(key)][error_type] = count
    return found


def _shares(
    view: View, by: Sequence[str], zone: tzinfo, wanted: Wanted, kept: _Kept
) -> dict[Row, Any]:
    """Return the percentiles of each group: those of kept days as they were kept."""
    where, params = condition(wanted)
    found: dict[Row, Any] = {}
    table = view.bare
    if "day" in by:
        level = level_of([*by, *params])
        named = ", ".join(map(keyed, by))
        query = f"select {named}, shares from summed where level = {quoted(level)}"
        found, several = once_each(view.connection.execute(query).fetchall())
        if kept.stand_in:
            query = f"select distinct {DAY} from {view.journal} where {where}"
            of_journal = {day for (day,) in view.connection.execute(query, params).fetchall()}
            days = sorted(of_journal | {key[by.index("day")] for key in several})
            table, where = view.of_days(days), f"{where} and {_within(days)}"
    keys = list(map(keyed, by))
    query = f"""
        with these as (select * from {table} where {where})
        select {", ".join([*keys, f"{SHARES} as shares"])} from {_days(view, by, zone)}
        {"group by" if by else "having count(*) > 0"} {", ".join(f"key_{key}" for key in by)}
    """
    rows = view.connection.execute(query, params).fetchall()
    return found | {row[:-1]: row[-1] for row in rows}


def _within(days: Sequence[date]) -> str:
    """Return a condition for operations of these days that tells early which files have any."""
    usual = [day for day in days if is_usual(day)]
    if len(usual) < len(days) or not days:
        return f"{DAY} in {of_days(days)}"
    first, last = min(days), max(days) + timedelta(days=1)
    bounds = (
        f"timestamp >= timestamptz '{first} 00:00Z' and timestamp < timestamptz '{last} 00:00Z'"
    )
    return f"{bounds} and {DAY} in {of_days(days)}"


def _columns(named: set[str]) -> list[str]:
    """Return the columns that grouping and filtering by what is `named` takes."""
    columns = [*NEEDED]
    if "operation" in named:
        columns.append("operation")
    if named & {"session", "sessions"}:
        columns.extend(["session_id", "session_name", "parent_session_id"])
    return columns


def _days(view: View, by: Sequence[str], zone: tzinfo) -> str:
    """Return what gives the operations of `these` the column `day`."""
    if not set(PERIODS) & set(by):
        return "these"
    if zone is UTC:
        return "(select *, cast(timestamp as date) as day from these)"
    query = f"select distinct cast(timestamp as date) from {view.bare}"
    dates = {found for (found,) in view.connection.execute(query).fetchall()}
    nearby = (-1, 0, 1)
    days = {found + timedelta(days=off) for found in dates if is_usual(found) for off in nearby}
    view.connection.execute(
        "create or replace temp table days (day date, begins timestamptz, ends timestamptz)"
    )
    for day in days:
        bounds: list[Any] = [begin_of(day, zone), begin_of(day + timedelta(days=1), zone)]
        view.connection.execute("insert into days values (?, ?, ?)", [day, *bounds])
    for day in dates - days:  # at the ends of the calendar, which days of UTC divide
        ends = "infinity" if day == date.max else f"{day + timedelta(days=1)} 00:00Z"
        bounds = [day, f"{day} 00:00Z", ends]
        view.connection.execute("insert into days values (?, ?, ?)", bounds)
    return "these join days on timestamp >= begins and timestamp < ends"


def _query(by: Sequence[str], charged: str, table: str) -> str:
    expressions = {"session": "session_id", **OF_DAY}
    keys = [f"{expressions.get(key, key)} as key_{key}" for key in by]
    figures = [f"{expression} as {name}" for name, expression in _figures(by).items()]
    return f"""
        with these as {charged}
        select {", ".join([*keys, *figures])} from {table}
        {"group by" if by else "having count(*) > 0"} {", ".join(f"key_{key}" for key in by)}
    """


def _figures(by: Sequence[str]) -> dict[str, str]:
    return _FIGURES | _OF_SESSION if "session" in by else _FIGURES


def _row(by: Sequence[str], values: Sequence[Any]) -> SummaryRow:
    keys = dict(zip(by, values, strict=False))
    found = dict(zip(_figures(by), values[len(by) :], strict=True))
    told = {name: found.pop(name) for name in [*found] if name in _RAW}
    first = told["first"]
    last = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=min(told["ends"], LAST_US))
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
        errors=dict(told["errors"] or {}),
        success_rate=success_rate_of(outcomes),
        cache_hit_ratio=cache_hit_ratio(found["cache_read_tokens"], found["input_tokens"]),
        cost_coverage=told["priced"] / told["bearing"] if told["bearing"] else None,
        elapsed_seconds=(last - first).total_seconds(),
        first_at=first.astimezone(UTC),
        last_at=last.astimezone(UTC),
    )


def _counted(condition: str) -> str:
    return f"cast(sum(case when {condition} then 1 else 0 end) as bigint)"


def _charged(amount: str) -> str:
    return f"cast(coalesce(sum(case when is_billed then {amount} end), 0) as bigint)"


_FIGURES = {
    "operation_count": "count(*)",
    "error_count": _counted("outcome = 'error'"),
    "cancelled_count": _counted("outcome = 'cancelled'"),
    "partial_count": _counted("outcome = 'partial'"),
    "interrupted_count": _counted("outcome = 'interrupted'"),
    "retry_count": _counted("attempt > 1"),
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
    "bearing": _counted("is_billed and total is not null"),
    "priced": _counted("is_billed and total is not null and cost_usd is not null"),
    "first": "min(timestamp)",
    "ends": ENDS,
    "services": "array_agg(distinct service)",
    "models": "array_agg(distinct model) filter (where model is not null)",
    "errors": f"histogram({ERROR_TYPE}) filter (where outcome = 'error')",
    "shares": SHARES,
}


_OF_SESSION = {"name": "max(session_name)", "parent": "max(parent_session_id)"}
_RAW = {*[*_FIGURES][[*_FIGURES].index("ok_count") :], *_OF_SESSION}
