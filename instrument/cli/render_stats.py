"""What sessions came to: the definition list of `stats` and the table of `sessions`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from instrument._price_list import is_available
from instrument.cli.layout import Column, View, definition, named, table
from instrument.cli.words import clean, count, duration, human, moment, money, percent
from instrument.operation import SessionStats

__all__ = ["failed", "render_sessions", "render_stats"]


def render_stats(stats: SessionStats, view: View, *, grouped_by: Sequence[str]) -> list[Text]:
    """Render every figure of a session; what it is grouped by below is not named here."""
    lines: list[Text] = []
    for term, value in _entries(stats, view, grouped_by):
        lines += definition(term, value, view)
    return lines


def _entries(
    stats: SessionStats, view: View, grouped_by: Sequence[str]
) -> list[tuple[str, Text | str]]:
    services = () if "service" in grouped_by else stats.services
    models = () if "model" in grouped_by else stats.models
    entries: list[tuple[str, Text | str]] = [
        ("name", Text(named(stats.name or "", view), "bold")),
        ("session", Text(named(stats.session_id, view), "cyan")),
        ("part of", named(stats.parent_id or "", view)),
        ("from", _when(stats.first_at, view)),
        ("to", _when(stats.last_at, view)),
        ("operations", _operations(stats)),
        ("success", "" if stats.success_rate is None else percent(stats.success_rate)),
        ("elapsed", duration(stats.elapsed_seconds)),
        ("call time", _times(stats)),
        ("tokens", _tokens(stats)),
        ("  input", _part_of(stats.input_tokens, _cached(stats))),
        ("  output", _part_of(stats.output_tokens, _reasoning(stats))),
        ("  not reported", _without_usage(stats)),
        ("cost", _cost(stats)),
        ("cache", _cache(stats)),
        ("errors", Text(_errors(stats, view), "red")),
        ("services", ", ".join(named(each, view) for each in services)),
        ("models", ", ".join(named(each, view) for each in models)),
    ]
    return [(term, value) for term, value in entries if value]


def _when(instant: datetime | None, view: View) -> str:
    return "" if instant is None else moment(instant, view.zone)


def _operations(stats: SessionStats) -> str:
    counts = (
        (stats.error_count, "failed"),
        (stats.partial_count, "partial"),
        (stats.cancelled_count, "cancelled"),
        (stats.interrupted_count, "interrupted"),
        (stats.retry_count, "retried"),
    )
    parts = [human(stats.operation_count)]
    return ", ".join([*parts, *(f"{number:,} {word}" for number, word in counts if number)])


def _times(stats: SessionStats) -> str:
    marks = (("p50", stats.p50_seconds), ("p95", stats.p95_seconds), ("p99", stats.p99_seconds))
    known = [f"{name} {duration(seconds)}" for name, seconds in marks if seconds is not None]
    total = f"{duration(stats.total_duration_seconds)} in all"
    return ", ".join([total, *known])


def _tokens(stats: SessionStats) -> str:
    if stats.operation_count == stats.operations_without_usage:
        return "not reported"
    return human(stats.total_tokens)


def _part_of(number: int, details: Sequence[str]) -> str:
    if not number:
        return ""
    return f"{human(number)}, of which {' and '.join(details)}" if details else human(number)


def _cached(stats: SessionStats) -> list[str]:
    details = []
    if stats.cache_read_tokens:
        details.append(f"{human(stats.cache_read_tokens)} read from a cache")
    if stats.cache_write_tokens:
        details.append(f"{human(stats.cache_write_tokens)} written to one")
    return details


def _reasoning(stats: SessionStats) -> list[str]:
    return [f"{human(stats.reasoning_tokens)} reasoning"] if stats.reasoning_tokens else []


def _without_usage(stats: SessionStats) -> str:
    number = stats.operations_without_usage
    if not number or number == stats.operation_count:
        return ""
    return f"by {human(number)} operation{'' if number == 1 else 's'}"


def _cost(stats: SessionStats) -> str:
    if stats.cost_usd is None:
        if is_available():
            return "unknown: no operation names a model with a known price"
        return "unknown: pip install 'instrument-kit[prices]'"
    if stats.cost_coverage is None or stats.cost_coverage >= 1:
        return money(stats.cost_usd)
    share = percent(stats.cost_coverage)
    return f"{money(stats.cost_usd)}, for {share} of the operations with tokens"


def _cache(stats: SessionStats) -> str:
    if stats.cache_hit_ratio is None:
        return ""
    share = f"{percent(stats.cache_hit_ratio)} of the input"
    if stats.cache_saved_usd is None:
        return share
    word = "saved" if stats.cache_saved_usd >= 0 else "cost"
    return f"{share}, which {word} {money(abs(stats.cache_saved_usd))}"


def _errors(stats: SessionStats, view: View) -> str:
    ranked = sorted(stats.errors.items(), key=lambda item: (-item[1], item[0]))
    names = (f"{named(kind, view)} {number:,}" for kind, number in ranked)
    return ", ".join(names)


def failed(number: int) -> Text:
    return Text(count(number or None), "red")


def render_sessions(sessions: Sequence[SessionStats], view: View) -> list[Text]:
    """Render one line a session in the order given."""
    columns = [
        Column("session", least=27),
        Column("name", least=8),
        Column(_titled("when", sessions, view)),
        Column("calls", right=True, rank=3),
        Column("failed", right=True, rank=4),
        Column("tokens", right=True),
        Column("cost", right=True, rank=6),
        Column("elapsed", right=True, rank=5),
    ]
    return table(columns, [_session_cells(stats, view) for stats in sessions], view)


def _titled(title: str, sessions: Sequence[SessionStats], view: View) -> str:
    latest = next((one.first_at for one in sessions if one.first_at is not None), None)
    return title if latest is None else f"{title} ({moment(latest, view.zone, '%Z')})"


def _session_cells(stats: SessionStats, view: View) -> list[Text]:
    form = "%Y-%m-%d %H:%M" if view.width >= 100 else "%m-%d %H:%M"
    reported = stats.operation_count > stats.operations_without_usage
    return [
        Text(clean(stats.session_id, ascii_only=view.ascii_only), "cyan"),
        Text(clean(stats.name or "", ascii_only=view.ascii_only), "bold"),
        Text("" if stats.first_at is None else moment(stats.first_at, view.zone, form)),
        Text(count(stats.operation_count)),
        failed(stats.error_count),
        Text(count(stats.total_tokens) if reported else ""),
        Text(money(stats.cost_usd)),
        Text(duration(stats.elapsed_seconds) if stats.operation_count else ""),
    ]
