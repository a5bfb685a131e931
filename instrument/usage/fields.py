"""Looking into results of any kind without running the program's code, and sums of counts."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from instrument.usage.reading import Fields, Reader, Reading

__all__ = [
    "NOTHING",
    "USAGE_DETAILS",
    "USUAL_TIERS",
    "USUAL_TIERS_OR_NONE",
    "added",
    "amounts",
    "by_fields",
    "failure",
    "fields_of",
    "first",
    "part",
    "text",
    "usage_details",
    "whole",
]

NOTHING: Fields = MappingProxyType({})

USAGE_DETAILS = "usage_details"
"""The key of what a price depends on beside the counts."""

_MOST = 10**12
_NONE: dict[str, Any] = {}
_KINDS_OF_CACHED = frozenset(f"cache_{kind}_read_tokens" for kind in ("audio", "image", "video"))
USUAL_TIERS = frozenset({"auto", "default", "on_demand", "standard"})
USUAL_TIERS_OR_NONE: frozenset[Any] = USUAL_TIERS | {None}
"""How services say that a request was served as usual."""


def fields_of(value: Any) -> Fields | None:
    """Return the names and values in a dict or an object, `None` for anything else.

    Extra fields that a pydantic model keeps apart are included. A dict of another class is copied,
    because its own methods may do anything; so may those of any other mapping, which says nothing.
    """
    if type(value) is dict:
        return value
    if isinstance(value, dict):
        return dict(dict.items(value))  # `dict.copy` asks some of them for their values
    try:
        own = value.__dict__
    except AttributeError:
        return _without_dict(value)
    if type(own) is not dict:
        return None
    if hasattr(type(value), "__pydantic_extra__"):
        extra = value.__pydantic_extra__
        return {**own, **extra} if extra else own
    return own or _without_dict(value)


def by_fields(read: Callable[[Fields], Reading | None]) -> Reader:
    """Return a reader for any result that `fields_of` can look into."""

    def read_object(result: Any) -> Reading | None:
        fields = fields_of(result)
        return None if fields is None else read(fields)

    return read_object


def part(fields: Fields, name: str) -> Fields | None:
    """Return what `fields_of` says of one field."""
    value = fields.get(name)
    return None if value is None else fields_of(value)


def text(value: Any) -> str | None:
    """Return the value if it is a text that says something."""
    return value if type(value) is str and value else None


def first(*values: Any) -> Any:
    """Return the first value that is reported."""
    for value in values:
        if value is not None:
            return value
    return None


def added(*counts: Any) -> Any:
    """Return the sum of the counts that are reported, `None` if none is.

    An impossible count comes back itself, so that whoever validates the sum can name it.
    """
    total: int | None = None
    for count in counts:
        if count is None:
            continue
        if type(count) is not int or count < 0:
            return count
        total = count if total is None else total + count
    return total


def amounts(**reported: Any) -> dict[str, Any] | None:
    """Return the amounts that are reported and possible, `None` if there is none."""
    possible = {
        name: whole(amount)
        for name, amount in reported.items()
        if type(amount) in (int, float) and 0 <= amount <= _MOST
    }
    return possible or None


def usage_details(tier: Any = None, **reported: Any) -> dict[str, Any] | None:
    """Return as details what of a response's usage has a price of its own, `None` if nothing has.

    Counts of zero say nothing, except of which kind cached tokens are. `tier` is that of the
    service, if it is not the usual one.
    """
    known = amounts(**reported) or _NONE
    found = {name: count for name, count in known.items() if count or name in _KINDS_OF_CACHED}
    if text(tier) is not None and tier not in USUAL_TIERS:
        found["service_tier"] = tier
    return {USAGE_DETAILS: found} if any(found.values()) else None


def whole(value: Any) -> Any:
    """Return a float without a fraction as an integer, and any other value as it is."""
    return int(value) if type(value) is float and value.is_integer() else value


def failure(error: Any, *names: str) -> tuple[str, str | None]:
    """Return type and message of an error object; the type is the first field named that is set."""
    fields = fields_of(error) or NOTHING
    codes = (fields.get(name) for name in names)
    code = next((code for code in codes if type(code) in (str, int) and code), None)
    message = text(fields.get("message")) or text(error)
    return str(code or "error"), message


def _without_dict(value: Any) -> Fields | None:
    names = getattr(type(value), "__struct_fields__", None) or getattr(
        type(value), "__slots__", None
    )
    if type(names) is not tuple:
        return None
    return {name: getattr(value, name) for name in names if hasattr(value, name)}
