"""Anthropic's Messages API, and what is compatible with it."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from instrument.usage import batches, http
from instrument.usage.adding import folded
from instrument.usage.families import read_document
from instrument.usage.fields import (
    NOTHING,
    USAGE_DETAILS,
    USUAL_TIERS,
    USUAL_TIERS_OR_NONE,
    added,
    by_fields,
    failure,
    fields_of,
    part,
    text,
    usage_details,
)
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass
from instrument.usage.tool_counts import Counts, summed

__all__ = [
    "CLASSES",
    "PLAIN",
    "STREAMS",
    "details_of",
    "matches",
    "new_merge",
    "read",
    "streams",
]

_COUNTS = (
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "cache_creation",
    "inference_geo",
    "iterations",
    "server_tool_use",
    "service_tier",
    "speed",
)
_ANSWERS = frozenset({"fallback_message", "message"})
_APART = frozenset({"advisor_message", "compaction"})
_USUAL_PLACES = (None, "global", "not_available")
_EMPTY: dict[str, Any] = {}
_EVENTS = frozenset(
    {
        "content_block_delta",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_start",
        "message_stop",
    }
)


def matches(fields: Fields) -> bool:
    """Tell whether this is a message, an error, or a usage that counts its cache apart.

    A usage with a total or with `prompt_tokens` beside Anthropic's names (LiteLLM, Qwen) already
    includes the cache, and is not matched.
    """
    if fields.get("type") == "error":
        return part(fields, "error") is not None
    usage = part(fields, "usage")
    if usage is None or "total_tokens" in usage or "prompt_tokens" in usage:
        return False
    if "cache_read_input_tokens" in usage or "cache_creation_input_tokens" in usage:
        return "input_tokens" in usage
    return fields.get("type") == "message" and "input_tokens" in usage


def read(fields: Fields) -> Reading:
    """Read a whole message; its input counts come without the cached tokens, which are added.

    They leave out what an adviser took, and the compaction of the context. Then what counts are
    the iterations, all of them, for of several that answered the input is that of the first.
    """
    usage = part(fields, "usage") or NOTHING
    own = _read_own(fields, usage)
    return _with_iterations(own, usage) if usage.get("iterations") else own


def _read_own(fields: Fields, usage: Fields) -> Reading:
    new, cache_read = usage.get("input_tokens"), usage.get("cache_read_input_tokens")
    cache_write = usage.get("cache_creation_input_tokens")
    details = part(usage, "output_tokens_details") or NOTHING
    return Reading(
        None if new is None else added(new, cache_read, cache_write),
        usage.get("output_tokens"),
        cache_read,
        cache_write,
        details.get("thinking_tokens"),
        None,
        None,
        text(fields.get("model")),
        text(fields.get("id")),
        "anthropic",
        "chat",
        *_failure(fields),
        None,
        fields.get("usage") if usage else None,
        details_of(usage),
    )


def _with_iterations(own: Reading, usage: Fields) -> Reading:
    """Return the sum; models that differ have prices that do, so each has its share in details."""
    iterations = usage["iterations"]
    entries = (
        [fields_of(each) or NOTHING for each in iterations] if type(iterations) is list else []
    )
    kinds = [text(entry.get("type")) for entry in entries]
    if _APART.isdisjoint(kinds):
        return own
    served = {name: usage.get(name) for name in ("inference_geo", "service_tier", "speed")}
    parts = [] if _ANSWERS.intersection(kinds) else [own]
    # the model that answered is called by its full name at the top alone
    named = {"advisor_message"} | ({"message"} if "fallback_message" in kinds else set())
    parts += [
        _read_own(
            {"model": (text(entry.get("model")) if kind in named else None) or own.model},
            {**entry, **served},
        )
        for kind, entry in zip(kinds, entries, strict=True)
        if kind in _APART or kind in _ANSWERS
    ]
    (whole,) = folded(parts)
    details = dict(whole.details or {})
    if own.details is not None:
        details[USAGE_DETAILS] = own.details[USAGE_DETAILS] | details.get(USAGE_DETAILS, {})
    if whole.model is None and own.model is not None:
        details["models"] = _by_model(parts)
    return replace(
        own,
        input_tokens=whole.input_tokens,
        output_tokens=whole.output_tokens,
        cache_read_tokens=whole.cache_read_tokens,
        cache_write_tokens=whole.cache_write_tokens,
        model=whole.model,
        details=details or None,
    )


def _by_model(parts: list[Reading]) -> dict[str, dict[str, Any]]:
    shares: dict[str, list[Counts]] = {}
    for each in parts:
        counts = (getattr(each, name) for name in Counts._fields[:5])
        shares.setdefault(each.model or "unknown", []).append(Counts(*counts))
    return {name: summed(several).known() for name, several in shares.items()}


def details_of(usage: Fields) -> dict[str, Any] | None:
    """Return what of a usage costs more or less than its counts say.

    A place of inference has its own price, which no list knows.
    """
    written, tools = part(usage, "cache_creation"), part(usage, "server_tool_use")
    tier, speed, place = (
        text(usage.get(name)) for name in ("service_tier", "speed", "inference_geo")
    )
    if speed is not None and speed not in USUAL_TIERS:
        tier = speed if tier is None or tier in USUAL_TIERS else f"{tier} {speed}"
    if place not in _USUAL_PLACES:
        tier = f"{tier or 'standard'} {place}"
    return usage_details(
        tier,
        cache_write_1h_tokens=(written or NOTHING).get("ephemeral_1h_input_tokens"),
        web_searches=(tools or NOTHING).get("web_search_requests"),
    )


read_object: Reader = by_fields(read)


def read_message(message: Any) -> Reading | None:
    """Read an SDK's message at once if it is complete and plain, else as `read` does."""
    try:
        fields = message.__dict__
        usage, model, response_id = fields["usage"], fields["model"], fields["id"]
        counts = usage.__dict__
        new, cached = counts["input_tokens"], counts["cache_read_input_tokens"]
        written, details = counts["cache_creation_input_tokens"], counts["output_tokens_details"]
        lasting = counts["cache_creation"]
        if (
            message.__pydantic_extra__
            or usage.__pydantic_extra__
            or "error" in fields
            or (lasting is not None and lasting.__dict__["ephemeral_1h_input_tokens"])
            or counts["server_tool_use"] is not None
            or counts["inference_geo"] is not None
            or counts["service_tier"] not in USUAL_TIERS_OR_NONE
            or counts["speed"] not in USUAL_TIERS_OR_NONE
            or counts.get("iterations")
        ):
            return read_object(message)
        if type(new) is type(cached) is type(written) is int and new | cached | written >= 0:
            whole = new + cached + written
        elif cached is None and written is None:
            whole = new
        else:
            return read_object(message)
        if type(model) is not str or type(response_id) is not str or not model or not response_id:
            return read_object(message)
        if details is None:
            thinking = None
        elif details.__pydantic_extra__:
            return read_object(message)
        else:
            thinking = details.__dict__["thinking_tokens"]
        output = counts["output_tokens"]
    except (AttributeError, KeyError, TypeError):
        return read_object(message)
    return Reading(
        whole,
        output,
        cached,
        written,
        thinking,
        None,
        None,
        model,
        response_id,
        "anthropic",
        "chat",
        source=usage,
    )


