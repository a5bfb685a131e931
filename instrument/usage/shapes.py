"""Dicts in OpenAI's shape that are complete and plain, read in a fraction of the time.

Each reader here says exactly what the general one says of the same dict, and leaves to it whatever
lacks a part, has one of an impossible type, or one more that could matter. Conditions are written
out, because a look-up costs less than a set does, and a call more than both.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, ValidationError, convert

from instrument.usage.beside import UNPRICED
from instrument.usage.compatible import MARKS
from instrument.usage.families import read_document
from instrument.usage.fields import USUAL_TIERS_OR_NONE
from instrument.usage.plain import ODD, ODD_COUNTS
from instrument.usage.reading import Fields, Reading

__all__ = ["read_chat", "read_embeddings", "read_images", "read_response"]


class _ImagesUsage(Struct, gc=False, forbid_unknown_fields=True):
    input_tokens: Any
    output_tokens: Any
    total_tokens: Any = None


class _Images(Struct, gc=False, forbid_unknown_fields=True):
    """Images have neither an id nor a name for what they are."""

    created: Any
    data: list[Any]
    usage: _ImagesUsage
    background: Any = None
    output_format: Any = None
    quality: Any = None
    size: Any = None


def read_chat(fields: dict[str, Any]) -> Reading | None:
    """Read a dict that calls itself a chat completion."""
    try:
        usage, model, response_id = fields["usage"], fields["model"], fields["id"]
        if type(usage) is not dict:
            return read_document(fields)
        new, output, total = (
            usage["prompt_tokens"],
            usage["completion_tokens"],
            usage["total_tokens"],
        )
        if (
            type(model) is not str
            or type(response_id) is not str
            or not model
            or not response_id
            or "grok" in model
            or fields["object"] != "chat.completion"
            or fields.get("service_tier") not in USUAL_TIERS_OR_NONE
        ):
            return read_document(fields)
    except (KeyError, TypeError):
        return read_document(fields)
    before, after = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    before, after = _NOTHING if before is None else before, _NOTHING if after is None else after
    if (
        not type(before) is type(after) is dict
        or before.get("audio_tokens")
        or after.get("audio_tokens")
        or "image_tokens" in after
        or "video_tokens" in after
        or (len(before) > 1 and not _ODD_BEFORE_CHAT.isdisjoint(before))
    ):
        return read_document(fields)
    reasoning = after.get("reasoning_tokens")
    if reasoning and (
        not type(new) is type(output) is type(reasoning) is int
        or new | output < 0
        or total != new + output
    ):
        return read_document(fields)
    if (
        "error" in fields
        or "status" in fields
        or "tools" in fields
        or ((len(usage) != 5 or not before or not after) and not _UNUSUAL_COUNTS.isdisjoint(usage))
    ):
        return read_document(fields)
    cached, cost, provider = before.get("cached_tokens"), None, None
    if (
        "prompt_cache_hit_tokens" in usage
        or "cost" in usage
        or "provider" in fields
        or "x_groq" in fields
        or "prompt_filter_results" in fields
        or "kv_transfer_params" in fields
    ):
        cost = usage.get("cost")
        if type(cost) is dict:
            return read_document(fields)
        provider = _said_by(fields, usage, model, response_id, cost)
        if cached is None:
            cached = usage.get("prompt_cache_hit_tokens")
    return Reading(
        new,
        output,
        cached,
        before.get("cache_write_tokens"),
        reasoning,
        total,
        cost,
        model,
        response_id,
        provider,
        "chat",
        cost_source=None if cost is None else "provider",
        source=usage,
    )


def _said_by(fields: Fields, usage: Fields, model: str, response_id: str, cost: Any) -> str | None:
    """Return the provider of a response that says more than OpenAI's."""
    for mark in MARKS:
        if mark in fields:
            return MARKS[mark]
    if "prompt_cache_hit_tokens" in usage:
        return "deepseek" if model[:9] == "deepseek-" and "/" not in model else None
    if response_id[:4] == "gen-" and (cost is not None or "provider" in fields):
        return "openrouter"
    return None


