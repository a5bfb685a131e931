"""OpenAI's Chat Completions, Responses, Completions and Embeddings, and what is compatible."""

from __future__ import annotations

from typing import Any

from instrument.usage import http
from instrument.usage.fields import NOTHING, added, failure, fields_of, first, part, text
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "matches", "new_merge", "read", "streams"]

_KINDS = {
    "chat.completion": "chat",
    "chat.completion.chunk": "chat",
    "list": "embeddings",
    "response": "chat",
    "text_completion": "text_completion",
}
_CHUNKED = _KINDS.keys() - {"list"}
_COUNTS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens")
_MERGED = ("id", "model", "object", "usage", "status", "error")
_CARRIERS = {
    "chunk": "chunk",
    "response.created": "response",
    "response.completed": "response",
    "response.incomplete": "response",
    "response.failed": "response",
}


def matches(fields: Fields) -> bool:
    """Tell whether the usage has OpenAI's names, or the error object its fields."""
    usage = part(fields, "usage")
    if usage is not None and any(name in usage for name in _COUNTS):
        return True
    if "object" in fields:
        return fields["object"] == "response" and "output" in fields
    error = part(fields, "error") or NOTHING
    return text(error.get("message")) is not None and ("type" in error or "code" in error)


def read(fields: Fields, provider: str | None = None) -> Reading:
    """Read a whole response.

    Input includes cached tokens and output includes reasoning. A `usage.cost` is what a gateway
    charges, in USD; what came through a gateway names no provider.
    """
    usage = part(fields, "usage") or NOTHING
    cost = _cost(usage)
    return Reading(
        *_counts(usage),
        cost,
        text(fields.get("model")),
        text(fields.get("id")),
        provider if cost is None else None,
        _KINDS.get(text(fields.get("object")) or ""),
        *_failure(fields),
        None if cost is None else "provider",
        fields.get("usage") if usage else None,
    )


def read_object(response: Any) -> Reading | None:
    """Read any of the SDK's responses."""
    fields = fields_of(response)
    return None if fields is None else read(fields, "openai")


def read_chat(completion: Any) -> Reading | None:
    """Read a `ChatCompletion` at once if it is complete and plain, else as `read` does.

    The most frequent result of all: this takes a third of the time.
    """
    try:
        fields, usage = completion.__dict__, completion.usage
        counts = usage.__dict__
        before, after = counts["prompt_tokens_details"], counts["completion_tokens_details"]
        if usage.__pydantic_extra__ or before.__pydantic_extra__ or after.__pydantic_extra__:
            return read_object(completion)
        input_tokens, output_tokens = counts["prompt_tokens"], counts["completion_tokens"]
        total_tokens, model, response_id = counts["total_tokens"], fields["model"], fields["id"]
        if total_tokens != input_tokens + output_tokens or type(model) is not str:
            return read_object(completion)
        if type(response_id) is not str or not response_id:
            return read_object(completion)
        before, after = before.__dict__, after.__dict__
        return Reading(
            input_tokens,
            output_tokens,
            before["cached_tokens"],
            before.get("cache_write_tokens"),
            after["reasoning_tokens"],
            total_tokens,
            None,
            model,
            response_id,
            "openai",
            "chat",
        )
    except (AttributeError, KeyError, TypeError):
        return read_object(completion)


