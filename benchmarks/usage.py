"""Measures what reading the usage of results costs, whole and in streams.

python benchmarks/usage.py [--quick] [--json]

CPU time of this thread for one look at a result of each kind, in turns with genai-prices'
`extract_usage` and with what Langfuse's OpenAI wrapper does with a response, where installed.
"""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

from _measure import ROOT, TESTS, median, options, show, table, verdict, versions

sys.path[:0] = [str(ROOT), str(TESTS)]

from usage_samples import compatible, events, response  # noqa: E402 - found by the path above
from usage_samples.objects import OBJECTS  # noqa: E402 - as above

from instrument.usage import new_merge, reader_for  # noqa: E402

MOST_KNOWN_US, MOST_UNKNOWN_US, MOST_CHUNK_US = 1.5, 0.3, 1.5
CHUNKS = 100_000
Look = Callable[[], Any]


class Order:
    """An object of a program's own, of which no reader knows anything."""

    def __init__(self) -> None:
        self.identity, self.lines, self.status = 17, [1, 2, 3], "paid"


def results() -> dict[str, Any]:
    """Return a result of each kind, by its name; those of SDKs that are missing are named."""
    found: dict[str, Any] = {f"{name}, dict": response(file) for name, file in _DICTS.items()}
    found |= {f"{name}, dict": value for name, value in compatible().items()}
    found["OpenAI chat, JSON text"] = json.dumps(response("openai_chat"))
    for name, make in OBJECTS.items():
        try:
            found[f"{name}, SDK object"] = make()
        except ImportError as missing:
            print(f"{name} is left out: {missing}", file=sys.stderr)
    return found


_DICTS = {
    "OpenAI chat": "openai_chat",
    "OpenAI response": "openai_response",
    "Anthropic message": "anthropic_message",
    "Gemini": "google_generate",
    "Bedrock Converse": "bedrock_converse",
    "Cohere chat": "cohere_chat",
    "DashScope generation": "dashscope_generation",
    "Ollama chat": "ollama_chat",
}
NOTHING: dict[str, Any] = {
    "None": None,
    "text": "the answer is 42",
    "a dict without usage": {"rows": [1, 2, 3], "status": "done"},
    "an object without usage": Order(),
    "a list of numbers": list(range(1000)),
    "a list of dicts": [{"number": number} for number in range(1000)],
    "a dict with a null error": {"error": None, "rows": [1, 2, 3]},
    "a dict with a text as response": {"response": "hello", "took": 0.2},
}


def ours(value: Any) -> Look:
    read = reader_for(type(value))
    return (lambda: None) if read is None else (lambda: read(value))


def genai_prices(name: str, value: Any) -> Look | None:
    """Return what finds the same with genai-prices, which reads dicts and objects of its APIs."""
    provider, flavor = _FLAVORS.get(name.partition(",")[0], (None, "default"))
    if provider is None or isinstance(value, str):
        return None
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        return None
    reader = get_snapshot().find_provider(None, provider, None)
    raw = value if isinstance(value, dict) else value.model_dump(by_alias=True)

    def look() -> Any:
        return reader.extract_usage(raw, api_flavor=flavor)

    try:
        look()
    except Exception as error:
        print(f"genai-prices cannot read {name}: {error!r}", file=sys.stderr)
        return None
    return look


_FLAVORS = {
    "OpenAI chat": ("openai", "chat"),
    "OpenAI response": ("openai", "responses"),
    "Anthropic message": ("anthropic", "default"),
    "Gemini": ("google", "default"),
}


def langfuse(name: str, value: Any) -> Look | None:
    """Return what Langfuse's wrapper does with a response of OpenAI's SDK, once it has it."""
    if name != "OpenAI chat, SDK object":
        return None
    try:
        from langfuse.openai import OPENAI_METHODS_V1, _get_langfuse_data_from_default_response
    except ImportError:
        return None
    resource = next(each for each in OPENAI_METHODS_V1 if each.object == "Completions")
    return lambda: _get_langfuse_data_from_default_response(resource, value.__dict__)


def cost_us(look: Look, times: int) -> float:
    """Return the microseconds of one look, without those of an empty one."""
    return max(0.0, _timed(look, times) - _timed(lambda: None, times))


