"""Wire responses as the providers send them, and a loopback server that replays them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

DIRECTORY = Path(__file__).parent


def sample(name: str) -> bytes:
    return (DIRECTORY / name).read_bytes()


def response(name: str) -> dict[str, Any]:
    return json.loads(sample(f"{name}.json"))


def compatible() -> dict[str, dict[str, Any]]:
    """Return what others answer in OpenAI's shape, and what OpenAI does beside chats."""
    chat = response("openai_chat")
    usage = chat["usage"]
    images = {"input_tokens": 50, "output_tokens": 1056, "total_tokens": 1106}
    hits = {"prompt_cache_hit_tokens": 1024, "prompt_cache_miss_tokens": 176}
    routed = {"id": "gen-1", "provider": "x", "usage": {**usage, "cost": 0.1}}
    return {
        "OpenAI embeddings": response("openai_embeddings"),
        "OpenAI images": {"created": 1790000000, "data": [{"b64_json": "aGk="}], "usage": images},
        "Azure chat": {**chat, "prompt_filter_results": []},
        "Groq chat": {**chat, "x_groq": {"id": "req_1"}},
        "vLLM chat": {**chat, "kv_transfer_params": None},
        "DeepSeek chat": {**chat, "model": "deepseek-chat", "usage": {**usage, **hits}},
        "OpenRouter chat": {**chat, **routed},
    }


def events(name: str) -> list[dict[str, Any]]:
    lines = sample(f"{name}.sse").decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def namespace(value: Any) -> Any:
    """Return the same as an object with attributes, all the way down."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: namespace(inner) for name, inner in value.items()})
    return [namespace(inner) for inner in value] if isinstance(value, list) else value


@contextmanager
def replaying(name: str, *, status: int = 200) -> Iterator[str]:
    """Serve one sample as the answer to every request; give the server's URL."""
    body = sample(name)
    kind = "text/event-stream" if name.endswith(".sse") else "application/json"

    class Replay(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Replay)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