def streams(fields: Fields) -> bool:
    """Tell whether this is a chunk, an event of the Responses API, or a whole response."""
    if text(fields.get("object")) in _CHUNKED or ("choices" in fields and "model" in fields):
        return True
    kind = text(fields.get("type")) or ""
    return kind in _CARRIERS or kind.startswith("response.") or matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that keeps the last value of each field that is not null."""
    return _Merge("openai" if sdk else None)


class _Merge:
    __slots__ = ("_last", "_provider")

    def __init__(self, provider: str | None) -> None:
        self._provider = provider
        self._last: dict[str, Any] = {}

    def add(self, fields: Fields) -> bool:
        kind = fields.get("type")
        inner = fields if kind is None else _inner(fields, kind)
        if inner is None:
            return True
        last = self._last
        if "usage" in last and _is_another(inner, last.get("id")):
            return False
        for name in _MERGED:
            value = inner.get(name)
            if value:
                last[name] = value
        return True

    def reading(self) -> Reading | None:
        return read(self._last, self._provider) if self._last else None


def _is_another(inner: Fields, known: Any) -> bool:
    """Tell whether this is not the response with the known id; whole embeddings have no id."""
    return (inner.get("id") or known) != known or inner.get("object") == "list"


def _inner(event: Fields, kind: Any) -> Fields | None:
    if kind == "error":
        return {"error": event.get("error") or dict(event)}
    if "usage" in event:
        return event
    carrier = _CARRIERS.get(text(kind) or "")
    return None if carrier is None else part(event, carrier)


def _counts(usage: Fields) -> tuple[Any, Any, Any, Any, Any, Any]:
    if "prompt_tokens" in usage or "completion_tokens" in usage:
        before, after = _parts(usage, "prompt_tokens_details", "completion_tokens_details")
        input_tokens, output_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    else:
        before, after = _parts(usage, "input_tokens_details", "output_tokens_details")
        before = before or part(usage, "input_token_details") or NOTHING
        input_tokens, output_tokens = usage.get("input_tokens"), usage.get("output_tokens")
    reasoning, total = after.get("reasoning_tokens"), usage.get("total_tokens")
    return (
        input_tokens,
        _with_reasoning(input_tokens, output_tokens, reasoning, total),
        first(
            before.get("cached_tokens"),
            usage.get("prompt_cache_hit_tokens"),
            usage.get("cache_read_input_tokens"),
        ),
        first(
            before.get("cache_write_tokens"),
            before.get("cache_creation_tokens"),
            usage.get("cache_creation_input_tokens"),
        ),
        reasoning,
        total,
    )


def _cost(usage: Fields) -> Any:
    cost = usage.get("cost")
    return cost.get("total_cost") if isinstance(cost, dict) else cost


def _parts(usage: Fields, before: str, after: str) -> tuple[Fields, Fields]:
    return part(usage, before) or NOTHING, part(usage, after) or NOTHING


def _with_reasoning(input_tokens: Any, output_tokens: Any, reasoning: Any, total: Any) -> Any:
    """Add reasoning where the total shows that the output leaves it out, as xAI's does."""
    if reasoning and type(total) is int and total == added(input_tokens, output_tokens, reasoning):
        return added(output_tokens, reasoning)
    return output_tokens


def _failure(fields: Fields) -> tuple[str | None, str | None, str | None]:
    error, status = fields.get("error"), fields.get("status")
    if status == "cancelled" and fields.get("object") == "response":
        return "cancelled", None, None
    if fields_of(error) or (status == "failed" and fields.get("object") == "response"):
        return "error", *failure(error, "code", "type")
    return None, None, None


CLASSES: dict[str, Reader] = {
    "APIResponse": http.read_wrapped,
    "AsyncAPIResponse": http.read_wrapped,
    "ChatCompletion": read_chat,
    "ChatCompletionChunk": read_object,
    "Completion": read_object,
    "CreateEmbeddingResponse": read_object,
    "ImagesResponse": read_object,
    "LegacyAPIResponse": http.read_wrapped,
    "Response": read_object,
    "Transcription": read_object,
    "TranscriptionVerbose": read_object,
}

_STREAM = StreamClass("_iterator", is_async=False)
_ASYNC_STREAM = StreamClass("_iterator", is_async=True)
_MANAGER = StreamClass(None, is_async=False)
_ASYNC_MANAGER = StreamClass(None, is_async=True)
_CHAT = "openai.lib.streaming.chat._completions"
_RESPONSES = "openai.lib.streaming.responses._responses"

STREAMS: dict[tuple[str, str], StreamClass] = {
    ("openai", "Stream"): _STREAM,
    ("openai", "AsyncStream"): _ASYNC_STREAM,
    ("openai._streaming", "Stream"): _STREAM,
    ("openai._streaming", "AsyncStream"): _ASYNC_STREAM,
    (_CHAT, "ChatCompletionStream"): _STREAM,
    (_CHAT, "AsyncChatCompletionStream"): _ASYNC_STREAM,
    (_CHAT, "ChatCompletionStreamManager"): _MANAGER,
    (_CHAT, "AsyncChatCompletionStreamManager"): _ASYNC_MANAGER,
    (_RESPONSES, "ResponseStream"): _STREAM,
    (_RESPONSES, "AsyncResponseStream"): _ASYNC_STREAM,
    (_RESPONSES, "ResponseStreamManager"): _MANAGER,
    (_RESPONSES, "AsyncResponseStreamManager"): _ASYNC_MANAGER,
}
