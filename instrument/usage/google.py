"""Google's Gemini API and Vertex AI, as the SDK (snake_case) and REST (camelCase) give them."""

from __future__ import annotations

from typing import Any, NamedTuple

from instrument.usage.fields import NOTHING, added, by_fields, failure, fields_of, part, text
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "matches", "new_merge", "read", "streams"]

_SNAKE = (
    "prompt_token_count",
    "candidates_token_count",
    "total_token_count",
    "tool_use_prompt_token_count",
    "response_token_count",
    "thoughts_token_count",
    "cached_content_token_count",
    "traffic_type",
)
_CAMEL = (
    "promptTokenCount",
    "candidatesTokenCount",
    "totalTokenCount",
    "toolUsePromptTokenCount",
    "responseTokenCount",
    "thoughtsTokenCount",
    "cachedContentTokenCount",
    "trafficType",
)


_FINE = (None, None, None)


class _Counts(NamedTuple):
    prompt: Any = None
    candidates: Any = None
    total: Any = None
    tool_use: Any = None
    live: Any = None
    thoughts: Any = None
    cached: Any = None
    traffic_type: Any = None


def matches(fields: Fields) -> bool:
    """Tell whether the usage metadata has Google's names, or the error object its fields."""
    usage = _usage(fields)
    if "promptTokenCount" in usage or "prompt_token_count" in usage:
        return True
    if any(name in usage for name in _SNAKE) or any(name in usage for name in _CAMEL):
        return True
    error = part(fields, "error") or NOTHING
    return type(error.get("code")) is int and text(error.get("status")) is not None


def read(fields: Fields) -> Reading:
    """Read a whole response.

    The prompt count leaves out what tools were given, and the candidates' count leaves out the
    thoughts: both are added. The cached tokens are part of the prompt.
    """
    usage = _usage(fields)
    return _reading(fields, _counts(usage), _source(fields) if usage else None)


read_object: Reader = by_fields(read)


def streams(fields: Fields) -> bool:
    """Tell whether this is a chunk, which has the shape of a whole response."""
    if "candidates" in fields and (_model(fields) or _response_id(fields)):
        return True
    return matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that keeps the last value of each count that is not null."""
    return _Merge()


class _Merge:
    __slots__ = ("_counts", "_response", "_source")

    def __init__(self) -> None:
        self._counts = _Counts()
        self._response: dict[str, Any] = {}
        self._source: Any = None

    def add(self, fields: Fields) -> bool:
        identity, known = _response_id(fields), self._response.get("response_id")
        if identity and known and identity != known:
            return False
        if "embeddings" in self._response and fields.get("embeddings"):
            return False
        new = {
            "response_id": identity,
            "model_version": _model(fields),
            "error": part(fields, "error"),
            "embeddings": bool(fields.get("embeddings")),
        }
        self._response.update({name: value for name, value in new.items() if value})
        usage = _usage(fields)
        if usage:
            pairs = zip(_counts(usage), self._counts, strict=True)
            self._counts = _Counts(*(old if new is None else new for new, old in pairs))
            self._source = _source(fields)
        return True

    def reading(self) -> Reading | None:
        if not self._response and self._counts == _Counts():
            return None
        return _reading(self._response, self._counts, self._source)


def _usage(fields: Fields) -> Fields:
    usage = _source(fields)
    if type(usage) is dict:
        return usage
    return NOTHING if usage is None else fields_of(usage) or NOTHING


def _source(fields: Fields) -> Any:
    return fields.get("usage_metadata") or fields.get("usageMetadata")


def _counts(usage: Fields) -> _Counts:
    is_snake = "prompt_token_count" in usage or any(name in usage for name in _SNAKE)
    return _Counts(*map(usage.get, _SNAKE if is_snake else _CAMEL))


def _reading(fields: Fields, counts: _Counts, source: Any) -> Reading:
    prompt, candidates, total, tool_use, live, thoughts, cached, traffic = counts
    candidates = live if candidates is None else candidates
    error = part(fields, "error") if "error" in fields else None
    failed: tuple[str | None, str | None, str | None] = _failure(error) if error else _FINE
    return Reading(
        prompt if tool_use is None else added(prompt, tool_use),
        candidates if thoughts is None else added(candidates, thoughts),
        cached,
        None,
        thoughts,
        total,
        None,
        text(_model(fields)),
        text(_response_id(fields)),
        None if error else _provider(traffic),
        None if error else _kind(fields),
        *failed,
        None,
        source,
    )


def _failure(error: Fields) -> tuple[str, str, str | None]:
    return ("error", *failure(error, "status", "code"))


def _model(fields: Fields) -> Any:
    return fields.get("model_version") or fields.get("modelVersion")


def _response_id(fields: Fields) -> Any:
    return fields.get("response_id") or fields.get("responseId")


def _provider(traffic_type: Any) -> str:
    """Tell the clouds apart: only Vertex AI reports a traffic type."""
    return "gcp.gemini" if traffic_type is None else "gcp.vertex_ai"


def _kind(fields: Fields) -> str:
    return "embeddings" if "embeddings" in fields or "embedding" in fields else "generate_content"


CLASSES: dict[str, Reader] = {
    "EmbedContentResponse": read_object,
    "GenerateContentResponse": read_object,
}

STREAMS: dict[tuple[str, str], StreamClass] = {}
