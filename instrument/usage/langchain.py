"""LangChain's messages, whose usage is inclusive and adds up over the chunks of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from instrument.usage import openai
from instrument.usage.adding import combined
from instrument.usage.fields import (
    NOTHING,
    USUAL_TIERS_OR_NONE,
    added,
    by_fields,
    fields_of,
    first,
    part,
    text,
    usage_details,
)
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "matches", "new_merge", "read", "streams"]

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
}
_PROBED = 1_024
_RUNS = ("lc_run-", "run-")

_BEFORE = frozenset({"cache_creation", "cache_read"})
_AFTER = frozenset({"reasoning"})
_TIERS = ("flex", "priority")
_LASTING, _SHORT = "ephemeral_1h_input_tokens", "ephemeral_5m_input_tokens"

_Counts = tuple[Any, Any, Any, Any, Any, Any]
_EMPTY: dict[str, Any] = {}
_NO_COUNTS: _Counts = (None, None, None, None, None, None)


def matches(fields: Fields) -> bool:
    """Tell whether the usage metadata has LangChain's names."""
    usage = part(fields, "usage_metadata")
    return usage is not None and "input_tokens" in usage and "total_tokens" in usage


def read(fields: Fields) -> Reading:
    """Read a whole message."""
    usage = part(fields, "usage_metadata") or NOTHING
    source = fields.get("usage_metadata") if usage else None
    return _reading(fields, _counts(usage), source, _others(usage))


read_any: Reader = by_fields(read)


def read_message(message: Any) -> Reading | None:
    """Read an `AIMessage` at once if it is complete and plain, else as `read` does."""
    try:
        fields = message.__dict__
        usage, metadata = fields["usage_metadata"], fields["response_metadata"]
        if message.__pydantic_extra__ or type(usage) is not dict or type(metadata) is not dict:
            return read_any(message)
        model, response_id = metadata["model_name"], metadata["id"]
        if type(model) is not str or type(response_id) is not str or not model or not response_id:
            return read_any(message)
        provider = metadata.get("model_provider")
        if provider is not None:
            if type(provider) is not str or not provider:
                return read_any(message)
            provider = _PROVIDERS.get(provider, provider)
        before = usage.get("input_token_details", _EMPTY)
        after = usage.get("output_token_details", _EMPTY)
        if (
            not type(before) is type(after) is dict
            or not _BEFORE.issuperset(before)
            or not _AFTER.issuperset(after)
            or metadata.get("service_tier") not in USUAL_TIERS_OR_NONE
        ):
            return read_any(message)
        cached, written = before.get("cache_read"), before.get("cache_creation")
        reasoning = after.get("reasoning")
        new, output, total = usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]
    except (AttributeError, KeyError, TypeError):
        return read_any(message)
    return Reading(
        new,
        output,
        cached,
        written,
        reasoning,
        total,
        None,
        model,
        response_id,
        provider,
        "chat",
        source=usage,
    )


def read_generation(generation: Any) -> Reading | None:
    """Read a `ChatGeneration` by its message."""
    return read_message((fields_of(generation) or NOTHING).get("message"))


def read_result(result: Any) -> Reading | None:
    """Read a `ChatResult`, or an `LLMResult` of several prompts.

    Alternatives for one prompt come from one response and repeat its usage. Models without
    messages report in `llm_output` alone.
    """
    fields = fields_of(result) or NOTHING
    generations, output = fields.get("generations"), part(fields, "llm_output") or NOTHING
    found = combined(_readings(generations)) if type(generations) is list else None
    if found is not None and (found.total_tokens is not None or found.input_tokens is not None):
        return found
    if part(output, "token_usage") is None:
        return found
    several = len(generations) if type(generations) is list else 1
    read = openai.read(
        {
            "usage": output["token_usage"],
            "model": output.get("model_name"),
            "id": output.get("id"),
            "object": "text_completion" if found is None else "chat.completion",
        }
    )
    if several < 2 or found is not None:
        return read
    return replace(read, details=usage_details(responses=several))


def streams(fields: Fields) -> bool:
    """Tell whether this is a message, or a chunk of one, with usage."""
    return matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that adds the counts of chunks; a whole message's replace them."""
    return _Merge()


