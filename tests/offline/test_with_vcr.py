"""Budgets hold offline: responses come from vcrpy's cassettes, and count as on the day itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import geography
import pytest
import vcr
from vcr.errors import CannotOverwriteExistingCassetteException

from instrument import Budget, BudgetExceeded, session
from instrument.testing import CapturedOperations

CASSETTES = vcr.VCR(
    cassette_library_dir=str(Path(__file__).with_name("cassettes")),
    record_mode=vcr.mode.NONE,
    match_on=["method", "uri", "body"],
)
WAYS: dict[str, Callable[[str], object]] = {
    "sdk": geography.with_sdk,
    "requests": geography.with_requests,
    "httpx": geography.with_httpx,
    "httpx, async": lambda country: asyncio.run(geography.with_async_httpx(country)),
}


@pytest.fixture
def offline(capture_operations: CapturedOperations) -> Iterator[CapturedOperations]:
    with CASSETTES.use_cassette("chat.yaml"):
        yield capture_operations


@pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
def test_a_recorded_answer_costs_what_it_cost(
    ask: Callable[[str], object], offline: CapturedOperations
) -> None:
    with session() as work:
        ask("Portugal")
    stats = work.stats()
    assert (stats.total_tokens, stats.input_tokens, stats.output_tokens) == (1500, 1200, 300)
    assert (stats.cache_read_tokens, stats.reasoning_tokens) == (1024, 256)
    assert stats.models == ("gpt-5-2026-08-01",)


def test_a_budget_holds_offline(offline: CapturedOperations) -> None:
    with session(budget=Budget(tokens=1500)):
        geography.with_requests("Portugal")
        with pytest.raises(BudgetExceeded, match="1,500 of 1,500 tokens"):
            geography.with_requests("Portugal")
    assert len(offline) == 1


def test_a_recorded_stream_costs_what_it_cost(capture_operations: CapturedOperations) -> None:
    with CASSETTES.use_cassette("stream.yaml"), session() as work:
        pieces = list(geography.ask_in_pieces("Portugal"))
    assert work.stats().total_tokens == 1500
    assert (capture_operations[0].chunks, len(pieces)) == (4, 4)


def test_a_question_that_was_not_recorded_is_an_error_without_tokens(
    offline: CapturedOperations,
) -> None:
    with pytest.raises(CannotOverwriteExistingCassetteException):
        geography.with_requests("Spain")
    assert offline[0].error_type == "CannotOverwriteExistingCassetteException"
    assert (offline[0].outcome, offline[0].tokens) == ("error", None)
