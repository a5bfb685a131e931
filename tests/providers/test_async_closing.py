"""Async streams that are dropped, timed out or closed end as they do without us: in silence."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from instrument import tracked
from instrument.testing import capture

openai = pytest.importorskip("openai")
groq = pytest.importorskip("groq")

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}


class Trickling(BaseHTTPRequestHandler):
    """Sends a chunk every so often, more of them than anybody waits for."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        data = f"data: {json.dumps(CHUNK)}\n\n".encode()
        with suppress(OSError):
            for _ in range(40):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                time.sleep(0.05)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def trickling() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Trickling)
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


async def dropped(stream: Any) -> None:
    steps = stream.__aiter__()
    await steps.__anext__()
    await steps.aclose()


async def timed_out(stream: Any) -> None:
    steps = stream.__aiter__()
    await steps.__anext__()
    with suppress(TimeoutError):
        await asyncio.wait_for(steps.__anext__(), 0.001)


async def left(stream: Any) -> None:
    async with stream:
        async for _ in stream:
            break


async def closed(stream: Any) -> None:
    async for _ in stream:
        break
    await stream.close()


def ask_openai(url: str) -> Awaitable[Any]:
    client = openai.AsyncOpenAI(base_url=url, api_key="x")
    return client.chat.completions.create(**ASK)  # type: ignore[no-any-return]


def ask_groq(url: str) -> Awaitable[Any]:
    client = groq.AsyncGroq(base_url=url, api_key="x")
    return client.chat.completions.create(**ASK)  # type: ignore[no-any-return]


@pytest.mark.parametrize("leave", [dropped, timed_out, left, closed])
@pytest.mark.parametrize("ask", [ask_openai, ask_groq])
def test_nobody_complains_of_an_async_stream_that_is_left(
    ask: Callable[[str], Awaitable[Any]],
    leave: Callable[[Any], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    complaints: list[Any] = []

    def complain(told: Any) -> None:
        if not isinstance(told.exc_value, ResourceWarning):  # of a client that nobody closes
            complaints.append(told.exc_value)

    monkeypatch.setattr(sys, "unraisablehook", complain)

    @tracked(service="s")
    async def tracked_ask(url: str) -> Any:
        return await ask(url)

    async def main(url: str) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: complaints.append(told))
        stream = await tracked_ask(url)
        await leave(stream)
        del stream
        gc.collect()
        await asyncio.sleep(0.05)

    for _ in range(2):  # once in hundreds of times asyncio closes what is being closed
        complaints.clear()
        with capture() as operations, trickling() as url:
            asyncio.run(main(url))
            gc.collect()
        if not complaints:
            break
    assert complaints == []
    expected = "cancelled" if leave is timed_out else "partial"
    assert [(each.outcome, each.chunks) for each in operations] == [(expected, 1)]
