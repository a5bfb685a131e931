"""Objects in OpenAI's shape that are complete and plain, read in a fraction of the time.

Each reader here says exactly what the general one says of the same response, and leaves to it
whatever lacks a part, has one of an impossible type, or one more that could matter. What is a
function there is written out here, because it is calls that cost. What an SDK's object has beyond
the fields that its class declares is in `__pydantic_extra__`.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from instrument.usage.compatible import marked
from instrument.usage.fields import USUAL_TIERS_OR_NONE
from instrument.usage.reading import Fields, Reader, Reading

__all__ = [
    "ODD",
    "ODD_COUNTS",
    "chat_object",
    "embeddings_object",
    "read_chat_fields",
    "response_object",
]

ODD = frozenset(
    {
        "details",
        "error",
        "kv_transfer_params",
        "prompt_filter_results",
        "provider",
        "status",
        "tools",
        "x_groq",
    }
)
"""What beside the usage may say of a failure, or of who answered."""

ODD_COUNTS = frozenset(
    {
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "cached_tokens",
        "cost",
        "cost_in_usd_ticks",
        "num_sources_used",
        "prompt_cache_hit_tokens",
        "server_tool_use",
        "type",
    }
)
"""What in a usage stands in for a count, or says of the cost and of who answered."""


def chat_object(provider: str, general: Reader) -> Reader:
    """Return a reader for an SDK's `ChatCompletion`."""

    def read_object(completion: Any) -> Reading | None:
        try:
            usage, model, response_id, kind = _of_chat(fields := completion.__dict__)
            extra = completion.__pydantic_extra__
            if usage.__pydantic_extra__ or (extra and not _SAYING.isdisjoint(extra)):
                return general(completion)
            if (
                kind != "chat.completion"
                or type(model) is not str
                or not model
                or "grok" in model
                or type(response_id) is not str
                or not response_id
                or fields.get("service_tier") not in USUAL_TIERS_OR_NONE
            ):
                return general(completion)
            new, output, total, before, after = _of_chat_usage(usage.__dict__)
            cached = written = reasoning = None
            old = fresh = thought = 0
            if before is not None:
                named = before.__dict__
                cached, written = named["cached_tokens"], named.get("cache_write_tokens")
                if (
                    before.__pydantic_extra__
                    or named.get("audio_tokens")
                    or named.get("image_tokens")
                ):
                    return general(completion)
                old = 0 if cached is None else cached
                fresh = 0 if written is None else written
            if after is not None:
                named = after.__dict__
                reasoning = named["reasoning_tokens"]
                if after.__pydantic_extra__ or named.get("audio_tokens"):
                    return general(completion)
                thought = 0 if reasoning is None else reasoning
            if (
                (type(new), type(output), type(total), type(old), type(fresh), type(thought))
                != _COUNTS
                or old < 0
                or fresh < 0
                or old + fresh > new
                or thought < 0
                or thought > output
                or total > _USUAL
                or (total != new + output and (thought or total < new or total < output))
            ):
                return general(completion)
        except (AttributeError, KeyError, TypeError):
            return general(completion)
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
            marked(extra, provider) if extra and provider == "openai" else provider,
            "chat",
            source=usage,
            is_plain=True,
        )

    return read_object


def response_object(provider: str, general: Reader) -> Reader:
    """Return a reader for an SDK's `Response`."""

    def read_object(response: Any) -> Reading | None:
        try:
            fields = response.__dict__
            usage, model, response_id = fields["usage"], fields["model"], fields["id"]
            if fields["status"] != "completed" or fields["error"] is not None:
                return general(response)
            if (
                response.__pydantic_extra__
                or usage.__pydantic_extra__
                or fields["tools"]
                or fields["service_tier"] not in USUAL_TIERS_OR_NONE
            ):
                return general(response)
            if fields["object"] != "response" or type(model) is not str or "grok" in model:
                return general(response)
            if not model or type(response_id) is not str or not response_id:
                return general(response)
            counts = usage.__dict__
            before, after = counts["input_tokens_details"], counts["output_tokens_details"]
            new, output = counts["input_tokens"], counts["output_tokens"]
            total, named = counts["total_tokens"], before.__dict__
            cached, written = named["cached_tokens"], named.get("cache_write_tokens")
            if before.__pydantic_extra__ or after.__pydantic_extra__:
                return general(response)
            reasoning = after.__dict__["reasoning_tokens"]
            if reasoning and (
                not type(new) is type(output) is type(reasoning) is int
                or new | output < 0
                or total != new + output
            ):
                return general(response)
        except (AttributeError, KeyError, TypeError):
            return general(response)
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

    return read_object


