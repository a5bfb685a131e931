"""OpenAI's APIs, and the many that answer in the shape of its Chat Completions."""

from __future__ import annotations

from typing import Any

from instrument.usage import http, plain, shapes
from instrument.usage.beside import details_beside
from instrument.usage.compatible import behind, cost_of, marked, with_reasoning
from instrument.usage.decoding import count_of
from instrument.usage.fields import NOTHING, by_fields, failure, fields_of, part, text
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "PLAIN", "STREAMS", "matches", "new_merge", "read", "reader_of", "streams"]

_KINDS = {
    "chat.completion": "chat",
    "chat.completion.chunk": "chat",
    "list": "embeddings",
    "realtime.response": "chat",
    "response": "chat",
    "text_completion": "text_completion",
}
_CHUNKED = _KINDS.keys() - {"list"}
_DELTAS = ("chat.completion.chunk", "text_completion")
_RESPONSES = ("response", "realtime.response")
_COUNTS = ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens")
_OF_RESPONSES = frozenset({"choices", "data", "model", "object", "output"})
_MERGED = ("id", "model", "object", "usage", "status", "error", "service_tier")
_OF_WHOLE = ("tools", "output")
_CARRIERS = {
    "chunk": "chunk",
    "response.created": "response",
    "response.completed": "response",
    "response.done": "response",
    "response.incomplete": "response",
    "response.failed": "response",
}
_WITHOUT_ID = frozenset({"data", "text"})  # embeddings and images, transcriptions
_IMAGE_IS_DONE = ("image_generation.completed", "image_edit.completed")
_HINT = (
    "a stream of chat completions ended without usage, so its tokens are unknown: ask for it "
    'with stream_options={"include_usage": True}'
)


def matches(fields: Fields) -> bool:
    """Tell whether the usage has OpenAI's names, or the error object its fields.

    An event with a response in it is matched too; a batch, whose responses are elsewhere, is not.
    """
    usage = fields.get("usage")
    if usage is not None and fields.get("object") != "batch":
        usage = usage if type(usage) is dict else _fields(usage)
        if "prompt_tokens" in usage or _is_usage(usage, fields):
            return True
    if "object" in fields:
        is_failed = fields.get("status") == "failed"
        return fields["object"] == "response" and ("output" in fields or is_failed)
    if "response" in fields:
        return _carried(fields) is not None
    error = part(fields, "error") or NOTHING
    return text(error.get("message")) is not None and ("type" in error or "code" in error)


def read(fields: Fields, provider: str | None = None) -> Reading:
    """Read a whole response.

    Input includes cached tokens and output includes reasoning. A `usage.cost` is what a gateway
    charges, in USD; what came through a gateway that does not say its name has no provider.
    """
    usage = fields.get("usage")
    if type(usage) is not dict:
        if usage is None and "response" in fields and "object" not in fields:
            return _read_carried(fields, provider)
        usage = _fields(usage)
    model, response_id, kind = fields.get("model"), fields.get("id"), fields.get("object")
    model = model if type(model) is str and model else None
    counts, details = _counted(fields, usage, model)
    cost = cost_of(usage) if "cost" in usage or "cost_in_usd_ticks" in usage else None
    error, status = fields.get("error"), fields.get("status")
    failed = _FINE if error is None and status is None else _failure(fields, error, status)
    if "type" in usage or kind is None:
        others = _details(fields, usage)
        details = {**others, **(details or {})} if others else details
    return Reading(
        *counts,
        cost,
        model,
        response_id if type(response_id) is str and response_id else None,
        provider
        if _is_plain(fields, usage, model)
        else behind(fields, usage, provider, cost, is_apart=counts[1] is not _output(usage)),
        _kind(fields, kind) or _other_kind(details),
        *failed,
        None if cost is None else "provider",
        fields["usage"] if usage else None,
        details,
    )


def reader_of(provider: str) -> Reader:
    """Return a reader for the objects of that provider's SDK."""

    def read_object(response: Any) -> Reading | None:
        fields = fields_of(response)
        return None if fields is None else read(fields, provider)

    return read_object


read_object: Reader = reader_of("openai")


def read_content(content: Any) -> Reading | None:
    """Read a file, which may be what a batch gave, by the HTTP response that brought it."""
    response = (fields_of(content) or NOTHING).get("response")
    return None if response is None else http.read(response)


