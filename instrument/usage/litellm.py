"""LiteLLM, a library in front of all providers, whose counts are inclusive whoever answered.

Beside OpenAI's fields its usage has Anthropic's, which say of how much of the input was cached.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from instrument.usage import openai
from instrument.usage.fields import NOTHING, USUAL_TIERS_OR_NONE, fields_of, part, text
from instrument.usage.openai import OpenAIMerge
from instrument.usage.plain import ODD, ODD_COUNTS
from instrument.usage.reading import (
    ITSELF,
    Fields,
    FieldsMerge,
    Reader,
    Reading,
    StreamClass,
)

__all__ = ["CLASSES", "STREAMS", "matches", "new_merge", "read", "streams"]

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "ollama_chat": "ollama",
    "text-completion-openai": "openai",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
_ENCODED = "resp_bGl0ZWxsbT"
"""How ids begin in which the library tells itself, in base 64, who gave the one in it."""

_NAME_THEIR_PRICE = ("openrouter", "perplexity", "xai")

_DECLARED = (ODD | {"id", "model", "object", "response", "type"}) - {"details", "provider"}
_REPEATED = frozenset({"cache_creation_input_tokens", "cache_read_input_tokens"})
"""What Anthropic's usage has beside OpenAI's fields, which say the same."""

_HIDDEN = "_hidden_params"

matches: Callable[[Fields], bool] = openai.matches
streams: Callable[[Fields], bool] = openai.streams


def read(fields: Fields) -> Reading:
    """Read a whole response by what is in it."""
    return _with_hidden(openai.read(fields), NOTHING)


def read_object(response: Any) -> Reading | None:
    """Read any of the library's responses, with what they hold hidden."""
    fields = fields_of(response)
    if fields is None:
        return None
    return _with_hidden(openai.read(_plainly(fields)), _hidden(response))


