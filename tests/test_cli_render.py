"""What `show`, `stats` and `sessions` print for a session built by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from pathlib import Path

import pytest
from cli_sample import OPERATIONS, SESSION, STATS, operation
from rich.cells import cell_len
from rich.text import Span, Text

from instrument._grouped import summed_in_session
from instrument.cli.layout import View, definition
from instrument.cli.render import bar, render_session
from instrument.cli.render_groups import most_first, render_groups
from instrument.cli.render_stats import render_sessions, render_stats
from instrument.cli.tree import Gap, arrange, shortened
from instrument.cli.words import clean, duration, human, money
from instrument.operation import Operation, SessionStats, SummaryRow
from instrument.pricing import Pricing

BY = ("service", "model")
GOLDEN = Path(__file__).parent / "golden"
PLAIN = View(width=80, zone=UTC)
ASCII = View(width=80, zone=UTC, ascii_only=True)


def plain(lines: Sequence[Text]) -> str:
    return "".join(f"{line.plain}\n" for line in lines)


def tree_of(operations: Sequence[Operation]) -> list[tuple[str, int]]:
    return [(node.operation.operation_id or "", node.depth) for node in arrange(operations)]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_session_is_shown_as_in_the_golden_text(width: int) -> None:
    shown = plain(render_session(STATS, OPERATIONS, View(width=width, zone=UTC)))
    assert shown == (GOLDEN / f"show_{width}.txt").read_text(encoding="utf-8")


def stats_lines(view: View) -> list[Text]:
    finished = [each for each in OPERATIONS if each.outcome != "running"]
    groups = most_first(summed_in_session(finished, BY, UTC, Pricing()), BY)
    return [*render_stats(STATS, view, grouped_by=BY), Text(), *render_groups(groups, BY, view)]


def test_groups_whose_keys_leave_no_room_for_figures_take_a_line_for_them() -> None:
    row = SummaryRow(service="openai", model="gpt-5.4", session="s" * 27, operation_count=2)
    by = ("service", "model", "session", "operation")
    lines = render_groups([row], by, View(width=60, zone=UTC))
    shown = [line.plain for line in lines]
    assert shown == [f"openai, gpt-5.4, {'s' * 27}, -", "  2 operations, 0 tokens, 0.0 s"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_statistics_are_shown_as_in_the_golden_text(width: int) -> None:
    shown = plain(stats_lines(View(width=width, zone=UTC)))
    assert shown == (GOLDEN / f"stats_{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_sessions_are_listed_as_in_the_golden_text(width: int) -> None:
    empty = SessionStats(session_id="session_1795512601_0a1b2c3d")
    shown = plain(render_sessions([STATS, empty], View(width=width, zone=UTC)))
    assert shown == (GOLDEN / f"sessions_{width}.txt").read_text(encoding="utf-8")


def test_ascii_output_is_the_golden_text_and_ascii_alone() -> None:
    shown = plain(render_session(STATS, OPERATIONS, ASCII))
    assert shown == (GOLDEN / "show_ascii.txt").read_text(encoding="ascii")


@pytest.mark.parametrize("width", [44, 59, 60, 79, 80, 100, 110, 133, 200, 500])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    view = View(width=width, zone=UTC)
    hostile = [operation(9, 1, 1, service="漢字" * 40, operation="x" * 90, model="m" * 90)]
    lines = render_session(STATS, [*OPERATIONS, *hostile], view)
    lines += stats_lines(view)
    assert [line.plain for line in lines if cell_len(line.plain) > width] == []


def test_the_outcome_is_said_in_words_wherever_it_is_coloured() -> None:
    shown = plain(render_session(STATS, OPERATIONS, View(width=40, zone=UTC)))
    assert all(outcome in shown for outcome in ("ok", "error", "partial", "running"))


def test_an_operation_whose_caller_is_unknown_stands_at_the_top_level() -> None:
    orphan = operation(2, 1, 1, parent_id="f" * 16)
    assert tree_of([orphan, operation(1, 0, 1)]) == [(f"{1:016x}", 0), (f"{2:016x}", 0)]


def test_operations_that_call_each_other_in_a_circle_are_all_shown_once() -> None:
    circle = [
        operation(1, 0, 1, parent_id=f"{2:016x}"),
        operation(2, 1, 1, parent_id=f"{1:016x}"),
    ]
    assert tree_of(circle) == [(f"{1:016x}", 0), (f"{2:016x}", 1)]


def test_a_chain_of_ten_thousand_calls_is_arranged_without_recursion() -> None:
    chain = [operation(n, n, 1, parent_id=f"{n - 1:016x}") for n in range(1, 10_000)]
    assert arrange(chain)[-1].depth == 9_998


def test_a_long_session_shows_first_last_slowest_and_failed_and_counts_the_rest() -> None:
    many = [operation(n, n, 0.1) for n in range(10_000)]
    many[5_000] = operation(5_000, 5_000, 99)
    many[7_000] = operation(7_000, 7_000, 0.1, outcome="error")
    kept = shortened(arrange(many))
    assert {"0", "9999", "5000", "7000"} <= {
        str(int(one.operation.operation_id or "", 16)) for one in kept if not isinstance(one, Gap)
    }
    assert len(kept) < 40 + sum(isinstance(one, Gap) for one in kept)
    assert sum(one.hidden if isinstance(one, Gap) else 1 for one in kept) == 10_000


def test_a_shortened_session_says_how_to_see_all_of_it() -> None:
    many = [operation(n, n, 0.1) for n in range(10_000)]
    assert "… 9,980 more (--all)" in plain(render_session(STATS, many, PLAIN))


def test_every_operation_is_shown_when_asked_for() -> None:
    many = [operation(n, n, 0.1) for n in range(200)]
    view = View(width=80, zone=UTC, everything=True)
    assert plain(render_session(STATS, many, view)).count("openai ask") == 200


@pytest.mark.parametrize(
    ("begin", "end", "drawn"),
    [
        (0.0, 1.0, "████"),
        (0.0, 0.5, "██  "),
        (0.125, 0.5, "▐█  "),
        (0.5, 0.625, "  ▌ "),
        (0.3, 0.3, " ▌  "),
        (1.0, 1.0, "   ▐"),
        (-3.0, 7.0, "████"),
    ],
)
def test_a_bar_stands_where_its_operation_was(begin: float, end: float, drawn: str) -> None:
    assert bar(begin, end, 4, PLAIN) == drawn


def test_an_ascii_bar_shows_the_whole_axis() -> None:
    assert bar(0.25, 0.5, 8, ASCII) == "--##----"


def test_a_message_cannot_move_the_cursor_or_colour_the_terminal() -> None:
    loud = [operation(1, 0, 1, outcome="error", error_message="\x1b[2J\x07gone\r\n\u202eback")]
    shown = plain(render_session(STATS, loud, PLAIN))
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def test_an_unknown_cost_does_not_look_free() -> None:
    shown = plain(
        render_stats(SessionStats(session_id=SESSION, operation_count=1), PLAIN, grouped_by=BY)
    )
    assert "cost            unknown" in shown
    assert "$" not in shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 ms"),
        (0.00042, "0.4 ms"),
        (0.2134, "213 ms"),
        (0.9996, "1.00 s"),
        (12.34, "12.3 s"),
        (59.96, "1 m 00 s"),
        (3725, "1 h 02 m"),
    ],
)
def test_durations_have_three_figures_and_a_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_numbers_are_exact_and_large_ones_also_in_words() -> None:
    assert (human(999_999), human(1_234_567)) == ("999,999", "1,234,567 (1.2 million)")


@pytest.mark.parametrize(
    ("dollars", "said"),
    [(0, "$0.00"), (0.0000123, "$1.2e-05"), (0.0123, "$0.0123"), (1234.5, "$1,234.50")],
)
def test_a_small_price_never_looks_like_nothing(dollars: float, said: str) -> None:
    assert money(dollars) == said


def test_letters_beyond_ascii_are_spelled_out_where_only_ascii_is_read() -> None:
    assert clean("Größe\n1", ascii_only=True) == "Gr\\xf6\\xdfe 1"


def test_a_style_ends_where_its_word_ends() -> None:
    heading, *_ = render_session(STATS, OPERATIONS, PLAIN)
    (entry,) = definition("operations", "5", PLAIN)
    assert heading.spans[0] == Span(0, len("nightly-report"), "bold")
    assert (heading.style, entry.style) == ("", "")
