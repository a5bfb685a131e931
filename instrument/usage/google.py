"""Google's Gemini API and Vertex AI, as the SDK (snake_case) and REST (camelCase) give them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from instrument.usage import batches, interactions
from instrument.usage.families import read_document
from instrument.usage.fields import (
    NOTHING,
    added,
    by_fields,
    failure,
    fields_of,
    first,
    part,
    text,
    usage_details,
)
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "PLAIN", "STREAMS", "matches", "new_merge", "read", "streams"]

_SNAKE = (
    "prompt_token_count",
    "candidates_token_count",
    "total_token_count",
    "tool_use_prompt_token_count",
    "response_token_count",
    "thoughts_token_count",
    "cached_content_token_count",
    "traffic_type",
    "service_tier",
    "prompt_tokens_details",
    "tool_use_prompt_tokens_details",
    "cache_tokens_details",
    "candidates_tokens_details",
    "response_tokens_details",
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
    "serviceTier",
    "promptTokensDetails",
    "toolUsePromptTokensDetails",
    "cacheTokensDetails",
    "candidatesTokensDetails",
    "responseTokensDetails",
)
_KINDS = {"AUDIO": "audio", "IMAGE": "image", "VIDEO": "video"}
_TRAFFIC = "ON_DEMAND"
_NAMES = frozenset(_SNAKE)
_ODD = frozenset(
    {
        "ResponseMetadata",
        "embedding",
        "embeddings",
        "error",
        "model_version",
        "response_id",
        "status",
        "usage",
        "usage_metadata",
    }
)
"""What beside the usage makes a dict more than a plain response."""

_FINE = (None, None, None)
_NO_OTHERS = [None] * 6
_RARE = frozenset(
    {
        "cacheTokensDetails",
        "responseTokensDetails",
        "serviceTier",
        "toolUsePromptTokensDetails",
    }
)


class _Counts(NamedTuple):
    prompt: Any = None
    candidates: Any = None
    total: Any = None
    tool_use: Any = None
    live: Any = None
    thoughts: Any = None
    cached: Any = None
    traffic_type: Any = None
    service_tier: Any = None
    prompt_kinds: Any = None
    tool_use_kinds: Any = None
    cached_kinds: Any = None
    candidates_kinds: Any = None
    live_kinds: Any = None


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


def read_generated(response: Any) -> Reading | None:
    """Read an SDK's response at once if it is complete and plain, else as `read` does."""
    try:
        fields = response.__dict__
        usage, model, response_id = (
            fields["usage_metadata"],
            fields["model_version"],
            fields["response_id"],
        )
        if response.__pydantic_extra__ or usage.__pydantic_extra__:
            return read_object(response)
        counts = usage.__dict__
        new, output = counts["prompt_token_count"], counts["candidates_token_count"]
        thoughts, tools = counts["thoughts_token_count"], counts["tool_use_prompt_token_count"]
        if type(new) is not int or type(output) is not int or new | output < 0:
            return read_object(response)
        if tools is not None:
            if type(tools) is not int or tools < 0:
                return read_object(response)
            new += tools
        if thoughts is not None:
            if type(thoughts) is not int or thoughts < 0:
                return read_object(response)
            output += thoughts
        traffic = counts["traffic_type"]
        if (
            type(model) is not str
            or type(response_id) is not str
            or not model
            or not response_id
            or (traffic is not None and traffic != _TRAFFIC)
        ):
            return read_object(response)
        cached, total = counts["cached_content_token_count"], counts["total_token_count"]
        cloud = "gcp.gemini" if traffic is None else "gcp.vertex_ai"
        # most name one kind alone, text, and of what was cached none
        before, after = counts["prompt_tokens_details"], counts["candidates_tokens_details"]
        if (
            (before and (len(before) > 1 or before[0].__dict__["modality"] != "TEXT"))
            or (after and (len(after) > 1 or after[0].__dict__["modality"] != "TEXT"))
            or counts["cache_tokens_details"]
            or counts["tool_use_prompt_tokens_details"]
        ):
            return read_object(response)
    except (AttributeError, KeyError, TypeError, IndexError):
        return read_object(response)
    return Reading(
        new,
        output,
        cached,
        None,
        thoughts,
        total,
        None,
        model,
        response_id,
        cloud,
        "generate_content",
        source=usage,
    )


def read_embedded(response: Any) -> Reading | None:
    """Do the same for an SDK's embeddings, which have no output, model and id."""
    try:
        fields = response.__dict__
        usage = fields["usage_metadata"]
        counts = usage.__dict__
        if response.__pydantic_extra__ or usage.__pydantic_extra__ or "embeddings" not in fields:
            return read_object(response)
        if "model_version" in fields or "response_id" in fields:
            return read_object(response)
        if counts["tool_use_prompt_token_count"] is not None or "candidates_token_count" in counts:
            return read_object(response)
        if counts["response_token_count"] is not None or counts["thoughts_token_count"] is not None:
            return read_object(response)
        new, total = counts["prompt_token_count"], counts["total_token_count"]
        cached, cloud = counts["cached_content_token_count"], "gcp.vertex_ai"
        if counts["traffic_type"] is None:
            cloud = "gcp.gemini"
        kinds = counts["prompt_tokens_details"]
        if (
            (counts["traffic_type"] is not None and counts["traffic_type"] != _TRAFFIC)
            or (kinds and (len(kinds) > 1 or kinds[0].__dict__["modality"] != "TEXT"))
            or counts["cache_tokens_details"]
            or counts["tool_use_prompt_tokens_details"]
            or counts["response_tokens_details"]
            or counts["service_tier"] is not None
        ):
            return read_object(response)
    except (AttributeError, KeyError, TypeError, IndexError):
        return read_object(response)
    return Reading(
        new,
        None,
        cached,
        None,
        None,
        total,
        provider=cloud,
        kind="embeddings",
        source=usage,
    )


