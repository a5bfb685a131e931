"""A loopback server that answers as OpenAI, and those who are compatible with it, do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from instrument import Operation

MODEL = "gpt-5-2026-08-01"
ASK: list[Any] = [{"role": "user", "content": "What is the capital of Portugal?"}]
USAGE: dict[str, Any] = {
    "prompt_tokens": 1200,
    "completion_tokens": 300,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 256, "audio_tokens": 0},
}
"""1024 of the input were cached, and 256 of the output are reasoning."""

USED = (1500, 1200, 300, 1024, 256)
"""The same as `used` gives it."""

RESPONSES_USAGE = {
    "input_tokens": 1200,
    "output_tokens": 300,
    "total_tokens": 1500,
    "input_tokens_details": {"cached_tokens": 1024},
    "output_tokens_details": {"reasoning_tokens": 256},
}
ERROR = {"error": {"message": "Slow down.", "type": "tokens", "code": "rate_limit_exceeded"}}


def used(operation: Operation) -> tuple[int | None, ...]:
    """Return tokens, input, output, cache read and reasoning."""
    return (
        operation.tokens,
        operation.input_tokens,
        operation.output_tokens,
        operation.cache_read_tokens,
        operation.reasoning_tokens,
    )


def chat(*, usage: Any = USAGE, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Lisbon.", "refusal": None}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}
    return {
        "id": "chatcmpl-8f2",
        "object": "chat.completion",
        "created": 1790000000,
        "model": MODEL,
        "choices": [choice],
        "usage": usage,
        **more,
    }


def chunk(text: str = "", *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish, "logprobs": None}
    return {
        "id": "chatcmpl-8f2",
        "object": "chat.completion.chunk",
        "created": 1790000000,
        "model": MODEL,
        "choices": [choice],
        **more,
    }


def chunks(*, usage: Any = USAGE, words: int = 40) -> list[dict[str, Any]]:
    """Return a stream; its last chunk has the usage, if there is any."""
    said = [*(chunk(f"word{number} ") for number in range(words)), chunk(finish="stop")]
    return said if usage is None else [*said, {**chunk(), "choices": [], "usage": usage}]


def groq_chunks(*, usage: Any = USAGE) -> list[dict[str, Any]]:
    first, *rest = chunks(usage=None)
    last = {**rest[-1], "x_groq": {"id": "req_1", "usage": usage}}
    return [{**first, "x_groq": {"id": "req_1"}}, *rest[:-1], last]


def response(**more: Any) -> dict[str, Any]:
    return {
        "id": "resp_51c",
        "object": "response",
        "created_at": 1790000000,
        "model": MODEL,
        "output": [],
        "status": "completed",
        "usage": RESPONSES_USAGE,
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        **more,
    }


def embeddings() -> dict[str, Any]:
    vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    return {"object": "list", "model": "e-3", "data": [vector], "usage": usage}


def images(**more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 50,
        "output_tokens": 1056,
        "total_tokens": 1106,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    }
    data = [{"b64_json": "aGk="}, {"b64_json": "aG8="}]
    return {"created": 1790000000, "data": data, "usage": usage, **more}


@contextmanager
def serving(
    whole: Any = None, stream: list[Any] | None = None, *, status: int = 200
) -> Iterator[str]:
    """Answer every request with one of the two; give the URL to be used as `base_url`.

    Chunks with usage and no choices are sent to those who ask for them, as OpenAI does it.
    """

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            is_json = "json" in (self.headers.get("Content-Type") or "")
            asked = json.loads(body) if is_json else {}
            if status == 200 and asked.get("stream"):
                self._send("text/event-stream", _events(stream or chunks(), asked))
            else:
                self._send("application/json", json.dumps(whole or chat()).encode())

        def _send(self, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def failing() -> Any:
    """Answer every request with a rate-limit error."""
    return serving(ERROR, status=429)


def _events(stream: list[Any], asked: dict[str, Any]) -> bytes:
    wanted = (asked.get("stream_options") or {}).get("include_usage")
    sent = [each for each in stream if wanted or each.get("choices") != []]
    lines = [f"data: {json.dumps(each)}\n\n" for each in sent]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()
