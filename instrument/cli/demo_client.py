"""Small real HTTP clients, in place of the providers' SDKs, which the demo must not depend on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from email.message import Message
from email.parser import Parser
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

__all__ = ["RateLimitError", "StatusError", "post", "post_async", "stream", "stream_async"]

Json = dict[str, Any]
TIMEOUT_SECONDS = 10.0
HEADERS = {"content-type": "application/json", "authorization": "Bearer demo"}


class StatusError(Exception):
    """The service answered with an error status."""

    def __init__(self, status_code: int, headers: Mapping[str, str] | Message, body: Json) -> None:
        error = body.get("error") or {}
        super().__init__(str(error.get("message", f"status {status_code}")))
        self.status_code = status_code
        self.retry_after_seconds: float = float(headers.get("retry-after-ms", 0)) / 1000


class RateLimitError(StatusError):
    """The service asks to be called less often."""


def post(api: str, path: str, body: Json) -> Json:
    """Send a request and return the decoded answer; raises `StatusError`."""
    with closing(_connection(api)) as connection:
        connection.request("POST", path, json.dumps(body), HEADERS)
        answer = connection.getresponse()
        return _decoded(answer.status, answer.headers, answer.read())


def stream(api: str, path: str, body: Json) -> Iterator[Json]:
    """Send a request and yield the server-sent events' data as they come."""
    with closing(_connection(api)) as connection:
        connection.request("POST", path, json.dumps(body), HEADERS)
        answer = connection.getresponse()
        if answer.status >= 400:
            _decoded(answer.status, answer.headers, answer.read())
        with answer:
            yield from _events(answer)


async def post_async(api: str, path: str, body: Json) -> Json:
    """Do what `post` does without blocking the event loop."""
    async with _exchange(api, path, body) as (status, headers, reader):
        return _decoded(status, headers, await reader.read())


async def stream_async(api: str, path: str, body: Json) -> AsyncIterator[Json]:
    """Do what `stream` does without blocking the event loop."""
    async with _exchange(api, path, body) as (status, headers, reader):
        if status >= 400:
            _decoded(status, headers, await reader.read())
        async for line in reader:
            for event in _events((line,)):
                yield event


@asynccontextmanager
async def _exchange(
    api: str, path: str, body: Json
) -> AsyncIterator[tuple[int, Message, asyncio.StreamReader]]:
    address = urlsplit(api)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        payload = json.dumps(body).encode()
        head = HEADERS | {"host": address.netloc, "content-length": str(len(payload))}
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + payload)
        await writer.drain()
        answered, _, rest = (await reader.readuntil(b"\r\n\r\n")).decode().partition("\r\n")
        yield int(answered.split()[1]), Parser().parsestr(rest), reader
    finally:
        writer.close()


def _connection(api: str) -> HTTPConnection:
    address = urlsplit(api)
    assert address.hostname is not None
    return HTTPConnection(address.hostname, address.port, timeout=TIMEOUT_SECONDS)


def _decoded(status: int, headers: Mapping[str, str] | Message, content: bytes) -> Json:
    body: Json = json.loads(content)
    if status == 429:
        raise RateLimitError(status, headers, body)
    if status >= 400:
        raise StatusError(status, headers, body)
    return body


def _events(lines: Iterable[bytes]) -> Iterator[Json]:
    for line in lines:
        if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
            yield json.loads(line.removeprefix(b"data: "))
