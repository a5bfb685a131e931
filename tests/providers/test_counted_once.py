"""A decorator, `install` and a gateway around one call: what it used is counted once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import isawaitable
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import every_sdk  # noqa: F401 - before what it looks for
import litellm
import openai
import pytest
import test_bedrock as of_aws
from dashscope.api_entities.http_request import close_shared_sync_session
from openai_wire import chat
from sdk_calls import (
    CALLS,
    COUNTED,
    KEPT,
    LITELLM,
    OPENAI_CHAT,
    Call,
    drained,
    of_amazon,
    of_bedrock,
)
from usage_samples import response
from wire import Answer, as_event_stream, as_json, serving

from instrument import Operation, current_session, install, session, tracked, uninstall
from instrument.testing import CapturedOperations

# LiteLLM leaves clients and loops to the garbage collector, which complains
NOISY = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
HANDED_ON = (
    "x-amzn-RequestId",
    "x-amzn-bedrock-input-token-count",
    "x-amzn-bedrock-output-token-count",
)


def each_of(calls: Iterable[Call]) -> pytest.MarkDecorator:
    marked = [
        pytest.param(call, id=call.name, marks=NOISY if call in LITELLM else ()) for call in calls
    ]
    return pytest.mark.parametrize("call", marked)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    install()
    yield
    uninstall()
    KEPT.clear()
    close_shared_sync_session()  # DashScope's


def perform(call: Call, url: str) -> None:
    """Make the call in a tracked function of the program, and read what that returns."""
    if call.is_async:
        asyncio.run(_perform_async(call, url))
    else:
        result = tracked(service="app", operation="outer")(lambda: call.ask(url))()
        if call.read is not None:
            call.read(result)


async def _perform_async(call: Call, url: str) -> None:
    @tracked(service="app", operation="outer")
    async def outer() -> Any:
        made = call.ask(url)
        return await made if isawaitable(made) else made

    result = await outer()
    if call.read is not None:
        await call.read(result)


@contextmanager
def gateway(answer: Callable[[str, bytes, dict[str, str]], Answer]) -> Iterator[str]:
    """Serve what `answer` makes of a path, a body and headers, in another thread of the session."""
    work = current_session().id

    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with session(id=work):
                body, content_type, status, headers = answer(self.path, asked, dict(self.headers))
            self.send_response(status)
            sent = {**headers, "Content-Type": content_type, "Content-Length": str(len(body))}
            for name, value in sent.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def handed_on(upstream: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    """Return what the provider answers."""
    host = upstream.removesuffix(urlsplit(upstream).path)
    with urlopen(Request(host + path, body, headers)) as found:
        kept = {name: found.headers[name] for name in HANDED_ON if name in found.headers}
        return Answer(found.read(), found.headers["Content-Type"], headers=kept)


def compatible_with_openai(operation: Operation) -> Answer:
    """Return what a gateway makes of the response that it has got: the same id and counts."""
    counts = {
        "prompt_tokens": operation.input_tokens,
        "completion_tokens": operation.output_tokens,
        "total_tokens": operation.tokens,
    }
    usage = {name: count for name, count in counts.items() if count is not None}
    return as_json(chat(id=operation.response_id, model=operation.model, usage=usage))


@each_of(CALLS)
def test_a_call_below_a_decorator_and_install_is_counted_once(
    call: Call, capture_operations: CapturedOperations
) -> None:
    with call.serving() as url, session() as work:
        perform(call, url)
    assert work.stats().total_tokens == call.tokens
    assert len(capture_operations) > 1


def generated(call: Call, url: str) -> Iterator[Any]:
    yield from call.ask(url)


def collected(call: Call, url: str) -> list[Any]:
    return list(call.ask(url))


@pytest.mark.usefixtures("capture_operations")
def test_to_look_a_finished_response_up_again_is_no_new_work(
    capture_operations: CapturedOperations,
) -> None:
    with serving(as_json(response("openai_response"))) as url:
        client = openai.OpenAI(base_url=url, api_key="none")
        made = client.responses.create(model="gpt-5", input="?")
        assert client.responses.retrieve(made.id).usage == made.usage
    assert [each.operation for each in capture_operations] == ["responses.create"]


@pytest.mark.parametrize("hand_on", [generated, collected])
@each_of(call for call in CALLS if call.read is drained)
def test_a_stream_that_the_program_hands_on_in_its_own_way_is_counted_once(
    call: Call, hand_on: Callable[[Call, str], Any]
) -> None:
    with call.serving() as url, session() as work:
        list(tracked(service="app")(hand_on)(call, url))
    assert work.stats().total_tokens == call.tokens


MESSAGE_OF_BEDROCK = {
    "id": "msg_bdrk_1",
    "type": "message",
    "model": "claude-sonnet-5",
    "content": [],
    "usage": {"input_tokens": 4, "output_tokens": 265},
}
OF_NOVA = {
    "output": {"message": {}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 4, "outputTokens": 265, "totalTokens": 269},
}


@pytest.mark.parametrize("read", [json.loads, bytes, bytes.decode])
@pytest.mark.parametrize("body", [MESSAGE_OF_BEDROCK, OF_NOVA])
def test_what_the_program_takes_out_of_bedrocks_response_is_counted_once(
    body: Any, read: Callable[[bytes], Any], capture_operations: CapturedOperations
) -> None:
    @tracked(service="app")
    def ask(url: str) -> Any:
        return read(of_bedrock(url).invoke_model(**of_aws.INVOKE)["body"].read())

    with of_amazon(as_json(body, headers=COUNTED)) as url, session() as work:
        ask(url)
    assert (work.stats().total_tokens, len(capture_operations)) == (269, 2)


def test_what_the_program_takes_out_of_bedrocks_stream_is_counted_once(
    capture_operations: CapturedOperations,
) -> None:
    start = {"type": "message_start", "message": MESSAGE_OF_BEDROCK}
    metrics = {"inputTokenCount": 4, "outputTokenCount": 265}
    stop = {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}

    @tracked(service="app")
    def ask(url: str) -> Iterator[Any]:
        stream = of_bedrock(url).invoke_model_with_response_stream(**of_aws.INVOKE)["body"]
        for event in stream:
            yield json.loads(event["chunk"]["bytes"])

    events = as_event_stream([of_aws.model_chunk(start), of_aws.model_chunk(stop)])
    with of_amazon(events) as url, session() as work:
        assert list(ask(url)) == [start, stop]
    assert (work.stats().total_tokens, len(capture_operations)) == (269, 2)


# LiteLLM makes up ids of its own, so that both sides have the same only through its own gateway
@each_of(call for call in CALLS if call.has_id and call not in LITELLM)
def test_a_call_through_a_gateway_that_makes_the_same_call_is_counted_once(
    call: Call, capture_operations: CapturedOperations
) -> None:
    def answer(*asked: Any) -> Answer:
        perform(call, url)
        return handed_on(url, *asked)

    with session() as work, call.serving() as url, gateway(answer) as middle:
        perform(call, middle + urlsplit(url).path)
    assert work.stats().total_tokens == call.tokens
    assert [each.outcome for each in capture_operations] == ["ok"] * len(capture_operations)
    assert len(capture_operations) > 3


@each_of(call for call in CALLS if call.has_id)
def test_a_call_through_a_gateway_compatible_with_openai_is_counted_once(
    call: Call, capture_operations: CapturedOperations
) -> None:
    def answer(*asked: Any) -> Answer:
        perform(call, url)
        return compatible_with_openai(next(each for each in capture_operations if each.tokens))

    with session() as work, call.serving() as url, gateway(answer) as middle:
        perform(OPENAI_CHAT, middle)
    assert work.stats().total_tokens == call.tokens
    assert len(capture_operations) > 3


@pytest.mark.usefixtures("capture_operations")
def test_a_call_through_a_gateway_in_another_process_is_counted_once() -> None:
    program = """
import sys, openai
from instrument import install
install("openai")
client = openai.OpenAI(base_url=sys.argv[1], api_key="none")
client.chat.completions.create(model="gpt-5", messages=[])
"""

    def answer(*asked: Any) -> Answer:
        command = [sys.executable, "-c", program, url]
        subprocess.run(command, check=True, env=os.environ | work.env())
        return handed_on(url, *asked)

    with session() as work, OPENAI_CHAT.serving() as url, gateway(answer) as middle:
        perform(OPENAI_CHAT, middle + urlsplit(url).path)
    found = work.operations()
    assert len({each.pid for each in found}) == 2
    assert (work.stats().operation_count, work.stats().total_tokens) == (3, 1500)


@pytest.mark.usefixtures("capture_operations")
def test_responses_without_an_id_are_counted_on_both_sides_of_a_gateway() -> None:
    """Nothing in them tells one from another."""
    call = next(each for each in CALLS if each.name == "openai embeddings")

    def answer(*asked: Any) -> Answer:
        perform(call, url)
        return handed_on(url, *asked)

    with session() as work, call.serving() as url, gateway(answer) as middle:
        perform(call, middle + urlsplit(url).path)
    assert work.stats().total_tokens == 2 * call.tokens
