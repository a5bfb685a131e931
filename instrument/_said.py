"""What the program says of an operation, by a callback, by `set_usage` or by an exception."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from instrument._clean import shown
from instrument._counts import says_nothing
from instrument.operation import Usage
from instrument.usage.families import read_document
from instrument.usage.reading import Reading

__all__ = [
    "as_reading",
    "by_caller",
    "is_cancellation",
    "judged",
    "kind_name",
    "reconciled",
    "renamed",
    "truth",
]

_A_USAGE = f"use a Usage, or its fields as keywords: {', '.join(Usage.__struct_fields__)}"
_USAGES = ("usage", "usage_metadata", "usageMetadata")
_FIELDS = frozenset(Usage.__struct_fields__)
_CANCELLATIONS = ("CancelledError", "Cancelled")
_HOMES = ("asyncio", "concurrent", "trio")
# of the class itself, whatever a class of classes makes of these names
_name_of = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__
_bases_of = type.__dict__["__mro__"].__get__


def as_reading(ask: Callable[[Any], Any], result: Any) -> Reading | None:
    """Return what `usage=` says of `result`."""
    said = ask(result)
    if said is None:
        return None
    if isinstance(said, Usage):
        return by_caller(said, {})
    if isinstance(said, Mapping) and said.keys() <= _FIELDS:
        return by_caller(None, said)
    if isinstance(said, int):
        return Reading(total_tokens=said)
    if isinstance(said, Mapping):
        said = dict(said)  # which is handed over to be looked into
    # as in `lambda response: response.usage`
    for name in _USAGES:
        found = read_document({name: said})
        if found is not None and not says_nothing(found):
            return found
    raise TypeError(
        f"usage= returned {shown(said)}: use a Usage, an int, a mapping with any of"
        f" {', '.join(Usage.__struct_fields__)}, a provider's own usage, or None"
    )


def by_caller(usage: Usage | None, fields: Any) -> Reading:
    """Return the reading of a `Usage` or of its fields; raises `TypeError` for anything else."""
    if usage is not None and fields:
        raise TypeError("give a Usage or its fields, not both")
    if usage is None:
        said = _usage(fields)
    elif isinstance(usage, Usage):
        said = usage
    else:
        raise TypeError(f"{shown(usage)}: {_A_USAGE}")
    known = {name: getattr(said, name) for name in Usage.__struct_fields__}
    for name in ("model", "response_id"):
        known[name] = _name(known[name])
    return Reading(**known, cost_source=_cost_source(said))


def reconciled(reading: Reading | None, said: Reading | None) -> Reading | None:
    """Return `reading` with the counts and the cost that the caller says in their place."""
    if reading is None:
        return said
    said = said or Reading()
    return replace(
        said,
        model=said.model or reading.model,
        response_id=said.response_id or reading.response_id,
        provider=reading.provider,
        kind=reading.kind,
        outcome=reading.outcome,
        error_type=reading.error_type,
        error_message=reading.error_message,
        source=reading.source,
        details=reading.details if said.details is None else (reading.details or {}) | said.details,
        attempt=reading.attempt,
    )


def renamed(said: Reading, later: Reading) -> Reading:
    """Return what was said, under the names that were said later."""
    return replace(
        said,
        model=later.model or said.model,
        response_id=later.response_id or said.response_id,
    )


def judged(reading: Reading | None, *, succeeded: bool) -> Reading | None:
    """Return `reading` with the outcome that `success=` says in its place."""
    if succeeded and reading is None:
        return None
    return replace(
        reading or Reading(),
        outcome=None if succeeded else "error",
        error_type=None if succeeded else "unsuccessful",
        error_message=None,
        is_plain=False,
    )


def kind_name(kind: type) -> str:
    """Return the class's `__qualname__`."""
    return str(_name_of(kind))


def is_cancellation(kind: type) -> bool:
    """Tell whether exceptions of this class say that asyncio, trio or a future was cancelled."""
    return any(
        kind_name(base) in _CANCELLATIONS and str(_module_of(base)).partition(".")[0] in _HOMES
        for base in _bases_of(kind)
    )


def truth(judge: Callable[[Any], object], result: Any) -> bool:
    """Return what `success=` says of `result`."""
    return bool(judge(result))


def _usage(fields: Any) -> Usage:
    try:
        return Usage(**fields)
    except TypeError as error:
        raise TypeError(f"{error}: {_A_USAGE}") from None


def _name(value: Any) -> str | None:
    """Return a name as text; an empty one is none."""
    return value or None if value is None or isinstance(value, str) else shown(value)


def _cost_source(said: Usage) -> str | None:
    if said.cost_usd is None:
        return None
    # what usage= was given and hands on is still the provider's price
    source = said.cost_source if isinstance(said, Reading) else None
    return source or "caller"
