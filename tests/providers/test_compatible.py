"""Who answers in OpenAI's shape: what each reports, and who is told by what."""

from __future__ import annotations

import json
from typing import Any

import pytest

openai = pytest.importorskip("openai")
httpx = pytest.importorskip("httpx")

from hypothesis import given, settings  # noqa: E402 - after the skip
from hypothesis import strategies as st  # noqa: E402 - as above
from openai.types.chat import ChatCompletion, ChatCompletionChunk  # noqa: E402 - as above
from openai_wire import ASK, USAGE, chat, chunk, chunks, serving, used  # noqa: E402 - as above
from usage_samples import namespace  # noqa: E402 - as above

from instrument import tracked  # noqa: E402 - as above
from instrument.testing import capture  # noqa: E402 - as above
from instrument.usage import Reading, new_merge, reader_for  # noqa: E402 - as above

DEEPSEEK = {
    "prompt_tokens": 50,
    "completion_tokens": 20,
    "total_tokens": 70,
    "prompt_cache_hit_tokens": 30,
    "prompt_cache_miss_tokens": 20,
    "completion_tokens_details": {"reasoning_tokens": 12},
}
XAI = {
    "prompt_tokens": 100,
    "completion_tokens": 9,
    "total_tokens": 309,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 200},
    "num_sources_used": 0,
}
OPENROUTER = {
    **USAGE,
    "cost": 0.0123,
    "cost_details": {"upstream_inference_cost": None},
    "is_byok": False,
}
TOGETHER = {
    "prompt_tokens": 40,
    "completion_tokens": 8,
    "total_tokens": 48,
    "cached_tokens": 16,
}
FIREWORKS = {
    "prompt_tokens": 40,
    "completion_tokens": 8,
    "total_tokens": 48,
    "prompt_tokens_details": {"cached_tokens": 16},
}
VLLM = {
    "prompt_tokens": 40,
    "completion_tokens": 8,
    "total_tokens": 48,
    "prompt_tokens_details": None,
}
# total, input, output, cache read, reasoning; provider, and what the SDK's class would say of it
FAMILIES: dict[str, tuple[dict[str, Any], tuple[Any, ...], str | None]] = {
    "deepseek": (
        chat(usage=DEEPSEEK, model="deepseek-reasoner"),
        (70, 50, 20, 30, 12),
        "deepseek",
    ),
    "deepseek elsewhere": (
        chat(usage=DEEPSEEK, model="deepseek-ai/DeepSeek-V4"),
        (70, 50, 20, 30, 12),
        None,
    ),
    "xai": (chat(usage=XAI, model="grok-4"), (309, 100, 209, 64, 200), "x_ai"),
    "openrouter": (
        chat(usage=OPENROUTER, id="gen-1790-abc", provider="Novita"),
        (1500, 1200, 300, 1024, 256),
        "openrouter",
    ),
    "vllm": (
        chat(usage=VLLM, prompt_logprobs=None, kv_transfer_params=None),
        (48, 40, 8, None, None),
        "vllm",
    ),
}
FORMS = {
    "dict": lambda wire: wire,
    "text": json.dumps,
    "bytes": lambda wire: json.dumps(wire).encode(),
    "namespace": namespace,
    "validated": ChatCompletion.model_validate,
}


def read(result: Any) -> Reading:
    reader = reader_for(type(result))
    assert reader is not None
    found = reader(result)
    assert found is not None
    return found


def merged(*chunks: Any) -> Reading:
    merge = new_merge()
    for each in chunks:
        merge.add(each)
    found = merge.reading()
    assert found is not None
    return found


