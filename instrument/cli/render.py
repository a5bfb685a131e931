"""A session as `show` prints it: a heading, and a tree of operations with a time bar each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from instrument.cli.layout import GAP, Column, View, clip, named, natural_widths, row, wrapped
from instrument.cli.tree import Gap, Node, arrange, shortened
from instrument.cli.words import clean, count, duration, moment, money
from instrument.operation import Operation, SessionStats

__all__ = ["OUTCOME_STYLES", "bar", "heading", "render_session"]

OUTCOME_STYLES = {
    "ok": "green",
    "error": "bold red",
    "partial": "yellow",
    "cancelled": "yellow",
    "interrupted": "bold magenta",
    "running": "bold blue",
}
WIDE = 110
WIDEST_BAR = 100
LONGEST_MODEL = 28
NAMES_ROOM = 22
CHOICES = (
    ("time", "input", "cached", "output", "cost"),
    ("time", "input", "output", "cost"),
    ("time", "tokens", "cost"),
    ("time", "tokens"),
    ("time",),
)
DEEPEST_INDENT = 12
LINES_OF_AN_ERROR = 2
LINES_OF_AN_ID = 3


class Span(NamedTuple):
    """The seconds that the whole time axis stands for."""

    first: float
    last: float

    def fraction(self, instant: float) -> float:
        length = self.last - self.first
        return (instant - self.first) / length if length > 0 else 0.0


class Field(NamedTuple):
    """A column of figures: its title, its value for an operation, and how that is written."""

    title: str
    value: Callable[[Operation], float | None]
    written: Callable[[float], str]


def render_session(
    stats: SessionStats,
    operations: Sequence[Operation],
    view: View,
    hosts: Mapping[str, str] | None = None,
) -> list[Text]:
    """Render the heading and the tree; a long session is shortened unless `view.everything`.

    `hosts` says by operation id which host recorded it, as far as that is known.
    """
    nodes = arrange(operations, hosts)
    shown = list(nodes) if view.everything else shortened(nodes)
    lines = [*heading(stats, operations, view), Text()]
    lines += _tree(shown, _span(nodes), view)
    hidden = sum(entry.hidden for entry in shown if isinstance(entry, Gap))
    if hidden:
        note = f"{view.ellipsis} {hidden:,} more (--all)"
        what = f"{note}; shown: the first, the last, the slowest, the first failed"
        lines += [Text(), *wrapped(what, "dim", view)]
    return lines


def heading(stats: SessionStats, operations: Sequence[Operation], view: View) -> list[Text]:
    """Name the session, say when it was, and sum it up."""
    name = clean(stats.name or "", ascii_only=view.ascii_only)
    identity = clean(stats.session_id, ascii_only=view.ascii_only)
    lines = [Text.assemble((name, "bold"), "  " if name else "", (identity, "cyan"))]
    if cell_len(lines[0].plain) > view.width:
        lines = [clip(Text(name, "bold"), view.width, view)] if name else []
        lines += wrapped(identity, "cyan", view, most=LINES_OF_AN_ID)
    if stats.first_at is not None:
        lines.append(Text(moment(stats.first_at, view.zone), "dim"))
    lines += wrapped(_summed_up(stats, operations), "", view)
    if stats.parent_id is not None:
        lines += wrapped(f"part of {named(stats.parent_id, view)}", "dim", view)
    return lines


def _summed_up(stats: SessionStats, operations: Sequence[Operation]) -> str:
    running = sum(one.outcome == "running" for one in operations)
    counts = (
        (stats.error_count, "failed"),
        (stats.partial_count, "partial"),
        (stats.cancelled_count, "cancelled"),
        (stats.interrupted_count, "interrupted"),
        (stats.retry_count, "retried"),
        (running, "still running"),
    )
    return ", ".join([str(stats), *(f"{number:,} {word}" for number, word in counts if number)])


def _span(nodes: Sequence[Node]) -> Span:
    starts = [node.start for node in nodes]
    ends = [node.start + _seconds(node.operation) for node in nodes]
    return Span(min(starts, default=0.0), max(ends, default=0.0))


def _seconds(one: Operation) -> float:
    return one.duration_seconds if one.duration_seconds > 0 else 0.0


def _tree(entries: Sequence[Node | Gap], span: Span, view: View) -> list[Text]:
    nodes = [entry for entry in entries if isinstance(entry, Node)]
    if not nodes:
        return [Text("No operations.", "dim")]
    plan = _planned(nodes, view)
    titles = (*plan.titles, _axis(span, plan.widths[-1]))
    lines = [_row([Text(title, "dim") for title in titles], plan, view)]
    for entry in entries:
        if isinstance(entry, Gap):
            lines.append(Text(f"  {view.ellipsis} {entry.hidden:,} more", "dim"))
        else:
            drawn = _bar_of(entry, span, plan.widths[-1], view)
            lines.append(_row([*_cells(entry, plan.fields, view), drawn], plan, view))
            lines += [*_skew(entry, view), *_failure(entry, view)]
    return lines


class Plan(NamedTuple):
    """Which figures are shown, and how wide each column is; the last is the time bar's."""

    fields: Sequence[Field]
    titles: Sequence[str]
    widths: Sequence[int]
    is_roomy: bool