def read_response(fields: dict[str, Any]) -> Reading | None:
    """Read a dict that calls itself a response of the Responses API."""
    try:
        usage, model, response_id = fields["usage"], fields["model"], fields["id"]
        if type(usage) is not dict:
            return read_document(fields)
        before, after = usage["input_tokens_details"], usage["output_tokens_details"]
        new, output, total = usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]
        if (
            type(model) is not str
            or type(response_id) is not str
            or not model
            or not response_id
            or "grok" in model
            or fields["object"] != "response"
            or fields["status"] != "completed"
            or fields["error"] is not None
            or fields.get("tools")
            or fields.get("service_tier") not in USUAL_TIERS_OR_NONE
            or "provider" in fields
            or "x_groq" in fields
            or "prompt_filter_results" in fields
            or "kv_transfer_params" in fields
            or not type(before) is type(after) is dict
            or (len(usage) != 5 and not _OTHERS.isdisjoint(usage))
        ):
            return read_document(fields)
    except (KeyError, TypeError):
        return read_document(fields)
    reasoning = after.get("reasoning_tokens")
    if (
        (len(before) > 1 and not _ODD_BEFORE.isdisjoint(before))
        or (len(after) > 1 and not UNPRICED.isdisjoint(after))
        or (
            reasoning
            and (
                not type(new) is type(output) is type(reasoning) is int
                or new | output < 0
                or total != new + output
            )
        )
    ):
        return read_document(fields)
    return Reading(
        new,
        output,
        before.get("cached_tokens"),
        before.get("cache_write_tokens"),
        reasoning,
        total,
        None,
        model,
        response_id,
        None,
        "chat",
        source=usage,
    )


def read_embeddings(fields: dict[str, Any]) -> Reading | None:
    """Read a dict that calls itself a list, as embeddings do, and has no id."""
    try:
        usage, model, first = fields["usage"], fields["model"], fields["data"][0]
        if (
            type(usage) is not dict
            or usage.keys() != _OF_EMBEDDINGS
            or usage["prompt_tokens"] is None
            or type(first) is not dict
            or "relevance_score" in first
            or not _ODD_IN_LIST.isdisjoint(fields)
            or type(model) is not str
            or "grok" in model
            or fields.get("service_tier") not in USUAL_TIERS_OR_NONE
        ):
            return read_document(fields)
    except (IndexError, KeyError, TypeError):
        return read_document(fields)
    return Reading(
        usage["prompt_tokens"],
        None,
        None,
        None,
        None,
        usage["total_tokens"],
        None,
        model or None,
        None,
        None,
        "embeddings",
        source=usage,
    )


def read_images(fields: dict[str, Any]) -> Reading | None:
    """Read a dict with images, which says of itself only when it was made."""
    if type(fields["usage"]) is not dict:
        return read_document(fields)
    try:
        found = convert(fields, _Images)
    except (ValidationError, RecursionError):
        return read_document(fields)
    usage, number = found.usage, len(found.data)
    if not number:
        return read_document(fields)
    return Reading(
        usage.input_tokens,
        usage.output_tokens,
        None,
        None,
        None,
        usage.total_tokens,
        None,
        None,
        None,
        None,
        "image_generation",
        source=fields["usage"],
        details={"images": number},
    )


_NOTHING: dict[str, Any] = {}
_OF_EMBEDDINGS = {"prompt_tokens", "total_tokens"}
_ODD_IN_LIST = ODD | {"ResponseMetadata", "id", "request_id"}
_UNUSUAL_COUNTS = ODD_COUNTS - {"cost", "prompt_cache_hit_tokens"}
_OTHERS = ODD_COUNTS | {"prompt_tokens", "completion_tokens"}
_ODD_BEFORE = UNPRICED | {
    "cache_creation_token_details",
    "cache_creation_tokens",
    "cached_tokens_details",
}
_ODD_BEFORE_CHAT = _ODD_BEFORE - {"audio_tokens"}
