"""What `overhead.py` compares: each side decorates the same call, or does its work by hand."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _peers

BARE, FLOOR, ORIGINAL = "bare", "floor", "original logger"
READY = "floor, in a wrapper"
OURS, WITHOUT_USAGE = "instrument", "instrument, no usage"

# as few as stay in the processor's cache, where a client that has just parsed one leaves it
_IN_TURN = 64

Work = Callable[[], Any]


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Side:
    """One way to measure a call.

    `work` is the body of the tracked function, `before` what the parent's body does besides
    calling its child, `settle` what has to be done between samples, outside the timing. `calls`
    is how many go into one sample.
    """

    name: str
    work: Work
    decorate: Callable[[Any], Any] = lambda function: function
    before: Callable[[], None] | None = None
    settle: Callable[[], None] = nothing
    calls: int = 500


def next_response() -> Work:
    """Return a function that gives OpenAI responses with all five token counts, ids differing."""
    responses = itertools.cycle([_response(number) for number in range(_IN_TURN)])

    def respond() -> Any:  # a function, because that is what is decorated
        return next(responses)

    return respond


def payload(number: int) -> dict[str, Any]:
    """Return what OpenAI's chat API answers, as a dict."""
    return {
        "id": f"chatcmpl-{number:024d}",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "gpt-5-2025-08-07",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "A short answer."},
            }
        ],
        "usage": {
            "prompt_tokens": 1_200,
            "completion_tokens": 350,
            "total_tokens": 1_550,
            "prompt_tokens_details": {"cached_tokens": 900, "cache_write_tokens": 100},
            "completion_tokens_details": {"reasoning_tokens": 200},
        },
    }


def _response(number: int) -> Any:
    answer = payload(number)
    try:
        from openai.types.chat import ChatCompletion
    except ImportError:
        return json.loads(json.dumps(answer), object_hook=lambda found: SimpleNamespace(**found))
    return ChatCompletion.model_validate(answer)


def bare(respond: Work) -> Side:
    return Side(BARE, respond, calls=5_000)


def ours(respond: Work) -> list[Side]:
    from instrument import tracked

    decorate = tracked(service="openai")
    return [
        Side(OURS, respond, decorate, calls=2_000),
        Side(WITHOUT_USAGE, lambda: "A short answer.", decorate, calls=2_000),
    ]


@contextmanager
def floors(respond: Work, directory: Path) -> Iterator[list[Side]]:
    """Three clock readings and one write of a line as long as ours: what cannot be avoided.

    By hand in the body, and in the least decorator that could leave a record: one function around
    the call, which is current meanwhile, and a line that is ready, whatever the call returned.
    """
    line = b"x" * (_our_line_bytes(respond, directory) - 1) + b"\n"
    write, now, tick = os.write, time.time_ns, time.perf_counter_ns
    file = os.open(directory / "floor.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    current: ContextVar[Any] = ContextVar("current", default=None)

    def record() -> None:
        now()
        tick()
        tick()
        write(file, line)

    def work() -> Any:
        now()
        tick()
        response = respond()
        tick()
        write(file, line)
        return response

    def decorate(function: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            outer = current.get()
            now()
            tick()
            current.set(wrapper)
            try:
                return function(*args, **kwargs) if kwargs else function(*args)
            finally:
                tick()
                write(file, line)
                current.set(outer)

        return wrapper

    try:
        yield [
            Side(FLOOR, work, before=record, calls=2_000),
            Side(READY, respond, decorate, calls=2_000),
        ]
    finally:
        os.close(file)


def _our_line_bytes(respond: Work, directory: Path) -> int:
    """Return the length of the last line that a tracked call wrote."""
    from instrument import tracked

    tracked(service="openai")(respond)()
    newest = max((directory / "journal").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return len(newest.read_bytes().splitlines(keepends=True)[-1])


@dataclass
class OriginalLogger:
    """What the original usage logger does: open, append, `json.dumps`, rewrite `session.json`."""

    directory: Path
    started_at: float = field(default_factory=time.time)

    def log(self, tokens: int, duration: float) -> None:
        line = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "session_id": "session_1790000000_0123abcd",
            "service": "openai",
            "operation": "ask",
            "tokens": tokens,
            "success": True,
            "duration_seconds": duration,
            "metadata": {},
        }
        with (self.directory / "openai.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        session = {"session_id": line["session_id"], "created_at": self.started_at}
        with (self.directory / "original_session.json").open("w") as file:
            json.dump(session | {"last_activity": time.time()}, file, indent=2)


def original(respond: Work, directory: Path) -> Side:
    logger = OriginalLogger(directory)

    def work() -> Any:
        began = time.perf_counter()
        response = respond()
        logger.log(response.usage.total_tokens, time.perf_counter() - began)
        return response

    return Side(ORIGINAL, work, before=lambda: logger.log(0, 0.0), calls=200)


def peer(name: str, respond: Work, address: str, stack: ExitStack) -> Side:
    """Set the peer up with a batch processor and an OTLP/HTTP exporter to `address`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(endpoint=f"{address}/v1/traces")
    processor = BatchSpanProcessor(exporter)
    if name != "Langfuse":  # which brings its own, and closes the exporter itself
        stack.callback(processor.shutdown)
    decorate = _peers.set_up(name, exporter, processor)
    work = _with_five_attributes(respond) if name == "OpenTelemetry" else respond
    # OpenTelemetry's queue has room for two spans of each; the others take long
    calls = 1_000 if name == "OpenTelemetry" else 500
    return Side(name, work, decorate, settle=lambda: _peers.flush(name, processor), calls=calls)


def _with_five_attributes(respond: Work) -> Work:
    from opentelemetry import trace

    def work() -> Any:
        response = respond()
        usage = response.usage
        trace.get_current_span().set_attributes(
            {
                "gen_ai.provider.name": "openai",
                "gen_ai.response.model": response.model,
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.prompt_tokens_details.cached_tokens,
            }
        )
        return response

    return work
