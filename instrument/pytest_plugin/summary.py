"""What is said of a run at its end: in the terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instrument.pytest_plugin.figures import NAMELESS, RunFigures, TestFigures

__all__ = ["as_json", "lines_of", "properties_of", "write", "write_json"]

FORMAT = 1
_Amount = Callable[[TestFigures], float | None]


def lines_of(run: RunFigures, top: int) -> list[str]:
    """Return the summary: the `top` tests by time, tokens and cost, and what all come to."""
    tables = [
        _ranked(run, top, "slowest tests", lambda test: test.wall_seconds, "{:,.2f} s"),
        _ranked(run, top, "most tokens", lambda test: test.tokens, "{:,}"),
        _ranked(run, top, "most expensive", lambda test: test.usd, "${:,.6f}"),
    ]
    return [*(line for table in tables for line in table), *_totals(run)]


def as_json(run: RunFigures) -> dict[str, Any]:
    """Return what `--instrument-json` writes; the package's docstring says what is in it."""
    return {
        "format": FORMAT,
        "session_id": run.session_id,
        "log_dir": run.log_dir,
        "totals": {
            "tests": len(run.tests),
            "operations": run.operations,
            "error_count": sum(each.error_count for each in run.tests.values()),
            "tokens": run.tokens,
            "usd": run.usd,
            "unpriced_models": list(run.unpriced_models),
            "seconds": run.seconds,
            "wall_seconds": run.wall_seconds,
        },
        "tests": [each.to_dict() for each in run.tests.values()],
    }


def write_json(run: RunFigures, path: Path) -> None:
    """Write it, with the directories that are not there yet. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(run), indent=2) + "\n", encoding="utf-8")


def properties_of(test: TestFigures) -> list[tuple[str, object]]:
    """Return what JUnit XML says of a test: nothing of one without tracked calls."""
    if not test.operations:
        return []
    told = {"tokens": test.tokens, "cost_usd": test.usd}
    known = [(f"instrument_{name}", value) for name, value in told.items() if value is not None]
    counted = [("instrument_operations", test.operations), ("instrument_seconds", test.seconds)]
    return [*counted, *known]


def write(reporter: pytest.TerminalReporter, run: RunFigures, top: int) -> None:
    """Put the summary into the terminal."""
    reporter.section("instrument")
    for line in lines_of(run, top):
        reporter.write_line(line)


def _ranked(run: RunFigures, top: int, title: str, amount: _Amount, form: str) -> list[str]:
    found = [(amount(test) or 0, test) for test in run.tests.values()]
    ranked = sorted((each for each in found if each[0]), key=lambda each: -each[0])[:top]
    shown = [form.format(value) for value, _ in ranked]
    width = max(map(len, shown), default=0)
    rows = [
        f"  {text.rjust(width)}  {test.node_id}{_beside(test)}"
        for text, (_, test) in zip(shown, ranked, strict=True)
    ]
    return [title, *rows] if rows else []


def _beside(test: TestFigures) -> str:
    if not test.operations:
        return ""
    return f"  ({_counted(test.operations, 'operation')}, {test.seconds:,.2f} s)"


def _totals(run: RunFigures) -> list[str]:
    parts = [_counted(len(run.tests), "test"), _counted(run.operations, "operation")]
    if run.operations:
        is_known = run.tokens is not None
        parts.append(_counted(run.tokens or 0, "token") if is_known else "tokens not reported")
        parts += [] if run.usd is None else [f"${run.usd:,.6f}"]
        parts.append(f"{run.seconds:,.2f} s in tracked calls")
    lines = [", ".join(parts)]
    named = [each for each in run.unpriced_models if each != NAMELESS]
    if named:
        lines.append(f"without a price: {', '.join(named)}")
    return [*lines, f"session {run.session_id} in {run.log_dir}"]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
