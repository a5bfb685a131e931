"""What tokens cost by list price, when the call was made: the data of genai-prices, and your own.

A provider's own figure always comes first; what is not known has no price, which is not the same
as free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from datetime import datetime
from functools import cached_property
from typing import Any

from msgspec.structs import force_setattr

from instrument import _price_shelf
from instrument._price_list import is_loaded, may_list, versions
from instrument._rates import Key, KnownRates, Rates, is_sum, size_of, tier_of
from instrument.operation import Operation

__all__ = ["Pricing", "usual"]

MOST_KNOWN = 10_000  # models, of which a hostile log could name any number


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
        return "/".join([*versions(), own])

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
        if found is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = self._found(key)
        return found

    def may_price(self, service: str, model: str) -> bool:
        """Tell whether anybody's price of a model is known, before it is known who will answer."""
        if self.rates_of((None, service, model)):
            return True
        return self.model is None and may_list(model)

    def _rates(self, one: Operation) -> Rates | None:
        if (one.model is None and self.model is None) or "impossible_usage" in one.metadata:
            return None
        found = self.rates_of((one.provider, one.service, one.model or ""))
        moment, size, several = self.as_of or one.timestamp, size_of(one), is_sum(one)
        tier = tier_of(one)
        for each in found:
            if each.holds(moment, size, tier, several=several):
                return each
        return None

    def _found(self, key: Key) -> tuple[Rates, ...]:
        own = self._own.get(self.model or key[2])
        if own is not None:
            return (own,)
        if self.model is not None:
            key = None, "", self.model
        found = _price_shelf.kept(key)
        if found is None and not is_loaded():
            found = self._told_of(key)
        return _price_shelf.listed(key) if found is None else found


def usual(own: dict[str, dict[str, float]] | None) -> Pricing:
    """Return the list prices with your own rates: the same object for as long as these are."""
    global _usual
    known = _usual
    if known is None or known[0] is not own:
        known = _usual = (own, Pricing(own))
    return known[1]


def _own_rates(rates: dict[str, float]) -> Rates:
    per_token: dict[str, Any] = {name: rate / 1e6 for name, rate in rates.items()}
    return Rates(**per_token)


_usual: tuple[Any, Pricing] | None = None
