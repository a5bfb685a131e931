"""What tokens cost by list price, when the call was made: the data of genai-prices, and your own.

Rates are per token, in US dollars. A provider's own figure always comes first; what is not known
has no price, which is not the same as free. A price is exact or absent: what `usage_details` in an
operation's metadata names (other kinds of tokens, tools, a service tier) has a rate, or there is
no price at all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime, time
from functools import cache, cached_property
from importlib import metadata
from itertools import chain, pairwise
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr

from instrument.operation import Operation

__all__ = [
    "DETAILS",
    "KINDS",
    "SEARCHES",
    "Key",
    "KindRates",
    "KnownRates",
    "Pricing",
    "Rates",
    "is_available",
    "usual",
]

MOST_KNOWN = 10_000  # models, of which a hostile log could name any number

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
# whose models only they and clouds at their price serve: asked where nobody says who answered
_MAKERS = ("openai", "anthropic", "google", "x-ai")
_OPEN_WEIGHTS = ("gemma", "gpt-oss", "grok-1", "grok-2")
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

_CONDITIONS = ("processing", "service_tier", "speed")
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
    since: datetime = _FOREVER[0]
    until: datetime = _FOREVER[1]
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
        self._told: Mapping[str, Sequence[KnownRates]] = {}
        self._rates_told: dict[Key, tuple[Rates, ...]] | None = None

    def told(self, rates: Mapping[str, Sequence[KnownRates]]) -> Pricing:
        """Return the same prices, which need not load a list for these rates, by its version."""
        other = copy(self)
        other._told, other._rates_told = rates, None
        return other

    @property
    def replaces(self) -> bool:
        """Whether given costs are left aside."""
        return self.as_of is not None or self.model is not None

    @cached_property
    def version(self) -> str:
        """The name of the price list: the versions of its data and of our rules, and own rates."""
        import hashlib  # it loads OpenSSL

        own = hashlib.blake2b(repr(sorted(self._own.items())).encode(), digest_size=8).hexdigest()
        found = [_version_of("genai-prices"), _version_of("instrument-kit"), own]
        return "/".join(found)

    def _told_of(self, key: Key) -> tuple[Rates, ...] | None:
        if self._rates_told is None:
            told = self._told.get(self.version, ()) if self._told and self.model is None else ()
            self._rates_told = {
                (each.provider, each.service, each.model): each.rates for each in told
            }
        return self._rates_told.get(key)

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
        if found is None and not _is_loaded():
            found = self._told_of(key)
        if found is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = self._found(key)
        return found

    def may_price(self, service: str, model: str) -> bool:
        """Tell whether anybody's price of a model is known, before it is known who will answer."""
        if self.rates_of((None, service, model)):
            return True
        snapshot = None if self.model is not None else _snapshot()
        if snapshot is None:
            return False
        name, providers = model.lower(), snapshot.providers
        return any(one.find_model(name, all_providers=providers) for one in providers)

    def _rates(self, one: Operation) -> Rates | None:
        if (one.model is None and self.model is None) or "impossible_usage" in one.metadata:
            return None
        found = self.rates_of((one.provider, one.service, one.model or ""))
        moment, size, several = self.as_of or one.timestamp, _size(one), _is_sum(one)
        tier = _details(one).get("service_tier")
        for each in found:
            if each.holds(moment, size, tier, several=several):
                return each
        return None

    def _found(self, key: Key) -> tuple[Rates, ...]:
        provider, service, model = key
        own = self._own.get(self.model or model)
        if own is not None:
            return (own,)
        if self.model is not None:
            provider, service, model = None, "", self.model
        found = _model_of(provider, service, model)
        return () if found is None else tuple(_all_rates(found))


def usual(own: dict[str, dict[str, float]] | None) -> Pricing:
    """Return the list prices with your own rates: the same object for as long as these are."""
    global _usual
    known = _usual
    if known is None or known[0] is not own:
        known = _usual = (own, Pricing(own))
    return known[1]


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


def _is_loaded() -> bool:
    return "genai_prices" in sys.modules


def _model_of(provider: str | None, service: str, model: str) -> Any:
    """Return a model of the list: of who answered, else of the service's namesake or the maker.

    What a model of open weights costs depends on who runs it.
    """
    snapshot = _snapshot()
    if snapshot is None:
        return None
    known = {each.id for each in snapshot.providers}
    if provider is not None:
        candidates: tuple[str, ...] = (_IDS.get(provider, provider),)
    elif model.rpartition("/")[2].startswith(_OPEN_WEIGHTS):
        candidates = (_IDS.get(service.lower(), service.lower()),)
    else:
        candidates = (_IDS.get(service.lower(), service.lower()), *_MAKERS)
    for candidate in candidates:
        if candidate in known:
            try:
                return snapshot.find_provider_model(model, None, candidate, None)[1]
            except LookupError:
                continue
    return None