def embeddings_object(provider: str, general: Reader) -> Reader:
    """Return a reader for an SDK's `CreateEmbeddingResponse`, which has no id."""

    def read_object(response: Any) -> Reading | None:
        try:
            fields = response.__dict__
            usage, model = fields["usage"], fields["model"]
            if response.__pydantic_extra__ or usage.__pydantic_extra__ or "id" in fields:
                return general(response)
            if fields["object"] != "list" or type(model) is not str or "grok" in model:
                return general(response)
            counts = usage.__dict__
            new, total = counts["prompt_tokens"], counts["total_tokens"]
            if new is None:
                return general(response)
        except (AttributeError, KeyError, TypeError):
            return general(response)
        return Reading(
            new,
            None,
            None,
            None,
            None,
            total,
            None,
            model or None,
            None,
            provider,
            "embeddings",
            source=usage,
        )

    return read_object


def read_chat_fields(
    fields: Fields,
    usage: Fields,
    more: Fields,
    source: Any,
    provider: str | None,
    general: Reader,
    completion: Any,
) -> Reading | None:
    """Read a completion whose usage has dicts in it, and beside whose usage nothing is odd.

    `more` is the part of the usage that they are in, and `completion` is what `general` reads.
    """
    try:
        model, response_id, total = fields["model"], fields["id"], usage["total_tokens"]
        new, output = usage["prompt_tokens"], usage["completion_tokens"]
        if fields["object"] != "chat.completion" or type(model) is not str or "grok" in model:
            return general(completion)
        if (
            not model
            or type(response_id) is not str
            or not response_id
            or fields.get("service_tier") not in USUAL_TIERS_OR_NONE
        ):
            return general(completion)
    except (KeyError, TypeError):
        return general(completion)
    before, after = more.get("prompt_tokens_details"), more.get("completion_tokens_details")
    before = _NOTHING if before is None else before
    after = _NOTHING if after is None else after
    if not type(before) is type(after) is dict or not ODD_COUNTS.isdisjoint(more):
        return general(completion)
    if (
        before.get("audio_tokens")
        or after.get("audio_tokens")
        or before.get("image_tokens")
        or not _ODD_DETAILS.isdisjoint(before)
        or not _ODD_KINDS.isdisjoint(after)
    ):
        return general(completion)
    written, reasoning = before.get("cache_write_tokens"), after.get("reasoning_tokens")
    if written is None and "cache_creation_tokens" in before:
        return general(completion)
    if reasoning and (
        not type(new) is type(output) is type(reasoning) is int
        or new | output < 0
        or total != new + output
    ):
        return general(completion)
    return Reading(
        new,
        output,
        before.get("cached_tokens"),
        written,
        reasoning,
        total,
        None,
        model,
        response_id,
        provider,
        "chat",
        source=source,
    )


_of_chat = itemgetter("usage", "model", "id", "object")
_of_chat_usage = itemgetter(
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
)
_COUNTS = (int,) * 6
_NOTHING: dict[str, Any] = {}
_ODD_KINDS = frozenset({"image_tokens", "video_tokens"})
_ODD_DETAILS = frozenset({"cache_creation_token_details", "cached_tokens_details", "video_tokens"})
_USUAL = 2**30 - 1
"""So many tokens are possible, and quickly compared: they are one digit inside Python."""

_SAYING = frozenset({"error", "provider", "status", "tools"})