def read_plain(fields: dict[str, Any]) -> Reading | None:
    """Do the same for a dict."""
    try:
        usage, model, response_id = fields["usage"], fields["model"], fields["id"]
        if type(usage) is not dict or "total_tokens" in usage or "prompt_tokens" in usage:
            return read_document(fields)
        new, cached = usage["input_tokens"], usage["cache_read_input_tokens"]
        written = usage["cache_creation_input_tokens"]
        lasting = usage.get("cache_creation") or _EMPTY
        if (
            "error" in fields
            or "status" in fields
            or "ResponseMetadata" in fields
            or type(lasting) is not dict
            or lasting.get("ephemeral_1h_input_tokens")
            or usage.get("server_tool_use") is not None
            or usage.get("inference_geo") is not None
            or usage.get("service_tier") not in USUAL_TIERS_OR_NONE
            or usage.get("speed") not in USUAL_TIERS_OR_NONE
            or usage.get("iterations")
        ):
            return read_document(fields)
        if type(new) is type(cached) is type(written) is int and new | cached | written >= 0:
            whole = new + cached + written
        elif cached is None and written is None:
            whole = new
        else:
            return read_document(fields)
        if type(model) is not str or type(response_id) is not str or not model or not response_id:
            return read_document(fields)
        output, details = usage["output_tokens"], usage.get("output_tokens_details")
        if details is None:
            thinking = None
        elif type(details) is dict:
            thinking = details.get("thinking_tokens")
        else:
            return read_document(fields)
    except (KeyError, TypeError):
        return read_document(fields)
    return Reading(
        whole,
        output,
        cached,
        written,
        thinking,
        None,
        None,
        model,
        response_id,
        "anthropic",
        "chat",
        source=usage,
    )