def counts(found: Reading) -> tuple[Any, ...]:
    return (
        found.total_tokens,
        found.input_tokens,
        found.output_tokens,
        found.cache_read_tokens,
        found.reasoning_tokens,
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_read_by_its_rule_in_every_form(name: str, form: str) -> None:
    wire, expected, provider = FAMILIES[name]
    found = read(FORMS[form](wire))
    assert (counts(found), found.provider, found.kind) == (expected, provider, "chat")


@pytest.mark.parametrize("usage", [TOGETHER, FIREWORKS])
def test_compatible_servers_report_what_was_cached_in_one_place_or_another(usage: Any) -> None:
    assert counts(read(chat(usage=usage))) == (48, 40, 8, 16, None)


@pytest.mark.parametrize("form", [lambda each: each, ChatCompletionChunk.model_validate])
@pytest.mark.parametrize(
    ("usage", "more", "expected"),
    [
        (XAI, {"model": "grok-4"}, ((309, 100, 209, 64, 200), "x_ai")),
        (DEEPSEEK, {"model": "deepseek-chat"}, ((70, 50, 20, 30, 12), "deepseek")),
        (OPENROUTER, {"id": "gen-1"}, ((1500, 1200, 300, 1024, 256), "openrouter")),
    ],
)
def test_a_stream_is_read_by_the_same_rule(
    usage: Any, more: Any, expected: object, form: Any
) -> None:
    found = merged(*(form({**each, **more}) for each in chunks(usage=usage)))
    assert (counts(found), found.provider) == expected


def test_reasoning_of_grok_is_added_where_there_is_no_total() -> None:
    usage = {name: value for name, value in XAI.items() if name != "total_tokens"}
    assert counts(read(chat(usage=usage, model="grok-4"))) == (None, 100, 209, 64, 200)


def test_reasoning_of_grok_through_a_gateway_that_includes_it_is_not_added() -> None:
    usage = {**XAI, "completion_tokens": 209, "cost": 0.01}
    found = read(chat(usage=usage, model="x-ai/grok-4", id="gen-1"))
    assert (counts(found)[:3], found.provider) == ((309, 100, 209), "openrouter")


def test_a_gateways_cost_is_authoritative() -> None:
    with capture() as operations, serving(chat(usage=OPENROUTER, id="gen-1")) as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        ask = tracked(service="openrouter")(client.chat.completions.create)
        ask(model="m", messages=ASK)
    (found,) = operations
    assert (found.cost_usd, found.cost_source, found.provider) == (
        0.0123,
        "provider",
        "openrouter",
    )
    assert used(found) == (1500, 1200, 300, 1024, 256)


def test_a_price_in_xais_ticks_is_the_providers() -> None:
    found = read(chat(usage={**XAI, "cost_in_usd_ticks": 12_300_000}, model="grok-4"))
    assert found.cost_usd == pytest.approx(0.00123)
    assert (found.cost_source, found.provider) == ("provider", "x_ai")


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.deepseek.com/chat/completions", "deepseek"),
        ("https://api.x.ai/v1/chat/completions", "x_ai"),
        ("https://openrouter.ai/api/v1/chat/completions", "openrouter"),
        ("https://me.openai.azure.com/openai/deployments/d/chat/completions", "azure.ai.openai"),
        ("https://example.com/v1/chat/completions", None),
    ],
)
def test_the_host_of_a_body_names_the_provider(url: str, provider: str | None) -> None:
    found = read(httpx.Response(200, json=chat(), request=httpx.Request("POST", url)))
    assert found.provider == provider


def test_golden_vector_of_openrouter() -> None:
    """langfuse's issue 10592: 86 tokens were not cached."""
    usage = {"prompt_tokens": 17903, "prompt_tokens_details": {"cached_tokens": 17817}}
    found = read(chat(usage=usage))
    assert found.input_tokens is not None
    assert found.cache_read_tokens is not None
    assert found.input_tokens - found.cache_read_tokens == 86


COUNTS = st.integers(0, 10**9)


@given(
    new=COUNTS, cached=COUNTS, written=COUNTS, text=COUNTS, reasoning=COUNTS, apart=st.booleans()
)
def test_what_obeys_the_providers_rules_obeys_ours(
    new: int, cached: int, written: int, text: int, reasoning: int, apart: bool
) -> None:
    usage = {
        "prompt_tokens": new + cached + written,
        "completion_tokens": text if apart else text + reasoning,
        "total_tokens": new + cached + written + text + reasoning,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    for found in (
        read(chat(usage=usage)),
        merged(chunk(), {**chunk(), "choices": [], "usage": usage}),
    ):
        assert found.cache_read_tokens + found.cache_write_tokens <= found.input_tokens
        assert found.reasoning_tokens <= found.output_tokens
        assert found.input_tokens + found.output_tokens == found.total_tokens


HOSTILE = st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.lists(st.none())


@settings(max_examples=30, deadline=None)  # each writes a log
@given(st.dictionaries(st.sampled_from([*OPENROUTER, *DEEPSEEK, *XAI]), HOSTILE), HOSTILE, HOSTILE)
def test_hostile_usage_gives_no_tokens_and_no_exception(usage: Any, model: Any, name: Any) -> None:
    wire = chat(usage=usage, model=model, id=name, provider=model, x_groq=name)
    with capture() as operations:
        tracked(service="hostile")(lambda: wire)()
        list(tracked(service="hostile", stream=True)(lambda: iter([wire]))())
    assert [used(each) for each in operations] == [(None,) * 5] * 2


VOYAGE: dict[str, Any] = {"object": "list", "model": "voyage-4", "usage": {"total_tokens": 26}}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ([{"object": "embedding", "embedding": [0.5], "index": 0}], "embeddings"),
        ([{"relevance_score": 0.4, "index": 0}], "rerank"),
    ],
)
@pytest.mark.parametrize("more", [{}, {"prompt_tokens": None}, {"prompt_tokens": 26}])
def test_what_is_embedded_or_ranked_is_all_input(
    data: list[Any], kind: str, more: dict[str, Any]
) -> None:
    reader = reader_for(dict)
    assert reader is not None
    reader({**VOYAGE, "data": data})  # which loads the family, and with it what reads at once
    found = reader({**VOYAGE, "data": data, "usage": {**VOYAGE["usage"], **more}})
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.total_tokens) == (26, None, 26)
    assert (found.kind, found.model) == (kind, "voyage-4")
