"""What tokens cost by list price, when the call was made: the data of genai-prices, and your own.

Rates are per token, in US dollars. A provider's own figure always comes first; what is not known
has no price, which is not the same as free.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time
from functools import cache
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr

from instrument.operation import Operation

__all__ = ["Key", "Pricing", "Rates", "is_available"]

Key = tuple[str | None, str, str]
"""The provider, the service and the model of an operation, which say what its rates are."""

_IDS = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "vertex": "google",
    "x_ai": "x-ai",
    "xai": "x-ai",
}
# who makes models: where nobody says who answered, they are asked in this order
_MAKERS = ("openai", "anthropic", "google", "mistral", "cohere", "deepseek", "x-ai", "moonshotai")
_PRICE_KEYS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "reasoning": "output_reasoning_mtok",
}
_MILLION = 1e6
_FOREVER = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


class Rates(Struct, frozen=True):
    """US dollars for one token of each kind, and for the request; `None`: not known, or none.

    They hold from `since` on and before `until`, on each day from `from_time` to `to_time` if
    those are given, and for more than `over` input tokens, up to `up_to`.
    """

    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    reasoning: float | None = None
    request: float | None = None
    since: datetime = _FOREVER[0]
    until: datetime = _FOREVER[1]
    from_time: time | None = None
    to_time: time | None = None
    over: int = -1
    up_to: int | None = None

    def holds(self, moment: datetime, input_tokens: int) -> bool:
        """Tell whether these are the rates of a call at that moment with so many tokens."""
        if not self.since <= moment < self.until:
            return False
        if input_tokens <= self.over or (self.up_to is not None and input_tokens > self.up_to):
            return False
        return self.from_time is None or self._at(moment.time())

    def cost(self, one: Operation) -> float | None:
        """Return what an operation costs at these rates; `None` where a rate it needs is not known.

        Where only the total is known, it is taken as input if the model has no output.
        """
        if one.input_tokens is None and one.output_tokens is None:
            return _times(one.tokens, self.input) if self.output is None else None
        read, written = one.cache_read_tokens or 0, one.cache_write_tokens or 0
        long_lived = min(written, _long_lived(one))
        thought = one.reasoning_tokens or 0
        return _sum(
            _times((one.input_tokens or 0) - read - written, self.input),
            _times(read, self.cache_read, self.input),
            _times(written - long_lived, self.cache_write, self.input),
            _times(long_lived, self.cache_write_1h, self.cache_write, self.input),
            _times((one.output_tokens or 0) - thought, self.output),
            _times(thought, self.reasoning, self.output),
            self.request or 0.0,
        )

    def saved(self, one: Operation) -> float:
        """Return what cached tokens saved, less what writing them cost more."""
        if self.input is None:
            return 0.0
        read, written = one.cache_read_tokens or 0, one.cache_write_tokens or 0
        long_lived = min(written, _long_lived(one))
        paid = _sum(
            _times(read, self.cache_read, self.input),
            _times(written - long_lived, self.cache_write, self.input),
            _times(long_lived, self.cache_write_1h, self.cache_write, self.input),
        )
        return (read + written) * self.input - (paid or 0.0)

    def _at(self, hour: time) -> bool:
        begin, end = self.from_time or time.min, self.to_time or time.max
        return hour >= begin or hour < end if end < begin else begin <= hour < end


class Pricing:
    """List prices as a log is read with them.

    `as_of`: the prices of that moment for all calls; `model`: what everything would have cost on
    that model. With either, what providers and callers say of the cost is left aside. `own` has
    the rates of private models, by name, in US dollars per million tokens.
    """

    def __init__(
        self,
        own: dict[str, dict[str, float]] | None = None,
        *,
        as_of: datetime | None = None,
        model: str | None = None,
    ) -> None:
        self.as_of = as_of
        self.model = model
        self._own = {name: _own_rates(rates) for name, rates in (own or {}).items()}
        self._known: dict[Key, tuple[Rates, ...]] = {}

    @property
    def replaces(self) -> bool:
        """Whether given costs are left aside."""
        return self.as_of is not None or self.model is not None

    def priced(self, one: Operation) -> tuple[float, str] | None:
        """Return the cost of an operation in US dollars and where it comes from, if it is known."""
        if one.cost_usd is not None and not self.replaces:
            return one.cost_usd, one.cost_source or "provider"
        rates = self._rates(one)
        cost = None if rates is None else rates.cost(one)
        return None if cost is None else (cost, "list")

    def apply(self, one: Operation) -> Operation:
        """Put the list price on an operation that was just read, where nobody gave a cost."""
        if not self.replaces and (one.cost_usd is not None or one.model is None):
            return one
        found = self.priced(one)
        if found is not None or self.replaces:
            cost, source = (None, None) if found is None else found
            force_setattr(one, "cost_usd", cost)
            force_setattr(one, "cost_source", source)
        return one

    def saved(self, one: Operation) -> float | None:
        """Return what the cache saved of an operation's list price; `None`: no price is known."""
        rates = self._rates(one) if one.cache_read_tokens or one.cache_write_tokens else None
        return None if rates is None else rates.saved(one)

    def rates_of(self, key: Key) -> tuple[Rates, ...]:
        """Return the rates of a model, of which one at most holds for any call."""
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._found(key)
        return found

    def _rates(self, one: Operation) -> Rates | None:
        if one.model is None and self.model is None:
            return None
        found = self.rates_of((one.provider, one.service, one.model or ""))
        moment, count = self.as_of or one.timestamp, one.input_tokens or one.tokens or 0
        return next((rates for rates in found if rates.holds(moment, count)), None)

    def _found(self, key: Key) -> tuple[Rates, ...]:
        provider, service, model = key
        own = self._own.get(self.model or model)
        if own is not None:
            return (own,)
        if self.model is not None:
            provider, service, model = None, "", self.model
        found = _model_prices(provider, service, model)
        return () if found is None else tuple(_intervals(found))


