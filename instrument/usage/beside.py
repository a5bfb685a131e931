"""What a usage in OpenAI's shape names beside its counts, and what has a price of its own."""

from __future__ import annotations

from typing import Any

from msgspec import MsgspecError, Raw, Struct
from msgspec.json import Decoder

from instrument.usage.fields import NOTHING, USUAL_TIERS, fields_of, part, text, usage_details
from instrument.usage.reading import Fields

__all__ = ["UNPRICED", "details_beside"]

UNPRICED = frozenset({"audio_tokens", "image_tokens", "video_tokens"})
"""The counts of tokens that are no text: parts of the input, or of the output."""

_TOOLS = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",
    "image_generation_call": "image_generations",
}
"""The items of an output that are paid by the piece."""

_BESIDE = frozenset({"num_sources_used", "server_tool_use"})
_LASTING = "cache_creation_token_details"


class _Item(Struct):
    """What kind of thing an item of an output is."""

    type: Any = None
    action: Any = None


_items = Decoder(list[_Item])


def details_beside(
    fields: Fields, usage: Fields, before: Fields, after: Fields
) -> dict[str, Any] | None:
    """Return the details of a response; `before` and `after` are those of input and output."""
    tier, tools = fields.get("service_tier"), fields.get("tools")
    if (
        not tools
        and (tier is None or (type(tier) is str and tier in USUAL_TIERS))
        and not any(before.get(name) or after.get(name) for name in UNPRICED)
        and not before.get(_LASTING)
        and _BESIDE.isdisjoint(usage)
    ):
        return None
    cached = part(before, "cached_tokens_details") or NOTHING
    searches = (part(usage, "server_tool_use") or NOTHING).get("web_search_requests")
    return usage_details(
        tier,
        input_audio_tokens=before.get("audio_tokens"),
        input_image_tokens=before.get("image_tokens"),
        input_video_tokens=before.get("video_tokens"),
        output_audio_tokens=after.get("audio_tokens"),
        output_image_tokens=after.get("image_tokens"),
        output_video_tokens=after.get("video_tokens"),
        cache_audio_read_tokens=cached.get("audio_tokens"),
        cache_image_read_tokens=cached.get("image_tokens"),
        cache_write_1h_tokens=(part(before, _LASTING) or NOTHING).get("ephemeral_1h_input_tokens"),
        sources=usage.get("num_sources_used"),
        **({"web_searches": searches} | (_pieces(fields.get("output")) if tools else {})),
    )


def _pieces(output: Any) -> dict[str, int]:
    """Count what is paid by the piece; to open a page that was found costs nothing."""
    found: dict[str, int] = {}
    for item in _listed(output):
        name = _TOOLS.get(text(item.get("type")) or "")
        action = part(item, "action") or NOTHING
        if name is not None and action.get("type", "search") == "search":
            found[name] = found.get(name, 0) + 1
    return found


def _listed(output: Any) -> list[Fields]:
    if type(output) is Raw:
        try:
            output = _items.decode(output)
        except (ValueError, RecursionError, MsgspecError):
            return []
    return [fields_of(item) or NOTHING for item in output] if type(output) is list else []
