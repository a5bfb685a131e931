"""A list price is exact or absent: tiers, kinds of tokens, tools, sums, and what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_writing import operation, write
from test_pricing import MILLION, MODELS, PROVIDERS, call

from instrument._rates import KINDS, SEARCHES
from instrument.log import UsageLog
from instrument.pricing import Pricing

genai_prices = pytest.importorskip("genai_prices")
SMALL = st.integers(0, 1000)
NAMES = [f"{side}_{kind}_tokens" for side in ("input", "output") for kind in KINDS]
DETAILS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys([*NAMES, *SEARCHES, "cache_write_1h_tokens"], SMALL),
        "service_tier": st.sampled_from(["flex", "priority", "batch", "fast"]),
    },
)


def detailed(details: dict[str, Any], **counts: Any) -> dict[str, Any]:
    return {"metadata": {"usage_details": details}, **counts}


def cost(model: str, provider: str, details: dict[str, Any], **counts: Any) -> float | None:
    found = Pricing().priced(call(model, provider=provider, **detailed(details, **counts)))
    return None if found is None else found[0]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MODELS), DETAILS, SMALL, SMALL)
def test_costs_of_details_are_what_the_price_list_computes(
    named: tuple[str, str], details: dict[str, Any], read: int, written: int
) -> None:
    provider, model = named
    counts = {
        "input_tokens": read + written + 5000,
        "output_tokens": 5000,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
    }
    found = cost(model, provider, details, **counts)
    told = dict(details)
    tier = told.pop("service_tier", None)
    condition = "processing" if tier == "batch" else "speed" if provider == "anthropic" else None
    told["cache_write_1h_tokens"] = min(written, told.get("cache_write_1h_tokens", 0))
    try:
        price = genai_prices.calc_price(
            genai_prices.Usage(**counts, **told),
            model,
            provider_id=provider,
            genai_request_timestamp=datetime(2026, 11, 1, tzinfo=UTC),
            price_context={condition or "service_tier": tier} if tier else None,
        )
    except (ValueError, LookupError):  # the list itself cannot say
        return
    if found is not None:
        assert found == pytest.approx(float(price.total_price), rel=1e-9, abs=1e-12)


def turns(constraints: list[Any]) -> Iterator[datetime]:
    """Yield moments before and at every change of a price."""
    days = {each.start_date for each in constraints if hasattr(each, "start_date")}
    daily = [each for each in constraints if hasattr(each, "start_time")]
    hours = {
        hour.replace(tzinfo=None) for each in daily for hour in (each.start_time, each.end_time)
    }
    for day, hour in product(days | {datetime(2024, 1, 1).date()}, hours | {time.min}):
        at = datetime.combine(day, hour, UTC)
        yield from (at - timedelta(minutes=1), at, at + timedelta(hours=1))


def changing() -> Iterator[tuple[str, Any, dict[str, str] | None, datetime]]:
    """Yield provider, model, what a price depends on, and when it may change."""
    for provider, model in ((each, model) for each in PROVIDERS for model in each.models):
        listed = model.prices if isinstance(model.prices, list) else []
        variants = [each for each in model.price_variants or () if len(each.when) == 1]
        contexts = [None, *(each.when for each in variants if "default" not in each.when.values())]
        moments = {*turns([each.constraint for each in [*listed, *variants]])}
        if len({*map(str, contexts)}) < len(contexts) or len(listed) > 2:
            yield from ((provider.id, model.id, *each) for each in product(contexts, moments))


def test_at_every_turn_of_a_price_one_rate_holds_which_is_the_lists() -> None:
    pricing, counts = Pricing(), {"input_tokens": 1000, "output_tokens": 500}
    for provider, model, context, at in changing():
        (tier,) = context.values() if context else (None,)
        rates = pricing.rates_of((provider, "llm", model))
        assert sum(each.holds(at, 1000, tier, several=False) for each in rates) <= 1
        told = detailed({"service_tier": tier} if tier else {}, **counts)
        found = pricing.priced(call(model, provider=provider, timestamp=at, **told))
        price = genai_prices.calc_price(
            genai_prices.Usage(**counts),
            model,
            provider_id=provider,
            genai_request_timestamp=at,
            price_context=context,
        )
        if found is not None:
            assert found[0] == pytest.approx(float(price.total_price), rel=1e-9, abs=1e-12)


def test_an_hour_of_cache_costs_what_anthropic_asks_for_it() -> None:
    counts = {"input_tokens": 1000, "output_tokens": 0, "cache_write_tokens": 1000}
    short = cost("claude-sonnet-4-5", "anthropic", {}, **counts)
    long = cost("claude-sonnet-4-5", "anthropic", {"cache_write_1h_tokens": 1000}, **counts)
    assert (short, long) == (pytest.approx(0.00375), pytest.approx(0.006))


@pytest.mark.parametrize(
    ("model", "provider", "details", "expected"),
    [
        ("gpt-realtime", "openai", {"input_audio_tokens": 400}, 600 * 4 + 400 * 32 + 100 * 16),
        ("gpt-4o-transcribe", "openai", {"input_audio_tokens": 1000}, 1000 * 6 + 100 * 10),
        ("gemini-2.5-flash", "gcp.gemini", {"input_audio_tokens": 1000}, 1000 * 1 + 100 * 2.5),
        ("gemini-2.5-pro", "gcp.gemini", {"input_audio_tokens": 1000}, 1000 * 1.25 + 100 * 10),
        ("gpt-image-1", "openai", {"input_image_tokens": 1000}, 1000 * 10 + 100 * 40),
        ("gemini-2.5-flash-image", "gcp.gemini", {"output_image_tokens": 90}, 325 + 90 * 30),
        ("claude-sonnet-4-5", "anthropic", {"web_searches": 3}, 3000 + 1500 + 30_000),
        ("gpt-5", "openai", {"service_tier": "flex"}, 625 + 500),
        ("gpt-5", "openai", {"service_tier": "priority"}, 2500 + 2000),
        ("claude-sonnet-4-5", "anthropic", {"service_tier": "batch"}, 1500 + 750),
    ],
)
def test_what_a_response_names_costs_its_own_rate(
    model: str, provider: str, details: dict[str, Any], expected: float
) -> None:
    assert cost(model, provider, details) == pytest.approx(expected / MILLION)


@pytest.mark.parametrize(
    ("model", "provider", "details"),
    [
        ("claude-sonnet-4-5", "anthropic", {"service_tier": "priority"}),
        ("gpt-5", "openai", {"service_tier": "scale"}),
        ("deepseek-chat", "deepseek", {"web_searches": 1}),
        ("gpt-5", "openai", {"something_new": 1}),
        ("gpt-realtime", "openai", {"input_audio_tokens": 2000}),
    ],
)
def test_what_has_no_rate_leaves_the_cost_unknown(
    model: str, provider: str, details: dict[str, Any]
) -> None:
    assert cost(model, provider, details) is None


def test_cached_tokens_of_an_unknown_kind_have_no_price() -> None:
    cached = {"input_audio_tokens": 500}
    assert cost("gpt-realtime", "openai", cached, cache_read_tokens=100) is None
    known = cost(
        "gpt-realtime", "openai", {**cached, "cache_audio_read_tokens": 40}, cache_read_tokens=100
    )
    expected = 440 * 4 + 460 * 32 + 60 * 0.4 + 40 * 0.4 + 100 * 16
    assert known == pytest.approx(expected / MILLION)


def test_a_sum_is_in_the_lowest_tier_if_its_largest_response_is_else_has_no_price() -> None:
    counts = {"input_tokens": 300_000, "output_tokens": 0}
    alone = cost("gemini-2.5-pro", "gcp.gemini", {}, **counts)
    two = {"responses": 2, "largest_input_tokens": 150_000}
    assert alone == pytest.approx(0.3 * 2.5)
    assert cost("gemini-2.5-pro", "gcp.gemini", two, **counts) == pytest.approx(0.3 * 1.25)
    assert cost("gemini-2.5-pro", "gcp.gemini", {"responses": 2}, **counts) is None
    run = call("gemini-2.5-pro", provider="gcp.gemini", kind="invoke_agent", **counts)
    assert Pricing().priced(run) is None


def test_each_response_of_a_sum_pays_for_its_request() -> None:
    one, three = (cost("sonar-pro", "perplexity", details) for details in ({}, {"responses": 3}))
    assert one is not None
    assert three == pytest.approx(one + 2 * 14 / 1000)


@pytest.mark.parametrize(
    "counts",
    [
        {"tokens": 1150},
        {"tokens": 900},
        {"cache_read_tokens": 50_000},
        {"cache_read_tokens": 600, "cache_write_tokens": 600},
        {"reasoning_tokens": 101},
        {"input_tokens": None},
        {"metadata": {"impossible_usage": {"cache_read_tokens": 50_000}}},
    ],
)
def test_counts_that_do_not_add_up_have_no_price(counts: dict[str, Any]) -> None:
    assert Pricing().priced(call("gpt-5", **{"tokens": 1100} | counts)) is None


def test_models_that_anybody_can_run_are_priced_only_if_it_is_known_who_ran_them() -> None:
    def found(model: str, service: str) -> Any:
        return Pricing().priced(call(model, provider=None, service=service))

    for model in ("deepseek-r1", "deepseek-chat", "gpt-oss-120b", "mistral-small-latest"):
        for service in ("ollama", "vllm", "my-llm"):
            assert found(model, service) is None
    assert found("deepseek-chat", "deepseek") is not None


LINES = st.fixed_dictionaries(
    {
        "model": st.sampled_from(
            [
                "gpt-5",
                "gpt-realtime",
                "gemini-2.5-flash",
                "gemini-2.5-pro",
                "gemini-2.5-flash-image",
                "claude-sonnet-4-5",
                "sonar-pro",
                "ours",
            ]
        ),
        "provider": st.none(),
        "kind": st.sampled_from([None, "chat", "invoke_agent"]),
        "input_tokens": st.sampled_from([None, 3000, 10_000, 150_000, 300_000]),
        "output_tokens": st.none() | SMALL,
        "tokens": st.sampled_from([None, None, None, 3000]),
        "cache_read_tokens": st.none() | SMALL,
        "cache_write_tokens": st.none() | SMALL,
        "reasoning_tokens": st.none() | SMALL,
        "metadata": st.one_of(
            st.just({}),
            st.just({"impossible_usage": {"input_tokens": -1}}),
            st.sampled_from([None, 5, "text", [], {"responses": None}]).map(
                lambda odd: {"usage_details": odd}
            ),
            st.builds(
                lambda details, more: {"usage_details": {**details, **more}, "other": 1},
                DETAILS,
                st.fixed_dictionaries(
                    {},
                    optional={
                        "responses": st.integers(1, 3),
                        "largest_input_tokens": st.sampled_from([900, 100_000, 250_000]),
                        "cache_audio_read_tokens": SMALL,
                        "cache_image_read_tokens": SMALL,
                        "unknown": SMALL,
                        "web_searches": st.sampled_from([True, -1, 1.5, "3", None, 2]),
                    },
                ),
            ),
        ),
    }
)


@settings(max_examples=30, deadline=None)
@given(lines=st.lists(LINES, min_size=20, max_size=60))
def test_sql_and_python_price_details_alike_and_never_below_zero(
    lines: list[dict[str, Any]], tmp_path_factory: Any
) -> None:
    log_dir = tmp_path_factory.mktemp("log")
    write(log_dir, *(operation(n, **line) for n, line in enumerate(lines)))
    log = UsageLog(log_dir)
    query = "select cost_usd from operations order by timestamp, operation_id"
    for one, (in_sql,) in zip(log.operations(), log.sql(query).fetchall(), strict=True):
        assert one.cost_usd is None or one.cost_usd >= 0
        assert one.cost_usd == (None if in_sql is None else pytest.approx(in_sql, abs=1e-12))


def test_sums_in_sql_know_the_details_too(tmp_path: Any) -> None:
    counts = {"input_tokens": 1000, "output_tokens": 100, "tokens": 1100}
    details = {"metadata": {"usage_details": {"service_tier": "flex"}}}
    write(tmp_path, operation(1, model="gpt-5", provider="openai", **counts, **details))
    log = UsageLog(tmp_path)
    (row,), (own,) = log.summary(()), log.summary((), session="work")
    assert row.cost_usd == pytest.approx(own.cost_usd)
