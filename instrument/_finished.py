"""What a finished operation's line says beyond who, where and when."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from instrument._claims import Claimant, owner_of
from instrument._clean import jsonable
from instrument._counts import are_plausible, impossible, plus, tokens_of, without
from instrument.operation import OperationLine
from instrument.recorder import Recorder
from instrument.usage import total
from instrument.usage.reading import Merge, Reading, Readings

__all__ = ["Following", "put_details", "put_reading", "put_steps", "put_verdict", "taken"]


class Following(Struct, eq=False):
    """What is known of a result that is still being produced, step by step.

    `open` holds one token until the end, which is taken once, whichever thread ends it. `latest`
    stands for a response without an id. `is_tap` says that nobody sees the return value.
    """

    merge: Merge
    open: list[bool]
    latest: Any = None
    is_tap: bool = False
    active_ns: int = 0
    chunks: int = 0
    first_chunk_ns: int | None = None


def taken(tokens: list[bool]) -> bool:
    """Take the one token there is; false where another was first."""
    try:
        return tokens.pop()
    except IndexError:
        return False


def put_reading(
    line: OperationLine,
    reading: Reading,
    result: Any,
    operation: Claimant,
    added: Reading | None,
    active: Recorder,
) -> None:
    """Put what a result says on the line; its usage only if no operation inside has counted it."""
    line.provider = reading.provider
    line.kind = reading.kind
    line.response_id = reading.response_id
    line.attempt = reading.attempt
    if reading.model is not None:
        line.model = reading.model
    if reading.details is not None:
        put_details(line, reading.details, active)
    if reading.outcome is not None:
        put_verdict(line, reading, active)
    if reading.__class__ is Readings:
        reading = _unclaimed(line, reading, operation)
    else:
        owner = owner_of(operation, reading, result)
        if owner is not None:
            line.usage_operation_id = owner
            if added is None:
                return
            reading = Reading()
    if added is not None:
        reading = plus(reading, added)
    if not are_plausible(reading):
        reading = _possible(line, reading)
    line.tokens = tokens_of(reading)
    line.input_tokens = reading.input_tokens
    line.output_tokens = reading.output_tokens
    line.cache_read_tokens = reading.cache_read_tokens
    line.cache_write_tokens = reading.cache_write_tokens
    line.reasoning_tokens = reading.reasoning_tokens
    if reading.cost_usd is not None:
        line.cost_usd = reading.cost_usd
        line.cost_source = reading.cost_source or "provider"


def put_verdict(line: OperationLine, verdict: Reading, active: Recorder) -> None:
    line.success = verdict.outcome == "partial"
    line.outcome = None if verdict.outcome == "error" else verdict.outcome
    line.error_type = verdict.error_type
    line.error_message = active.clean_message(verdict.error_message)
    if verdict.attempt is not None:
        line.attempt = verdict.attempt


def put_details(line: OperationLine, details: dict[str, Any], active: Recorder) -> None:
    """Put what a provider says beside usage into the metadata; what the program says stands."""
    line.metadata = {**active.clean_metadata(details), **line.metadata}


def put_steps(line: OperationLine, following: Following, begun_ns: int) -> None:
    line.active_seconds = following.active_ns / 1e9
    line.chunks = following.chunks
    if following.first_chunk_ns is not None:
        line.first_chunk_seconds = (following.first_chunk_ns - begun_ns) / 1e9


def _possible(line: OperationLine, reading: Reading) -> Reading:
    """Return the reading without the counts that nothing can have, which the metadata names."""
    dropped = impossible(reading)
    if not dropped:
        return reading
    line.metadata = {**line.metadata, "impossible_usage": jsonable(dropped)}
    return without(reading, dropped)


def _unclaimed(line: OperationLine, readings: Readings, operation: Claimant) -> Reading:
    """Return the sum of what no operation inside has counted already."""
    owners = [owner_of(operation, part, None) for part in readings.parts]
    ours = [part for part, owner in zip(readings.parts, owners, strict=True) if owner is None]
    if len(ours) == len(owners):
        return readings
    line.usage_operation_id = next(owner for owner in owners if owner is not None)
    return total(ours) if ours else Reading()
