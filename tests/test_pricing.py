"""List prices: what operations without a cost of their own cost, and what caches saved."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_writing import operation, write

from instrument import configure
from instrument.cli.shell import run
from instrument.errors import ConfigurationError
from instrument.log import UsageLog
from instrument.operation import Operation
from instrument.pricing import Pricing

genai_prices = pytest.importorskip("genai_prices")
data_snapshot = pytest.importorskip("genai_prices.data_snapshot")
PROVIDERS = data_snapshot.get_snapshot().providers
MODELS = [(each.id, model.id) for each in PROVIDERS for model in each.models]
MILLION = 10**6


def call(model: str | None, **given: Any) -> Operation:
    values: dict[str, Any] = {"input_tokens": 1000, "output_tokens": 100, "provider": "openai"}
    moment = given.pop("timestamp", datetime(2026, 11, 1, tzinfo=UTC))
    named = {"session_id": "s", "service": "llm", "operation": "ask"}
    return Operation(timestamp=moment, model=model, **(named | values | given))


@settings(max_examples=300, deadline=None)
@given(
    named=st.sampled_from(MODELS),
    sizes=st.tuples(*[st.integers(0, MILLION)] * 5),
    at=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)),
)
def test_costs_are_what_the_price_list_itself_computes(
    named: tuple[str, str], sizes: tuple[int, ...], at: datetime
) -> None:
    provider, model = named
    read, written, rest, thought, said = sizes
    counts = {
        "input_tokens": read + written + rest,
        "output_tokens": thought + said,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
    }
    at = at.replace(tzinfo=UTC)
    one = call(model, provider=provider, timestamp=at, reasoning_tokens=thought, **counts)
    found = Pricing().priced(one)
    usage = genai_prices.Usage(**counts, output_reasoning_tokens=thought)
    try:
        price = genai_prices.calc_price(
            usage, model, provider_id=provider, genai_request_timestamp=at
        )
    except (ValueError, LookupError):  # the list itself cannot say
        return
    if found is not None:
        assert found == (pytest.approx(float(price.total_price), rel=1e-9, abs=1e-12), "list")


def test_a_model_that_nobody_knows_has_no_price_and_is_not_free() -> None:
    assert Pricing().priced(call("our-own-model")) is None
    assert Pricing().priced(call(None)) is None
    assert Pricing().priced(call("gpt-5", provider="ollama")) is None


def test_who_answered_is_told_by_the_provider_else_by_the_service_else_by_the_maker() -> None:
    expected = Pricing().priced(call("gemini-2.5-pro", provider="gcp.gemini"))
    assert expected is not None
    for service in ("gemini", "google", "my-llm"):
        one = call("gemini-2.5-pro", provider=None, service=service)
        assert Pricing().priced(one) == expected


def test_what_the_provider_says_comes_before_the_list() -> None:
    given = call("gpt-5", cost_usd=5.0, cost_source="provider")
    assert Pricing().priced(given) == (5.0, "provider")
    assert Pricing(model="gpt-5").priced(given) == Pricing().priced(call("gpt-5"))


def test_rates_of_your_own_come_first_and_an_hour_of_cache_costs_its_own() -> None:
    rates = {"input": 1.0, "output": 2.0, "cache_read": 0.1, "cache_write": 1.25}
    own = Pricing({"ours": rates | {"cache_write_1h": 2.0}})
    cached = {"cache_read_tokens": 400, "cache_write_tokens": 300}
    details = {"usage_details": {"cache_write_1h_tokens": 100}}
    one = call("ours", provider=None, metadata=details, **cached)
    cost = (300 * 1.0 + 400 * 0.1 + 200 * 1.25 + 100 * 2.0 + 100 * 2.0) / MILLION
    assert own.priced(one) == (pytest.approx(cost), "list")
    assert own.saved(one) == pytest.approx((700 - 40 - 250 - 200) / MILLION)


def test_a_total_alone_is_priced_only_where_there_is_no_output() -> None:
    total = {"input_tokens": None, "output_tokens": None, "tokens": 1000}
    assert Pricing().priced(call("text-embedding-3-small", **total)) is not None
    assert Pricing().priced(call("gpt-5", **total)) is None


def test_stats_say_what_is_priced_and_what_the_cache_saved(tmp_path: Path) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100, "cache_read_tokens": 800}
    write(tmp_path, operation(1, model="gpt-5", provider="openai", tokens=1100, **usage))
    write(tmp_path, operation(2, model="ours", tokens=10), operation(3, tokens=None))
    stats = UsageLog(tmp_path).stats("work")
    cost = (200 * 1.25 + 800 * 0.125 + 100 * 10) / MILLION
    assert stats.cost_usd == pytest.approx(cost)
    assert (stats.cost_coverage, stats.cache_hit_ratio) == (0.5, 0.8)
    assert stats.cache_saved_usd == pytest.approx(800 * (1.25 - 0.125) / MILLION)


PRICED = st.fixed_dictionaries(
    {
        "model": st.sampled_from(
            [None, "gpt-5", "claude-sonnet-4-5", "deepseek-chat", "ours", "x"]
        ),
        "provider": st.sampled_from([None, "openai", "anthropic", "deepseek", "gcp.gemini"]),
        "timestamp": st.datetimes(datetime(2024, 6, 1), datetime(2026, 11, 1)).map(
            lambda at: f"{at.isoformat()}Z"
        ),
        "tokens": st.none() | st.integers(0, MILLION),
        "input_tokens": st.none() | st.integers(200_000, MILLION),
        "output_tokens": st.none() | st.integers(1000, 9000),
        "cache_read_tokens": st.none() | st.integers(0, 90_000),
        "cache_write_tokens": st.none() | st.integers(0, 90_000),
        "reasoning_tokens": st.none() | st.integers(0, 1000),
        "cost_usd": st.none() | st.floats(0, 9),
        "metadata": st.sampled_from([{}, {"cache_write_1h_tokens": 7}]),
    }
)


@settings(max_examples=30, deadline=None)
@given(
    lines=st.lists(PRICED, max_size=8),
    other=st.sampled_from([{}, {"model": "gpt-5"}, {"as_of": datetime(2025, 9, 9, 3, tzinfo=UTC)}]),
)
def test_sql_and_python_price_alike(
    lines: list[dict[str, Any]], other: dict[str, Any], tmp_path_factory: Any
) -> None:
    log_dir = tmp_path_factory.mktemp("log")
    write(log_dir, *(operation(n, **line) for n, line in enumerate(lines)))
    configure(prices={"ours": {"input": 3, "cache_write": 5}})
    try:
        log = UsageLog(log_dir).repriced(**other) if other else UsageLog(log_dir)
        query = "select cost_usd, cost_source from operations order by timestamp, operation_id"
        for one, (cost, source) in zip(log.operations(), log.sql(query).fetchall(), strict=True):
            assert one.cost_source == source
            assert one.cost_usd == (cost if cost is None else pytest.approx(cost, abs=1e-12))
        for row, own in zip(log.summary(()), log.summary((), session="work"), strict=True):
            for name in ("cost_usd", "cost_coverage", "cache_saved_usd", "cache_hit_ratio"):
                value = getattr(own, name)
                near = value if value is None else pytest.approx(value, abs=1e-9)
                assert getattr(row, name) == near
    finally:
        configure(prices={})


def test_a_log_is_repriced_at_another_date_or_on_another_model(tmp_path: Path) -> None:
    usage = {"input_tokens": MILLION, "output_tokens": 0, "tokens": MILLION}
    write(tmp_path, operation(1, model="o3", provider="openai", cost_usd=77.0, **usage))
    log = UsageLog(tmp_path)
    early, late = (
        log.repriced(as_of=datetime(2025, month, 1, tzinfo=UTC)).stats("work").cost_usd
        for month in (5, 12)
    )
    assert (early, late) == (10.0, 2.0)
    assert log.repriced(model="gpt-5").stats("work").cost_usd == 1.25
    assert log.stats("work").cost_usd == 77.0
    with pytest.raises(ConfigurationError, match="aware datetime"):
        log.repriced(as_of=datetime(2025, 1, 1))


def test_the_command_line_reprices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usage = {"input_tokens": MILLION, "output_tokens": 0, "tokens": MILLION}
    write(tmp_path, operation(1, model="o3", provider="openai", **usage))
    costs = []
    for arguments in (["--prices-as-of", "2025-05-01"], ["--what-if", "gpt-5"]):
        assert run(["stats", "--dir", str(tmp_path), "--json", *arguments]) == 0
        costs.append(json.loads(capsys.readouterr().out)["session"]["cost_usd"])
    assert costs == [10.0, 1.25]


def test_a_file_of_prices_is_read_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text('{"ours": {"input": 2}}')
    monkeypatch.setenv("INSTRUMENT_PRICES", str(prices))
    configure()
    write(tmp_path, operation(1, model="ours", input_tokens=MILLION, tokens=MILLION))
    assert UsageLog(tmp_path).stats("work").cost_usd == 2.0
    monkeypatch.undo()
    configure()


@pytest.mark.parametrize(
    "prices",
    [5, {"m": 5}, {"m": {}}, {"m": {"inputs": 1}}, {5: {"input": 1}}, {"m": {"input": -1}},
     {"m": {"input": True}}, {"m": {"input": float("nan")}}],
)  # fmt: skip
def test_prices_that_make_no_sense_are_refused(prices: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"US dollars per million tokens|name of a model"):
        configure(prices=prices)