def streams(fields: Fields) -> bool:
    """Tell whether this is a chunk, an event of the Responses API, or a whole response."""
    if text(fields.get("object")) in _CHUNKED or ("choices" in fields and "model" in fields):
        return True
    kind = text(fields.get("type")) or ""
    return kind in _CARRIERS or kind.startswith("response.") or matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that keeps the last value of each field that is not null."""
    return OpenAIMerge("openai" if sdk else None)


class OpenAIMerge:
    """Keeps the last value of each field that is not null; `provider` if no chunk says better."""

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
        if "x_groq" in inner or "prompt_filter_results" in inner or "kv_transfer_params" in inner:
            self._add_marked(inner)
        if "data" in inner:
            last["data"] = [None] * count_of(inner["data"])
        if kind is not None and inner is not fields:
            last.update({name: inner[name] for name in _OF_WHOLE if inner.get(name)})
        if kind is not None and kind in _IMAGE_IS_DONE:
            last["created"] = fields.get("created_at")
            last["data"] = [*last.get("data", ()), None]
        return True

    def reading(self) -> Reading | None:
        last = self._last
        if not last:
            return None
        found = read(last, self._provider)
        if "usage" in last or found.outcome is not None or last.get("object") not in _DELTAS:
            return found
        return found.hinting(_HINT)

    def _add_marked(self, inner: Fields) -> None:
        self._provider = marked(inner, self._provider)
        groq = part(inner, "x_groq") or NOTHING
        for name in ("usage", "error"):
            if groq.get(name):
                self._last[name] = groq[name]


def _is_another(inner: Fields, known: Any) -> bool:
    """Tell whether this is not the response with the known id; some that are whole have no id."""
    response_id = inner.get("id")
    if response_id:
        return bool(response_id != known)
    return not _WITHOUT_ID.isdisjoint(inner) or inner.get("object") == "chat.completion"


def _inner(event: Fields, kind: Any) -> Fields | None:
    if kind == "error":
        return {"error": event.get("error") or dict(event)}
    if "usage" in event:
        item = event.get("item_id")  # of the input that a realtime session has transcribed
        return event if item is None else {"id": item, "usage": event["usage"]}
    carrier = _CARRIERS.get(text(kind) or "")
    return None if carrier is None else part(event, carrier)


def _carried(fields: Fields) -> Fields | None:
    """Return the response in an event that ends it."""
    inner = part(fields, "response") or NOTHING
    is_event = _CARRIERS.get(text(fields.get("type")) or "") == "response"
    return inner if is_event and inner.get("object") in _RESPONSES else None


def _read_carried(fields: Fields, provider: str | None) -> Reading:
    inner = _carried(fields)
    return Reading() if inner is None else read({"object": None, **inner}, provider)


def _fields(value: Any) -> Fields:
    return NOTHING if value is None else fields_of(value) or NOTHING


def _is_plain(fields: Fields, usage: Fields, model: str | None) -> bool:
    """Tell that nothing here can say who answered."""
    return not (
        "prompt_filter_results" in fields
        or "x_groq" in fields
        or "provider" in fields
        or "kv_transfer_params" in fields
        or "cost" in usage
        or "cost_in_usd_ticks" in usage
        or "prompt_cache_hit_tokens" in usage
        or (model is not None and model.startswith("grok"))
    )


def _output(usage: Fields) -> Any:
    return usage.get("completion_tokens", usage.get("output_tokens"))


def _is_usage(usage: Fields, fields: Fields) -> bool:
    """Tell whether the names are OpenAI's; a total alone may be that of an account."""
    for name in _COUNTS:
        if name in usage:
            return True
    if "total_tokens" in usage:
        return not _OF_RESPONSES.isdisjoint(fields)
    return usage.get("type") == "duration" and "seconds" in usage


def _counted(
    fields: Fields, usage: Fields, model: Any
) -> tuple[tuple[Any, Any, Any, Any, Any, Any], dict[str, Any] | None]:
    """Return the counts, and what of the usage has a price of its own."""
    get = usage.get
    if "prompt_tokens" in usage or "completion_tokens" in usage:
        before, after = get("prompt_tokens_details"), get("completion_tokens_details")
        input_tokens, output_tokens = get("prompt_tokens"), get("completion_tokens")
    else:
        before, after = get("input_tokens_details"), get("output_tokens_details")
        before = get("input_token_details") if before is None else before
        after = get("output_token_details") if after is None else after
        input_tokens, output_tokens = get("input_tokens"), get("output_tokens")
    before = before if type(before) is dict else _fields(before)
    after = after if type(after) is dict else _fields(after)
    cached, written = before.get("cached_tokens"), before.get("cache_write_tokens")
    if cached is None:
        cached = _first(
            usage, "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"
        )
    if written is None:
        written = before.get("cache_creation_tokens")
        written = get("cache_creation_input_tokens") if written is None else written
    reasoning, total = after.get("reasoning_tokens"), get("total_tokens")
    if input_tokens is None and output_tokens is None and fields.get("object") == "list":
        input_tokens = total  # what is embedded or ranked is all there is
    if reasoning:
        output_tokens = with_reasoning(input_tokens, output_tokens, reasoning, total, model)
    counts = input_tokens, output_tokens, cached, written, reasoning, total
    return counts, details_beside(fields, usage, before, after)


