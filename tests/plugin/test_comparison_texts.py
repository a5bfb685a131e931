"""Comparisons in the terminal, in at most 80 columns, and as Markdown."""

# ruff: noqa: E501 - rows of Markdown are as long as they are

from __future__ import annotations

from decimal import Decimal

import pytest
from baseline_samples import baselines, entry
from hypothesis import example, given, settings
from hypothesis import strategies as st

from instrument.pytest_plugin.baselines import Baseline, Entry
from instrument.pytest_plugin.comparing import METRICS, Comparison, compare, limits_of
from instrument.pytest_plugin.comparison_texts import columns, cut, markdown, terminal_lines


def sample() -> Comparison:
    """Return a comparison in which there is one of everything."""
    before = {f"test_a.py::test_{name}": entry() for name in ("skips", "fails", "gone", "away")}
    before |= {
        "test_a.py::test_asks[b|c`]": entry(1.0, 1.1, 1.2, tokens=1500, usd=0.00625),
        "test_a.py::test_slow": entry(1.0, 1.1, 1.2),
        "test_a.py::test_new_model": entry(0.1, 0.1, 0.1),
        "test_a.py::test_cheaper": entry(1.0, tokens=20),
        "test_a.py::test_same": entry(1.0, 2.0, 3.0),
        "test_a.py::test_did_fail": Entry("failed"),
    }
    now = {
        "test_a.py::test_asks[b|c`]": entry(1.4, 1.5, 1.6, tokens=1900, usd=0.0075),
        "test_a.py::test_slow": entry(1.31, 1.5, 1.6),
        "test_a.py::test_new_model": entry(0.1, 0.1, 0.1, usd=None),
        "test_a.py::test_cheaper": entry(2.0, tokens=10),
        "test_a.py::test_same": entry(1.0, 2.0, 3.0),
        "test_a.py::test_did_fail": entry(),
        "test_a.py::test_new": entry(),
        "test_a.py::test_skips": Entry("skipped"),
        "test_a.py::test_fails": Entry("failed"),
    }
    limits = limits_of("tokens:+10%,usd:+25%,p95:+30%")
    return compare(before, now, limits, lambda node_id: node_id.endswith("gone"))


TERMINAL = """\
5 tests compared with baseline "main"; 1 failed, 1 skipped, 1 new, 1 gone, 1 not
passed when saved, 1 not run; 3 limits exceeded
limit exceeded: all tests
    tokens 1,565 -> 1,955, +24.9 %, where +10 % is allowed
limit exceeded: test_a.py::test_asks[b|c`]
    tokens 1,500 -> 1,900, +26.7 %, where +10 % is allowed
limit exceeded: test_a.py::test_new_model
    usd $0.001 -> unknown, where +25 % is allowed
                      before          now      change
  tokens               1,565        1,955     +24.9 %  beyond +10 %
  input_tokens            50           50         0 %
  output_tokens           25           25         0 %
  usd               $0.00925      $0.0105     +13.5 %
  operations               5            5         0 %
  errors                   0            0         0 %
  seconds              6.5 s        8.3 s     +27.7 %  too few repeats
test_a.py::test_asks[b|c`]
  tokens               1,500        1,900     +26.7 %  beyond +10 %
  seconds              1.1 s        1.5 s     +36.4 %  slower
  p95                  1.1 s        1.5 s     +36.4 %  +30 %? cannot tell
  usd               $0.00625      $0.0075     +20.0 %
test_a.py::test_new_model
  usd                 $0.001      unknown     unknown  beyond +25 %
test_a.py::test_cheaper
  p95                    1 s          2 s    +100.0 %  +30 %? too few repeats
  tokens                  20           10     -50.0 %
test_a.py::test_slow
  seconds              1.1 s        1.5 s     +36.4 %  slower
  p95                  1.1 s        1.5 s     +36.4 %  +30 %? cannot tell
1 test without a difference that can be told
times of 1 test cannot be told apart: too few repeats (1 before and 1 now, where
3 and 3 do)
times of 2 tests cannot be told apart: their repeats overlap
failed:
  test_a.py::test_fails
skipped:
  test_a.py::test_skips
new:
  test_a.py::test_new
gone:
  test_a.py::test_gone
not passed when saved:
  test_a.py::test_did_fail
"""

