"""LiteLLM against a loopback server: inclusive counts, whatever else stands beside them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
litellm = pytest.importorskip("litellm")

from openai_wire import ASK, USED, chat, failing, serving, used  # noqa: E402 - after the skip
from responses import only  # noqa: E402 - as above
from usage_samples import replaying  # noqa: E402 - as above

from instrument import InstrumentWarning, tracked  # noqa: E402 - as above
from instrument.testing import capture  # noqa: E402 - as above
from instrument.usage import reader_for, stream_for  # noqa: E402 - as above

# LiteLLM leaves clients and loops to the garbage collector, which complains
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
CHAT: dict[str, Any] = {"model": "openai/gpt-4o", "messages": ASK, "api_key": "none"}
WITH_USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "suppress_debug_info", True)


@tracked(service="litellm")
def ask(url: str, **more: Any) -> Any:
    return litellm.completion(**CHAT, api_base=url, max_retries=0, **more)


@tracked(service="litellm")
async def ask_async(url: str, **more: Any) -> Any:
    return await litellm.acompletion(**CHAT, api_base=url, max_retries=0, **more)


async def test_a_completion_has_its_counts_and_the_cost_that_the_library_computed() -> None:
    with capture() as operations, serving() as url:
        ask(url)
        await ask_async(url)
    assert [used(each) for each in operations] == [USED] * 2
    assert {(each.provider, each.cost_source) for each in operations} == {("openai", "caller")}
    assert all(each.cost_usd for each in operations)


@pytest.mark.parametrize(
    ("hidden", "provider"),
    [
        ({"litellm_model_name": "anthropic/claude-sonnet-5"}, "anthropic"),
        ({"litellm_model_name": "gemini/gemini-2.5-pro"}, "gcp.gemini"),
        ({"litellm_model_name": "claude-sonnet-5"}, None),
        ({"custom_llm_provider": "ollama_chat", "litellm_model_name": "x/y"}, "ollama"),
        ({}, None),
    ],
)
def test_the_librarys_cost_counts_wherever_it_names_who_answered(
    hidden: dict[str, Any], provider: str | None
) -> None:
    answer = litellm.ModelResponse(**chat())
    answer._hidden_params = {**hidden, "response_cost": 0.25}
    reader = reader_for(type(answer))
    assert reader is not None
    found = reader(answer)
    assert found is not None
    assert (found.cost_usd, found.cost_source, found.provider) == (0.25, "caller", provider)


async def test_anthropics_answers_have_provider_and_cost() -> None:
    call = {**CHAT, "model": "anthropic/claude-sonnet-4-5-20250929", "max_retries": 0}
    with capture() as operations, replaying("anthropic_message.json") as url:
        tracked(service="litellm")(litellm.completion)(**call, api_base=url)
        await tracked(service="litellm")(litellm.acompletion)(**call, api_base=url)
    assert {each.provider for each in operations} == {"anthropic"}
    assert all(each.cost_usd and each.cost_source == "caller" for each in operations)


async def test_a_stream_that_was_asked_for_usage_has_it_and_the_librarys_cost() -> None:
    with capture() as operations, serving() as url:
        list(ask(url, **WITH_USAGE))
        async for _ in await ask_async(url, **WITH_USAGE):
            pass
    assert [used(each) for each in operations] == [USED] * 2
    assert {(each.provider, each.cost_source) for each in operations} == {("openai", "caller")}


async def test_a_stream_of_the_responses_api_has_its_usage() -> None:
    request: dict[str, Any] = {"model": "openai/gpt-5", "input": "?", "api_key": "none"}
    with capture() as operations, replaying("openai_response.sse") as url:
        list(tracked(service="litellm")(litellm.responses)(**request, api_base=url, stream=True))
        aresponses = tracked(service="litellm")(litellm.aresponses)
        async for _ in await aresponses(**request, api_base=url, stream=True):
            pass
    assert [(each.tokens, each.reasoning_tokens) for each in operations] == [(2500, 448)] * 2


@pytest.mark.usefixtures("fresh_warnings")
def test_the_zeros_of_a_stream_without_usage_are_no_usage() -> None:
    with capture() as operations, serving() as url, pytest.warns(InstrumentWarning, match="usage"):
        list(ask(url, stream=True))
    assert used(only(operations)) == (None,) * 5


def test_the_stream_stays_a_stream_of_litellm() -> None:
    with capture(), serving() as url:
        stream = ask(url, **WITH_USAGE)
        assert isinstance(stream, litellm.CustomStreamWrapper)
        assert litellm.stream_chunk_builder(list(stream)).usage.total_tokens == 1500


async def test_a_stream_left_early_is_partial_without_tokens() -> None:
    with capture() as operations, serving() as url:
        stream = ask(url, **WITH_USAGE)
        next(stream)
        del stream
        stream = await ask_async(url, **WITH_USAGE)
        await anext(stream)
        del stream
        await asyncio.sleep(0.01)
    expected = [("partial", (None,) * 5)] * 2
    assert [(each.outcome, used(each)) for each in operations] == expected


def test_an_error_of_the_provider_is_an_error_without_tokens() -> None:
    with capture() as operations, failing() as url, pytest.raises(litellm.RateLimitError):
        ask(url)
    found = only(operations)
    assert (found.outcome, found.error_type, found.tokens) == ("error", "RateLimitError", None)


def test_embeddings_are_read_with_their_cost() -> None:
    wire = {"object": "list", "model": "e", "data": [], "usage": {}}
    wire["usage"] = {"prompt_tokens": 8, "total_tokens": 8}
    with capture() as operations, serving(wire) as url:
        embed = tracked(service="litellm")(litellm.embedding)
        embed("openai/text-embedding-3-small", input=["?"], api_base=url, api_key="none")
    found = only(operations)
    assert (found.input_tokens, found.kind, found.cost_source) == (8, "embeddings", "caller")


def golden() -> Any:
    return litellm.ModelResponse(
        id="chatcmpl-1",
        model="claude-sonnet-5",
        usage=litellm.Usage(
            prompt_tokens=98805,
            completion_tokens=1,
            total_tokens=98806,
            cache_read_input_tokens=66360,
            cache_creation_input_tokens=32435,
        ),
    )


def forms() -> Iterator[Any]:
    """Yield the same in every form in which a program may return it."""
    whole = golden()
    yield whole
    yield whole.model_dump()
    yield whole.model_dump_json()
    yield whole.model_dump_json().encode()
    yield (whole, {"x-request-id": "1"})


def test_caches_are_already_inside_whatever_stands_beside_them() -> None:
    """LiteLLM's issue 11364: 98805, not 197600."""
    for form in forms():
        reader = reader_for(type(form))
        assert reader is not None
        found = reader(form)
        assert found is not None
        assert (found.input_tokens, found.cache_read_tokens) == (98805, 66360)
        assert found.cache_write_tokens == 32435


