"""Lists of operations and of plain rows: one line each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.cells import cell_len
from rich.text import Text

from instrument import _config
from instrument.cli.layout import GAP, Column, View, clip, fits, row, table, wrapped
from instrument.cli.render import LINES_OF_AN_ERROR, OUTCOME_STYLES
from instrument.cli.words import clean, count, duration, moment
from instrument.operation import Operation

__all__ = ["render_errors", "render_rows", "render_running", "tail_line", "tail_title"]

WIDE = 140
TAIL_COLUMNS = (
    Column("when"),
    Column("outcome"),
    Column("time", right=True),
    Column("tokens", right=True),
    Column("session"),
)
TAIL_WIDTHS = (8, 11, 8, 9, 27)


def render_errors(found: Sequence[Operation], view: View) -> list[Text]:
    """Render failed operations: when, what and why, which has lines of its own if not `WIDE`."""
    columns = [
        Column(_titled("when", found, view)),
        Column("session", least=27),
        Column("operation", least=12),
        Column("model", least=8, rank=1),
        Column("error", least=20),
    ]
    cells = [_error_cells(each, view) for each in found]
    if view.width >= WIDE:
        return table(columns, cells, view)
    title, *rows = table(columns[:-1], [each[:-1] for each in cells], view)
    lines = [title]
    for shown, (*_, said) in zip(rows, cells, strict=True):
        lines += [shown, *wrapped(said.plain, "red", view, indent=2, most=LINES_OF_AN_ERROR)]
    return lines


def render_running(found: Sequence[Operation], view: View) -> list[Text]:
    """Render running operations: since when, what and where."""
    columns = [
        Column(_titled("since", found, view), rank=1),
        Column("for", right=True),
        Column("operation", least=12),
        Column("pid", right=True, rank=2),
        Column("session", least=27),
    ]
    return table(columns, [_running_cells(each, view) for each in found], view)


def tail_title(view: View) -> Text:
    """Render the titles above the lines of `tail_line`."""
    zone = moment(_config.now(), view.zone, "%Z")
    titles = [Text(each, "dim") for each in (zone, "outcome", "time", "tokens", "session")]
    return clip(_tail_row(titles, view).append("operation", "dim"), view.width, view)


def tail_line(one: Operation, view: View) -> Text:
    """Render one operation on a line of its own, in columns that do not depend on the others."""
    cells = [
        Text(moment(one.timestamp, view.zone, "%H:%M:%S"), "dim"),
        Text(clean(one.outcome, ascii_only=True), OUTCOME_STYLES.get(one.outcome, "")),
        Text(duration(one.duration_seconds)),
        Text(count(one.tokens)),
        Text(clean(one.session_id, ascii_only=view.ascii_only), "cyan"),
    ]
    line = _tail_row(cells, view).append_text(_named(one, view))
    if one.model:
        line.append(f"  {clean(one.model, ascii_only=view.ascii_only)}", "dim")
    if one.error_type or one.error_message:
        line.append(f"  {_said(one, view)}", "red")
    return clip(line, view.width, view)


def render_rows(names: Sequence[str], rows: Sequence[Sequence[Any]], view: View) -> list[Text]:
    """Render the rows of a query as a table, or where that is too wide, one below the other."""
    numeric = [
        any(isinstance(row[index], (int, float)) for row in rows) for index in range(len(names))
    ]
    room = max(6, view.width // max(1, len(names)) - GAP)
    columns = [
        Column(clean(name, ascii_only=view.ascii_only), right=is_number, least=room)
        for name, is_number in zip(names, numeric, strict=True)
    ]
    cells = [[Text(_value(each, view)) for each in row] for row in rows]
    if fits(columns, cells, view):
        return table(columns, cells, view)
    return _records(columns, cells, view)


def _records(columns: Sequence[Column], rows: Sequence[Sequence[Text]], view: View) -> list[Text]:
    """Set each value on a line of its own, beside the name of its column."""
    indent = min(view.width // 2, max(cell_len(column.title) for column in columns) + GAP)
    lines: list[Text] = []
    for number, cells in enumerate(rows, 1):
        lines += [Text(), Text(f"row {number:,}", "bold")]
        for column, cell in zip(columns, cells, strict=True):
            term = clip(Text(column.title, "dim"), indent - GAP, view)
            term.append(" " * (indent - cell_len(term.plain)))
            line = Text.assemble(term, clip(cell, view.width - indent, view))
            line.rstrip()
            lines.append(line)
    return lines[1:]


def _tail_row(cells: Sequence[Text], view: View) -> Text:
    """Set the columns before the operation, among them the session's where there is room for it."""
    shown = len(cells) if view.width >= WIDE else len(cells) - 1
    widths = TAIL_WIDTHS[:shown]
    line = row(cells[:shown], widths, TAIL_COLUMNS[:shown], view)
    return line.append(" " * (sum(widths) + GAP * shown - cell_len(line.plain)))


def _error_cells(one: Operation, view: View) -> list[Text]:
    return [
        Text(_when(one.timestamp, view), "dim"),
        Text(clean(one.session_id, ascii_only=view.ascii_only), "cyan"),
        _named(one, view),
        Text(clean(one.model or "", ascii_only=view.ascii_only), "dim"),
        Text(_said(one, view), "red"),
    ]


def _running_cells(one: Operation, view: View) -> list[Text]:
    return [
        Text(_when(one.timestamp, view), "dim"),
        Text(duration(one.duration_seconds)),
        _named(one, view),
        Text("" if one.pid is None else str(one.pid)),
        Text(clean(one.session_id, ascii_only=view.ascii_only), "cyan"),
    ]


def _said(one: Operation, view: View) -> str:
    said = ": ".join(part for part in (one.error_type, one.error_message) if part)
    return clean(said, ascii_only=view.ascii_only)


def _named(one: Operation, view: View) -> Text:
    service = clean(one.service, ascii_only=view.ascii_only)
    return Text.assemble((service, "bold"), f" {clean(one.operation, ascii_only=view.ascii_only)}")


def _when(instant: datetime, view: View) -> str:
    return moment(instant, view.zone, "%m-%d %H:%M:%S")


def _titled(title: str, found: Sequence[Operation], view: View) -> str:
    return f"{title} ({moment(found[-1].timestamp, view.zone, '%Z')})" if found else title


def _value(value: Any, view: View) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, datetime) and value.tzinfo is not None:
        return moment(value, view.zone, "%Y-%m-%d %H:%M:%S %Z")
    if isinstance(value, str):
        return clean(value, ascii_only=view.ascii_only)
    return clean(_as_json(value), ascii_only=view.ascii_only)


def _as_json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode().strip('"')
    except (TypeError, ValueError):
        return str(value)
