"""Groups of operations as a table, with a bar for each group where one is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date

from rich.cells import cell_len
from rich.text import Text

from instrument._grouped import PERIODS
from instrument.cli.layout import GAP, Column, View, shown, table, wrapped
from instrument.cli.render import bar
from instrument.cli.render_stats import failed
from instrument.cli.words import clean, count, duration, money
from instrument.operation import SessionStats, SummaryRow

__all__ = ["most_first", "render_groups"]

TOLD = {"calls", "tokens", "cost"}
LEAST_BAR = 8
LEAST_FIGURES = 6
WIDEST_BAR = 60
FORMS = {"day": "%Y-%m-%d %a", "week": "%Y-%m-%d", "month": "%Y-%m"}


def render_groups(
    rows: Sequence[SummaryRow],
    by: Sequence[str],
    view: View,
    *,
    plot: bool = False,
    total: SessionStats | None = None,
) -> list[Text]:
    """Render one line a group in the order given, and one for `total`.

    With `plot`, bars show the tokens, or where none are reported the calls. Where the keys leave no
    room for figures, each group takes a few lines.
    """
    if sum(_needed(key) for key in by) + LEAST_FIGURES > view.width:
        return _stacked(rows, by, view, total)
    columns, cells = _columns(rows, by, view), [_cells(row, by, view) for row in rows]
    if total is not None:
        cells.append(_total(total, by))
    kept = [index for index, column in enumerate(columns) if _is_told(column, cells, index)]
    columns = [columns[index] for index in kept]
    cells = [[line[index] for index in kept] for line in cells]
    bars = view.width // 4 if plot else 0
    narrow = View(
        width=view.width - (bars + GAP if bars else 0),
        ascii_only=view.ascii_only,
        zone=view.zone,
    )
    # bars before some of the figures, but not before these
    is_told = TOLD.intersection(column.title for column in columns) <= shown(columns, cells, narrow)
    lines = table(columns, cells, narrow if is_told else view)
    return _with_bars(lines, rows, view) if plot else lines


def _stacked(
    rows: Sequence[SummaryRow], by: Sequence[str], view: View, total: SessionStats | None
) -> list[Text]:
    named: list[tuple[str, SessionStats]] = []
    for row in rows:
        keys = (_key(key, getattr(row, key), view).plain for key in by)
        named.append((", ".join(keys), row))
    if total is not None:
        named.append(("in all", total))
    lines: list[Text] = []
    for name, stats in named:
        lines += wrapped(name, "bold", view)
        lines += wrapped(str(stats), "", view, indent=2)
    return lines


def most_first(rows: Sequence[SummaryRow], by: Sequence[str]) -> list[SummaryRow]:
    """Put what used most first, unless the groups are in the order of time."""
    if set(PERIODS) & set(by):
        return list(rows)
    return sorted(rows, key=lambda row: (-row.total_tokens, -row.operation_count))


def _columns(rows: Sequence[SummaryRow], by: Sequence[str], view: View) -> list[Column]:
    return [
        *(Column(key, least=_least(key)) for key in by),
        Column("calls", right=True, rank=2),
        Column("failed", right=True, rank=4),
        Column("input", right=True, rank=5),
        Column("cached", right=True, rank=6),
        Column("output", right=True, rank=5),
        Column("reasoning", right=True, rank=7),
        Column("tokens", right=True),
        Column("cost", right=True, rank=1),
        Column("time", right=True, rank=3),
    ]


def _least(key: str) -> int:
    return {"service": 10, "model": 18, "session": 27, "operation": 12}.get(key, 0)


def _needed(key: str) -> int:
    wanted = {"day": 14, "week": 10, "month": 7, "outcome": 8}
    return GAP + wanted.get(key, _least(key))


def _is_told(column: Column, cells: Sequence[Sequence[Text]], index: int) -> bool:
    """Leave out the cost where none is known."""
    return column.title != "cost" or any(line[index].plain for line in cells)


def _cells(row: SummaryRow, by: Sequence[str], view: View) -> list[Text]:
    keys = [_key(key, getattr(row, key), view) for key in by]
    return [*keys, *_figures(row)]


def _key(key: str, value: object, view: View) -> Text:
    if isinstance(value, date):
        return Text(value.strftime(FORMS[key]))
    if value is None:
        return Text("-", "dim")
    text = clean(str(value), ascii_only=view.ascii_only)
    return Text(text, "bold" if key == "service" else "")


def _total(total: SessionStats, by: Sequence[str]) -> list[Text]:
    names = [Text("in all", "bold"), *(Text("") for _ in by[1:])]
    return [*names, *(Text(figure.plain, "bold") for figure in _figures(total))]


def _figures(stats: SessionStats) -> list[Text]:
    numbers = (
        stats.input_tokens,
        stats.cache_read_tokens,
        stats.output_tokens,
        stats.reasoning_tokens,
        stats.total_tokens,
    )
    return [
        Text(count(stats.operation_count)),
        failed(stats.error_count),
        *(Text(count(number or None)) for number in numbers),
        Text(money(stats.cost_usd)),
        Text(duration(stats.total_duration_seconds)),
    ]


def _with_bars(lines: Sequence[Text], rows: Sequence[SummaryRow], view: View) -> list[Text]:
    start = max(cell_len(line.plain) for line in lines) + GAP
    cells = min(WIDEST_BAR, view.width - start)
    size = _measure(rows)
    most = max(map(size, rows), default=0)
    if cells < LEAST_BAR or not most:
        return list(lines)
    result = [lines[0]]
    for line, row in zip(lines[1:], rows, strict=False):
        blank = " " * (start - cell_len(line.plain))
        drawn = bar(0.0, size(row) / most, cells, view).rstrip(" -") if size(row) else ""
        result.append(Text.assemble(line, blank, (drawn, "cyan")) if drawn else line)
    return [*result, *lines[len(rows) + 1 :]]


def _measure(rows: Sequence[SummaryRow]) -> Callable[[SummaryRow], int]:
    if any(row.total_tokens for row in rows):
        return lambda row: row.total_tokens
    return lambda row: row.operation_count