def _planned(nodes: Sequence[Node], view: View) -> Plan:
    """Choose the figures that leave room for names and bars; the bars get what is left over."""
    reported = _fields([node.operation for node in nodes])
    choices = ([field for field in reported if field.title in choice] for choice in CHOICES)
    plan = _sized(nodes, reported, view)
    for fields in choices:
        if plan.is_roomy:
            break
        plan = _sized(nodes, fields, view)
    return plan


def _sized(nodes: Sequence[Node], fields: Sequence[Field], view: View) -> Plan:
    titles = _titles(fields, view)
    columns = [Column(title) for title in titles]
    names, *others = natural_widths(columns, (_cells(node, fields, view) for node in nodes))
    room = view.width - sum(others) - GAP * (len(others) + 1)
    least_bar = max(8, view.width // 8)
    is_roomy = room - least_bar >= min(names, max(NAMES_ROOM, view.width * 7 // 25))
    names = max(12, min(names, room - least_bar))
    bars = max(8, min(WIDEST_BAR, room - names))
    return Plan(fields, titles, [names, *others, bars], is_roomy)


def _titles(fields: Sequence[Field], view: View) -> list[str]:
    model = ["model"] if view.width >= WIDE else []
    return ["operation", *model, "outcome", *(field.title for field in fields)]


def _row(cells: Sequence[Text], plan: Plan, view: View) -> Text:
    words = len(plan.titles) - len(plan.fields)
    columns = [Column(title, right=index >= words) for index, title in enumerate(plan.titles)]
    return row(cells, plan.widths, [*columns, Column("")], view)


def _fields(operations: Sequence[Operation]) -> list[Field]:
    """Tell which figures any of the operations reports."""
    fields = (
        Field("time", _seconds, duration),
        Field("input", lambda one: one.input_tokens, _counted),
        Field("cached", lambda one: one.cache_read_tokens, _counted),
        Field("output", lambda one: one.output_tokens, _counted),
        Field("reasoning", lambda one: one.reasoning_tokens, _counted),
        Field("tokens", lambda one: one.tokens, _counted),
        Field("cost", lambda one: one.cost_usd, money),
    )
    return [field for field in fields if any(field.value(one) is not None for one in operations)]


def _counted(number: float) -> str:
    return count(int(number))


def _cells(node: Node, fields: Sequence[Field], view: View) -> list[Text]:
    one = node.operation
    ascii_only = view.ascii_only
    service = clean(one.service, ascii_only=ascii_only)
    operation = clean(one.operation, ascii_only=ascii_only)
    named = Text.assemble(_indent(node), (service, "bold"), f" {operation}")
    model = clip(Text(clean(one.model or "", ascii_only=ascii_only), "dim"), LONGEST_MODEL, view)
    figures = [_figure(field, one) for field in fields]
    outcome = Text(clean(one.outcome, ascii_only=True), OUTCOME_STYLES.get(one.outcome, ""))
    return [named, *([model] if view.width >= WIDE else []), outcome, *figures]


def _figure(field: Field, one: Operation) -> Text:
    value = field.value(one)
    return Text("" if value is None else field.written(value))


def _indent(node: Node) -> str:
    return "  " * min(node.depth, DEEPEST_INDENT)


def _axis(span: Span, cells: int) -> str:
    end = duration(span.last - span.first)
    return f"0{end:>{cells - 1}}" if len(end) + 1 < cells else "0"


def _bar_of(node: Node, span: Span, cells: int, view: View) -> Text:
    one, begin = node.operation, node.start
    drawn = bar(span.fraction(begin), span.fraction(begin + _seconds(one)), cells, view)
    if one.outcome == "running":
        drawn = drawn.rstrip(" -")[:-1] + (">" if view.ascii_only else "▶")
    return Text(drawn, OUTCOME_STYLES.get(one.outcome, ""))


def bar(begin: float, end: float, cells: int, view: View) -> str:
    """Draw the part from `begin` to `end` (fractions of the axis) in half cells, one at least."""
    halves = cells * 2
    first = min(max(0, int(begin * halves)), halves - 1)
    last = min(max(first + 1, math.ceil(end * halves - 1e-9)), halves)
    glyphs = "-###" if view.ascii_only else " ▐▌█"
    return "".join(
        glyphs[2 * (first <= 2 * cell < last) + (first <= 2 * cell + 1 < last)]
        for cell in range(cells)
    )


def _skew(node: Node, view: View) -> list[Text]:
    """Say of an operation by how much its clock must be behind its caller's, or ahead."""
    if node.early_seconds > 0:
        said = f"its host's clock is at least {duration(node.early_seconds)} behind its caller's"
    elif node.ahead_seconds > 0:
        said = f"its host's clock is at least {duration(node.ahead_seconds)} ahead"
    else:
        return []
    return wrapped(said, "yellow", view, indent=len(_indent(node)) + 2)


def _failure(node: Node, view: View) -> list[Text]:
    one = node.operation
    if one.error_type is None and one.error_message is None:
        return []
    parts = [part for part in (one.error_type, one.error_message) if part]
    said = clean(": ".join(parts), ascii_only=view.ascii_only)
    indent = len(_indent(node)) + 2
    return wrapped(said, "red", view, indent=indent, most=LINES_OF_AN_ERROR)
