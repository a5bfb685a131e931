"""A comparison with a baseline as people read it: in a terminal, and as Markdown."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from decimal import Decimal

from instrument.pytest_plugin.comparing import Change, Comparison

__all__ = ["columns", "cut", "exceeded_lines", "markdown", "terminal_lines", "wrapped"]

WIDTH = 80
MOST_NAMES = 10
MOST_CHANGES = 100
MOST_ROWS = 200  # a comment on GitHub holds 65,536 characters

_TITLES = ("", "before", "now", "change")
_TOLD_TIMES = ("more", "less")


def terminal_lines(name: str, comparison: Comparison) -> list[str]:
    """Return the comparison with the baseline `name` in lines of at most 80 columns."""
    return [
        *wrapped(headline(name, comparison)),
        *exceeded_lines(comparison),
        *_totals(comparison),
        *_changed(comparison),
        *(line for each in _doubts(comparison) for line in wrapped(each)),
        *_lists(comparison),
    ]


def exceeded_lines(comparison: Comparison) -> list[str]:
    """Return what is beyond its limit."""
    lines = []
    for each in comparison.exceeded:
        told = f"{each.metric} {_value(each, each.before)} -> {_value(each, each.now)}"
        told += f", {percent(each)}" if each.percent is not None else ""
        lines += [
            cut(f"limit exceeded: {each.node_id or 'all tests'}"),
            cut(f"    {told}, where +{each.limit:f} % is allowed"),
        ]
    return lines


def headline(name: str, comparison: Comparison) -> str:
    """Return one sentence about the whole comparison."""
    told = f'{_counted(len(comparison.compared), "test")} compared with baseline "{name}"'
    lists = ", ".join(f"{len(names)} {what}" for what, names in _named(comparison) if names)
    return "; ".join(filter(None, (told, lists, verdict(comparison))))


def verdict(comparison: Comparison) -> str:
    """Say how many limits were exceeded; nothing where there were none."""
    if not comparison.limits:
        return ""
    count = len(comparison.exceeded)
    return f"{_counted(count, 'limit')} exceeded" if count else "no limit exceeded"


def markdown(name: str, comparison: Comparison) -> str:
    """Return the comparison as GitHub-flavoured Markdown, which ends in a newline."""
    parts = [
        f"### Baseline `{name}`: {verdict(comparison) or 'no limits asked for'}",
        f"{headline(name, comparison)}.",
        _table(comparison.totals, "all tests"),
        _table(_listed(comparison), "test"),
        "\n".join(f"- {each}" for each in _doubts(comparison)),
        *(_folded(what, names) for what, names in _named(comparison) if names),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def percent(change: Change) -> str:
    """Return by how much it changed, as `+10.0 %`."""
    if change.before is None or change.now is None:
        return "unknown" if change.before is not change.now else "-"
    if change.before == change.now:
        return "0 %"
    found = change.percent
    if found is None:
        return "from 0"
    return f"{found:+,.1f} %" if round(found, 1) else "~0 %"


def cut(text: str, width: int = WIDTH) -> str:
    """Return text in so many columns, with what is too much left out of its middle."""
    if columns(text) <= width:
        return text
    left, right = (width - 3) // 3, width - 3 - (width - 3) // 3
    return f"{_first(text, left)}...{_first(text[::-1], right)[::-1]}"


def columns(text: str) -> int:
    """Return how wide a terminal shows it."""
    return sum(_column(each) for each in text)


def wrapped(text: str) -> list[str]:
    """Return the words of a text in lines of at most 80 columns."""
    first, *words = text.split(" ")
    lines = [first]
    for word in words:
        longer = f"{lines[-1]} {word}"
        if columns(longer) <= WIDTH:
            lines[-1] = longer
        else:
            lines.append(word)
    return [cut(line) for line in lines]


def _totals(comparison: Comparison) -> list[str]:
    shown = [each for each in comparison.totals if each.before is not None or each.now is not None]
    return [_row(*_TITLES), *map(_change, shown)] if shown and comparison.compared else []


def _changed(comparison: Comparison) -> list[str]:
    lines, last, listed = [], None, _listed(comparison)
    for each in listed[:MOST_CHANGES]:
        if each.node_id != last:
            lines.append(cut(each.node_id))
        lines.append(_change(each))
        last = each.node_id
    if len(listed) > MOST_CHANGES:
        lines.append(f"and {len(listed) - MOST_CHANGES} changes more")
    unchanged = len(comparison.compared) - len({each.node_id for each in listed})
    if unchanged:
        lines.append(f"{_counted(unchanged, 'test')} without a difference that can be told")
    return lines


def _listed(comparison: Comparison) -> list[Change]:
    """Return the changes that are shown: the worst first, each test's together."""
    shown = {(each.node_id, each.metric): each for each in comparison.changes if _is_shown(each)}
    order = list(dict.fromkeys(node_id for node_id, _ in shown))
    told = [
        each
        for each in shown.values()
        if each.limit is not None or not _repeats(each, shown.get((each.node_id, "seconds")))
    ]
    return sorted(told, key=lambda each: order.index(each.node_id))