def is_available() -> bool:
    """Tell whether list prices can be looked up at all."""
    return _snapshot() is not None


@cache
def _snapshot() -> Any:
    try:
        from genai_prices.data_snapshot import get_snapshot  # an extra, and slow to load
    except ImportError:
        return None
    return get_snapshot()


def _model_prices(provider: str | None, service: str, model: str) -> Any:
    """Return the prices of a model: of who answered, else of the service's namesake or maker."""
    snapshot = _snapshot()
    if snapshot is None:
        return None
    known = {each.id for each in snapshot.providers}
    if provider is not None:
        candidates: tuple[str, ...] = (_IDS.get(provider, provider),)
    else:
        candidates = (_IDS.get(service.lower(), service.lower()), *_MAKERS)
    for candidate in candidates:
        if candidate in known:
            try:
                return snapshot.find_provider_model(model, None, candidate, None)[1].prices
            except LookupError:
                continue
    return None


def _intervals(prices: Any) -> Iterator[Rates]:
    """Yield rates that never hold together: later prices go before earlier ones."""
    conditional = prices if isinstance(prices, list) else []
    if not conditional:
        yield from _tiers(prices, {})
        return
    dated = [each for each in conditional if _start(each.constraint) is not None]
    daily = [each for each in conditional if hasattr(each.constraint, "start_time")]
    plain = [each for each in conditional if each.constraint is None] or conditional[:1]
    for each in daily:
        times = {"from_time": _utc(each.constraint.start_time)}
        yield from _tiers(each.prices, times | {"to_time": _utc(each.constraint.end_time)})
    for each in daily:
        times = {"from_time": _utc(each.constraint.end_time)}
        yield from _tiers(plain[-1].prices, times | {"to_time": _utc(each.constraint.start_time)})
    if daily:
        return
    dated.sort(key=lambda each: _start(each.constraint) or _FOREVER[0])
    starts = [_start(each.constraint) or _FOREVER[0] for each in dated]
    ends = [*starts[1:], _FOREVER[1]]
    if starts:
        yield from _tiers(plain[-1].prices, {"until": starts[0]})
    else:
        yield from _tiers(plain[-1].prices, {})
    for each, since, until in zip(dated, starts, ends, strict=True):
        yield from _tiers(each.prices, {"since": since, "until": until})


def _tiers(prices: Any, when: dict[str, Any]) -> Iterator[Rates]:
    given = {name: getattr(prices, key, None) for name, key in _PRICE_KEYS.items()}
    bounds = {-1}
    for price in given.values():
        bounds.update(tier.start for tier in getattr(price, "tiers", ()))
    requests = getattr(prices, "requests_kcount", None)
    request = None if requests is None else float(_base(requests)) / 1000
    ordered = sorted(bounds)
    for over, up_to in zip(ordered, [*ordered[1:], None], strict=True):
        rates: dict[str, Any] = {name: _rate(price, over) for name, price in given.items()}
        yield Rates(**rates, **when, request=request, over=over, up_to=up_to)


def _base(price: Any) -> Any:
    return getattr(price, "base", price)


def _rate(price: Any, over: int) -> float | None:
    """Return the rate for more than `over` input tokens: a tier's rate goes for all of them."""
    if price is None:
        return None
    if not hasattr(price, "tiers"):
        return float(price) / _MILLION
    reached = [tier.price for tier in price.tiers if tier.start <= over]
    return float(reached[-1] if reached else price.base) / _MILLION


def _start(constraint: Any) -> datetime | None:
    day = getattr(constraint, "start_date", None)
    return None if day is None else datetime.combine(day, time.min, UTC)


def _utc(hour: time) -> time:
    if hour.tzinfo is None:
        return hour
    return (datetime.combine(datetime(1970, 1, 2), hour).astimezone(UTC)).time()


def _own_rates(rates: dict[str, float]) -> Rates:
    per_token: dict[str, Any] = {name: rate / _MILLION for name, rate in rates.items()}
    return Rates(**per_token)


def _long_lived(one: Operation) -> int:
    """Return how many tokens were written to an Anthropic cache that lives for an hour."""
    count = one.metadata.get("cache_write_1h_tokens")
    return count if type(count) is int and count > 0 else 0


def _times(count: int | None, *rates: float | None) -> float | None:
    if not count:
        return 0.0 if count == 0 else None
    rate = next((rate for rate in rates if rate is not None), None)
    return None if rate is None else count * rate


def _sum(*amounts: float | None) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None
