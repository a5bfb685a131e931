"""What tokens cost at known rates. They are per token, in US dollars.

A price is exact or absent: what `usage_details` in an operation's metadata names (other kinds of
tokens, tools, a service tier) has a rate, or there is no price at all.
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

from msgspec import Struct

from instrument.operation import Operation

__all__ = [
    "DETAILS",
    "FOREVER",
    "KINDS",
    "SEARCHES",
    "Key",
    "KindRates",
    "KnownRates",
    "Rates",
    "is_sum",
    "size_of",
    "tier_of",
]

KINDS = ("audio", "image", "video")
"""The kinds of tokens beside text, of which a price list may know rates."""

SEARCHES = {"web_searches": "web_searches_kcount", "storage_searches": "storage_searches_kcount"}
"""What is paid by the piece, and the key of its price for a thousand."""

DETAILS = (
    "cache_write_1h_tokens",
    "largest_input_tokens",
    "responses",
    "service_tier",
    *SEARCHES,
    *(f"{side}_{kind}_tokens" for kind in KINDS for side in ("input", "output")),
    *(f"cache_{kind}_read_tokens" for kind in KINDS),
)
"""The names in `usage_details` that can be priced; with any other there is no price.

`responses` is of how many responses an operation is the sum, of which the largest has
`largest_input_tokens`.
"""

_DETAILS = frozenset(DETAILS)
FOREVER = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


Key = tuple[str | None, str, str]
"""The provider, the service and the model of an operation, which say what its rates are."""


class KindRates(Struct, frozen=True, omit_defaults=True):
    """US dollars for one token that is no text; `None`: as text costs."""

    kind: str
    input: float | None = None
    cache_read: float | None = None
    output: float | None = None


class Rates(Struct, frozen=True, omit_defaults=True):
    """US dollars for one token of each kind, and for the request; `None`: not known, or none.

    They hold from `since` on and before `until`, on each day from `from_time` to `to_time` if
    those are given, for more than `over` input tokens, up to `up_to`, and in the service tier
    `tier` (`None`: the usual one). `searches` are those that are paid by the piece.
    """

    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    reasoning: float | None = None
    request: float | None = None
    kinds: tuple[KindRates, ...] = ()
    searches: dict[str, float] = {}
    since: datetime = FOREVER[0]
    until: datetime = FOREVER[1]
    from_time: time | None = None
    to_time: time | None = None
    over: int = -1
    up_to: int | None = None
    tier: str | None = None

    def holds(self, moment: datetime, size: int, tier: Any, *, several: bool) -> bool:
        """Tell whether these are the rates of an operation at that moment, with so many tokens.

        What several responses come to says nothing of the size of each, unless the largest is in
        the lowest tier.
        """
        if tier != self.tier or not self.since <= moment < self.until:
            return False
        if self.over >= 0 and (several or size <= self.over):
            return False
        if self.up_to is not None and size > self.up_to:
            return False
        return self.from_time is None or self._at(moment.time())

    def cost(self, one: Operation) -> float | None:
        """Return what an operation costs at these rates; `None` where a rate it needs is not known.

        Where only the total is known, it is taken as input if the model has no output. A total
        that is not the sum of its parts leaves open what was used.
        """
        new, output = one.input_tokens, one.output_tokens
        details = _details(one)
        if details and not details.keys() <= _DETAILS:
            return None
        if new is None:
            return _times(one.tokens, self.input) if output is self.output is None else None
        read, written = one.cache_read_tokens or 0, one.cache_write_tokens or 0
        output, thought = output or 0, one.reasoning_tokens or 0
        if one.tokens not in (None, new + output):
            return None
        if not details:
            return self._cost_of_text(
                new - read - written, read, written, output - thought, thought
            )
        kinds = self._cost_of_kinds(one)
        if kinds is None:
            return None
        cost, other_new, other_read, other_output = kinds
        long_lived = min(written, _detail(one, "cache_write_1h_tokens"))
        text = new - read - written - other_new, read - other_read, output - thought - other_output
        if min(text) < 0:
            return None
        return _sum(
            cost,
            _times(text[0], self.input),
            _times(text[1], self.cache_read, self.input),
            _times(written - long_lived, self.cache_write, self.input),
            _times(long_lived, self.cache_write_1h, self.cache_write, self.input),
            _times(text[2], self.output),
            _times(thought, self.reasoning, self.output),
            (self.request or 0.0) * max(1, _detail(one, "responses")),
            *(_times(_detail(one, name), self.searches.get(name)) for name in SEARCHES),
        )

    def saved(self, one: Operation) -> float:
        """Return what cached tokens saved, less what writing them cost more."""
        if self.input is None:
            return 0.0
        read, written = one.cache_read_tokens or 0, one.cache_write_tokens or 0
        long_lived = min(written, _detail(one, "cache_write_1h_tokens"))
        paid = _sum(
            _times(read, self.cache_read, self.input),
            _times(written - long_lived, self.cache_write, self.input),
            _times(long_lived, self.cache_write_1h, self.cache_write, self.input),
        )
        return (read + written) * self.input - (paid or 0.0)

    def _cost_of_text(
        self, new: int, read: int, written: int, said: int, thought: int
    ) -> float | None:
        """Return the cost of one response that has tokens of text alone, as most have."""
        if new < 0 or said < 0:
            return None
        # one by one, which takes a third of what a loop over tuples does
        of_input, of_output = self.input, self.output
        cost: list[float | None] = []
        if new:
            cost.append(_at_rate(new, of_input, None))
        if read:
            cost.append(_at_rate(read, self.cache_read, of_input))
        if written:
            cost.append(_at_rate(written, self.cache_write, of_input))
        if said:
            cost.append(_at_rate(said, of_output, None))
        if thought:
            cost.append(_at_rate(thought, self.reasoning, of_output))
        known = [each for each in cost if each is not None]
        return sum([*known, self.request or 0.0]) if len(known) == len(cost) else None

    def _cost_of_kinds(self, one: Operation) -> tuple[float, int, int, int] | None:
        """Return the cost of the tokens with rates of their own, and how many these are.

        Input that was not cached, cached input and output. `None` where cached tokens may be of
        such a kind, and nobody says how many.
        """
        cost, new, cached, said = 0.0, 0, 0, 0
        for rates in self.kinds:
            of_input = _detail(one, f"input_{rates.kind}_tokens") if rates.input else 0
            of_output = _detail(one, f"output_{rates.kind}_tokens") if rates.output else 0
            name = f"cache_{rates.kind}_read_tokens"
            of_cached = min(of_input, _detail(one, name))
            if of_input and one.cache_read_tokens and _details(one).get(name) is None:
                return None
            cached_rate = _first(rates.cache_read, self.cache_read, rates.input)
            cost += (of_input - of_cached) * (rates.input or 0) + of_output * (rates.output or 0)
            cost += of_cached * (cached_rate or 0)
            new, cached, said = new + of_input - of_cached, cached + of_cached, said + of_output
        return cost, new, cached, said

    def _at(self, hour: time) -> bool:
        begin, end = self.from_time or time.min, self.to_time or time.max
        return hour >= begin or hour < end if end < begin else begin <= hour < end


class KnownRates(Struct, frozen=True, omit_defaults=True):
    """The rates of the operations that have a key, as a price list had them."""

    provider: str | None
    service: str
    model: str
    rates: tuple[Rates, ...] = ()

    @property
    def key(self) -> Key:
        return self.provider, self.service, self.model


def _details(one: Operation) -> dict[str, Any]:
    """Return what an operation says of its usage beside the counts."""
    found = one.metadata.get("usage_details") if one.metadata else None
    return found if type(found) is dict else _NONE


def tier_of(one: Operation) -> Any:
    """Return the service tier that an operation names; `None`: the usual one."""
    return _details(one).get("service_tier")


def _detail(one: Operation, name: str) -> int:
    """Return a count in `usage_details`, 0 where it is not one."""
    count = _details(one).get(name)
    return count if type(count) is int and count > 0 else 0


def size_of(one: Operation) -> int:
    """Return how many input tokens the largest response of an operation has."""
    largest = _detail(one, "largest_input_tokens") if one.metadata else 0
    return largest or one.input_tokens or one.tokens or 0


def is_sum(one: Operation) -> bool:
    """Tell whether this is, or may be, the sum of several responses."""
    if one.metadata and _details(one).get("responses") is not None:
        return _detail(one, "responses") > 1
    return one.kind == "invoke_agent"


def _times(count: int | None, *rates: float | None) -> float | None:
    if not count:
        return 0.0 if count == 0 else None
    rate = _first(*rates)
    return None if rate is None else count * rate


def _at_rate(count: int, rate: float | None, else_: float | None) -> float | None:
    if rate is None:
        rate = else_
    return None if rate is None else count * rate


def _first(*rates: float | None) -> float | None:
    return next((rate for rate in rates if rate is not None), None)


def _sum(*amounts: float | None) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


_NONE: dict[str, Any] = {}
