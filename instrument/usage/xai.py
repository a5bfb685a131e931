"""xAI's own SDK: protocol buffers, in which reasoning is not part of the completion."""

from __future__ import annotations

from typing import Any

from instrument.usage.compatible import USD_PER_TICK, with_reasoning
from instrument.usage.fields import fields_of, text, usage_details
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "matches", "new_merge", "read", "streams"]

_COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "cached_prompt_text_tokens",
    "reasoning_tokens",
    "total_tokens",
    "cost_in_usd_ticks",
)


def matches(fields: Fields) -> bool:
    """Tell whether this is one of the SDK's wrappers around a protocol buffer."""
    return "_proto" in fields


def read(fields: Fields) -> Reading:
    """Read a whole response; a buffer holds 0 for what is absent, so all zeros are no usage."""
    response = fields.get("_proto")
    usage = getattr(response, "usage", None)
    prompt, completion, cached, reasoning, total, ticks = (
        getattr(usage, name, None) for name in _COUNTS
    )
    if not prompt and not total:
        prompt = completion = cached = reasoning = total = None
    model = text(getattr(response, "model", None))
    if reasoning:
        completion = with_reasoning(prompt, completion, reasoning, total, model)
    cost = ticks * USD_PER_TICK if ticks and type(ticks) is int else None
    return Reading(
        prompt,
        completion,
        cached,
        None,
        reasoning,
        total,
        cost,
        model,
        text(getattr(response, "id", None)),
        "x_ai",
        "image_generation" if "_image" in fields else "chat",
        cost_source=None if cost is None else "provider",
        source=None if total is None else usage,
        details=usage_details(sources=getattr(usage, "num_sources_used", None)),
    )


def read_any(response: Any) -> Reading | None:
    """Read the SDK's `Response`, or one of its images."""
    fields = fields_of(response)
    return None if fields is None or "_proto" not in fields else read(fields)


def read_object(response: Any) -> Reading | None:
    """Do the same at once if it is complete and plain."""
    try:
        fields = response.__dict__
        whole = fields["_proto"]
        usage, model, response_id = whole.usage, whole.model, whole.id
        new, output, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
        reasoning, ticks = usage.reasoning_tokens, usage.cost_in_usd_ticks
        cached, sources = usage.cached_prompt_text_tokens, usage.num_sources_used
    except (AttributeError, KeyError):
        return read_any(response)
    if type(new) is not int or type(output) is not int or type(reasoning) is not int:
        return read_any(response)
    if ticks or sources:
        return read_any(response)
    if not new or new | output | reasoning < 0 or total != new + output + reasoning:
        return read_any(response)
    if type(model) is not str or type(response_id) is not str or not model or not response_id:
        return read_any(response)
    return Reading(
        new,
        output + reasoning,
        cached,
        None,
        reasoning,
        total,
        None,
        model,
        response_id,
        "x_ai",
        "image_generation" if "_image" in fields else "chat",
        source=usage,
    )


def streams(fields: Fields) -> bool:
    """Tell whether this is a chunk, or the response that the SDK puts together beside it."""
    return matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that keeps the last reading with usage: a chunk's counts are cumulative."""
    return _Merge()


class _Merge:
    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: Reading | None = None

    def add(self, fields: Fields) -> bool:
        if "_proto" not in fields:
            return True
        before, found = self._found, read(fields)
        if before is None:
            self._found = found
        elif (found.response_id or before.response_id) != before.response_id:
            return False
        elif found.total_tokens is not None or before.total_tokens is None:
            self._found = found
        return True

    def reading(self) -> Reading | None:
        return self._found


CLASSES: dict[str, Reader] = {
    "BaseImageResponse": read_object,
    "Chunk": read_object,
    "CompactContextResponse": read_object,
    "Response": read_object,
}

STREAMS: dict[tuple[str, str], StreamClass] = {}
