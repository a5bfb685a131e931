"""Whose usage a response is: what operations tell those around them that they have counted."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from operator import attrgetter
from typing import Any, Protocol

from instrument.usage.reading import Reading

__all__ = ["Claimant", "owner_of"]

_CLAIMS_KEPT = 10_000
_LATEST = "latest"
_ENVELOPE = "envelope"
_ALIKE = "alike"
_ALIKE_KEPT = 1_000
_said = attrgetter(
    "model",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "total_tokens",
)


class Claimant(Protocol):
    """An operation as claims see it.

    `claims` maps what a response is known by to the object that must be the same, if any (of its
    counts, to its model), and to who counted it.
    """

    id: str
    claims: Any
    parent: Any


def owner_of(operation: Claimant, reading: Reading, result: Any) -> str | None:
    """Return whose usage this is: an operation's that ran inside this one, or `None`, its own.

    Its own is claimed on every operation around. A response is known by its id, a run of a tool
    by its conversation and counts, without any of them by its `source`; where its reading has
    none, by `result`, of which only the latest is kept. Of one that a library in between has
    renamed, what was counted inside is known by model and counts, and so is what was taken out of
    an envelope that was counted. A result without an id that the program has made of a response
    which has one is known by the `source` in it, or if that is a copy by model and counts of the
    latest response. A copy of one without an id is known by these too, and once for each that was
    counted inside.
    """
    claims, counts = operation.claims, _counts(reading)
    key: Any = reading.response_id or _conversation(reading, counts)
    same = None
    if key is None:
        key, same = _known_by(reading.source, result)
        if key is None and same is None:
            return None
    if claims:
        claim = claims.get(key)
        if claim is not None and claim[0] is same:
            _taken(claims, reading)
            return str(claim[1])
        claim = None if counts is None else _claim_on_counts(claims, reading, counts)
        if claim is None and reading.response_id is None:
            claim = _claim_on_copied(claims, reading)
        if claim is not None:
            return str(claim[1])
    above = operation.parent
    while above is not None:
        _claim(above.claims, key, (same, operation.id))
        if counts is not None:
            _claim_counts(above.claims, reading, counts, operation.id)
        if reading.response_id is not None:
            _claim_source(above.claims, reading, operation.id)
        else:
            _claim_alike(above.claims, reading, operation.id)
        above = above.parent
    return None


def _claim_on_counts(claims: Any, reading: Reading, counts: tuple[Any, ...]) -> Any:
    """Return the claim on a response with these counts, if its id may not be the one claimed."""
    claim = claims.get((_ENVELOPE, *counts))
    if claim is None and reading.is_renamed:
        claim = claims.get(counts)
    if claim is None or reading.model is None or claim[0] in (None, reading.model):
        return claim
    return None


def _claim_counts(claims: Any, reading: Reading, counts: tuple[Any, ...], owner: str) -> None:
    _claim(claims, counts, (reading.model, owner))
    if reading.is_envelope:
        _claim(claims, (_ENVELOPE, *counts), (reading.model, owner))


def _claim_source(claims: dict[Any, Any], reading: Reading, owner: str) -> None:
    """Claim a response by what it holds, too: the program may take it out of there."""
    claims[_LATEST] = (_said(reading), owner)
    key, same = _known_by(reading.source, None)
    if key is not None:
        _claim(claims, key, (same, owner))


def _claim_alike(claims: dict[Any, Any], reading: Reading, owner: str) -> None:
    """Claim the counts of a response without an id, for it may be copied."""
    key = _alike(reading)
    if key is None:
        return
    if key not in claims:
        _claim(claims, key, deque(maxlen=_ALIKE_KEPT))
    with suppress(KeyError):  # another thread's claim took its place
        claims[key].append((reading.model, owner))


def _claim_on_copied(claims: dict[Any, Any], reading: Reading) -> Any:
    """Return the claim on what this says of model and counts, without having an id itself."""
    latest = claims.get(_LATEST)
    return latest if _is_copy(reading, latest) else _taken(claims, reading)


def _taken(claims: dict[Any, Any], reading: Reading) -> Any:
    """Return one of the claims on what is alike, which then is no more; `None` if there is none."""
    key = _alike(reading)
    alike: Any = () if key is None else claims.get(key, ())
    with suppress(RuntimeError, ValueError):  # another thread takes it, too
        for claim in alike:
            if reading.model in (None, claim[0]):
                alike.remove(claim)
                return claim
    return None


def _alike(reading: Reading) -> Any:
    """Return the counts of a response that nothing names; `None` if it has a name, or none.

    A total alone may be that of many.
    """
    if reading.response_id is not None or not _is_plain(reading):
        return None
    if reading.input_tokens is None and reading.output_tokens is None:
        return None
    if _conversation(reading, _counts(reading)) is not None:
        return None
    return (_ALIKE, *_said(reading)[1:])


def _is_plain(reading: Reading) -> bool:
    """Tell whether there are counts, and nothing impossible among them."""
    counts = [each for each in _said(reading)[1:] if each is not None]
    return bool(counts) and all(type(each) is int for each in counts)


def _is_copy(reading: Reading, latest: tuple[tuple[Any, ...], str] | None) -> bool:
    """Tell whether all that this says of model and counts is what the latest response said."""
    if latest is None or not _is_plain(reading):
        return False
    pairs = zip(_said(reading), latest[0], strict=True)
    return all(ours is None or ours == theirs for ours, theirs in pairs)


def _counts(reading: Reading) -> tuple[Any, ...] | None:
    """Return what tells a response from others when its id does not, `None` if nothing does."""
    if type(reading.input_tokens) is not int or type(reading.output_tokens) is not int:
        return None
    return reading.input_tokens, reading.output_tokens


def _conversation(reading: Reading, counts: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Return what tells a tool's run from others, in whatever form its output is read."""
    if reading.details is None or counts is None:
        return None
    conversation = reading.details.get("conversation_id")
    return None if conversation is None else (conversation, *counts)


def _known_by(source: Any, result: Any) -> tuple[Any, Any]:
    """Return the key of a response without an id, and the object that must be the same.

    An address says nothing once its object is freed, so what is known by it is kept, except
    text, which may be long: the text at an address is the same one if it has the same hash.
    """
    if source is None:
        return None, result
    if type(source) is str or type(source) is bytes:
        return (id(source), hash(source)), None
    return id(source), source


def _claim(claims: dict[Any, Any], key: Any, claim: Any) -> None:
    if len(claims) >= _CLAIMS_KEPT and key not in claims:
        with suppress(RuntimeError):  # another thread's claim, in between
            claims.pop(next(iter(claims)), None)
    claims[key] = claim
