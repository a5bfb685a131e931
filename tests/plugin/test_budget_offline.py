"""Budgets of tests whose answers come from cassettes of vcrpy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

OFFLINE = Path(__file__).parent.parent / "offline"
TEST = """
import geography, pytest, vcr

@pytest.mark.budget(tokens=TOKENS)
@vcr.use_cassette("cassettes/chat.yaml", record_mode="none")
def test_an_answer_stays_within_its_budget():
    assert geography.with_sdk("Portugal") == "Lisbon."
"""


@pytest.mark.parametrize(("tokens", "outcome"), [(1500, "passed"), (1499, "failed")])
def test_a_budget_holds_offline(
    tokens: int, outcome: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(OFFLINE / "cassettes", pytester.path / "cassettes")
    shutil.copy(OFFLINE / "geography.py", pytester.path)
    monkeypatch.setenv("INSTRUMENT_DIR", str(pytester.path / "log"))
    pytester.makepyfile(test_it=TEST.replace("TOKENS", str(tokens)))
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:anyio")
    result.assert_outcomes(**{outcome: 1})
    assert ("1,500" in result.stdout.str()) is (outcome == "failed")
