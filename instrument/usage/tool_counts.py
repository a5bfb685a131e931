"""The counts that command-line tools print, each tool's by its own rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from instrument.usage.fields import NOTHING, added, fields_of, first, part
from instrument.usage.reading import Fields

__all__ = [
    "Counts",
    "by_model",
    "has_shrunk",
    "is_inclusive",
    "of_gemini_stats",
    "of_message",
    "of_turn",
    "requests_of",
    "summed",
]


class Counts(NamedTuple):
    """Counts in the order of `Usage`; cached tokens are in `input`, reasoning in `output`."""

    input_tokens: Any = None
    output_tokens: Any = None
    cache_read_tokens: Any = None
    cache_write_tokens: Any = None
    reasoning_tokens: Any = None
    total_tokens: Any = None
    cost_usd: Any = None

    def known(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if value is not None}


def summed(counts: Iterable[Counts]) -> Counts:
    """Return the sum of each count; a total only if each has one; no cost."""
    several = tuple(counts)
    if len(several) == 1:
        return several[0]._replace(cost_usd=None)
    columns = zip(*several, strict=True)
    sums = Counts(*(added(*column) for column in (*columns,)[:6])) if several else Counts()
    has_totals = all(each.total_tokens is not None for each in several)
    return sums if has_totals else sums._replace(total_tokens=None)


def is_inclusive(usage: Fields) -> bool:
    """Tell whether Anthropic's names stand for an input with the cache in it, as Qwen's do."""
    return usage.get("total_tokens") is not None


def of_message(usage: Fields, *, inclusive: bool = False) -> Counts:
    """Read a usage with Anthropic's names."""
    new, read = usage.get("input_tokens"), usage.get("cache_read_input_tokens")
    written = usage.get("cache_creation_input_tokens")
    details = part(usage, "output_tokens_details") or NOTHING
    return Counts(
        new if inclusive or new is None else added(new, read, written),
        usage.get("output_tokens"),
        read,
        written,
        details.get("thinking_tokens"),
        usage.get("total_tokens"),
    )


def of_turn(usage: Fields) -> Counts:
    """Read a usage of Codex: cached tokens are in the input, reasoning is in the output."""
    return Counts(
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        usage.get("cached_input_tokens"),
        None,
        first(usage.get("reasoning_output_tokens"), usage.get("reasoning_tokens")),
        usage.get("total_tokens"),
    )


def of_gemini_stats(stats: Fields) -> Counts:
    """Read the sums in the result of Gemini's stream.

    The total also holds thoughts, which are output, and what tools were given, which is input:
    no field tells them apart.
    """
    return Counts(
        stats.get("input_tokens"),
        stats.get("output_tokens"),
        stats.get("cached"),
        total_tokens=stats.get("total_tokens"),
    )


def by_model(models: Any, *, inclusive: bool = False) -> dict[str, Counts]:
    """Read the counts of each model: Claude's `modelUsage`, or the `stats.models` of Gemini."""
    found: dict[str, Counts] = {}
    for name, entry in dict.items(models) if isinstance(models, dict) else ():
        fields = fields_of(entry)
        counts = None if fields is None else _of_model(fields, inclusive=inclusive)
        if counts is not None and isinstance(name, str):
            found[name] = counts
    return found


def requests_of(models: Any) -> int | None:
    """Return how many requests Gemini's models were sent, `None` where it does not say."""
    entries = dict.values(models) if isinstance(models, dict) else ()
    said = [part(fields_of(entry) or NOTHING, "api") or NOTHING for entry in entries]
    counts: list[Any] = [each.get("totalRequests") for each in said]
    return sum(counts) if counts and all(type(each) is int for each in counts) else None


def has_shrunk(before: dict[str, Counts], after: dict[str, Counts]) -> bool:
    """Tell whether a model's counts went down, as those of one run never do."""
    return any(
        _is_less(after.get(name, Counts()), counts, place)
        for name, counts in before.items()
        for place in (0, 1)
    )


def _is_less(after: Counts, before: Counts, place: int) -> bool:
    new, old = after[place], before[place]
    return type(old) is int and (type(new) is not int or new < old)


def _of_model(entry: Fields, *, inclusive: bool) -> Counts | None:
    if "tokens" in entry:
        return _of_gemini_model(part(entry, "tokens") or NOTHING)
    if "inputTokens" in entry or "outputTokens" in entry:
        return _of_claude_model(entry, inclusive=inclusive)
    if "total_tokens" in entry:
        return of_gemini_stats(entry)
    return None


def _of_claude_model(entry: Fields, *, inclusive: bool) -> Counts:
    new, read = entry.get("inputTokens"), entry.get("cacheReadInputTokens")
    written = entry.get("cacheCreationInputTokens")
    return Counts(
        new if inclusive or new is None else added(new, read, written),
        entry.get("outputTokens"),
        read,
        written,
        cost_usd=first(entry.get("costUSD"), entry.get("costUsd")),
    )


def _of_gemini_model(tokens: Fields) -> Counts:
    """Add what tools were given to the prompt, and the thoughts to the candidates."""
    thoughts = tokens.get("thoughts")
    return Counts(
        added(tokens.get("prompt"), tokens.get("tool")),
        added(tokens.get("candidates"), thoughts),
        tokens.get("cached"),
        None,
        thoughts,
        tokens.get("total"),
    )
