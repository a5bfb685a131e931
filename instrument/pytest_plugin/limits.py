"""The marker `budget`: what a test may use, checked when it is collected."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest

__all__ = ["NAMES", "Limits", "limits_of", "mistakes_in", "mistakes_of"]

NAMES = ("tokens", "usd", "seconds", "operations")
_ACCEPTED = "tokens=, usd=, seconds= or operations="
_WHOLE = ("tokens", "operations")


class Limits(NamedTuple):
    """The most that the tracked calls of a test may come to; `None`: as much as they like."""

    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None
    operations: int | None = None


def limits_of(item: pytest.Item) -> Limits | None:
    """Return what the markers of a test allow, of each limit the closest; `None` without any.

    Fails the test where one that was added while it ran is none; others were checked before.
    """
    found: dict[str, float] = {}
    for mark in item.iter_markers("budget"):
        for mistake in mistakes_of(mark):
            pytest.fail(mistake, pytrace=False)
        found = {**mark.kwargs, **found}
    return Limits(**found) if found else None  # type: ignore[arg-type]  # checked above


def mistakes_in(items: Iterable[pytest.Item]) -> list[str]:
    """Say what is wrong with the budgets of tests."""
    return [
        f"{node.nodeid}: {mistake}"
        for node in items
        for mark in node.iter_markers("budget")
        for mistake in mistakes_of(mark)
    ]


def mistakes_of(mark: pytest.Mark) -> Iterator[str]:
    """Say what is wrong with a marker `budget`, and what it takes."""
    for value in mark.args:
        yield f"budget({value!r}): use keywords: {_ACCEPTED}"
    for name, value in mark.kwargs.items():
        if name not in NAMES:
            yield f"budget({name}={value!r}): unknown argument: use {_ACCEPTED}"
        elif not _is_limit(name, value):
            kind = "a whole number" if name in _WHOLE else "a number"
            yield f"budget({name}={value!r}): use {kind} above 0"
    if not mark.args and not mark.kwargs:
        yield f"budget(): use at least one of {_ACCEPTED}"


def _is_limit(name: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if name in _WHOLE else (int, float)):
        return False
    return 0 < value < math.inf
