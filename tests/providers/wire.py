"""A provider on the loopback: one answer to every request, in the provider's own wire format."""

from __future__ import annotations

import json
import struct
from binascii import crc32
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from instrument import Operation, tracked
from instrument.testing import capture

_STRING_HEADER = 7


class Answer(NamedTuple):
    """What the server sends."""

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = {}


def as_json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(json.dumps(value).encode(), "application/json", status, headers or {})


def as_sse(events: Sequence[Any], *, named: bool = False, ending: str = "") -> Answer:
    """Give server-sent events; `named`: each has its type as its event's name."""
    lines = [
        (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n"
        for event in events
    ]
    return Answer("".join([*lines, ending]).encode(), "text/event-stream")


def as_ndjson(chunks: Sequence[Any]) -> Answer:
    body = "".join(json.dumps(chunk) + "\n" for chunk in chunks)
    return Answer(body.encode(), "application/x-ndjson")


def as_event_stream(messages: Sequence[bytes]) -> Answer:
    """Give messages made with `message` in AWS's binary encoding."""
    return Answer(b"".join(messages), "application/vnd.amazon.eventstream")


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Encode one message of `application/vnd.amazon.eventstream`."""
    block = b"".join(_header(name, value) for name, value in headers.items())
    total = 4 + 4 + 4 + len(block) + len(payload) + 4
    prelude = struct.pack("!II", total, len(block))
    head = prelude + struct.pack("!I", crc32(prelude)) + block + payload
    return head + struct.pack("!I", crc32(head))


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack("!B", len(key)) + key + struct.pack("!BH", _STRING_HEADER, len(text)) + text


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Serve one answer to every request; give the server's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *arguments: Any) -> None:
            pass

    with _listening(Handler) as url:
        yield url


@contextmanager
def cut_off(upstream: str) -> Iterator[str]:
    """Hand on three fifths of each answer of a server, and hang up."""
    path = urlsplit(upstream).path

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            host = upstream.removesuffix(path)
            headers = {"Content-Type": self.headers["Content-Type"]}
            with urlopen(Request(host + self.path, asked, headers)) as found:
                body, kind = found.read(), found.headers["Content-Type"]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) * 3 // 5])

        def log_message(self, *arguments: Any) -> None:
            pass

    with _listening(Handler) as url:
        yield url + path


@contextmanager
def _listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def recorded(call: Callable[[], Any], consume: Callable[[Any], Any] | None = None) -> Operation:
    """Return the one operation that tracking `call` records; `consume` is given its result."""
    with capture() as operations:
        result = tracked(service="provider")(call)()
        if consume is not None:
            consume(result)
        del result
        (operation,) = operations
    return operation


async def recorded_async(call: Callable[[], Any], consume: Any = None) -> Operation:
    """Do the same for a coroutine function; `consume` is one, too."""
    with capture() as operations:
        result = await tracked(service="provider")(call)()
        if consume is not None:
            await consume(result)
        del result
        (operation,) = operations
    return operation


async def drain(stream: Any) -> None:
    async for _ in stream:
        pass


def first_of(stream: Any) -> None:
    """Take one item and leave a stream that can be closed."""
    next(iter(stream))
    stream.close()


def counts(operation: Operation) -> tuple[int | None, ...]:
    """Return input, output, cache read, cache write, reasoning, and the total."""
    return (
        operation.input_tokens,
        operation.output_tokens,
        operation.cache_read_tokens,
        operation.cache_write_tokens,
        operation.reasoning_tokens,
        operation.tokens,
    )


def identity(operation: Operation) -> tuple[str | None, ...]:
    """Return provider, kind, model and response id."""
    return operation.provider, operation.kind, operation.model, operation.response_id
