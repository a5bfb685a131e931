"""Cohere's Chat, Embed, Rerank and Classify, by the units that are billed."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from instrument.usage.families import read_document
from instrument.usage.fields import (
    NOTHING,
    added,
    amounts,
    by_fields,
    fields_of,
    first,
    part,
    text,
    whole,
)
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "PLAIN", "STREAMS", "matches", "new_merge", "read", "streams"]

_UNITS = (
    "input_tokens",
    "output_tokens",
    "search_units",
    "classifications",
    "images",
    "image_tokens",
    "text_tokens",
)
_KINDS = {
    "embeddings": "embeddings",
    "results": "rerank",
    "generations": "text_completion",
    "message": "chat",
    "text": "chat",
}
_FAILURES = frozenset({"ERROR", "ERROR_LIMIT", "ERROR_TOXIC", "TIMEOUT"})
_PLAIN = frozenset({"finish_reason", "id", "message", "usage"})
_PLAIN_USAGE = frozenset({"billed_units", "cached_tokens", "tokens"})
_KEPT = ("id", "error", "finish_reason", "generation_id", "meta", "usage")
_FIRST, _LAST = ("message-start", "stream-start"), ("message-end", "stream-end")


def matches(fields: Fields) -> bool:
    """Tell whether the usage, or the meta in its place, counts Cohere's units."""
    units = _units(_usage(fields))
    return any(name in units for name in _UNITS)


def read(fields: Fields) -> Reading:
    """Read a whole response.

    Billed units count, not the tokens with what Cohere itself put around the prompt; those stand
    in where nothing is said of billing. Cached tokens are part of the prompt, and left out where
    there are more of them than billed ones.
    """
    usage = _usage(fields)
    units = _units(usage)
    input_tokens = whole(units.get("input_tokens"))
    if input_tokens is None:
        input_tokens = added(whole(units.get("text_tokens")), whole(units.get("image_tokens")))
    cached = whole(usage.get("cached_tokens"))
    return Reading(
        input_tokens,
        whole(units.get("output_tokens")),
        None if _is_more(cached, input_tokens) else cached,
        None,
        None,
        None,
        None,
        None,
        _response_id(fields),
        "cohere",
        _kind(fields),
        *_failure(fields),
        None,
        first(fields.get("usage"), fields.get("meta")) if units else None,
        amounts(
            search_units=units.get("search_units"),
            classifications=units.get("classifications"),
            images=units.get("images"),
        ),
    )


read_object: Reader = by_fields(read)


def read_chat(response: Any) -> Reading | None:
    """Read a `V2ChatResponse` at once if it is complete and plain, else as `read` does."""
    try:
        fields = response.__dict__
        usage, response_id = fields["usage"], fields["id"]
        if response.__pydantic_extra__ or "message" not in fields:
            return read_object(response)
        if usage.__pydantic_extra__ or fields["finish_reason"] in _FAILURES:
            return read_object(response)
        counts = usage.__dict__
        units, cached = counts["billed_units"], counts["cached_tokens"]
        if units.__pydantic_extra__ or type(response_id) is not str or not response_id:
            return read_object(response)
        billed = units.__dict__
        new, output = billed["input_tokens"], billed["output_tokens"]
        if billed["search_units"] is not None or billed["classifications"] is not None:
            return read_object(response)
        if type(new) is not float or type(output) is not float:
            return read_object(response)
        whole_new, whole_output, whole_cached = int(new), int(output), None
        if whole_new != new or whole_output != output:
            return read_object(response)
        if cached is not None:
            whole_cached = int(cached)
            if type(cached) is not float or whole_cached != cached or cached > new:
                return read_object(response)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return read_object(response)
    return Reading(
        whole_new,
        whole_output,
        whole_cached,
        None,
        None,
        None,
        None,
        None,
        response_id,
        "cohere",
        "chat",
        source=usage,
    )