def read_plain(fields: dict[str, Any]) -> Reading | None:
    """Do the same for a dict as REST gives it."""
    try:
        usage, model, response_id = (
            fields["usageMetadata"],
            fields["modelVersion"],
            fields["responseId"],
        )
        if type(usage) is not dict or not _ODD.isdisjoint(fields) or not _NAMES.isdisjoint(usage):
            return read_document(fields)
        new, output = usage["promptTokenCount"], usage["candidatesTokenCount"]
        thoughts, tools = usage.get("thoughtsTokenCount"), usage.get("toolUsePromptTokenCount")
        if type(new) is not int or type(output) is not int or new | output < 0:
            return read_document(fields)
        if tools is not None:
            if type(tools) is not int or tools < 0:
                return read_document(fields)
            new += tools
        if thoughts is not None:
            if type(thoughts) is not int or thoughts < 0:
                return read_document(fields)
            output += thoughts
        if type(model) is not str or type(response_id) is not str or not model or not response_id:
            return read_document(fields)
        before, after = usage.get("promptTokensDetails"), usage.get("candidatesTokensDetails")
        if (
            (before and (len(before) > 1 or before[0]["modality"] != "TEXT"))
            or (after and (len(after) > 1 or after[0]["modality"] != "TEXT"))
            or not _RARE.isdisjoint(usage)
            or usage.get("trafficType", _TRAFFIC) != _TRAFFIC
        ):
            return read_document(fields)
    except (KeyError, TypeError, IndexError):
        return read_document(fields)
    return Reading(
        new,
        output,
        usage.get("cachedContentTokenCount"),
        None,
        thoughts,
        usage.get("totalTokenCount"),
        None,
        model,
        response_id,
        "gcp.vertex_ai" if "trafficType" in usage else "gcp.gemini",
        "generate_content",
        source=usage,
    )


def streams(fields: Fields) -> bool:
    """Tell whether this is a chunk, which has the shape of a whole response, or is of a session."""
    if "serverContent" in fields:
        return True
    if "candidates" in fields and (_model(fields) or _response_id(fields)):
        return True
    return matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that keeps the last value of each count that is not null."""
    return _Merge()


class _Merge:
    __slots__ = ("_counts", "_is_over", "_response", "_source")

    def __init__(self) -> None:
        self._counts = _Counts()
        self._is_over = False
        self._response: dict[str, Any] = {}
        self._source: Any = None

    def add(self, fields: Fields) -> bool:
        identity, known = _response_id(fields), self._response.get("response_id")
        if identity and known and identity != known:
            return False
        if "embeddings" in self._response and fields.get("embeddings"):
            return False
        content = part(fields, "server_content") or part(fields, "serverContent")
        if content is not None and not self._add_live(content):
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

    def _add_live(self, content: Fields) -> bool:
        """Take in what a live session says; `False` if that is of another turn, with its own usage.

        Usage may come with the end of its turn, before it or after it.
        """
        is_over = bool(first(content.get("turn_complete"), content.get("turnComplete")))
        model_turn = first(content.get("model_turn"), content.get("modelTurn"))
        if self._is_over and self._counts != _Counts() and (is_over or model_turn is not None):
            return False
        self._is_over = self._is_over or is_over
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
    prompt, candidates, total, tool_use, live, thoughts, cached, traffic, *others = counts
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
        _details(traffic, *others) if others != _NO_OTHERS or traffic is not None else None,
    )


def _details(
    traffic: Any, tier: Any, prompt: Any, tool_use: Any, cached: Any, candidates: Any, live: Any
) -> dict[str, Any] | None:
    """Return the tokens that are no text, and how the request was served if not as usual."""
    named = text(getattr(traffic, "value", traffic)) or _TRAFFIC
    found: dict[str, Any] = {}
    for form, lists in (
        ("input_{}_tokens", (prompt, tool_use)),
        ("cache_{}_read_tokens", (cached,)),
        ("output_{}_tokens", (candidates, live)),
    ):
        for kind, count in _of_kinds(lists):
            name = form.format(kind)
            found[name] = added(found.get(name), count)
    if cached is None:
        served = found
    else:
        served = {f"cache_{kind}_read_tokens": 0 for kind in _KINDS.values()} | found
    how = text(getattr(tier, "value", tier)) or named.removeprefix(_TRAFFIC).strip("_")
    return usage_details(how.lower(), **served)


def _of_kinds(lists: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for several in lists:
        for each in several if type(several) is list else ():
            fields = fields_of(each) or NOTHING
            kind = fields.get("modality")
            name = _KINDS.get(str.__str__(kind)) if isinstance(kind, str) else None
            count = first(fields.get("token_count"), fields.get("tokenCount"))
            if name is not None and type(count) is int:
                yield name, count


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
    "EmbedContentResponse": read_embedded,
    "GenerateContentResponse": read_generated,
    "InlinedResponse": batches.read_inlined,
    **interactions.CLASSES,
}

WHOLE = interactions.WHOLE | {"InlinedResponse"}

PLAIN: dict[str, Reader] = {"usageMetadata": read_plain}

STREAMS: dict[tuple[str, str], StreamClass] = interactions.STREAMS