def _all_rates(model: Any) -> Iterator[Rates]:
    """Yield rates that never hold together: of the usual service, and of each other tier."""
    variants = _variants(model)
    listed = model.prices if isinstance(model.prices, list) else []
    constraints = [each.constraint for each in chain(listed, *variants.values())]
    for when, moment in _stretches(constraints):
        yield from _tiers(model.get_prices(moment), when)
        for tier, several in variants.items():
            if any(_is_active(each.constraint, moment) for each in several):
                prices = model.get_prices(moment, dict.fromkeys(_CONDITIONS, tier))
                yield from _tiers(prices, when | {"tier": tier})


def _variants(model: Any) -> dict[str, list[Any]]:
    """Return the changes of a model's prices in each tier that is not the usual one."""
    found: dict[str, list[Any]] = {}
    for variant in getattr(model, "price_variants", None) or ():
        ((condition, tier), *more) = variant.when.items()
        if condition in _CONDITIONS and not more and tier != "default":
            found.setdefault(tier, []).append(variant)
    return found


def _stretches(constraints: list[Any]) -> Iterator[tuple[dict[str, Any], datetime]]:
    """Yield the times between which no price changes, and a moment in each of them."""
    days = sorted({_start(each) or _FOREVER[0] for each in [None, *constraints]})
    daily = [each for each in constraints if hasattr(each, "start_time")]
    hours = sorted({_utc(hour) for each in daily for hour in (each.start_time, each.end_time)})
    for since, until in pairwise([*days, _FOREVER[1]]):
        when = {"since": since, "until": until}
        if len(hours) < 2:
            yield when, since
            continue
        for begin, end in pairwise([*hours, hours[0]]):
            moment = datetime.combine(since, begin, UTC)
            yield when | {"from_time": begin, "to_time": end}, moment


def _is_active(constraint: Any, moment: datetime) -> bool:
    return constraint is None or constraint.active(moment)


def _tiers(prices: Any, when: dict[str, Any]) -> Iterator[Rates]:
    given = {name: getattr(prices, key, None) for name, key in _PRICE_KEYS.items()}
    kinds = {kind: _prices_of_kind(prices, kind) for kind in KINDS}
    bounds = {-1}
    for price in (*given.values(), *(price for each in kinds.values() for price in each)):
        bounds.update(tier.start for tier in getattr(price, "tiers", ()))
    request = _by_the_thousand(prices, "requests_kcount")
    searches = {name: _by_the_thousand(prices, key) for name, key in SEARCHES.items()}
    paid = {name: rate for name, rate in searches.items() if rate is not None}
    ordered = sorted(bounds)
    for over, up_to in zip(ordered, [*ordered[1:], None], strict=True):
        rates: dict[str, Any] = {name: _rate(price, over) for name, price in given.items()}
        rates["kinds"] = tuple(
            KindRates(kind, *(_rate(price, over) for price in several))
            for kind, several in kinds.items()
            if any(price is not None for price in several)
        )
        yield Rates(**rates, **when, request=request, searches=paid, over=over, up_to=up_to)


def _prices_of_kind(prices: Any, kind: str) -> tuple[Any, Any, Any]:
    names = (f"input_{kind}_mtok", f"cache_{kind}_read_mtok", f"output_{kind}_mtok")
    of_input, of_cache, of_output = (getattr(prices, name, None) for name in names)
    return of_input, of_cache, of_output


def _by_the_thousand(prices: Any, key: str) -> float | None:
    price = getattr(prices, key, None)
    return None if price is None else float(_base(price)) / 1000


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


def _details(one: Operation) -> dict[str, Any]:
    """Return what an operation says of its usage beside the counts."""
    found = one.metadata.get("usage_details") if one.metadata else None
    return found if type(found) is dict else _NONE


_NONE: dict[str, Any] = {}
_DETAILS = frozenset(DETAILS)


def _detail(one: Operation, name: str) -> int:
    """Return a count in `usage_details`, 0 where it is not one."""
    count = _details(one).get(name)
    return count if type(count) is int and count > 0 else 0


def _size(one: Operation) -> int:
    largest = _detail(one, "largest_input_tokens") if one.metadata else 0
    return largest or one.input_tokens or one.tokens or 0


def _is_sum(one: Operation) -> bool:
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


_usual: tuple[Any, Pricing] | None = None


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"
