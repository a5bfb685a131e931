"""Makes logs as the recorder leaves them, of any size, the same for the same seed and end.

python benchmarks/_logs.py DIR --operations 100000 [--days 30] [--longest 5000] [--seed 1]

Sessions of several programs run beside each other, so that their lines alternate; the last one
ends now. As in a real journal a line stands where its operation ended, and bears its start.
"""

from __future__ import annotations

import argparse
import heapq
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import BinaryIO, NamedTuple

import msgspec
from msgspec import Struct

from instrument._clock import format_timestamp
from instrument.operation import BeginLine, OperationLine, SessionLine

HOST = "workstation"
SEGMENT_BYTES = 64 * 1024**2
SECOND_NS, DAY_NS = 10**9, 86_400 * 10**9
MEDIAN_SESSION, SESSION_SPREAD, LONGEST = 8, 1.4, 5_000  # a mean of 20
CALLS_IN_A_JOB = (1, 1, 2, 3, 4, 5, 7, 9)
JOB_LEAD_NS = 3_600 * SECOND_NS  # far more than a job takes, which is known by its end
INTERRUPTED, UNENDED_NS = 7, 8 * SECOND_NS


class Kind(NamedTuple):
    """One thing that programs call; tokens and seconds are medians."""

    service: str
    operation: str
    seconds: float
    model: str | None = None
    kind: str | None = "chat"
    input_tokens: int = 0
    output_tokens: int = 0
    cached: float = 0.0
    reasons: bool = False
    response: str | None = None
    streams: float = 0.0


KINDS = (
    Kind("openai", "summarise", 3.1, "gpt-5-2025-08-07", "chat", 1900, 420, 0.4, True, "chatcmpl-"),
    Kind("openai", "classify", 0.9, "gpt-5-mini-2025-08-07", "chat", 640, 30, 0.3, False, "resp_"),
    Kind("openai", "embed", 0.2, "text-embedding-3-small", "embeddings", 510),
    Kind(
        "anthropic", "review", 7.5, "claude-sonnet-4-5", "chat", 9800, 880, 0.7, False, "msg_", 0.6
    ),
    Kind("anthropic", "extract", 1.4, "claude-haiku-4-5", "chat", 2600, 210, 0.5, False, "msg_"),
    Kind("google", "describe", 2.2, "gemini-2.5-flash", "chat", 1300, 260, 0.1, True, "r-", 0.3),
    Kind("google", "plan", 9.0, "gemini-2.5-pro", "chat", 5200, 1400, 0.2, True, "r-", 0.5),
    Kind("qwen", "translate", 1.8, "qwen3-max", "chat", 900, 700, 0.0, False, "chatcmpl-", 0.2),
    Kind("mistral", "tag", 0.8, "mistral-small-2506", "chat", 480, 40, 0.0, False, "cmpl-"),
    Kind("cohere", "rerank", 0.3, "rerank-v3.5", "rerank", 0),
    Kind(
        "deepseek", "reason", 12.0, "deepseek-reasoner", "chat", 1500, 2600, 0.5, True, "ds-", 0.8
    ),
    Kind("groq", "route", 0.2, "llama-3.3-70b-versatile", "chat", 350, 12, 0.0, False, "chatcmpl-"),
    Kind("xai", "search", 4.0, "grok-4", "chat", 2200, 500, 0.2, True, "x-"),
    Kind("stripe", "charge", 0.4, kind=None),
    Kind("warehouse", "select", 0.06, kind=None),
)
SHARES = (14, 20, 12, 8, 14, 12, 4, 6, 3, 2, 1, 2, 1, 3, 7)
OTHER_MODELS = {
    "gpt-5-2025-08-07": ("gpt-4.1-2025-04-14", "gpt-4o-2024-08-06", "o3-2025-04-16", "gpt-5-pro"),
    "gpt-5-mini-2025-08-07": ("gpt-4o-mini-2024-07-18", "gpt-5-nano-2025-08-07", "o4-mini"),
    "text-embedding-3-small": ("text-embedding-3-large",),
    "claude-sonnet-4-5": ("claude-opus-4-1", "claude-sonnet-4-0", "claude-3-7-sonnet-latest"),
    "claude-haiku-4-5": ("claude-3-5-haiku-latest",),
    "gemini-2.5-flash": ("gemini-2.0-flash", "gemini-2.5-flash-lite"),
    "gemini-2.5-pro": ("gemini-1.5-pro",),
    "qwen3-max": ("qwen-plus", "qwen-turbo"),
    "mistral-small-2506": ("mistral-large-2411",),
    "rerank-v3.5": ("rerank-english-v3.0",),
    "deepseek-reasoner": ("deepseek-chat",),
    "llama-3.3-70b-versatile": ("llama-3.1-8b-instant",),
    "grok-4": ("grok-3", "grok-3-mini"),
}
PIPELINE = Kind("pipeline", "process_document", 0.01, kind=None)
NAMES = ("nightly-report", "support-triage", "ingest", "evaluation", None, "invoice-run")
ERRORS = (
    ("RateLimitError", "Error code: 429 - Rate limit reached for requests, retry after 20 s."),
    ("APITimeoutError", "Request timed out."),
    ("InternalServerError", "Error code: 529 - Overloaded"),
    ("BadRequestError", "Error code: 400 - This model's maximum context length is 128000 tokens."),
    ("JSONDecodeError", "Expecting ',' delimiter: line 14 column 3 (char 812)"),
)


