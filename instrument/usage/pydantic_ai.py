"""Pydantic AI's results of runs, and its responses of models; both count inclusively."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from instrument.usage.adding import combined
from instrument.usage.fields import NOTHING, fields_of, first, part, text, usage_details
from instrument.usage.reading import Fields, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS"]

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "google": "gcp.gemini",
    "google-gla": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "grok": "x_ai",
    "mistral": "mistral_ai",
    "moonshotai": "moonshot_ai",
    "xai": "x_ai",
}


def read_response(response: Any) -> Reading | None:
    """Read a `ModelResponse`; a usage of nothing but zeros was not reported."""
    fields = fields_of(response) or NOTHING
    usage = part(fields, "usage")
    if usage is None:
        return None
    provider, cost = text(fields.get("provider_name")), _cost(usage)
    return Reading(
        *_counts(usage),
        cost_usd=cost,
        cost_source=None if cost is None else "caller",
        model=text(fields.get("model_name")),
        response_id=text(fields.get("provider_response_id")),
        provider=None if provider is None else _PROVIDERS.get(provider, provider),
        kind="chat",
        source=fields["usage"],
        details=_details(usage),
    )


def read_run(result: Any) -> Reading | None:
    """Read the result of a run: the responses in it, if they are all that it used.

    What a run used through its tools, in runs inside it, is in its own sum alone.
    """
    fields = fields_of(result) or NOTHING
    state = part(fields, "_state") or NOTHING
    usage = part(state, "usage")
    if usage is None:
        return None
    counts = _counts(usage)
    responses = combined(_responses(state.get("message_history"), fields.get("_new_message_index")))
    if responses is not None and (responses.input_tokens, responses.output_tokens) == counts[:2]:
        return responses
    cost = _cost(usage)
    return Reading(
        *counts,
        cost_usd=cost,
        cost_source=None if cost is None else "caller",
        kind="invoke_agent",
        source=state["usage"],
        details=_details(usage),
    )


def read_event(event: Any) -> Reading | None:
    """Read the event that ends a run, by the result in it."""
    result = (fields_of(event) or NOTHING).get("result")
    return None if result is None else read_run(result)


def _responses(messages: Any, start: Any) -> Iterator[Reading]:
    if type(messages) is list:
        for message in messages[start if type(start) is int else 0 :]:
            found = read_response(message)
            if found is not None:
                yield found


def _counts(usage: Fields) -> tuple[Any, Any, Any, Any, Any]:
    """Return input, output, cache read and written, and reasoning.

    The counts are 0 where a provider reports nothing.
    """
    input_tokens, output_tokens = usage.get("input_tokens"), usage.get("output_tokens")
    if not input_tokens and not output_tokens:
        return None, None, None, None, None
    details = part(usage, "details") or NOTHING
    return (
        input_tokens,
        output_tokens,
        usage.get("cache_read_tokens") or None,
        usage.get("cache_write_tokens") or None,
        first(details.get("reasoning_tokens"), usage.get("output_reasoning_tokens") or None),
    )


def _details(usage: Fields) -> dict[str, Any] | None:
    """Return what of the usage has a price of its own, and how many requests a run took."""
    details = part(usage, "details") or NOTHING
    lasting = first(usage.get("cache_write_1h_tokens"), details.get("ephemeral_1h_input_tokens"))
    return usage_details(
        responses=usage.get("requests"),
        cache_write_1h_tokens=lasting,
        input_audio_tokens=usage.get("input_audio_tokens"),
        cache_audio_read_tokens=usage.get("cache_audio_read_tokens"),
        output_audio_tokens=usage.get("output_audio_tokens"),
        web_searches=details.get("web_search_requests"),
    )


def _cost(usage: Fields) -> float | None:
    """Return what the library has computed from list prices."""
    cost = usage.get("cost")
    return float(cost) if type(cost) is Decimal else None


CLASSES: dict[str, Reader] = {
    "AgentRunResult": read_run,
    "AgentRunResultEvent": read_event,
    "ModelResponse": read_response,
}

STREAMS: dict[tuple[str, str], StreamClass] = {}
