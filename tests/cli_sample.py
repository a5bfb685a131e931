"""A session built by hand, for the tests of what is printed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from instrument._ledger import Ledger
from instrument._ledger_records import Amounts, Header, Kind
from instrument.operation import Operation, SessionStats

START = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
SESSION = "session_1795512600_0a1b2c3d"
OTHER = "session_1795512599_ffffffff"


def operation(number: int, start: float, seconds: float, **given: Any) -> Operation:
    """An operation of the sample session that starts so many seconds into it."""
    values: dict[str, Any] = {
        "service": "openai",
        "operation": "ask",
        "outcome": "ok",
        "operation_id": f"{number:016x}",
        "success": given.get("outcome", "ok") in ("ok", "partial"),
    }
    return Operation(
        timestamp=START + timedelta(seconds=start),
        session_id=SESSION,
        session_name="nightly-report",
        duration_seconds=seconds,
        **(values | given),
    )


def usage(input_tokens: int, output_tokens: int, **given: Any) -> dict[str, Any]:
    total = input_tokens + output_tokens
    return {"input_tokens": input_tokens, "output_tokens": output_tokens, "tokens": total} | given


ROOT = f"{1:016x}"
OPERATIONS = [
    operation(1, 0.0, 1.82, service="pipeline", operation="write_report"),
    operation(
        2,
        0.01,
        0.043,
        operation="embed",
        model="text-embedding-3-small",
        parent_id=ROOT,
        input_tokens=512,
        tokens=512,
    ),
    operation(
        3,
        0.06,
        0.61,
        service="anthropic",
        operation="Client.summarise",
        model="claude-sonnet-4-5",
        parent_id=ROOT,
        **usage(12_310, 480, cache_read_tokens=9_216),
    ),
    operation(
        4,
        0.4,
        0.121,
        operation="title",
        model="gpt-5-mini",
        parent_id=f"{3:016x}",
        outcome="error",
        error_type="RateLimitError",
        error_message="Rate limit reached for gpt-5-mini in organization org-demo on requests per"
        " min (RPM): Limit 3, Used 3, Requested 1.\nPlease try again in 150ms.",
    ),
    operation(
        5,
        0.7,
        0.9,
        service="google",
        operation="outline",
        model="gemini-2.5-pro",
        parent_id=ROOT,
        outcome="partial",
        cost_usd=0.0123,
        **usage(2_048, 1_708, reasoning_tokens=785),
    ),
    operation(6, 1.7, 0.12, service="google", operation="translate", outcome="running"),
]
STATS = SessionStats(
    session_id=SESSION,
    name="nightly-report",
    operation_count=5,
    error_count=1,
    partial_count=1,
    input_tokens=14_870,
    output_tokens=2_188,
    cache_read_tokens=9_216,
    reasoning_tokens=785,
    total_tokens=17_058,
    operations_without_usage=2,
    success_rate=0.8,
    total_duration_seconds=3.494,
    elapsed_seconds=1.82,
    p50_seconds=0.61,
    p95_seconds=1.636,
    p99_seconds=1.783,
    cost_usd=0.0123,
    cost_coverage=1 / 3,
    first_at=START,
    last_at=START + timedelta(seconds=1.82),
    services=("anthropic", "google", "openai", "pipeline"),
    models=("claude-sonnet-4-5", "gemini-2.5-pro", "gpt-5-mini", "text-embedding-3-small"),
    errors={"RateLimitError": 1},
)


def write_sample(log_dir: Path) -> Path:
    """Write a log that holds the sample session, and an older one of a single operation."""
    older = msgspec.structs.replace(
        operation(99, -60, 1), session_id=OTHER, session_name="before", operation_id="9" * 16
    )
    finished = [one for one in OPERATIONS if one.outcome != "running"]
    lines = [msgspec.json.encode(_line(one)) for one in (older, *finished)]
    journal = log_dir / "journal"
    journal.mkdir(parents=True)
    (journal / "2026-11-24-host-0001.jsonl").write_bytes(b"\n".join([*lines, b""]))
    write_budgets(log_dir)
    return log_dir


def write_budgets(log_dir: Path) -> None:
    """Write the ledgers of a session's budget, which refused a call, and of a daily one."""
    kinds = {
        "a": Kind("openai", "summarise", "gpt-5.4", 3, 12_000, 30_000_000, 2_000_000_000),
        "b": Kind("search", "look_up", None, 1, 0, 0, 100_000_000),
    }
    spent = Amounts(5, 12_500, 31_000_000, 2_100_000_000)
    of_session = Header(
        name="report",
        session_id=SESSION,
        limits=(5, None, None, None),
        spent=spent,
        refused=2,
        kinds=kinds,
        hit=(SESSION,),
    )
    daily = Header(
        name="daily",
        per="day",
        since="2026-11-24T00:00:00+00:00",
        limits=(None, 1_000_000, 20_000_000_000, None),
        spent=spent,
        kinds=kinds,
    )
    for name, header in (("session-s", of_session), ("name-daily@2026-11-24T0000", daily)):
        Ledger(log_dir / "budgets" / name, partial(replace, header)).open()


def _line(one: Operation) -> dict[str, object]:
    fields = {name: value for name, value in msgspec.structs.asdict(one).items() if value != {}}
    known = {name: value for name, value in fields.items() if value is not None and name != "v"}
    return known | {"timestamp": one.timestamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "metadata": {}}
