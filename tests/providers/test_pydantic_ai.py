"""Pydantic AI's results, alone and from a run against a loopback server."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

pydantic_ai = pytest.importorskip("pydantic_ai")
pytest.importorskip("openai")

from openai_wire import USED, failing, serving, used  # noqa: E402 - after the skip
from pydantic_ai.messages import ModelResponse, TextPart  # noqa: E402 - as above
from pydantic_ai.models.openai import OpenAIChatModel  # noqa: E402 - as above
from pydantic_ai.providers.openai import OpenAIProvider  # noqa: E402 - as above
from pydantic_ai.usage import RequestUsage  # noqa: E402 - as above
from responses import only  # noqa: E402 - as above

from instrument import tracked  # noqa: E402 - as above
from instrument.testing import capture  # noqa: E402 - as above
from instrument.usage import reader_for  # noqa: E402 - as above

# it runs a loop of its own, and leaves it to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def agent(url: str) -> Any:
    provider = OpenAIProvider(base_url=url, api_key="none")
    return pydantic_ai.Agent(OpenAIChatModel("gpt-5", provider=provider))


@tracked(service="agent")
async def run(url: str, **more: Any) -> Any:
    return await agent(url).run("?", **more)


async def test_a_run_counts_cached_and_reasoning_tokens_inside() -> None:
    with capture() as operations, serving() as url:
        await run(url)
    found = only(operations)
    assert used(found) == USED
    assert (found.response_id, found.provider) == ("chatcmpl-8f2", "openai")


async def test_what_earlier_runs_used_is_not_counted_again() -> None:
    with capture() as operations, serving() as url:
        first = await run(url)
        await run(url, message_history=first.all_messages())
    assert [each.tokens for each in operations] == [1500, 1500]


def test_a_run_in_a_thread_that_is_not_async_is_read_too() -> None:
    ask = tracked(service="agent")(lambda url: agent(url).run_sync("?"))
    with capture() as operations, serving() as url:
        ask(url)
    assert used(only(operations)) == USED


async def test_an_error_of_the_provider_is_an_error_without_tokens() -> None:
    with (
        capture() as operations,
        failing() as url,
        pytest.raises(pydantic_ai.exceptions.ModelHTTPError),
    ):
        await run(url)
    assert (only(operations).outcome, only(operations).tokens) == ("error", None)


def read(response: Any) -> Any:
    reader = reader_for(type(response))
    return reader and reader(response)


def test_a_models_response_names_who_answered() -> None:
    usage = RequestUsage(
        input_tokens=12, output_tokens=5, cache_read_tokens=8, details={"reasoning_tokens": 3}
    )
    usage.cost = Decimal("0.25")
    found = read(
        ModelResponse(
            parts=[TextPart("x")],
            usage=usage,
            model_name="gemini-3",
            provider_name="google-gla",
            provider_response_id="r-1",
        )
    )
    assert (found.input_tokens, found.cache_read_tokens, found.reasoning_tokens) == (12, 8, 3)
    assert (found.provider, found.model, found.response_id) == ("gcp.gemini", "gemini-3", "r-1")
    assert (found.cost_usd, found.cost_source) == (0.25, "caller")


def test_a_usage_of_nothing_but_zeros_was_not_reported() -> None:
    found = read(ModelResponse(parts=[TextPart("x")]))
    assert (found.input_tokens, found.output_tokens, found.cache_read_tokens) == (None,) * 3
