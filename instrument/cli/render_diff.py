"""Two sessions side by side: each figure before and after, and what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rich.text import Text

from instrument.cli.layout import Column, View, named, table, wrapped
from instrument.cli.words import clean, count, duration, moment, money, percent
from instrument.operation import SessionStats, SummaryRow

__all__ = ["Pairs", "paired", "render_diff"]

Key = tuple[str | None, str | None]
Pair = tuple[SummaryRow | None, SummaryRow | None]
Pairs = dict[Key, Pair]


class Figure(NamedTuple):
    """A line of the comparison; `less_is_better` is `None` where neither is."""

    title: str
    value: Callable[[SessionStats], float | None]
    written: Callable[[float], str]
    less_is_better: bool | None


def paired(before: Iterable[SummaryRow], after: Iterable[SummaryRow]) -> Pairs:
    """Put the groups of two sessions together, by service and model."""
    first = {(row.service, row.model): row for row in before}
    second = {(row.service, row.model): row for row in after}
    keys = sorted({*first, *second}, key=lambda key: (key[0] or "", key[1] or ""))
    return {key: (first.get(key), second.get(key)) for key in keys}


def render_diff(before: SessionStats, after: SessionStats, groups: Pairs, view: View) -> list[Text]:
    """Render the sessions' names, their figures, and the tokens of each service and model."""
    lines = [*_identified("before", before, view), *_identified("after", after, view), Text()]
    columns = [
        Column("", least=8),
        Column("before", right=True),
        Column("after", right=True),
        Column("change", right=True),
    ]
    rows = [_row(figure, before, after) for figure in FIGURES]
    lines += table(columns, [row for row in rows if row], view)
    compared = [_group(key, pair, view) for key, pair in groups.items()]
    if compared:
        titles = [
            Column("service", least=10),
            Column("model", least=18),
            Column("calls", right=True, rank=2),
            Column("tokens before", right=True),
            Column("after", right=True),
            Column("change", right=True, rank=1),
        ]
        lines += [Text(), *table(titles, compared, view)]
    return lines


def _identified(title: str, stats: SessionStats, view: View) -> list[Text]:
    parts = (stats.name or "", stats.session_id)
    name = "  ".join(named(part, view) for part in parts if part)
    when = "" if stats.first_at is None else f"  {moment(stats.first_at, view.zone)}"
    return wrapped(f"{title:<7} {name}{when}", "", view)


def _row(figure: Figure, before: SessionStats, after: SessionStats) -> Sequence[Text]:
    first, second = figure.value(before), figure.value(after)
    if not first and not second:
        return ()
    return [
        Text(figure.title, "dim"),
        Text("" if first is None else figure.written(first)),
        Text("" if second is None else figure.written(second)),
        _change(first, second, less_is_better=figure.less_is_better),
    ]


def _group(key: Key, pair: Pair, view: View) -> list[Text]:
    first, second = (None if row is None else row.total_tokens for row in pair)
    calls = [0 if row is None else row.operation_count for row in pair]
    called = count(calls[1]) if calls[0] == calls[1] else f"{calls[0]:,} to {calls[1]:,}"
    return [
        Text(clean(key[0] or "", ascii_only=view.ascii_only), "bold"),
        Text(clean(key[1] or "-", ascii_only=view.ascii_only), "" if key[1] else "dim"),
        Text(called),
        Text(count(first or None)),
        Text(count(second or None)),
        _change(first, second, less_is_better=True) if first or second else Text(""),
    ]


def _change(before: float | None, after: float | None, *, less_is_better: bool | None) -> Text:
    if before is None or after is None:
        return Text("")
    if before == after:
        return Text("same", "dim")
    if not before:
        return Text("new")
    share = (after - before) / before
    better = None if less_is_better is None else (share < 0) == less_is_better
    style = {True: "green", False: "red", None: ""}[better]
    return Text(f"{share * 100:+,.1f} %", style)


def _number(value: float) -> str:
    return count(int(value))


FIGURES = (
    Figure("operations", lambda stats: stats.operation_count, _number, None),
    Figure("failed", lambda stats: stats.error_count, _number, True),
    Figure("success", lambda stats: stats.success_rate, percent, False),
    Figure("tokens", lambda stats: stats.total_tokens, _number, True),
    Figure("  input", lambda stats: stats.input_tokens, _number, True),
    Figure("  cached", lambda stats: stats.cache_read_tokens, _number, False),
    Figure("  output", lambda stats: stats.output_tokens, _number, True),
    Figure("  reasoning", lambda stats: stats.reasoning_tokens, _number, True),
    Figure("cost", lambda stats: stats.cost_usd, money, True),
    Figure("elapsed", lambda stats: stats.elapsed_seconds, duration, True),
    Figure("call time", lambda stats: stats.total_duration_seconds, duration, True),
    Figure("p50", lambda stats: stats.p50_seconds, duration, True),
    Figure("p95", lambda stats: stats.p95_seconds, duration, True),
)