MARKDOWN = """\
### Baseline `main`: 3 limits exceeded

5 tests compared with baseline "main"; 1 failed, 1 skipped, 1 new, 1 gone, 1 not passed when saved, 1 not run; 3 limits exceeded.

| all tests | metric | before | now | change | |
|---|---|--:|--:|--:|---|
|  | tokens | 1,565 | 1,955 | +24.9 % | **beyond +10 %** |
|  | input_tokens | 50 | 50 | 0 % |  |
|  | output_tokens | 25 | 25 | 0 % |  |
|  | usd | $0.00925 | $0.0105 | +13.5 % |  |
|  | operations | 5 | 5 | 0 % |  |
|  | errors | 0 | 0 | 0 % |  |
|  | seconds | 6.5 s | 8.3 s | +27.7 % | too few repeats |

| test | metric | before | now | change | |
|---|---|--:|--:|--:|---|
| `` test_a.py::test_asks[b\\|c`] `` | tokens | 1,500 | 1,900 | +26.7 % | **beyond +10 %** |
| `` test_a.py::test_asks[b\\|c`] `` | seconds | 1.1 s | 1.5 s | +36.4 % | slower |
| `` test_a.py::test_asks[b\\|c`] `` | p95 | 1.1 s | 1.5 s | +36.4 % | +30 %? cannot tell |
| `` test_a.py::test_asks[b\\|c`] `` | usd | $0.00625 | $0.0075 | +20.0 % |  |
| `test_a.py::test_new_model` | usd | $0.001 | unknown | unknown | **beyond +25 %** |
| `test_a.py::test_cheaper` | p95 | 1 s | 2 s | +100.0 % | +30 %? too few repeats |
| `test_a.py::test_cheaper` | tokens | 20 | 10 | -50.0 % |  |
| `test_a.py::test_slow` | seconds | 1.1 s | 1.5 s | +36.4 % | slower |
| `test_a.py::test_slow` | p95 | 1.1 s | 1.5 s | +36.4 % | +30 %? cannot tell |

- times of 1 test cannot be told apart: too few repeats (1 before and 1 now, where 3 and 3 do)
- times of 2 tests cannot be told apart: their repeats overlap

<details><summary>1 failed</summary>

- `test_a.py::test_fails`

</details>

<details><summary>1 skipped</summary>

- `test_a.py::test_skips`

</details>

<details><summary>1 new</summary>

- `test_a.py::test_new`

</details>

<details><summary>1 gone</summary>

- `test_a.py::test_gone`

</details>

<details><summary>1 not passed when saved</summary>

- `test_a.py::test_did_fail`

</details>

<details><summary>1 not run</summary>

- `test_a.py::test_away`

</details>
"""


def test_the_terminal_shows_what_became_worse_first() -> None:
    assert "\n".join(terminal_lines("main", sample())) + "\n" == TERMINAL


def test_markdown_is_tables_and_folded_lists() -> None:
    assert markdown("main", sample()) == MARKDOWN


def test_of_very_many_changes_the_worst_are_shown() -> None:
    before = {f"t{number}": entry() for number in range(300)}
    now = {f"t{number}": entry(tokens=1000 - number) for number in range(300)}
    found = compare(before, now, {})
    lines = terminal_lines("main", found)
    assert [line for line in lines if line[1:].isdigit()] == [f"t{n}" for n in range(100)]
    assert "and 200 changes more" in lines
    assert "\n100 more are left out.\n" in markdown("main", found)


def test_a_comparison_of_nothing_says_so() -> None:
    found = compare({}, {}, {})
    assert terminal_lines("main", found) == ['0 tests compared with baseline "main"']
    assert "no limits asked for" in markdown("main", found)


@settings(deadline=None)
@given(baselines, baselines)
def test_no_line_is_wider_than_80_columns(before: Baseline, now: Baseline) -> None:
    lines = terminal_lines("x" * 100, compare(before, now, dict.fromkeys(METRICS, Decimal("0.5"))))
    assert max(map(columns, lines)) <= 80


@settings(deadline=None)
@given(baselines, baselines)
def test_every_row_of_markdown_has_as_many_cells(before: Baseline, now: Baseline) -> None:
    text = markdown("main", compare(before, now, dict.fromkeys(METRICS, Decimal(0))))
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} <= {7}


@settings(deadline=None)
@given(st.text(), st.integers(3, 100))
@example("", 3)
@example("00.000000\N{CJK UNIFIED IDEOGRAPH-4E2D}\N{CJK UNIFIED IDEOGRAPH-4E2D}", 12)
def test_what_is_cut_keeps_both_ends(text: str, width: int) -> None:
    short = cut(text, width)
    assert columns(short) <= max(width, 0)
    # the text may have dots of its own
    places = [each for each in range(len(short)) if short.startswith("...", each)]
    ends = [(short[:each], short[each + 3 :]) for each in places]
    assert short == text or any(text.startswith(a) and text.endswith(b) for a, b in ends)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.00001234, "0.0123 ms"), (0.5, "500 ms"), (12.345, "12.3 s"), (4e3, "4,000 s")],
)
def test_times_have_three_digits(seconds: float, shown: str) -> None:
    found = compare({"t": entry(seconds)}, {"t": entry(seconds)}, {})
    (row,) = (line for line in terminal_lines("main", found) if line.startswith("  seconds"))
    assert row.split("  0 %")[0].endswith(shown) or shown in row


@pytest.mark.parametrize(("usd", "shown"), [(6.25e-05, "$0.0000625"), (1234.5, "$1,234.5")])
def test_money_is_never_in_powers_of_ten(usd: float, shown: str) -> None:
    found = compare({"t": entry(usd=usd)}, {"t": entry(usd=usd)}, {})
    assert any(f" {shown} " in line for line in terminal_lines("main", found))
