"""Budgets of tests that nobody checks."""

from __future__ import annotations

import pytest

from instrument.errors import InstrumentWarning

__all__ = ["warn_of_budget"]


def warn_of_budget(item: pytest.Item, why: str | None = None) -> None:
    """Say of a test that is not recorded, if it has a budget, that nobody checks that."""
    if any(item.iter_markers("budget")):
        said = why or (
            "its marker was added while it ran; name the fixture `usage` among its arguments, or"
            " run with --instrument"
        )
        item.warn(InstrumentWarning(f"the test's budget is not checked: {said}"))
