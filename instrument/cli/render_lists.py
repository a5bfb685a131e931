"""Lists of operations and of plain rows: one line each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.text import Text

from instrument.cli.layout import GAP, Column, View, clip, row, table
from instrument.cli.render import OUTCOME_STYLES
from instrument.cli.words import clean, count, duration, moment
from instrument.operation import Operation

__all__ = ["render_errors", "render_rows", "render_running", "tail_line", "tail_title"]

TAIL_COLUMNS = (
    Column("when"),
    Column("outcome"),
    Column("time", right=True),
    Column("tokens", right=True),
)
TAIL_WIDTHS = (8, 11, 8, 9)


def render_errors(found: Sequence[Operation], view: View) -> list[Text]:
    """Render failed operations: when, what and why."""
    columns = [
        Column(_titled("when", found, view)),
        Column("service", least=8),
        Column("operation", least=8),
        Column("model", least=8, rank=2),
        Column("session", least=27, rank=1),
        Column("error", least=20),
    ]
    return table(columns, [_error_cells(each, view) for each in found], view)


def render_running(found: Sequence[Operation], view: View) -> list[Text]:
    """Render running operations: since when, what and where."""
    columns = [
        Column(_titled("since", found, view)),
        Column("for", right=True),
        Column("service", least=8),
        Column("operation", least=8),
        Column("pid", right=True, rank=1),
        Column("session", least=27, rank=2),
    ]
    return table(columns, [_running_cells(each, view) for each in found], view)


def tail_title(view: View) -> Text:
    """Render the titles above the lines of `tail_line`."""
    zone = moment(datetime.now(UTC), view.zone, "%Z")
    titles = [Text(each, "dim") for each in (zone, "outcome", "time", "tokens")]
    line = row(titles, TAIL_WIDTHS, TAIL_COLUMNS, view)
    return clip(line.append("  operation", "dim"), view.width, view)


def tail_line(one: Operation, view: View) -> Text:
    """Render one operation on a line of its own, in columns that do not depend on the others."""
    cells = [
        Text(moment(one.timestamp, view.zone, "%H:%M:%S"), "dim"),
        Text(clean(one.outcome, ascii_only=True), OUTCOME_STYLES.get(one.outcome, "")),
        Text(duration(one.duration_seconds)),
        Text(count(one.tokens)),
    ]
    line = row(cells, TAIL_WIDTHS, TAIL_COLUMNS, view)
    line.append(" " * (sum(TAIL_WIDTHS) + GAP * len(TAIL_WIDTHS) - len(line.plain)))
    line.append_text(_named(one, view))
    if one.model:
        line.append(f"  {clean(one.model, ascii_only=view.ascii_only)}", "dim")
    if one.error_type or one.error_message:
        line.append(f"  {_said(one, view)}", "red")
    return clip(line, view.width, view)


def render_rows(names: Sequence[str], rows: Sequence[Sequence[Any]], view: View) -> list[Text]:
    """Render the rows of a query as a table, numbers to the right."""
    numeric = [
        any(isinstance(row[index], (int, float)) for row in rows) for index in range(len(names))
    ]
    room = max(6, view.width // max(1, len(names)) - GAP)
    columns = [
        Column(clean(name, ascii_only=view.ascii_only), right=is_number, least=room)
        for name, is_number in zip(names, numeric, strict=True)
    ]
    return table(columns, [[Text(_value(each, view)) for each in row] for row in rows], view)


def _error_cells(one: Operation, view: View) -> list[Text]:
    return [
        Text(_when(one.timestamp, view), "dim"),
        Text(clean(one.service, ascii_only=view.ascii_only), "bold"),
        Text(clean(one.operation, ascii_only=view.ascii_only)),
        Text(clean(one.model or "", ascii_only=view.ascii_only), "dim"),
        Text(clean(one.session_id, ascii_only=view.ascii_only), "cyan"),
        Text(_said(one, view), "red"),
    ]


def _running_cells(one: Operation, view: View) -> list[Text]:
    return [
        Text(_when(one.timestamp, view), "dim"),
        Text(duration(one.duration_seconds)),
        Text(clean(one.service, ascii_only=view.ascii_only), "bold"),
        Text(clean(one.operation, ascii_only=view.ascii_only)),
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
