"""How budgets stand: a row for each limit, with a bar for what is spent of it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from instrument.budget import METRICS, BudgetState, shown_amount, shown_number
from instrument.cli.layout import Column, View, definition, named, table
from instrument.cli.render import bar
from instrument.cli.words import moment

__all__ = ["render_budgets", "render_refusals"]

CELLS = 12
ALMOST = 0.9
SPENDERS = 10


def render_budgets(found: Sequence[BudgetState], view: View, *, by: bool = False) -> list[Text]:
    """Render budgets as a table; with `by`, who spent each, too."""
    if not found:
        return []
    columns = [
        Column("budget", least=10),
        Column("spent", right=True),
        Column("of", right=True),
        Column("", least=CELLS, rank=2),
        Column("refused", right=True),
        *([Column("new at", rank=1)] if any(each.until for each in found) else []),
    ]
    cells = [row[: len(columns)] for each in found for row in _rows(each, view)]
    lines = table(columns, cells, view)
    for each in found if by else ():
        lines += [Text(), *_spenders(each, view)]
    return lines


def render_refusals(found: Sequence[BudgetState], view: View) -> list[Text]:
    """Render, for a session's figures, the budgets that refused one of its calls."""
    lines: list[Text] = []
    for number, each in enumerate(found):
        said = f"{named(each.name, view)} refused a call: {', '.join(_spent(each))}"
        lines += definition("" if number else "budget", Text(said, "red"), view)
    return lines


def _rows(one: BudgetState, view: View) -> list[list[Text]]:
    rows: list[list[Text]] = []
    for metric, limit in _limits(one):
        spent = getattr(one.spent, metric)
        share = min(1.0, spent / limit)
        rows.append(
            [
                Text("" if rows else _title(one, view), "bold"),
                Text(shown_number(metric, spent)),
                Text(shown_amount(metric, limit)),
                Text(bar(0, share, CELLS, view) if spent else "", _style(share)),
                Text(f"{one.refused_count:,}" if one.refused_count and not rows else "", "red"),
                Text("" if rows else _until(one, view), "dim"),
            ]
        )
    return rows


def _until(one: BudgetState, view: View) -> str:
    return "" if one.until is None else moment(one.until, view.zone, "%m-%d %H:%M %Z")


def _title(one: BudgetState, view: View) -> str:
    per = f" per {one.per}" if one.per else ""
    return named(f"{one.name}{per}", view)


def _style(share: float) -> str:
    if share >= 1:
        return "red"
    return "yellow" if share >= ALMOST else "green"


def _spent(one: BudgetState) -> list[str]:
    return [
        f"{shown_number(metric, getattr(one.spent, metric))} of {shown_amount(metric, limit)}"
        for metric, limit in _limits(one)
    ]


def _spenders(one: BudgetState, view: View) -> list[Text]:
    columns = [
        Column(f"spent of {named(one.name, view)} by", least=12),
        Column("operations", right=True),
        Column("tokens", right=True, rank=2),
        Column("cost", right=True, rank=1),
        Column("seconds", right=True, rank=3),
    ]
    cells = [
        [
            Text(named(" ".join(filter(None, (by.service, by.operation, by.model))), view)),
            Text(f"{by.operations:,}"),
            Text(f"{by.tokens:,}"),
            Text(shown_number("usd", by.usd) if by.usd else ""),
            Text(shown_number("seconds", by.seconds)),
        ]
        for by in one.by[:SPENDERS]
    ]
    return table(columns, cells, view) if cells else []


def _limits(one: BudgetState) -> list[tuple[str, float]]:
    limits = ((metric, one.limits[metric]) for metric in METRICS)
    return [(metric, limit) for metric, limit in limits if limit is not None]