class _Merge:
    __slots__ = ("_counts", "_message", "_metadata", "_others", "_source")

    def __init__(self) -> None:
        self._counts: _Counts = _NO_COUNTS
        self._others: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._metadata: dict[str, Any] = {}
        self._source: Any = None

    def add(self, fields: Fields) -> bool:
        if "usage_metadata" not in fields:
            return True
        identity, known = text(fields.get("id")), self._message.get("id")
        if identity is not None and known is not None and identity != known:
            if _is_of_run(known) or not _is_of_run(identity) or self._source is not None:
                return False
            self._metadata.setdefault("id", known)  # what comes first may have the provider's
        self._message["id"] = identity or known
        metadata = part(fields, "response_metadata") or NOTHING
        for name in ("id", "model_name", "model", "model_provider", "service_tier"):
            value = text(metadata.get(name))
            if value is not None:
                self._metadata[name] = value
        usage = part(fields, "usage_metadata")
        if usage is not None:
            self._count(_counts(usage), _others(usage), is_whole=fields.get("type") == "ai")
            self._source = fields["usage_metadata"]
        return True

    def reading(self) -> Reading | None:
        if not self._message:
            return None
        fields = {**self._message, "response_metadata": self._metadata}
        return _reading(fields, self._counts, self._source, self._others)

    def _count(self, counts: _Counts, others: dict[str, Any], *, is_whole: bool) -> None:
        if is_whole:
            self._counts, self._others = counts, others
            return
        for name, count in others.items():
            known = self._others.get(name)
            self._others[name] = count if name == "tier" else added(known, count)
        first, second, third, fourth, fifth, sixth = (
            added(*pair) for pair in zip(self._counts, counts, strict=True)
        )
        self._counts = first, second, third, fourth, fifth, sixth


def _readings(generations: list[Any]) -> Iterator[Reading]:
    for place in generations[:_PROBED]:
        alternatives = place if type(place) is list else generations
        readings = (read_generation(each) for each in alternatives[:_PROBED])
        said = next((each for each in readings if each is not None and _says(each)), None)
        if said is not None:
            yield said
        if alternatives is generations:
            return


def _says(reading: Reading) -> bool:
    return reading.total_tokens is not None or reading.response_id is not None


def _counts(usage: Fields) -> _Counts:
    """Return the counts; those of a service tier have its name before theirs."""
    before = part(usage, "input_token_details") or NOTHING
    after = part(usage, "output_token_details") or NOTHING
    tier = _tier(before)
    return (
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        first(before.get("cache_read"), before.get(f"{tier}_cache_read")),
        first(before.get("cache_creation"), before.get(f"{tier}_cache_creation"))
        or first(added(before.get(_LASTING), before.get(_SHORT)), before.get("cache_creation")),
        first(after.get("reasoning"), after.get(f"{tier}_reasoning")),
        usage.get("total_tokens"),
    )


def _tier(before: Fields) -> str | None:
    return next((tier for tier in _TIERS if tier in before), None)


def _others(usage: Fields) -> dict[str, Any]:
    """Return what of the usage has a price of its own."""
    before = part(usage, "input_token_details") or NOTHING
    after = part(usage, "output_token_details") or NOTHING
    found = {
        "cache_write_1h_tokens": before.get(_LASTING),
        "input_audio_tokens": before.get("audio"),
        "output_audio_tokens": after.get("audio"),
        "tier": _tier(before),
    }
    return {name: value for name, value in found.items() if value is not None}


def _reading(fields: Fields, counts: _Counts, source: Any, others: dict[str, Any]) -> Reading:
    metadata = part(fields, "response_metadata") or NOTHING
    provider = text(metadata.get("model_provider"))
    response_id, message_id = text(metadata.get("id")), text(fields.get("id"))
    return Reading(
        *counts,
        None,
        text(metadata.get("model_name")) or text(metadata.get("model")),
        response_id or message_id,
        None if provider is None else _PROVIDERS.get(provider, provider),
        "chat",
        source=source,
        details=usage_details(**{"tier": metadata.get("service_tier"), **others}),
        is_renamed=response_id is None and _is_of_run(message_id),
    )


def _is_of_run(message_id: str | None) -> bool:
    """Tell whether LangChain itself made the id, from that of the run."""
    return message_id is not None and message_id.startswith(_RUNS)


CLASSES: dict[str, Reader] = {
    "AIMessage": read_message,
    "ChatGeneration": read_generation,
    "ChatResult": read_result,
    "LLMResult": read_result,
}

STREAMS: dict[tuple[str, str], StreamClass] = {}
