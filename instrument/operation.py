"""The values that everything else passes around: what was called, and what it used."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, field

__all__ = ["MAX_COUNT", "Health", "Operation", "SessionStats", "SummaryRow", "Usage"]

MAX_COUNT = 10**12
_Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
_Amount = Annotated[float, Meta(ge=0, le=MAX_COUNT)]


class Usage(Struct, frozen=True):
    """The tokens that one response reports; `None` means not reported, 0 means reported as zero.

    `input_tokens` includes every cached token and `output_tokens` includes reasoning
    (OpenTelemetry GenAI semantic conventions). `total_tokens` is the provider's own total.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    total_tokens: int | None = None
    cost_usd: float | None = None
    model: str | None = None
    response_id: str | None = None


class OperationLine(Struct, omit_defaults=True, gc=False):
    """One finished operation as the journal has it: keys in this order, absent when unknown."""

    timestamp: str
    session_id: str
    service: str
    operation: str
    success: bool
    duration_seconds: float
    tokens: int | None = None
    metadata: Any = False  # never left at its default, because the key is always written
    operation_id: str | None = None
    parent_id: str | None = None
    trace_id: str | None = None
    parent_session_id: str | None = None
    session_name: str | None = None
    outcome: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    provider: str | None = None
    model: str | None = None
    kind: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    cost_source: str | None = None
    response_id: str | None = None
    usage_operation_id: str | None = None
    attempt: int | None = None
    first_chunk_seconds: float | None = None
    active_seconds: float | None = None
    chunks: int | None = None
    pid: int | None = None


class SessionLine(Struct, omit_defaults=True, tag="session", tag_field="type"):
    """An explicit session was entered."""

    timestamp: str
    session_id: str
    session_name: str | None = None
    parent_session_id: str | None = None
    metadata: Any = None
    pid: int | None = None


class BeginLine(Struct, omit_defaults=True, tag="begin", tag_field="type"):
    """An operation began at a call site that is slow; `run` names its process's lock file."""

    timestamp: str
    session_id: str
    service: str
    operation: str
    operation_id: str
    parent_id: str | None = None
    pid: int | None = None
    run: str | None = None


class VoidLine(Struct, omit_defaults=True, tag="void", tag_field="type"):
    """The begin line of that moment is withdrawn: what the call returned has not started.

    Should it start after all, there is a later begin line. Without a moment all are withdrawn.
    """

    operation_id: str
    timestamp: str | None = None


class DroppedLine(Struct, omit_defaults=True, tag="dropped", tag_field="type"):
    """So many operations of a process could not be written before; `reason` is the latest."""

    timestamp: str
    count: int
    reason: str | None = None
    pid: int | None = None


class Operation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One finished (or running, or interrupted) operation, as `UsageLog` reads it.

    Attributes are the keys of the journal's lines. `timestamp` is the start, aware, in UTC;
    `outcome` is `ok`, `error`, `cancelled`, `partial`, `interrupted` or, from
    `UsageLog.running()` alone, `running`; `tokens` is the total; keys that this version does
    not know are in `extra`.
    """

    timestamp: datetime
    session_id: str
    service: str
    operation: str
    success: bool = True
    outcome: str = "ok"
    duration_seconds: _Amount = 0.0
    tokens: _Count | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    operation_id: str | None = None
    parent_id: str | None = None
    trace_id: str | None = None
    parent_session_id: str | None = None
    session_name: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    provider: str | None = None
    model: str | None = None
    kind: str | None = None
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    cache_read_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None
    cost_usd: _Amount | None = None
    cost_source: str | None = None
    response_id: str | None = None
    usage_operation_id: str | None = None
    attempt: _Count | None = None
    first_chunk_seconds: _Amount | None = None
    active_seconds: _Amount | None = None
    chunks: _Count | None = None
    pid: _Count | None = None
    v: _Count = 1
    extra: dict[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.operation_id, self.timestamp, self.session_id))


class SessionStats(Struct, frozen=True, kw_only=True):
    """What a session came to.

    Token and cost sums are over the operations that report them; `operations_without_usage`
    counts the others. `success_rate` is 0..1, successes over operations without the cancelled
    and interrupted ones, `None` when nothing is left to divide. `total_duration_seconds` sums
    over operations, `elapsed_seconds` runs from the first start to the last end. Percentiles
    interpolate linearly. `cost_usd` is `None` when nothing is priced; `cost_coverage` is the
    share (0..1) of token-bearing operations that have a price. `cache_hit_ratio` is the share
    (0..1) of the input that came from a cache, `None` where nothing did; `cache_saved_usd` is what
    that saved of the list price, less what writing to the cache cost more. `retry_count` is how
    many operations are known to be another attempt at what had failed before; `None` where that is
    unknown, because what is left of their days was summed up before it was counted.
    """

    session_id: str
    name: str | None = None
    parent_id: str | None = None
    operation_count: int = 0
    error_count: int = 0
    cancelled_count: int = 0
    partial_count: int = 0
    interrupted_count: int = 0
    retry_count: int | None = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    operations_without_usage: int = 0
    success_rate: float | None = None
    total_duration_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    p99_seconds: float | None = None
    cost_usd: float | None = None
    cost_coverage: float | None = None
    cache_hit_ratio: float | None = None
    cache_saved_usd: float | None = None
    first_at: datetime | None = None
    last_at: datetime | None = None
    services: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    errors: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [_counted(self.operation_count, "operation"), self._tokens()]
        if self.success_rate is not None:
            parts.append(f"{self.success_rate * 100:.1f} % success")
        if self.cost_usd is not None:
            parts.append(f"${self.cost_usd:,.4f}")
        parts.append(f"{self.elapsed_seconds:,.1f} s")
        return ", ".join(parts)

    def _tokens(self) -> str:
        if self.total_tokens == 0 and self.operations_without_usage:
            return "tokens not reported"
        return _counted(self.total_tokens, "token")


class SummaryRow(SessionStats, frozen=True, kw_only=True):
    """The same figures for one group of operations, whatever sessions they belong to.

    Of `service`, `model`, `session`, `operation`, `outcome`, `day`, `week` and `month`, those that
    were grouped by say what the group has in common; `week` is its Monday, `month` its first day.
    `session_id` is empty unless grouped by session. Percentiles are `None` where some of the
    operations are gone, and only sums of them were kept.
    """

    session_id: str = ""
    service: str | None = None
    model: str | None = None
    session: str | None = None
    operation: str | None = None
    outcome: str | None = None
    day: date | None = None
    week: date | None = None
    month: date | None = None


class Health(Struct, frozen=True, kw_only=True):
    """How recording goes: what this process recorded in a log and lost, and what that cost.

    `recorded_count` and `dropped_count` are the operations of this process that the log holds and
    those that could not be written; `internal_error_count` counts defects of this package, in
    whatever log. `recording_p50_seconds` and `recording_p99_seconds` are over samples of the time
    from an operation's end to its line being written, `None` where there are none. The last three
    are what all processes have left in the log about operations that could not be written.
    """

    recorded_count: int = 0
    dropped_count: int = 0
    internal_error_count: int = 0
    recording_p50_seconds: float | None = None
    recording_p99_seconds: float | None = None
    dropped_in_log_count: int = 0
    last_dropped_at: datetime | None = None
    last_dropped_reason: str | None = None


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