def read_chat(response: Any) -> Reading | None:
    """Read a `ModelResponse` at once if it is complete and plain, else as `read_object` does."""
    try:
        fields, extra = response.__dict__, response.__pydantic_extra__
        hidden, usage = response.__pydantic_private__[_HIDDEN], extra["usage"]  # not declared
        counts, more = usage.__dict__, usage.__pydantic_extra__
        model, response_id, name = fields["model"], fields["id"], hidden["custom_llm_provider"]
        if not type(name) is type(model) is type(response_id) is str or type(hidden) is not dict:
            return read_object(response)
        if (
            not name
            or not model
            or not response_id
            or "resp_" in response_id
            or fields["object"] != "chat.completion"
            or not _DECLARED.isdisjoint(extra)
            or extra.get("service_tier") not in USUAL_TIERS_OR_NONE
            or "service_tier" in fields
        ):
            return read_object(response)
        before, after = counts["prompt_tokens_details"], counts["completion_tokens_details"]
        named, cost = before.__dict__, hidden["response_cost"]
        cached, written = named["cached_tokens"], named.get("cache_write_tokens")
        if written is None:
            written = named.get("cache_creation_tokens")
        if (
            (more and (cached is None or written is None or not _REPEATED.issuperset(more)))
            or before.__pydantic_extra__
            or named.get("audio_tokens")
            or named.get("image_tokens")
            or named.get("video_tokens")
            or named.get("cache_creation_token_details")
            or "cached_tokens_details" in named
        ):
            return read_object(response)
        new, output = counts["prompt_tokens"], counts["completion_tokens"]
        total = counts["total_tokens"]
        reasoning = None
        if after is not None:
            said = after.__dict__
            reasoning = said["reasoning_tokens"]
            if (
                after.__pydantic_extra__
                or said.get("audio_tokens")
                or said.get("image_tokens")
                or said.get("video_tokens")
            ):
                return read_object(response)
        if type(cost) is not float or not ODD_COUNTS.isdisjoint(counts):
            return read_object(response)
        if reasoning and (
            not type(new) is type(output) is type(reasoning) is int
            or new | output < 0
            or total != new + output
        ):
            return read_object(response)
    except (AttributeError, KeyError, TypeError):
        return read_object(response)
    return Reading(
        new,
        output,
        cached,
        written,
        reasoning,
        total,
        cost,
        model,
        response_id,
        _PROVIDERS.get(name, name),
        "chat",
        cost_source="caller",
        source=usage,
    )


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that keeps the last value of each field that is not null."""
    return _Merge()


class _Merge:
    __slots__ = ("_chunks", "_hidden")

    def __init__(self) -> None:
        self._chunks = OpenAIMerge(None)
        self._hidden: Fields = NOTHING

    def add(self, fields: Fields) -> bool:
        hidden = part(fields, _HIDDEN) or NOTHING
        if fields.get("usage") is None and _is_reported(hidden.get("usage")):
            fields = {**fields, "usage": hidden["usage"]}
        if not self._chunks.add(fields):
            return False
        self._hidden = hidden or self._hidden
        return True

    def reading(self) -> Reading | None:
        found = self._chunks.reading()
        return None if found is None else _with_hidden(found, self._hidden)


def fields_in(chunk: Any) -> Fields | None:
    """Return the fields of a chunk, what it holds hidden being one of them."""
    fields = fields_of(chunk)
    return None if fields is None else {**_plainly(fields), _HIDDEN: _hidden(chunk)}


def _plainly(fields: Fields) -> Fields:
    """Name the type of an event by a text, which here is one of an enumeration."""
    kind = fields.get("type")
    if type(kind) is str or not isinstance(kind, str):
        return fields
    return {**fields, "type": str.__str__(kind)}


def _is_reported(usage: Any) -> bool:
    """Tell whether it holds more than the zeros of a stream in which nobody reported usage."""
    total = (fields_of(usage) or NOTHING).get("total_tokens")
    return total is not None and total != 0


def _hidden(response: Any) -> Fields:
    """Return the dict that pydantic keeps apart as a private attribute, or that is an attribute."""
    if hasattr(type(response), "__pydantic_private__"):
        private = response.__pydantic_private__
        held = private.get(_HIDDEN) if type(private) is dict else None
    else:
        held = (fields_of(response) or NOTHING).get(_HIDDEN)
    return held if type(held) is dict else fields_of(held) or NOTHING


def _with_hidden(found: Reading, hidden: Fields) -> Reading:
    """Add provider and cost. What the library computes itself is no price of the provider's."""
    if found.response_id is not None and found.response_id.startswith(_ENCODED):
        found = replace(found, is_renamed=True)
    name, cost = _name_in(hidden), found.cost_usd
    is_theirs = cost is not None and name in _NAME_THEIR_PRICE
    if not is_theirs and type(hidden.get("response_cost")) in (int, float):
        cost = hidden["response_cost"]
    return replace(
        found,
        provider=_PROVIDERS.get(name, name) if name else found.provider,
        cost_usd=cost,
        cost_source=None if cost is None else "provider" if is_theirs else "caller",
    )


def _name_in(hidden: Fields) -> str | None:
    """Return the library's name of who answered; for some it stands before the model's alone."""
    model = text(hidden.get("litellm_model_name")) or ""
    before, slash, _ = model.partition("/")
    known = getattr(sys.modules.get("litellm"), "provider_list", ())
    return text(hidden.get("custom_llm_provider")) or (
        before if slash and before in known else None
    )


CLASSES: dict[str, Reader] = {
    "EmbeddingResponse": read_object,
    "ImageResponse": read_object,
    "ModelResponse": read_chat,
    "ModelResponseStream": read_object,
    "ResponseCompletedEvent": read_object,
    "ResponseFailedEvent": read_object,
    "ResponseIncompleteEvent": read_object,
    "ResponsesAPIResponse": read_object,
    "TextCompletionResponse": read_object,
    "TranscriptionResponse": read_object,
}

_STREAM = StreamClass(ITSELF, is_async=False)

STREAMS: dict[tuple[str, str], StreamClass] = {
    ("litellm.litellm_core_utils.streaming_handler", "CustomStreamWrapper"): _STREAM,
    ("litellm.responses.streaming_iterator", "BaseResponsesAPIStreamingIterator"): _STREAM,
}
