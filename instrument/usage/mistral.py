"""Mistral's SDK: OpenAI's shapes, and counts in them that the SDK has no fields for."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from instrument.usage import openai
from instrument.usage.fields import (
    NOTHING,
    amounts,
    by_fields,
    fields_of,
    part,
    text,
    usage_details,
)
from instrument.usage.plain import read_chat_fields
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "matches", "new_merge", "read", "streams"]

_DEFAULTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_READ = ("id", "model", "object", "status", "error")
_DESCRIBED = ("model", "object", "error", "usage")
_FAILED = "conversation.response.error"


def matches(fields: Fields) -> bool:
    """Tell whether this is a response that only Mistral gives: one of a conversation."""
    return fields.get("object") == "conversation.response" and part(fields, "usage") is not None


def read(fields: Fields) -> Reading:
    """Read a whole response; counts are inclusive, as OpenAI's are."""
    usage = _usage(fields)
    found = openai.read(
        {**{name: fields.get(name) for name in _READ}, "usage": usage}, "mistral_ai"
    )
    return replace(
        found,
        kind=found.kind or _kind(fields),
        model=found.model or _model_of_outputs(fields),
        source=fields.get("usage") if usage else None,
        details={**(found.details or {}), **_heard(usage)} or None,
    )


read_object: Reader = by_fields(read)


def read_chat(response: Any) -> Reading | None:
    """Read a `ChatCompletionResponse` at once if it is plain, else as `read` does."""
    try:
        fields = response.__dict__
        usage = fields["usage"]
        counts, extra = usage.__dict__, usage.__pydantic_extra__
        if response.__pydantic_extra__ or type(extra) is not dict:
            return read_object(response)
        seconds = type(counts["prompt_audio_seconds"])
        if seconds is int or seconds is float:
            return read_object(response)
        if "prompt_tokens_details" in counts or "completion_tokens_details" in counts:
            return read_object(response)
        # zeros may be those that the SDK puts where nothing is said
        if not counts["prompt_tokens"] or not counts["completion_tokens"]:
            return read_object(response)
        if not counts["total_tokens"]:
            return read_object(response)
    except (AttributeError, KeyError):
        return read_object(response)
    return read_chat_fields(fields, counts, extra, usage, "mistral_ai", read_object, response)


def streams(fields: Fields) -> bool:
    """Tell whether this is an event, in which the SDK wraps each chunk, or a whole response."""
    inner = part(fields, "data") if "data" in fields else None
    if inner is None:
        return matches(fields)
    return inner.get("object") == "chat.completion.chunk" or _is_of_conversation(inner)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that keeps the last usage and what describes the response."""
    return _Merge()


class _Merge:
    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}

    def add(self, fields: Fields) -> bool:
        inner = part(fields, "data") or fields
        identity, known = _response_id(inner), self._last.get("id")
        if identity and known and identity != known:
            return False
        if inner.get("type") == _FAILED:
            self._last["error"] = dict(inner)
        new = {name: inner.get(name) for name in _DESCRIBED}
        new.update(id=identity, outputs="outputs" in inner)
        new["model"] = new["model"] or _model_of_outputs(inner)
        self._last.update({name: value for name, value in new.items() if value})
        return True

    def reading(self) -> Reading | None:
        return read(self._last) if self._last else None


def _heard(usage: Fields) -> dict[str, Any]:
    """Return how long the audio was, which has a price of its own."""
    seconds = usage.get("prompt_audio_seconds")
    found = amounts(audio_seconds=seconds) or {}
    return found | (usage_details(input_audio_seconds=seconds) or {})


def _usage(fields: Fields) -> Fields:
    """Return the usage without the zeros that the SDK puts where the response says nothing."""
    usage = fields.get("usage")
    found = fields_of(usage) or NOTHING
    if not hasattr(type(usage), "__pydantic_fields_set__"):
        return found
    given = getattr(usage, "__pydantic_fields_set__", _DEFAULTS)
    filled = [name for name in _DEFAULTS if name not in given and found.get(name) == 0]
    return {name: found[name] for name in found if name not in filled} if filled else found


def _response_id(fields: Fields) -> Any:
    """Return the id of a response; an event of a conversation has the id of an entry in it."""
    return fields.get("id") if "choices" in fields or "usage" in fields else None


def _is_of_conversation(fields: Fields) -> bool:
    return (text(fields.get("type")) or "").startswith("conversation.response.")


def _kind(fields: Fields) -> str | None:
    return "chat" if "outputs" in fields or "choices" in fields else None


def _model_of_outputs(fields: Fields) -> str | None:
    outputs = fields.get("outputs")
    if not isinstance(outputs, list):
        return None
    models = (text((fields_of(output) or NOTHING).get("model")) for output in outputs)
    return next((model for model in models if model is not None), None)


CLASSES: dict[str, Reader] = {
    "ChatCompletionResponse": read_chat,
    "ConversationResponse": read_object,
    "CreateResponseResponse": read_object,
    "EmbeddingResponse": read_object,
    "FIMCompletionResponse": read_object,
    "TranscriptionResponse": read_object,
}

STREAMS: dict[tuple[str, str], StreamClass] = {
    ("mistralai.client.utils.eventstreaming", "EventStream"): StreamClass(
        "generator", is_async=False
    ),
    ("mistralai.client.utils.eventstreaming", "EventStreamAsync"): StreamClass(
        "generator", is_async=True
    ),
}