def test_a_price_that_openrouter_names_is_the_providers() -> None:
    response = golden()
    response.usage.cost = 0.5
    response._hidden_params = {"custom_llm_provider": "openrouter", "response_cost": 0.7}
    reader = reader_for(type(response))
    assert reader is not None
    found = reader(response)
    assert found is not None
    assert (found.cost_usd, found.cost_source, found.provider) == (0.5, "provider", "openrouter")


@pytest.mark.parametrize(
    ("name", "provider"),
    [("gemini", "gcp.gemini"), ("azure", "azure.ai.openai"), ("xai", "x_ai"), ("groq", "groq")],
)
def test_providers_have_the_names_of_opentelemetry(name: str, provider: str) -> None:
    response = golden()
    response._hidden_params = {"custom_llm_provider": name}
    reader = reader_for(type(response))
    assert reader is not None
    found = reader(response)
    assert found is not None
    assert (found.provider, found.cost_source) == (provider, None)


def test_litellms_stream_classes_are_registered() -> None:
    from litellm.responses import streaming_iterator

    classes = [streaming_iterator.SyncResponsesAPIStreamingIterator, litellm.CustomStreamWrapper]
    assert [stream_for(cls) is not None for cls in classes] == [True, True]


def test_a_completion_without_usage_has_no_tokens() -> None:
    with capture() as operations, serving(chat(usage=None)) as url:
        ask(url)
    assert only(operations).tokens in (None, 0)
