"""`instrument budget`, and how `stats` marks sessions that were refused a call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from responses import chat

from instrument import (
    Budget,
    BudgetExceeded,
    UsageLog,
    UsageLogger,
    configure,
    install,
    session,
    tracked,
    uninstall,
)
from instrument.testing import CapturedOperations


@tracked(service="openai")
def ask() -> object:
    return chat(None, model="gpt-5.4")


def spend(times: int) -> None:
    for _ in range(times):
        try:
            ask()
        except BudgetExceeded:
            return


def command(log: Path, *arguments: str, **environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "instrument", *arguments],
        env={"INSTRUMENT_DIR": str(log), "COLUMNS": "80", "TZ": "UTC"} | environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return ran.stdout


@pytest.fixture
def log_dir(capture_operations: CapturedOperations) -> Path:
    """A log with a named budget and two sessions with one each, of which one refused a call."""
    configure(budgets={"all": Budget(usd=1, tokens=1_000)})
    with session("nightly", id="job", budget=Budget(operations=3)):
        spend(4)
    with session("other", budget=Budget(operations=3)):
        spend(1)
    configure(budgets={})
    return capture_operations.log_dir


def test_budgets_are_shown_with_what_was_spent_and_refused(log_dir: Path) -> None:
    assert command(log_dir, "budget").splitlines() == [
        "budget     spent            of                refused",
        "all           60  1,000 tokens  █",
        "         $0.0004         $1.00  ▌",
        "other          1  3 operations  ████",
        "nightly        3  3 operations  ████████████        1",
    ]
    widest = max(map(len, command(log_dir, "budget", COLUMNS="60").splitlines()))
    assert widest <= 60


def test_one_budget_is_shown_with_who_spent_it(log_dir: Path) -> None:
    shown = command(log_dir, "budget", "nightly")
    assert "openai ask gpt-5.4" in shown
    assert "other" not in shown
    assert command(log_dir, "budget", "weekly") == ""


def test_budgets_are_json_too(log_dir: Path) -> None:
    found = {each["name"]: each for each in json.loads(command(log_dir, "budget", "--json"))}
    assert (found["nightly"]["session_id"], found["nightly"]["refused_sessions"]) == (
        "job",
        ["job"],
    )
    assert found["all"]["spent"]["tokens"] == 60
    assert found["all"]["limits"] == {
        "operations": None,
        "tokens": 1_000,
        "usd": 1.0,
        "seconds": None,
    }


def test_stats_mark_a_session_that_was_refused_a_call(log_dir: Path) -> None:
    assert "nightly refused a call: 3 of 3 operations" in command(log_dir, "stats", "job")
    [budget] = json.loads(command(log_dir, "stats", "job", "--json"))["budgets"]
    assert (budget["name"], budget["refused_count"]) == ("nightly", 1)
    assert json.loads(command(log_dir, "stats", "@last", "--json"))["budgets"] == []


def test_pruning_forgets_budgets_that_nobody_spends_of(log_dir: Path) -> None:
    old = time.time() - 3_000_000
    [ledger] = (log_dir / "budgets" / "session-job").iterdir()
    os.utime(ledger, (old, old))
    UsageLog(log_dir).prune(timedelta(days=30))
    assert {each.name for each in UsageLog(log_dir).budgets()} == {"all", "other"}


def test_what_is_logged_afterwards_is_counted(log_dir: Path) -> None:
    with session(id="logged", budget=Budget(tokens=100)):
        UsageLogger("openai").log_usage("ask", tokens=90)
        UsageLogger("openai").log_usage("ask", tokens=9)
        with pytest.raises(BudgetExceeded, match="99 of 100 tokens"):
            ask()
    found = next(each for each in UsageLog(log_dir).budgets() if each.session_id == "logged")
    assert (found.spent.operations, found.spent.tokens) == (2, 99)


def test_installed_clients_reserve_what_the_request_allows(log_dir: Path) -> None:
    openai = pytest.importorskip("openai")
    install("openai")
    client = openai.OpenAI(api_key="-", base_url="http://127.0.0.1:9", max_retries=0)
    messages = [{"role": "user", "content": "?"}]
    with session(id="sdk", budget=Budget(tokens=100, usd=5)):
        with pytest.raises(BudgetExceeded, match="may take 101 tokens"):
            client.chat.completions.create(model="gpt-5.4", messages=messages, max_tokens=101)
        with pytest.raises(BudgetExceeded, match="'nobodys' has no price"):
            client.chat.completions.create(model="nobodys", messages=messages)
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(model="gpt-5.4", messages=messages, max_tokens=100)
    uninstall("openai")
    assert UsageLog(log_dir).stats("sdk").errors == {"APIConnectionError": 1}
    assert UsageLog(log_dir).running() == []
