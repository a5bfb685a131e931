"""`install`: the clients of SDKs are tracked without touching the code that uses them."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from openai.resources.chat.completions import Completions

from instrument import current_session, install, session, track, tracked, uninstall
from instrument.cli.demo_server import DemoServer
from instrument.testing import CapturedOperations

MESSAGES: Any = [{"role": "user", "content": "hello"}]
CHAT = {"model": "gpt-5.4", "messages": MESSAGES}
CLAUDE = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": MESSAGES}
GEMINI = {"model": "gemini-2.5-pro", "contents": "hello"}


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with DemoServer() as running:
        yield running


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    install("openai", "anthropic", "google-genai")
    yield
    uninstall()


def of_openai(server: DemoServer, kind: Callable[..., Any] = openai.OpenAI) -> Any:
    return kind(api_key="none", base_url=f"{server.url}/v1", max_retries=0)


def of_google(server: DemoServer) -> Any:
    client = genai.Client(api_key="none", http_options={"base_url": server.url})
    clients.append(client)  # one that is collected closes its connections
    return client


clients: list[Any] = []


def consume(stream: Any) -> None:
    for _ in stream:
        pass


async def consume_async(stream: Any) -> None:
    async for _ in stream:
        pass


CALLS: dict[str, Callable[[DemoServer], Any]] = {
    "openai chat.completions.create": lambda server: of_openai(server).chat.completions.create(
        **CHAT
    ),
    "openai responses.create": lambda server: of_openai(server).responses.create(
        model="gpt-5.4", input="hello"
    ),
    "openai embeddings.create": lambda server: of_openai(server).embeddings.create(
        model="text-embedding-3-small", input="hello"
    ),
    "anthropic messages.create": lambda server: anthropic.Anthropic(
        api_key="none", base_url=server.url
    ).messages.create(**CLAUDE),
    "google models.generate_content": lambda server: of_google(server).models.generate_content(
        **GEMINI
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_of_an_sdk_is_one_operation_with_its_tokens(
    name: str, server: DemoServer, capture_operations: CapturedOperations
) -> None:
    CALLS[name](server)
    (found,) = capture_operations
    assert f"{found.service} {found.operation}" == name
    assert (found.tokens, found.outcome) == (server.tally.total().total, "ok")


def test_streams_and_raw_responses_are_tracked_like_the_call(
    server: DemoServer, capture_operations: CapturedOperations
) -> None:
    chat = of_openai(server).chat.completions
    consume(chat.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    with chat.stream(**CHAT, stream_options={"include_usage": True}) as stream:
        consume(stream)
    chat.with_raw_response.create(**CHAT)
    with anthropic.Anthropic(api_key="none", base_url=server.url).messages.stream(**CLAUDE) as said:
        consume(said.text_stream)
    consume(of_google(server).models.generate_content_stream(**GEMINI))
    assert [found.outcome for found in capture_operations] == ["ok"] * 5
    assert sum(found.tokens or 0 for found in capture_operations) == server.tally.total().total


def test_asynchronous_clients_are_tracked(
    server: DemoServer, capture_operations: CapturedOperations
) -> None:
    async def main() -> None:
        chat = of_openai(server, openai.AsyncOpenAI).chat.completions
        await chat.create(**CHAT)
        await consume_async(
            await chat.create(**CHAT, stream=True, stream_options={"include_usage": True})
        )
        models = of_google(server).aio.models
        await models.generate_content(**GEMINI)
        await consume_async(await models.generate_content_stream(**GEMINI))

    asyncio.run(main())
    assert len(capture_operations) == 4
    assert sum(found.tokens or 0 for found in capture_operations) == server.tally.total().total


@pytest.mark.parametrize("name", CALLS)
def test_a_decorator_around_an_installed_client_counts_once(
    name: str, server: DemoServer, capture_operations: CapturedOperations
) -> None:
    call = tracked(service="app")(CALLS[name])
    with session() as work:
        call(server)
    outer, inner = capture_operations
    assert (outer.tokens, outer.usage_operation_id) == (None, inner.operation_id)
    assert inner.parent_id == outer.operation_id
    assert work.stats().total_tokens == server.tally.total().total


def test_an_error_of_the_provider_reaches_the_caller_and_names_the_model_asked_for(
    capture_operations: CapturedOperations,
) -> None:
    with DemoServer(refused={"gpt-5.4": 1}) as server, pytest.raises(openai.RateLimitError):
        of_openai(server).chat.completions.create(**CHAT)
    (found,) = capture_operations
    assert (found.outcome, found.error_type, found.model) == ("error", "RateLimitError", "gpt-5.4")


def test_methods_keep_their_kind_and_signature() -> None:
    ours = Completions.create
    uninstall("openai")
    theirs = Completions.create
    assert ours is not theirs
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)
    assert install("openai") == ("anthropic", "google-genai", "openai")


def test_uninstall_puts_back_the_very_functions(
    server: DemoServer, capture_operations: CapturedOperations
) -> None:
    client, ours = of_openai(server), Completions.create
    assert uninstall() == ()
    client.chat.completions.create(**CHAT)
    assert list(capture_operations) == []
    assert Completions.create is not ours
    install("openai")
    uninstall("openai")
    assert "instrument" not in Completions.create.__globals__["__name__"]


def test_a_clients_raw_view_that_was_used_before_uninstall_is_its_own_again(
    server: DemoServer, capture_operations: CapturedOperations
) -> None:
    client = of_openai(server)
    raw = client.chat.completions.with_raw_response  # which keeps the method that it found
    assert raw.create(**CHAT).parse().usage
    assert len(capture_operations) == 1
    uninstall("openai")
    assert raw.create(**CHAT).parse().usage
    consume(raw.create(**CHAT, stream=True).parse())
    assert len(capture_operations) == 1
    install("openai")
    raw.create(**CHAT)
    of_openai(server).chat.completions.with_raw_response.create(**CHAT)
    assert len(capture_operations) == 3


def test_what_is_called_inside_of_a_call_that_is_tracked_no_more_is_inside_of_what_is_around_it(
    server: DemoServer, capture_operations: CapturedOperations
) -> None:
    tell = tracked(service="log", operation="tell")(lambda request: None)
    client = of_openai(server)
    raw = client.with_options(
        http_client=httpx.Client(event_hooks={"request": [tell]})
    ).chat.completions.with_raw_response
    raw.create(**CHAT)
    uninstall("openai")
    with track("around", service="s"):
        raw.create(**CHAT)
    told, around = capture_operations[-1], capture_operations[-2]
    assert {told.operation, around.operation} == {"tell", "around"}
    assert told.parent_id == around.operation_id


def test_installing_twice_tracks_once(
    server: DemoServer, capture_operations: CapturedOperations
) -> None:
    install("openai")
    install()
    CALLS["openai chat.completions.create"](server)
    assert len(capture_operations) == 1


def test_an_sdk_imported_afterwards_is_tracked_and_nothing_is_imported_by_install() -> None:
    program = """
import sys
from instrument import install, uninstall
names = install()
assert not {"openai", "anthropic", "google.genai", "litellm", "boto3"} & sys.modules.keys()
import openai.resources.embeddings as embeddings
print(len(names), "instrument" in embeddings.Embeddings.create.__globals__["__name__"])
uninstall()
import openai.resources.completions as completions
print("instrument" in completions.Completions.create.__globals__["__name__"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("10 True\nFalse\n", "")


@pytest.mark.parametrize("wrong", ["opanai", 5])
def test_an_unknown_name_is_refused_with_the_known(wrong: Any) -> None:
    with pytest.raises(ValueError, match="use one of openai, anthropic, google-genai"):
        install(wrong)
    assert current_session().id