def streams(fields: Fields) -> bool:
    """Tell whether this is an event of a message stream, or a whole message."""
    return text(fields.get("type")) in _EVENTS or matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge in which each count that is not null replaces the one before.

    The counts of `message_delta` are cumulative, so they are never added.
    """
    return _Merge()


class _Merge:
    __slots__ = ("_message", "_source", "_usage")

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._source: Any = None

    def add(self, fields: Fields) -> bool:
        kind = fields.get("type")
        if kind == "message_delta":
            self._count(fields)
        elif kind == "message_start":
            return self._start(part(fields, "message") or NOTHING)
        elif kind == "error":
            self._message["error"] = fields.get("error") or "error"
        elif "usage" in fields:
            return self._start(fields)
        return True

    def reading(self) -> Reading | None:
        if not self._message and not self._usage:
            return None
        return replace(read({**self._message, "usage": self._usage}), source=self._source)

    def _start(self, message: Fields) -> bool:
        if self._message and message.get("id") != self._message.get("id"):
            return False
        self._message.update(id=message.get("id"), model=message.get("model"))
        self._count(message)
        return True

    def _count(self, fields: Fields) -> None:
        usage = part(fields, "usage") or NOTHING
        for name in _COUNTS:
            value = usage.get(name)
            if value is not None:
                self._usage[name] = value
                self._source = fields["usage"]


def _failure(fields: Fields) -> tuple[str | None, str | None, str | None]:
    error = fields.get("error")
    return ("error", *failure(error, "type")) if error else (None, None, None)


CLASSES: dict[str, Reader] = {
    "APIResponse": http.read_wrapped,
    "AsyncAPIResponse": http.read_wrapped,
    "BetaMessage": read_message,
    "LegacyAPIResponse": http.read_wrapped,
    "Message": read_message,
    "BetaMessageBatchIndividualResponse": batches.read_object,
    "MessageBatchIndividualResponse": batches.read_object,
}

WHOLE = frozenset({"BetaMessageBatchIndividualResponse", "MessageBatchIndividualResponse"})
"""The classes of what comes in streams and is no chunk, but a whole response each."""

PLAIN: dict[str, Reader] = {"message": read_plain}

_STREAM = StreamClass("_iterator", is_async=False)
_ASYNC_STREAM = StreamClass("_iterator", is_async=True)
_MANAGER = StreamClass(None, is_async=False)
_ASYNC_MANAGER = StreamClass(None, is_async=True)
_MESSAGES = "anthropic.lib.streaming._messages"
_BETA = "anthropic.lib.streaming._beta_messages"

STREAMS: dict[tuple[str, str], StreamClass] = {
    ("anthropic", "Stream"): _STREAM,
    ("anthropic", "AsyncStream"): _ASYNC_STREAM,
    ("anthropic._streaming", "Stream"): _STREAM,
    ("anthropic._streaming", "AsyncStream"): _ASYNC_STREAM,
    ("anthropic._decoders.jsonl", "JSONLDecoder"): _STREAM,
    ("anthropic._decoders.jsonl", "AsyncJSONLDecoder"): _ASYNC_STREAM,
    ("anthropic._response", "ResponseContextManager"): _MANAGER,
    ("anthropic._response", "AsyncResponseContextManager"): _ASYNC_MANAGER,
    (_MESSAGES, "MessageStream"): _STREAM,
    (_MESSAGES, "AsyncMessageStream"): _ASYNC_STREAM,
    (_MESSAGES, "MessageStreamManager"): _MANAGER,
    (_MESSAGES, "AsyncMessageStreamManager"): _ASYNC_MANAGER,
    (_BETA, "BetaMessageStream"): _STREAM,
    (_BETA, "BetaAsyncMessageStream"): _ASYNC_STREAM,
    (_BETA, "BetaMessageStreamManager"): _MANAGER,
    (_BETA, "BetaAsyncMessageStreamManager"): _ASYNC_MANAGER,
}