def read_plain(fields: dict[str, Any]) -> Reading | None:
    """Do the same for a dict, whose counts are integers."""
    try:
        usage, response_id = fields["usage"], fields["id"]
        if type(usage) is not dict or not _PLAIN.issuperset(fields) or "message" not in fields:
            return read_document(fields)
        units, cached = usage["billed_units"], usage.get("cached_tokens")
        if type(units) is not dict or len(units) != 2 or not _PLAIN_USAGE.issuperset(usage):
            return read_document(fields)
        new, output = units["input_tokens"], units["output_tokens"]
        if type(new) is not int or type(output) is not int or fields["finish_reason"] in _FAILURES:
            return read_document(fields)
        if cached is not None and (type(cached) is not int or cached > new):
            return read_document(fields)
        if type(response_id) is not str or not response_id:
            return read_document(fields)
    except (KeyError, TypeError):
        return read_document(fields)
    return Reading(
        new,
        output,
        cached,
        None,
        None,
        None,
        None,
        None,
        response_id,
        "cohere",
        "chat",
        source=usage,
    )


def read_raw(response: Any) -> Reading | None:
    """Read what `with_raw_response` gives by the response inside."""
    data = (fields_of(response) or NOTHING).get("_data")
    read_data = CLASSES.get(type(data).__name__)
    return None if read_data is None or read_data is read_raw else read_data(data)


def streams(fields: Fields) -> bool:
    """Tell whether this begins or ends a stream's message, or is a whole response."""
    event = _event(fields)
    if event in _FIRST:
        return text(fields.get("id")) is not None or "generation_id" in fields
    if event in _LAST:
        return part(fields, "delta") is not None or part(fields, "response") is not None
    return matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that takes the usage from the event that ends the message."""
    return _Merge()


class _Merge:
    __slots__ = ("_id", "_last", "_source")

    def __init__(self) -> None:
        self._id: str | None = None
        self._last: dict[str, Any] | None = None
        self._source: Any = None

    def add(self, fields: Fields) -> bool:
        event = _event(fields)
        if event in _LAST:
            self._end(part(fields, "delta") or part(fields, "response") or NOTHING)
        elif event in _FIRST or matches(fields):
            return self._begin(fields, is_whole=event not in _FIRST)
        return True

    def reading(self) -> Reading | None:
        if self._id is None and self._last is None:
            return None
        found = read(self._last or NOTHING)
        return replace(found, response_id=found.response_id or self._id, kind=found.kind or "chat")

    def _begin(self, fields: Fields, *, is_whole: bool) -> bool:
        identity = _response_id(fields)
        if (self._last is not None or self._id is not None) and identity != self._id:
            return False
        if is_whole and self._last is not None and identity is None:
            return False
        self._id = identity
        if is_whole:
            self._end(fields)
        return True

    def _end(self, message: Fields) -> None:
        """Keep what says something, and of what the model produced that it was there."""
        self._last = {name: message[name] for name in _KEPT if name in message}
        self._last.update({name: True for name in _KINDS if name in message})


def _usage(fields: Fields) -> Fields:
    return part(fields, "usage") or part(fields, "meta") or NOTHING


def _units(usage: Fields) -> Fields:
    return part(usage, "billed_units") or part(usage, "tokens") or NOTHING


def _is_more(count: Any, than: Any) -> bool:
    return type(count) is int and type(than) is int and count > than


def _event(fields: Fields) -> str | None:
    return text(fields.get("type")) or text(fields.get("event_type"))


def _response_id(fields: Fields) -> str | None:
    return text(fields.get("id")) or text(fields.get("generation_id"))


def _kind(fields: Fields) -> str | None:
    return next((kind for name, kind in _KINDS.items() if name in fields), None)


def _failure(fields: Fields) -> tuple[str | None, str | None, str | None]:
    reason = text(fields.get("finish_reason"))
    if reason not in _FAILURES:
        return None, None, None
    return "error", reason.lower(), text(fields.get("error"))


CLASSES: dict[str, Reader] = {
    "AsyncHttpResponse": read_raw,
    "ClassifyResponse": read_object,
    "EmbedByTypeResponse": read_object,
    "EmbedFloatsResponse": read_object,
    "EmbeddingsByTypeEmbedResponse": read_object,
    "EmbeddingsFloatsEmbedResponse": read_object,
    "Generation": read_object,
    "HttpResponse": read_raw,
    "NonStreamedChatResponse": read_object,
    "RerankResponse": read_object,
    "V2ChatResponse": read_chat,
    "V2RerankResponse": read_object,
}

PLAIN: dict[str, Reader] = {"finish_reason": read_plain}

STREAMS: dict[tuple[str, str], StreamClass] = {}