def _timed(look: Look, times: int) -> float:
    began = time.thread_time_ns()
    for _ in range(times):
        look()
    return (time.thread_time_ns() - began) / times / 1000


def chunk_cost_us(chunks: int) -> tuple[float, int]:
    """Return the microseconds that a chunk adds, and the bytes that the merge holds at the end."""
    sample = events("openai_chat")
    stream = [sample[0]] * (chunks - len(sample)) + sample
    merge, plain = new_merge(), _Sink()
    spent = _consumed(stream, merge.add) - _consumed(stream, plain.add)
    tracemalloc.start()
    merge = new_merge()
    for chunk in stream:
        merge.add(chunk)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return max(0.0, spent) / chunks / 1000, held


class _Sink:
    def add(self, chunk: Any) -> None:
        """Take no notice."""


def _consumed(stream: list[Any], add: Callable[[Any], None]) -> int:
    began = time.thread_time_ns()
    for chunk in stream:
        add(chunk)
    return time.thread_time_ns() - began


def measure(*, rounds: int, times: int) -> dict[str, Any]:
    sides = {name: dict(_sides(name, value)) for name, value in results().items()}
    sides |= {name: {"instrument": ours(value)} for name, value in NOTHING.items()}
    samples: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, looks in sides.items():
            for side, look in looks.items():
                samples.setdefault((name, side), []).append(cost_us(look, times))
    costs: dict[str, dict[str, float]] = {}
    for (name, side), found in samples.items():
        costs.setdefault(name, {})[side] = median(found)
    streams = [chunk_cost_us(CHUNKS if times > 1000 else 1000) for _ in range(3)]
    return {
        "microseconds": costs,
        "microseconds_a_chunk": median([each for each, _ in streams]),
        "bytes_held_by_a_stream": streams[-1][1],
    }


def _sides(name: str, value: Any) -> Iterator[tuple[str, Look]]:
    yield "instrument", ours(value)
    for side, make in (("genai-prices", genai_prices), ("Langfuse", langfuse)):
        look = make(name, value)
        if look is not None:
            yield side, look


def report(result: dict[str, Any]) -> str:
    costs = result["microseconds"]
    names = ("instrument", "genai-prices", "Langfuse")
    rows = [
        [name, *(f"{found[side]:.2f}" if side in found else "" for side in names)]
        for name, found in costs.items()
    ]
    known = {name: costs[name]["instrument"] for name in costs if name not in NOTHING}
    known = {name: cost for name, cost in known.items() if "text" not in name}
    whole = max(known.values())
    unknown = {name: costs[name]["instrument"] for name in NOTHING}
    nothing = max(unknown.values())
    chunk, held = result["microseconds_a_chunk"], result["bytes_held_by_a_stream"]
    used = ("instrument-kit", "openai", "anthropic", "google-genai", "genai-prices", "langfuse")
    return "\n\n".join(
        [
            table(["µs for one look", *names], rows),
            "\n".join(
                [
                    verdict(f"known results {whole:.2f} µs", holds=whole <= MOST_KNOWN_US),
                    above(known, MOST_KNOWN_US),
                    verdict(f"results of none {nothing:.2f} µs", holds=nothing <= MOST_UNKNOWN_US),
                    above(unknown, MOST_UNKNOWN_US),
                    verdict(
                        f"{CHUNKS:,} chunks add {chunk:.2f} µs each and hold {held:,} bytes",
                        holds=chunk <= MOST_CHUNK_US and held < 100_000,
                    ),
                ]
            ),
            versions(*used),
        ]
    )


def above(costs: dict[str, float], bound: float) -> str:
    """Name the results that take longer than they should."""
    slow = [f"{name} ({cost:.2f})" for name, cost in costs.items() if cost > bound]
    return f"  - above {bound} µs: {', '.join(slow) or 'none'}"


if __name__ == "__main__":
    asked = options(__doc__).parse_args()
    result = measure(rounds=3 if asked.quick else 15, times=1_000 if asked.quick else 20_000)
    show(result, report(result), as_json=asked.json)
