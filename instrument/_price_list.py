"""The rates that the data of genai-prices has of a model: at all times, in all tiers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, time
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from instrument._rates import FOREVER, KINDS, SEARCHES, KindRates, Rates

__all__ = ["is_available", "is_loaded", "listed", "may_list", "sources", "versions"]

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


def is_available() -> bool:
    """Tell whether list prices can be looked up at all."""
    return _snapshot() is not None


def sources() -> list[Path]:
    """Return the files that the list is in, which need not be loaded for that.

    Raises `ImportError` where there is none.
    """
    spec = find_spec("genai_prices")
    places = spec.submodule_search_locations if spec is not None else None
    found = sorted(Path(places[0]).glob("*.py")) if places else []
    if not found:
        raise ImportError("genai_prices is not installed")
    return found


@cache
def _snapshot() -> Any:
    try:
        from genai_prices.data_snapshot import get_snapshot  # an extra, and slow to load
    except ImportError:
        return None
    return get_snapshot()


def is_loaded() -> bool:
    """Tell whether the list is loaded already, which takes a third of a second."""
    return "genai_prices" in sys.modules


def listed(provider: str | None, service: str, model: str) -> tuple[Rates, ...]:
    """Return the rates of a model, of which one at most holds for any call."""
    found = _model_of(provider, service, model)
    return () if found is None else tuple(_all_rates(found))


def may_list(model: str) -> bool:
    """Tell whether anybody's price of a model is listed."""
    snapshot = _snapshot()
    if snapshot is None:
        return False
    name, providers = model.lower(), snapshot.providers
    return any(one.find_model(name, all_providers=providers) for one in providers)


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
    dated = model.prices if isinstance(model.prices, list) else []
    constraints = [each.constraint for each in chain(dated, *variants.values())]
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
    days = sorted({_start(each) or FOREVER[0] for each in [None, *constraints]})
    daily = [each for each in constraints if hasattr(each, "start_time")]
    hours = sorted({_utc(hour) for each in daily for hour in (each.start_time, each.end_time)})
    for since, until in pairwise([*days, FOREVER[1]]):
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


def versions() -> list[str]:
    """Return the versions of the list's data and of our rules."""
    return [_version_of("genai-prices"), _version_of("instrument-kit")]


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"
