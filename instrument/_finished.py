"""What a finished operation's line says beyond who, where and when."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from instrument._claims import Claimant, owner_of
from instrument._clean import jsonable
from instrument._counts import are_plausible, impossible, plus, without
from instrument.operation import OperationLine
from instrument.recorder import Recorder
from instrument.usage import total
from instrument.usage.fields import USAGE_DETAILS
from instrument.usage.reading import Merge, Reading, Readings
from instrument.usage.retries import attempt_around

__all__ = [
    "NOTHING",
    "Following",
    "counted",
    "put_beside",
    "put_end",
    "put_steps",
    "taken",
]


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


NOTHING = Reading(is_plain=True)
"""What is read from a result that says nothing."""


def counted(
    operation: Claimant, reading: Reading, result: Any, added: Reading | None
) -> tuple[Reading, str | None, dict[str, Any] | None]:
    """Return what of `reading` and `added` counts here, who counted the rest, and what cannot be.

    The last are the counts that nothing can have, which are left out of the first.
    """
    if type(reading) is Readings:
        own, owner = _unclaimed(operation, reading)
    else:
        own, owner = reading, None
        if operation.parent is not None or operation.claims:
            owner = owner_of(operation, reading, result)
            own = reading if owner is None else NOTHING
    if added is not None:
        own = plus(own, added)
    elif own.is_plain:
        return own, owner, None
    if are_plausible(own):
        return own, owner, None
    dropped = impossible(own)
    own = without(own, dropped)
    source = None if own.cost_usd is None else own.cost_source or "provider"
    return replace(own, cost_source=source), owner, dropped


def put_beside(
    line: OperationLine,
    reading: Reading,
    own: Reading,
    dropped: dict[str, Any] | None,
    active: Recorder,
) -> None:
    """Put what a result says beside its usage; the metadata names the counts that were dropped.

    `own` is what of its usage counts here.
    """
    if own is not reading:
        line.model = reading.model or own.model or line.model
        line.response_id = reading.response_id or own.response_id
        reading = replace(reading, details=_counting_here(reading, own))
    if reading.outcome is not None:
        _put_verdict(line, reading, active)
    else:
        _put_details(line, reading, active)
    if dropped:
        line.metadata = {**line.metadata, "impossible_usage": jsonable(dropped)}


def put_end(line: OperationLine, verdict: Reading | None, active: Recorder) -> None:
    """Put what an exception says, if there was one, and which attempt this was if that is known."""
    if verdict is not None:
        _put_verdict(line, verdict, active)
    if line.attempt is None:
        line.attempt = attempt_around()


def _put_verdict(line: OperationLine, verdict: Reading, active: Recorder) -> None:
    line.success = verdict.outcome == "partial"
    line.outcome = None if verdict.outcome == "error" else verdict.outcome
    line.error_type = verdict.error_type
    line.error_message = active.clean_message(verdict.error_message)
    _put_details(line, verdict, active)


def put_steps(line: OperationLine, following: Following, begun_ns: int) -> None:
    line.active_seconds = following.active_ns / 1e9
    line.chunks = following.chunks
    if following.first_chunk_ns is not None:
        line.first_chunk_seconds = (following.first_chunk_ns - begun_ns) / 1e9


def _put_details(line: OperationLine, said: Reading, active: Recorder) -> None:
    if said.attempt is not None:
        line.attempt = said.attempt
    if said.details is not None:
        # what the program says stands
        line.metadata = {**active.clean_metadata(said.details), **line.metadata}


def _counting_here(reading: Reading, own: Reading) -> dict[str, Any] | None:
    told = {**(reading.details or {}), USAGE_DETAILS: None, **(own.details or {})}
    return {name: value for name, value in told.items() if value is not None} or None


def _unclaimed(operation: Claimant, readings: Readings) -> tuple[Reading, str | None]:
    """Return the sum of what no operation inside has counted already, and one that has."""
    owners = [owner_of(operation, part, None) for part in readings.parts]
    ours = [part for part, owner in zip(readings.parts, owners, strict=True) if owner is None]
    if len(ours) == len(owners):
        return readings, None
    owner = next(owner for owner in owners if owner is not None)
    return total(ours), owner
