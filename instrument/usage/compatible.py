"""Who is behind a response in OpenAI's shape, and what a gateway or xAI says that it cost."""

from __future__ import annotations

from typing import Any

from instrument.usage.fields import added
from instrument.usage.reading import Fields

__all__ = ["MARKS", "USD_PER_TICK", "behind", "cost_of", "marked", "with_reasoning"]

MARKS = {
    "kv_transfer_params": "vllm",
    "prompt_filter_results": "azure.ai.openai",
    "x_groq": "groq",
}
"""A field beside the usage that one provider alone sends."""

USD_PER_TICK = 1e-10
"""What a tick of xAI's `cost_in_usd_ticks` is, by its `usage.proto`."""


def marked(fields: Fields, provider: str | None) -> str | None:
    """Return the provider whose mark is among the fields, else the one given."""
    for name, marks in MARKS.items():
        if name in fields:
            return marks
    return provider


def behind(
    fields: Fields, usage: Fields, provider: str | None, cost: Any, *, is_apart: bool
) -> str | None:
    """Return the provider that answered, which is not OpenAI because its SDK was used.

    `provider` is what the object's class says, `None` if that is not known; `is_apart` tells that
    reasoning is not in the reported output. A gateway that does not say its name is unknown.
    """
    if provider is not None and provider != "openai":
        return provider
    if not fields.keys().isdisjoint(MARKS):
        return marked(fields, provider)
    if is_apart or "cost_in_usd_ticks" in usage or _begins(fields.get("model"), "grok"):
        is_theirs = is_apart or "cost_in_usd_ticks" in usage
        return "x_ai" if is_theirs and _begins(fields.get("model"), "grok") else None
    if "prompt_cache_hit_tokens" in usage:
        return "deepseek" if _is_deepseeks(fields.get("model")) else None
    if cost is not None or "provider" in fields:
        return "openrouter" if _begins(fields.get("id"), "gen-") else _unnamed(provider, cost)
    return provider


def cost_of(usage: Fields) -> Any:
    """Return the cost in USD that a gateway, Perplexity or xAI reports, `None` if none does."""
    cost = usage.get("cost")
    if cost is None:
        ticks = usage.get("cost_in_usd_ticks")
        return ticks * USD_PER_TICK if type(ticks) is int else ticks
    return cost.get("total_cost") if isinstance(cost, dict) else cost


def with_reasoning(
    input_tokens: Any, output_tokens: Any, reasoning: Any, total: Any, model: Any
) -> Any:
    """Add reasoning where the output leaves it out, as xAI's does and no other's.

    The total shows it; only where there is none the model's name decides.
    """
    if total is None:
        is_apart = type(model) is str and model.startswith("grok")
    else:
        is_apart = type(total) is int and total == added(input_tokens, output_tokens, reasoning)
    return added(output_tokens, reasoning) if is_apart else output_tokens


def _is_deepseeks(model: Any) -> bool:
    """Tell whether this is a model's name at DeepSeek itself, and not at a host of its weights."""
    return _begins(model, "deepseek-") and "/" not in model


def _begins(value: Any, start: str) -> bool:
    return type(value) is str and value.startswith(start)


def _unnamed(provider: str | None, cost: Any) -> str | None:
    return provider if cost is None else None
