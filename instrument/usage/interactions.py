"""Google's Interactions API: one interaction of a model or an agent, by counts of its own names."""

from __future__ import annotations

from typing import Any

from instrument.usage.fields import (
    NOTHING,
    added,
    by_fields,
    failure,
    fields_of,
    part,
    text,
    usage_details,
)
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "matches", "new_merge", "read", "streams"]

_AN_AGENT, _A_MODEL = "invoke_agent", "generate_content"
_KINDS = {"audio": "audio", "image": "image", "video": "video"}


def matches(fields: Fields) -> bool:
    """Tell whether the usage has the names of an interaction's, here or in the event that ends it.

    No other provider's counts are called so.
    """
    usage = part(_inner(fields), "usage") or NOTHING
    return "total_input_tokens" in usage or "total_output_tokens" in usage


def read(fields: Fields) -> Reading:
    """Read an interaction.

    As everywhere in Gemini, the input leaves out what tools were given and the output leaves out
    the thoughts: both are added. The cached tokens are part of the input.
    """
    inner = _inner(fields)
    usage = part(inner, "usage") or NOTHING
    new, tools = usage.get("total_input_tokens"), usage.get("total_tool_use_tokens")
    output, thoughts = usage.get("total_output_tokens"), usage.get("total_thought_tokens")
    return Reading(
        added(new, tools) if tools else new,
        added(output, thoughts) if thoughts else output,
        usage.get("total_cached_tokens"),
        None,
        thoughts,
        usage.get("total_tokens"),
        None,
        _named(inner.get("model")),
        text(inner.get("id")),
        "gcp.gemini",
        _AN_AGENT if inner.get("agent") else _A_MODEL,
        *_failure(inner),
        None,
        inner.get("usage") if usage else None,
        _details(inner, usage),
    )


read_object: Reader = by_fields(read)


def streams(fields: Fields) -> bool:
    """Tell whether this is the event that ends an interaction, or a whole one."""
    return matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that takes the usage from the event that ends the interaction."""
    return _Merge()


class _Merge:
    """Each of several interactions, of which one goes on with the other, has its own usage."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: Fields | None = None

    def add(self, fields: Fields) -> bool:
        if not matches(fields):
            return True
        if self._last is not None and _inner(self._last).get("id") != _inner(fields).get("id"):
            return False
        self._last = fields
        return True

    def reading(self) -> Reading | None:
        return None if self._last is None else read(self._last)


def _inner(fields: Fields) -> Fields:
    """Return the interaction in an event, or the fields themselves."""
    return (part(fields, "interaction") or NOTHING) if "interaction" in fields else fields


def _named(value: Any) -> str | None:
    """Return the text that a name is; of an enumeration's member, its value."""
    return text(str.__str__(value)) if isinstance(value, str) else None


def _failure(inner: Fields) -> tuple[str | None, str | None, str | None]:
    status = _named(inner.get("status"))
    if status == "cancelled":
        return "cancelled", None, None
    if status != "failed":
        return None, None, None
    errors = inner.get("errors")
    first = errors[0] if type(errors) is list and errors else inner.get("error")
    kind, message = failure(first, "code", "status")
    return "error", "failed" if kind == "error" else kind, message


def _details(inner: Fields, usage: Fields) -> dict[str, Any] | None:
    """Return the tokens that are no text, and how it was served if not as usual."""
    found: dict[str, Any] = {}
    for form, name in (
        ("input_{}_tokens", "input_tokens_by_modality"),
        ("input_{}_tokens", "tool_use_tokens_by_modality"),
        ("cache_{}_read_tokens", "cached_tokens_by_modality"),
        ("output_{}_tokens", "output_tokens_by_modality"),
    ):
        several = usage.get(name)
        for each in several if type(several) is list else ():
            fields = fields_of(each) or NOTHING
            kind, count = _KINDS.get(_named(fields.get("modality")) or ""), fields.get("tokens")
            if kind is not None and type(count) is int:
                known = found.get(form.format(kind))
                found[form.format(kind)] = added(known, count)
    return usage_details(_named(inner.get("service_tier")), **found)


CLASSES: dict[str, Reader] = {
    "CreateDecisionResponse": read_object,
    "Interaction": read_object,
    "InteractionCompletedEvent": read_object,
    "InteractionSseEventInteraction": read_object,
}

WHOLE = frozenset({"Interaction", "InteractionCompletedEvent"})
"""The classes of what comes in streams and is a whole interaction each."""

_STREAM = StreamClass("generator", is_async=False)
_ASYNC_STREAM = StreamClass("generator", is_async=True)
_MODULE = "google.genai._gaos.utils.eventstreaming"

STREAMS: dict[tuple[str, str], StreamClass] = {
    (_MODULE, "Stream"): _STREAM,
    (_MODULE, "AsyncStream"): _ASYNC_STREAM,
}