def _is_shown(change: Change) -> bool:
    if change.exceeded or change.in_doubt:
        return True
    return change.verdict in _TOLD_TIMES if change.repeats else change.verdict != "same"


def _repeats(change: Change, seconds: Change | None) -> bool:
    """Tell whether a percentile says nothing new: of a test that makes one call, say."""
    if seconds is None or change is seconds or not change.repeats:
        return False
    return (change.before, change.now) == (seconds.before, seconds.now)


def _change(change: Change) -> str:
    cells = _value(change, change.before), _value(change, change.now), percent(change)
    return _row(change.metric, *cells, _note(change))


def _row(label: str, before: str, now: str, change: str, note: str = "") -> str:
    return cut(f"  {label:<13}{before:>13}{now:>13}{change:>12}  {note}".rstrip())


def _note(change: Change) -> str:
    if change.exceeded:
        return f"beyond +{change.limit:f} %"
    if change.in_doubt:
        return f"+{change.limit:f} %? {_why(change)}"
    if change.verdict in ("overlap", "too few"):
        return _why(change)
    return {"more": "slower", "less": "faster"}.get(change.verdict, "") if change.repeats else ""


def _why(change: Change) -> str:
    return "too few repeats" if change.verdict == "too few" else "cannot tell"


def _doubts(comparison: Comparison) -> list[str]:
    """Say of how many times nothing can be said, and why."""
    times = [each for each in comparison.changes if each.metric == "seconds"]
    few = [each.repeats for each in times if each.verdict == "too few" and each.repeats]
    overlap = sum(each.verdict == "overlap" for each in times)
    told = []
    if few:
        then, now = (min(each[side] for each in few) for side in (0, 1))
        why = f"too few repeats ({then} before and {now} now, where 3 and 3 do)"
        told.append(f"times of {_counted(len(few), 'test')} cannot be told apart: {why}")
    if overlap:
        why = "their repeats overlap"
        told.append(f"times of {_counted(overlap, 'test')} cannot be told apart: {why}")
    return told


def _lists(comparison: Comparison) -> list[str]:
    lines = []
    for what, names in _named(comparison):
        if names and what != "not run":
            lines += [f"{what}:", *(cut(f"  {each}") for each in names[:MOST_NAMES])]
        if len(names) > MOST_NAMES and what != "not run":
            lines.append(f"  and {len(names) - MOST_NAMES} more")
    return lines


def _named(comparison: Comparison) -> list[tuple[str, Sequence[str]]]:
    return [
        ("failed", comparison.failed),
        ("skipped", comparison.skipped),
        ("new", comparison.new),
        ("gone", comparison.gone),
        ("not passed when saved", comparison.unsaved),
        ("not run", comparison.not_run),
    ]


def _value(change: Change, value: float | None) -> str:
    if value is None:
        return "unknown"
    if change.repeats:
        return _seconds(value)
    return f"${Decimal(f'{value:.6g}'):,f}" if change.metric == "usd" else f"{value:,}"


def _seconds(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f} s"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _first(text: str, width: int) -> str:
    for place, each in enumerate(text):
        width -= _column(each)
        if width < 0:
            return text[:place]
    return text


def _column(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _table(changes: Sequence[Change], what: str) -> str:
    """Return rows of a table; nothing where there are none."""
    known = [each for each in changes if each.before is not None or each.now is not None]
    if not known:
        return ""
    rows = [f"| {what} | metric | before | now | change | |", "|---|---|--:|--:|--:|---|"]
    for each in known[:MOST_ROWS]:
        cells = [
            _code(each.node_id) if each.node_id else "",
            each.metric,
            _value(each, each.before),
            _value(each, each.now),
            percent(each),
            f"**{_note(each)}**" if each.exceeded else _note(each),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    if len(known) > MOST_ROWS:
        rows.append(f"\n{len(known) - MOST_ROWS} more are left out.")
    return "\n".join(rows)


def _folded(what: str, names: Sequence[str]) -> str:
    summary = f"<details><summary>{len(names)} {what}</summary>"
    return f"{summary}\n\n{_bullets(names)}\n\n</details>"


def _bullets(names: Sequence[str]) -> str:
    more = [f"- and {len(names) - MOST_ROWS} more"] if len(names) > MOST_ROWS else []
    return "\n".join([*(f"- {_code(each)}" for each in names[:MOST_ROWS]), *more])


def _code(text: str) -> str:
    """Return text as code, inside a table too, where a bar would begin another cell."""
    plain = " ".join(text.split()).replace("|", "\\|")
    fence = "`"
    while fence in plain:
        fence += "`"
    space = " " if "`" in plain else ""
    return f"{fence}{space}{plain}{space}{fence}"
