"""Whose usage a response is: what operations tell those around them that they have counted."""

from __future__ import annotations

from typing import Any, Protocol

from instrument.usage.reading import Reading

__all__ = ["Claimant", "owner_of", "owners_of"]

_CLAIMS_KEPT = 10_000


class Claimant(Protocol):
    """An operation as claims see it: `claims` maps a response's id, or `None` for the latest
    result without one, to who counted it."""

    id: str
    claims: Any
    parent: Any


def owner_of(operation: Claimant, reading: Reading, result: Any) -> str | None:
    """Return whose usage this is: an operation's that ran inside this one, or `None`, its own.

    Its own is claimed on every operation around.
    """
    claims, key = operation.claims, reading.response_id
    if claims:
        if key is not None:
            owner = claims.get(key)
            if owner is not None:
                return str(owner)
        elif None in claims and claims[None][0] is result and result is not None:
            return str(claims[None][1])
    above = operation.parent
    while above is not None:
        _claim(above.claims, key, result, operation.id)
        above = above.parent
    return None


def owners_of(operation: Claimant, parts: tuple[Reading, ...]) -> list[str | None]:
    """Do the same for each of several responses; one without an id is the operation's own."""
    return [None if part.response_id is None else owner_of(operation, part, None) for part in parts]


def _claim(claims: dict[Any, Any], key: str | None, result: Any, owner: str) -> None:
    if key is None:
        claims[None] = (result, owner)
        return
    if len(claims) >= _CLAIMS_KEPT:
        claims.pop(next(iter(claims)), None)
    claims[key] = owner