def _first(usage: Fields, *names: str) -> Any:
    for name in names:
        value = usage.get(name)
        if value is not None:
            return value
    return None


def _details(fields: Fields, usage: Fields) -> dict[str, Any] | None:
    """Return the usage that is no tokens: seconds of speech, or the number of images."""
    if usage.get("type") == "duration":
        return {"audio_seconds": usage.get("seconds")}
    if "object" in fields or "data" not in fields:
        return None
    images = count_of(fields["data"])
    return {"images": images} if images else None


def _kind(fields: Fields, kind: Any) -> str | None:
    if kind == "list" and "relevance_score" in _first_of(fields.get("data")):
        return "rerank"
    return _KINDS.get(kind) if type(kind) is str else None


def _first_of(values: Any) -> Fields:
    return _fields(values[0]) if type(values) is list and values else NOTHING


def _other_kind(details: dict[str, Any] | None) -> str | None:
    if details is None:
        return None
    return "image_generation" if "images" in details else "transcription"


_FINE: tuple[str | None, str | None, str | None] = (None, None, None)


def _failure(fields: Fields, error: Any, status: Any) -> tuple[str | None, str | None, str | None]:
    if error is None and status == "completed":
        return _FINE
    is_response = fields.get("object") in _RESPONSES
    if status == "cancelled" and is_response:
        return "cancelled", None, None
    if status == "failed" and is_response and error is None:
        error = (part(fields, "status_details") or NOTHING).get("error")  # as realtime has it
        return "error", *failure(error, "code", "type")
    return ("error", *failure(error, "code", "type")) if fields_of(error) else _FINE


CLASSES: dict[str, Reader] = {
    "APIResponse": http.read_wrapped,
    "AsyncAPIResponse": http.read_wrapped,
    "Batch": by_fields(lambda batch: None),
    "BetaCompactedResponse": read_object,
    "BetaResponse": read_object,
    "ChatCompletion": plain.chat_object("openai", read_object),
    "ChatCompletionChunk": read_object,
    "Completion": read_object,
    "CreateEmbeddingResponse": plain.embeddings_object("openai", read_object),
    "Decision": read_object,
    "HttpxBinaryResponseContent": read_content,
    "ImagesResponse": read_object,
    "LegacyAPIResponse": http.read_wrapped,
    "Response": plain.response_object("openai", read_object),
    "ResponseCompletedEvent": read_object,
    "ResponseDoneEvent": read_object,
    "ResponseFailedEvent": read_object,
    "ResponseIncompleteEvent": read_object,
    "Transcription": read_object,
    "TranscriptionDiarized": read_object,
    "TranscriptionVerbose": read_object,
}

WHOLE = frozenset({"ChatCompletion"})
"""The class of what comes out of a program's generator and is no chunk, but a whole response."""

PLAIN: dict[str, Reader] = {
    "chat.completion": shapes.read_chat,
    "created": shapes.read_images,
    "list": shapes.read_embeddings,
    "response": shapes.read_response,
}

_STREAM = StreamClass("_iterator", is_async=False)
_ASYNC_STREAM = StreamClass("_iterator", is_async=True)
_MANAGER = StreamClass(None, is_async=False)
_ASYNC_MANAGER = StreamClass(None, is_async=True)
_CHAT = "openai.lib.streaming.chat._completions"
_RESPONSE_STREAMS = "openai.lib.streaming.responses._responses"

STREAMS: dict[tuple[str, str], StreamClass] = {
    ("openai", "Stream"): _STREAM,
    ("openai", "AsyncStream"): _ASYNC_STREAM,
    ("openai._streaming", "Stream"): _STREAM,
    ("openai._streaming", "AsyncStream"): _ASYNC_STREAM,
    ("openai._response", "ResponseContextManager"): _MANAGER,
    ("openai._response", "AsyncResponseContextManager"): _ASYNC_MANAGER,
    (_CHAT, "ChatCompletionStream"): _STREAM,
    (_CHAT, "AsyncChatCompletionStream"): _ASYNC_STREAM,
    (_CHAT, "ChatCompletionStreamManager"): _MANAGER,
    (_CHAT, "AsyncChatCompletionStreamManager"): _ASYNC_MANAGER,
    (_RESPONSE_STREAMS, "ResponseStream"): _STREAM,
    (_RESPONSE_STREAMS, "AsyncResponseStream"): _ASYNC_STREAM,
    (_RESPONSE_STREAMS, "ResponseStreamManager"): _MANAGER,
    (_RESPONSE_STREAMS, "AsyncResponseStreamManager"): _ASYNC_MANAGER,
}
