"""`instrument budget`, and how `stats` marks sessions that were refused a call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
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
    return ran(log, *arguments, **environment).stdout


def ran(log: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "instrument", *arguments],
        env={"INSTRUMENT_DIR": str(log), "COLUMNS": "80", "TZ": "UTC"} | environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )


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


def test_the_torn_records_of_killed_processes_are_no_damage(log_dir: Path) -> None:
    [ledger] = (log_dir / "budgets" / "session-job").iterdir()
    record = ledger.read_bytes().rpartition(b"\n")[2]
    with ledger.open("ab") as file:
        for length in range(len(record)):
            file.write(b"\n" + record[:length])
    (log_dir / "budgets" / "session-begun").mkdir(mode=0o700)
    assert examined(log_dir) == ("ok", [])
    assert damage(log_dir) == ""


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "cut short": ("problem", lambda data: data[:20]),
    "emptied": ("problem", lambda data: b""),
    "no header": ("problem", lambda data: b"\0" * len(data)),
    "another header": ("problem", lambda data: b'{"v":1};' + data[data.index(b"\n") :]),
    "a hole": ("note", lambda data: data[:-90] + b"\0" * 60 + data[-30:]),
    "another program's line": ("note", lambda data: data + b"\nsome text"),
    "a flipped byte": ("note", lambda data: data.replace(b"\ns,", b"\nS,", 1)),
}


@pytest.mark.parametrize(("level", "harm"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_ledger_is_named_with_its_cure(
    log_dir: Path, level: str, harm: Callable[[bytes], bytes]
) -> None:
    place = log_dir / "budgets" / "session-job"
    [ledger] = place.iterdir()
    ledger.write_bytes(harm(ledger.read_bytes()))
    assert examined(log_dir) == (level, [str(place)])
    assert f"remove {place}: its budget begins anew" in damage(log_dir)
    assert "other" in command(log_dir, "budget")
    shutil.rmtree(place)
    assert examined(log_dir) == ("ok", [])


def examined(log_dir: Path) -> tuple[str, list[str]]:
    """Return what the doctor says of budgets, and which ledgers it names."""
    (found,) = (each for each in UsageLog(log_dir).doctor() if each.check == "budgets")
    return found.level, [each["path"] for each in found.details["examples"]]


def damage(log_dir: Path) -> str:
    return ran(log_dir, "budget").stderr


def test_pruning_forgets_budgets_that_nobody_spends_of(log_dir: Path) -> None:
    with session(id="job", budget=Budget(operations=3)), session(id="step"):
        pass
    place = log_dir / "budgets"
    old = time.time() - 3_000_000
    for path in (*(place / "session-job").iterdir(), place / "within-step"):
        os.utime(path, (old, old))
    UsageLog(log_dir).prune(timedelta(days=30))
    assert {each.name for each in UsageLog(log_dir).budgets()} == {"all", "other"}
    assert not (place / "within-step").exists()


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
