"""Lines and tables that fit a width; pure functions from texts to texts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import NamedTuple

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.text import Text

from instrument.cli.words import clean

__all__ = [
    "GAP",
    "Column",
    "View",
    "clip",
    "definition",
    "fits",
    "named",
    "row",
    "shown",
    "table",
    "wrapped",
]

GAP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a rendering has to know about where it will be read.

    `zone` is `None` for local time; `everything` turns off the shortening of long sessions.
    """

    width: int = 80
    ascii_only: bool = False
    zone: tzinfo | None = None
    everything: bool = False

    @property
    def ellipsis(self) -> str:
        return "..." if self.ascii_only else "…"


class Column(NamedTuple):
    """A table's column: `least` is how far it may shrink (0: not at all), and of the columns
    with a `rank` the highest are the first to go where even that is not enough."""

    title: str
    right: bool = False
    least: int = 0
    rank: int = 0


def clip(text: Text, width: int, view: View) -> Text:
    """Cut a text to `width` cells and mark the cut."""
    if cell_len(text.plain) <= width:
        return text
    mark = view.ellipsis if width > len(view.ellipsis) else ""
    kept = set_cell_size(text.plain, max(0, width - len(mark)))
    shortened = text.copy()
    shortened.right_crop(len(text.plain) - len(kept.rstrip()))
    return shortened.append(mark)


def named(text: str, view: View) -> str:
    """Make a name fit to be read: printable, and cut where it is longer than a line."""
    return clip(Text(clean(text, ascii_only=view.ascii_only)), view.width, view).plain


def row(
    cells: Sequence[Text], widths: Sequence[int], columns: Sequence[Column], view: View
) -> Text:
    """Set one line of cells side by side, without blanks at its end."""
    line = Text()
    for cell, width, column in zip(cells, widths, columns, strict=True):
        fitted = clip(cell, width, view)
        blank = " " * (width - cell_len(fitted.plain))
        line.append(blank if column.right else "").append_text(fitted)
        line.append("" if column.right else blank)
        line.append(" " * GAP)
    line.rstrip()
    return line


def table(columns: Sequence[Column], rows: Sequence[Sequence[Text]], view: View) -> list[Text]:
    """Lay out a titled table in at most `view.width` cells; columns are dropped by their rank."""
    widths = natural_widths(columns, rows)
    kept = _fitting(columns, widths, view.width)
    columns = [columns[index] for index in kept]
    widths = _shrunk(columns, [widths[index] for index in kept], view.width)
    titles = [Text(column.title, "dim") for column in columns]
    body = ([cells[index] for index in kept] for cells in rows)
    lines = (row(cells, widths, columns, view) for cells in (titles, *body))
    return [clip(line, view.width, view) for line in lines]


def shown(columns: Sequence[Column], rows: Sequence[Sequence[Text]], view: View) -> set[str]:
    """Return the titles of the columns that `table` does not drop."""
    kept = _fitting(columns, natural_widths(columns, rows), view.width)
    return {columns[index].title for index in kept}


def fits(columns: Sequence[Column], rows: Sequence[Sequence[Text]], view: View) -> bool:
    """Tell whether a table of all these columns needs no more than `view.width` cells."""
    widths = natural_widths(columns, rows)
    return _needed(columns, widths, range(len(columns))) <= view.width


def natural_widths(columns: Sequence[Column], rows: Iterable[Sequence[Text]]) -> list[int]:
    widths = [cell_len(column.title) for column in columns]
    for cells in rows:
        for index, cell in enumerate(cells):
            widths[index] = max(widths[index], cell_len(cell.plain))
    return widths


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    kept = list(range(len(columns)))
    while True:
        dispensable = [index for index in kept if columns[index].rank]
        if _needed(columns, widths, kept) <= width or not dispensable:
            return kept
        highest = max(columns[index].rank for index in dispensable)
        kept = [index for index in kept if columns[index].rank != highest]


def _needed(columns: Sequence[Column], widths: Sequence[int], kept: Sequence[int]) -> int:
    least = (min(widths[index], columns[index].least or widths[index]) for index in kept)
    return sum(least) + GAP * (len(kept) - 1)


def _shrunk(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Take what is too much from the column that can spare most, cell by cell."""
    pairs = zip(columns, widths, strict=True)
    result = [min(each, width) if column.least else each for column, each in pairs]
    excess = sum(result) + GAP * (len(result) - 1) - width
    for _ in range(excess):
        spare = [
            each - column.least if column.least else 0
            for each, column in zip(result, columns, strict=True)
        ]
        widest = max(range(len(spare)), key=spare.__getitem__)
        if spare[widest] <= 0:
            break
        result[widest] -= 1
    return result


def definition(term: str, value: Text | str, view: View, indent: int = 16) -> list[Text]:
    """One entry of a definition list, its value wrapped beside the term."""
    text = value if isinstance(value, Text) else Text(value)
    if cell_len(text.plain) <= view.width - indent:
        return [Text.assemble((f"{term:<{indent}}", "dim"), text)]
    parts = _folded(text.plain, max(20, view.width - indent), 0, view)
    heads = [f"{term:<{indent}}", *[" " * indent] * (len(parts) - 1)]
    return [
        Text.assemble((head, "dim"), (part, text.style))
        for head, part in zip(heads, parts, strict=True)
    ]


def wrapped(plain: str, style: str, view: View, *, indent: int = 0, most: int = 0) -> list[Text]:
    """Wrap a sentence; with `most`, in that many lines at most, the cut being marked."""
    room = max(10, view.width - indent)
    lines = _folded(plain, room, most, view)
    return [Text.assemble(" " * indent, (line, style)) for line in lines]


def _folded(plain: str, room: int, most: int, view: View) -> list[str]:
    if cell_len(plain) > len(plain):
        return _folded_by_cells(plain, room, most, view)
    return textwrap.wrap(
        plain, room, max_lines=most or None, placeholder=view.ellipsis, break_on_hyphens=False
    )


def _folded_by_cells(plain: str, room: int, most: int, view: View) -> list[str]:
    """Do what `textwrap` does for letters that take two cells each."""
    lines = [""]
    for word in plain.split():
        joined = f"{lines[-1]} {word}".lstrip()
        if cell_len(joined) <= room:
            lines[-1] = joined
        else:
            lines += chop_cells(word, room)
    lines = [line for line in lines if line]
    if most and len(lines) > most:
        lines[most - 1 :] = [clip(Text(" ".join(lines[most - 1 : most + 1])), room, view).plain]
    return lines