class Plan(Struct):
    """A session that is to be written: so many operations, the last of which ends at `end_ns`."""

    size: int
    start_ns: int
    end_ns: int
    pid: int
    session_id: str = ""
    name: str | None = None
    parent_id: str | None = None
    is_ambient: bool = False
    is_interrupted: bool = False


Event = tuple[int, bytes]  # when the line is written, in Unix nanoseconds, and the line


def write_log(
    log_dir: Path,
    *,
    operations: int,
    days: float = 30,
    longest: int = LONGEST,
    seed: int = 1,
    ended_ns: int | None = None,
) -> None:
    """Write a journal with so many finished operations, at least one, and a few interrupted ones.

    The longest session has `longest` of them, or a tenth of all. Nothing of the journal may be
    there yet.
    """
    random = Random(seed)
    ended_ns = time.time_ns() if ended_ns is None else ended_ns
    plans = _plans(random, operations, min(longest, max(1, operations // 10)), days, ended_ns)
    segments = _Segments(log_dir)
    waiting: list[tuple[int, int, bytes]] = []
    number = 0
    for plan in plans:
        while waiting and waiting[0][0] < plan.start_ns - JOB_LEAD_NS:
            segments.write(*heapq.heappop(waiting)[::2])
        for at_ns, line in _session_events(random, plan):
            number += 1
            heapq.heappush(waiting, (at_ns, number, line))
    while waiting:
        segments.write(*heapq.heappop(waiting)[::2])
    segments.close()


class _Segments:
    """Appends lines in the order of time, in files as the journal names them."""

    def __init__(self, log_dir: Path) -> None:
        self._directory = log_dir / "journal"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO | None = None
        self._day = self._number = self._size = 0
        self._written_ns = 0

    def write(self, at_ns: int, line: bytes) -> None:
        day = at_ns // DAY_NS
        if self._file is None or day != self._day or self._size >= SEGMENT_BYTES:
            self._open(day)
        assert self._file is not None
        self._file.write(line)
        self._size += len(line)
        self._written_ns = at_ns

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            # as if it had been written then: readers pass over what is too old to matter
            os.utime(self._file.name, ns=(self._written_ns, self._written_ns))

    def _open(self, day: int) -> None:
        self.close()
        self._number = self._number + 1 if day == self._day else 1
        self._day, self._size = day, 0
        date = time.strftime("%Y-%m-%d", time.gmtime(day * DAY_NS // SECOND_NS))
        self._file = (self._directory / f"{date}-{HOST}-{self._number:04d}.jsonl").open("xb")


def _plans(random: Random, operations: int, longest: int, days: float, ended_ns: int) -> list[Plan]:
    """Return the sessions in the order of their starts."""
    plans: list[Plan] = []
    left = operations
    while left:
        size = longest
        if plans:
            drawn = round(random.lognormvariate(math.log(MEDIAN_SESSION), SESSION_SPREAD))
            size = min(max(1, drawn), longest, left)
        left -= size
        plans.append(_plan(random, size, plans, days, ended_ns))
    max(plans, key=lambda plan: plan.end_ns).end_ns = ended_ns
    for plan in random.sample(plans, min(INTERRUPTED, len(plans) // 10)):
        plan.is_interrupted = True
    return sorted(plans, key=lambda plan: plan.start_ns)


def _plan(random: Random, size: int, before: list[Plan], days: float, ended_ns: int) -> Plan:
    span_ns = int(size * random.lognormvariate(0.5, 0.8) * SECOND_NS)
    end_ns = ended_ns - int(random.random() * days * DAY_NS)
    plan = Plan(size, end_ns - span_ns, end_ns, random.randrange(1_000, 4_000_000))
    plan.name = random.choice(NAMES)
    plan.is_ambient = random.random() < 0.1
    parent = before[-1] if before else None
    if parent is not None and not parent.is_ambient and random.random() < 0.08:
        plan.end_ns = parent.end_ns
        plan.start_ns = max(parent.start_ns, plan.end_ns - span_ns)
        plan.pid, plan.is_ambient = parent.pid, False
        plan.name, plan.parent_id = "retrieval", parent.session_id
    if plan.is_ambient:
        plan.name = None
    plan.session_id = f"session_{plan.start_ns // SECOND_NS}_{random.getrandbits(32):08x}"
    return plan


def _session_events(random: Random, plan: Plan) -> Iterator[Event]:
    first_ns, left = plan.start_ns, plan.size
    ids = random.getrandbits(62)
    run = f"{ids:016x}"
    while left:
        end_ns = plan.end_ns
        if left != plan.size:
            end_ns -= int(random.random() * (plan.end_ns - plan.start_ns))
        calls = min(random.choice(CALLS_IN_A_JOB), left)
        for line, ended_ns, started_ns in _job(random, plan, calls, end_ns, ids):
            first_ns = min(first_ns, started_ns)
            if random.random() < 0.05:
                yield started_ns - 5_000, _begin(line, started_ns, run)
            yield ended_ns, _encoded(line)
        ids, left = ids + calls, left - calls
    if plan.is_interrupted:
        begun_ns = plan.end_ns - UNENDED_NS
        yield begun_ns, _unended(plan, begun_ns, f"{ids + 1:016x}", run)
    if not plan.is_ambient:
        yield first_ns - 1_000_000, _entered(random, plan, first_ns - 1_000_000)


def _job(
    random: Random, plan: Plan, calls: int, end_ns: int, ids: int
) -> Iterator[tuple[OperationLine, int, int]]:
    """Give so many operations of which the last ends at `end_ns`, with their ends and starts.

    From three on, the first encloses the others.
    """
    end_of_job_ns, parent = end_ns, f"{ids:016x}" if calls > 2 else None
    last: OperationLine | None = None
    for number in range(calls - 1, 0 if parent else -1, -1):
        kind = random.choices(KINDS, SHARES)[0]
        duration_ns = int(kind.seconds * random.lognormvariate(0, 0.7) * SECOND_NS)
        end_ns -= 200_000
        line = _line(plan, kind, end_ns - duration_ns, duration_ns, f"{ids + number:016x}")
        line.parent_id = parent
        _put_result(random, line, kind)
        yield line, end_ns, end_ns - duration_ns
        last = last or line
        end_ns -= duration_ns + int(random.expovariate(20) * SECOND_NS)
    if parent is not None and last is not None:
        line = _line(plan, PIPELINE, end_ns, end_of_job_ns - end_ns, parent)
        _put_outcome_of(line, last, returns_response=random.random() < 0.3)
        yield line, end_of_job_ns, end_ns


def _line(
    plan: Plan, kind: Kind, start_ns: int, duration_ns: int, operation_id: str
) -> OperationLine:
    return OperationLine(
        format_timestamp(start_ns),
        plan.session_id,
        kind.service,
        kind.operation,
        True,
        duration_ns / 1e9,
        metadata={},
        operation_id=operation_id,
        parent_session_id=plan.parent_id,
        session_name=plan.name,
        model=_model(plan, kind),
        pid=plan.pid,
    )


def _model(plan: Plan, kind: Kind) -> str | None:
    """Return the model that a session's calls of a kind use: the usual one or one of the others."""
    others = OTHER_MODELS.get(kind.model or "", ())
    place = plan.pid % (2 * len(others) + 2)
    return others[place] if place < len(others) else kind.model


def _put_result(random: Random, line: OperationLine, kind: Kind) -> None:
    chance = random.random()
    if kind.service == "warehouse":
        line.metadata = {"table": "documents", "rows": int(chance * 5_000)}
    elif chance > 0.8:
        line.metadata = {"document": f"doc-{int(chance * 1e6):06d}", "language": "en"}
    if chance < 0.03:
        line.success = False
        line.error_type, line.error_message = random.choice(ERRORS)
        line.attempt = 2 if chance < 0.005 else None
    elif chance < 0.034:
        line.success, line.outcome, line.error_type = False, "cancelled", "CancelledError"
    elif kind.model is not None:
        _put_usage(random, line, kind)


def _put_usage(random: Random, line: OperationLine, kind: Kind) -> None:
    line.kind = kind.kind
    if random.random() < kind.streams:
        _put_chunks(random, line)
    if line.outcome == "partial":
        return
    scale = random.lognormvariate(0, 0.8)
    line.input_tokens = int(kind.input_tokens * scale) + 1
    if kind.output_tokens:
        line.output_tokens = int(kind.output_tokens * random.lognormvariate(0, 0.7)) + 1
    if random.random() < kind.cached:
        line.cache_read_tokens = line.input_tokens * 7 // 10
        line.cache_write_tokens = 0 if kind.service == "anthropic" else None
    if kind.reasons:
        line.reasoning_tokens = (line.output_tokens or 0) * 4 // 10
    line.tokens = line.input_tokens + (line.output_tokens or 0)
    if kind.response is not None:
        line.response_id = f"{kind.response}{random.getrandbits(96):024x}"
    if kind.service == "qwen":
        line.cost_usd, line.cost_source = line.tokens * 2e-6, "provider"


def _put_chunks(random: Random, line: OperationLine) -> None:
    line.chunks = random.randrange(8, 400)
    line.first_chunk_seconds = line.duration_seconds * 0.2
    line.active_seconds = line.duration_seconds * 0.9
    if random.random() < 0.05:
        line.outcome = "partial"


def _put_outcome_of(line: OperationLine, last: OperationLine, *, returns_response: bool) -> None:
    """Make a pipeline fail as its last call did, or give on that call's response."""
    line.success, line.error_type, line.error_message = (
        last.success,
        last.error_type,
        last.error_message,
    )
    if not line.success:
        line.outcome = last.outcome
    elif returns_response and last.response_id is not None:
        line.model, line.kind = last.model, last.kind
        line.response_id, line.usage_operation_id = last.response_id, last.operation_id


def _begin(line: OperationLine, started_ns: int, run: str) -> bytes:
    return _encoded(
        BeginLine(
            timestamp=format_timestamp(started_ns - 5_000),
            session_id=line.session_id,
            service=line.service,
            operation=line.operation,
            operation_id=line.operation_id or "",
            parent_id=line.parent_id,
            pid=line.pid,
            run=run,
        )
    )


def _unended(plan: Plan, at_ns: int, operation_id: str, run: str) -> bytes:
    """Return the begin line of a call during which the process was killed."""
    return _encoded(
        BeginLine(
            timestamp=format_timestamp(at_ns),
            session_id=plan.session_id,
            service="anthropic",
            operation="review",
            operation_id=operation_id,
            pid=plan.pid,
            run=run,
        )
    )


def _entered(random: Random, plan: Plan, at_ns: int) -> bytes:
    return _encoded(
        SessionLine(
            timestamp=format_timestamp(at_ns),
            session_id=plan.session_id,
            session_name=plan.name,
            parent_session_id=plan.parent_id,
            metadata={"customer": random.randrange(500)} if random.random() < 0.5 else None,
            pid=plan.pid,
        )
    )


def _encoded(line: Struct) -> bytes:
    return _encode(line) + b"\n"


_encode = msgspec.json.Encoder().encode


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--operations", type=int, required=True)
    parser.add_argument("--days", type=float, default=30)
    parser.add_argument("--longest", type=int, default=LONGEST, help="operations of one session")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    write_log(
        asked.directory,
        operations=asked.operations,
        days=asked.days,
        longest=asked.longest,
        seed=asked.seed,
    )


if __name__ == "__main__":
    main()
