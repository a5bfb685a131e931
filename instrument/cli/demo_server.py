"""A loopback server that answers like OpenAI, Anthropic and Gemini, for the demo and for tests.

It knows the paths that the providers' own SDKs call: give it as their `base_url`.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from instrument.cli import demo_wire as wire
from instrument.cli.demo_meter import Meter, Tally, Tokens

__all__ = ["DemoServer"]

FIRST_WORD_SECONDS = 0.045
WORD_SECONDS = 0.006
RETRY_MS = 150


class Asked(NamedTuple):
    """A request, as far as an answer depends on it; `prefix` is what providers cache."""

    service: str
    model: str
    prefix: str
    prompt: str
    limit: int | None
    streamed: bool
    body: wire.Json


class Answer(NamedTuple):
    """A JSON document, or a stream of events in its place."""

    document: wire.Json
    tokens: Tokens
    events: Iterator[wire.Event] | None = None


class DemoServer:
    """Serve on 127.0.0.1 between `__enter__` and `__exit__`, counting what is sent in `tally`.

    `refused` says how many requests for a model get a rate-limit error before it answers;
    `pace` scales the latencies, 0 being none.
    """

    def __init__(self, *, refused: Mapping[str, int] | None = None, pace: float = 1.0) -> None:
        self.tally: Tally = Tally()
        self._meter = Meter()
        self._pace = pace
        self._refusals = Counter(refused or {})
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._http = _Http(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def wait(self, seconds: float) -> None:
        time.sleep(seconds * self._pace)

    def refuses(self, model: str) -> bool:
        with self._lock:
            self._refusals[model] -= 1
            return self._refusals[model] >= 0

    def answer(self, asked: Asked) -> tuple[str, Answer]:
        """Answer a request that is not refused; the text names the answer in the tally."""
        identity = f"demo{next(self._numbers):08d}"
        if "input" in asked.body and "embedding" in asked.model:
            texts = _texts(asked.body["input"])
            tokens = self._meter.embedding(texts)
            return identity, Answer(wire.embeddings(asked.model, texts, tokens), tokens)
        tokens = self._meter.answer(
            asked.model,
            asked.prefix,
            asked.prompt,
            limit=asked.limit,
            writes_cache=asked.service == "anthropic",
        )
        document, events = _worded(asked, identity, tokens)
        return identity, Answer(document, tokens, events if asked.streamed else None)


def _worded(asked: Asked, identity: str, tokens: Tokens) -> tuple[wire.Json, Iterator[wire.Event]]:
    given = identity, asked.model, tokens
    if asked.service == "anthropic":
        return wire.message(*given), wire.message_events(*given)
    if asked.service == "google":
        return wire.content(*given), wire.content_events(*given)
    if "input" in asked.body:
        return wire.response(*given), wire.response_events(*given)
    usage = bool((asked.body.get("stream_options") or {}).get("include_usage"))
    return wire.chat(*given), wire.chat_events(*given, usage=usage)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def server_bind(self) -> None:
        # HTTPServer would look up the host's name, which can take long where there is no network
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


def _handler_for(server: DemoServer) -> Callable[..., BaseHTTPRequestHandler]:
    def handler(*arguments: Any) -> BaseHTTPRequestHandler:
        return _Handler(server, *arguments)

    return handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, demo: DemoServer, *arguments: Any) -> None:
        self._demo = demo
        super().__init__(*arguments)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the demo's own output is what is to be read."""

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("content-length", 0))
            asked = _asked(self.path, json.loads(self.rfile.read(length) or b"{}"))
            if asked is None:
                self._send(404, {"error": {"message": f"no such path: {self.path}"}}, {})
            else:
                self._serve(asked)
        except ConnectionError:
            self.close_connection = True

    def _serve(self, asked: Asked) -> None:
        demo = self._demo
        demo.tally.asked(asked.service)
        if demo.refuses(asked.model):
            demo.wait(0.02)
            demo.tally.refuse(asked.service)
            self._send(429, *wire.refusal(asked.service, asked.model, RETRY_MS))
            return
        identity, answer = demo.answer(asked)
        demo.wait(FIRST_WORD_SECONDS)
        if answer.events is not None:
            self._stream(asked.service, identity, answer.events)
            return
        demo.wait(answer.tokens.output * WORD_SECONDS / wire.TOKENS_PER_CHUNK)
        demo.tally.sent(asked.service, identity, answer.tokens)
        self._send(200, answer.document, {})

    def _send(self, status: int, document: wire.Json, headers: Mapping[str, str]) -> None:
        body = json.dumps(document).encode()
        self._head(status, {**headers, "content-type": "application/json"}, len(body))
        self.wfile.write(body)

    def _stream(self, service: str, identity: str, events: Iterator[wire.Event]) -> None:
        self._head(200, {"content-type": "text/event-stream"}, None)
        for event in events:
            name = f"event: {event.name}\r\n" if event.name else ""
            data = event.data if isinstance(event.data, str) else json.dumps(event.data)
            # noted first: the reader may compare as soon as it has the event
            if event.known is not None:
                self._demo.tally.sent(service, identity, event.known)
            self.wfile.write(f"{name}data: {data}\r\n\r\n".encode())
            self._demo.wait(WORD_SECONDS)

    def _head(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("content-length", str(length))
        self.send_header("connection", "close")
        self.end_headers()


def _asked(path: str, body: wire.Json) -> Asked | None:
    route = path.partition("?")[0]
    version, _, call = route.partition("/models/")
    if version in ("/v1", "/v1beta") and call:
        return _asked_of_google(call, body)
    model, streamed = str(body.get("model")), bool(body.get("stream"))
    if route == "/v1/messages":
        prefix = _joined(body.get("system"))
        limit = body.get("max_tokens")
        prompt = _joined(body.get("messages"))
        return Asked("anthropic", model, prefix, prompt, limit, streamed, body)
    if route == "/v1/chat/completions":
        first, *rest = body.get("messages") or [""]
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        return Asked("openai", model, _joined(first), _joined(rest), limit, streamed, body)
    if route in ("/v1/responses", "/v1/embeddings"):
        prefix, prompt = _joined(body.get("instructions")), _joined(body.get("input"))
        limit = body.get("max_output_tokens")
        return Asked("openai", model, prefix, prompt, limit, streamed, body)
    return None


def _asked_of_google(call: str, body: wire.Json) -> Asked | None:
    model, _, method = call.partition(":")
    if method not in ("generateContent", "streamGenerateContent"):
        return None
    limit = (body.get("generationConfig") or {}).get("maxOutputTokens")
    prefix, prompt = _joined(body.get("systemInstruction")), _joined(body.get("contents"))
    return Asked("google", model, prefix, prompt, limit, method.startswith("stream"), body)


def _joined(value: Any) -> str:
    """All text within a message, whatever its nesting."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "\n".join(_joined(value.get(key)) for key in ("content", "parts", "text"))
    return "\n".join(map(_joined, value)) if isinstance(value, list) else ""


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [_joined(one) for one in value]
