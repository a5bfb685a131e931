"""A loopback server that refuses a number of times, with the headers that providers send."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

HEADERS = {
    "x-request-id": "req-1",
    "retry-after": "7",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "6m0s",
}
BODIES: dict[str, Any] = {
    "openai": {"error": {"message": "Slow down.", "type": "tokens", "code": "rate_limit_exceeded"}},
    "anthropic": {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}},
    "google": {"error": {"code": 429, "message": "Slow down.", "status": "RESOURCE_EXHAUSTED"}},
    "mistral": {"object": "error", "message": "Slow down.", "type": "rate_limited", "code": "1300"},
    "cohere": {"id": "c-1", "message": "Slow down."},
}


@contextmanager
def refusing(
    body: Any,
    *,
    status: int = 429,
    headers: Mapping[str, str] = HEADERS,
    times: int = 1_000,
    then: Any = None,
) -> Iterator[str]:
    """Refuse that many times, then answer; give the server's URL."""
    left = [status] * times

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self) -> None:
            code = left.pop() if left else 200
            text = json.dumps(body if code != 200 else then).encode()
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
