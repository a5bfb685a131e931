"""Measures what a tracked call costs, side by side with what else could be done.

python benchmarks/overhead.py [--quick] [--json]

Every side makes the same calls in one process, in turns. A figure is the cost over the bare call:
the median of the differences within a round, and the least over all samples. It is CPU time of the
calling thread, except "in all": CPU time of the process until everything is exported, and the four
threads: time elapsed. The garbage collector is on, as in programs.
"""

from __future__ import annotations

import gc
import http.client
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import _peers
import _sides
from _measure import (
    loopback_server,
    median,
    options,
    percentile,
    python,
    show,
    table,
    verdict,
    versions,
)
from _rows import BESIDE, INSIDE, OF_FUNCTIONS, ROWS, Loop, inside_row
from _sides import BARE, FLOOR, OURS, READY, WITHOUT_USAGE, Side

OTEL = "OpenTelemetry"
SERVER_DELAY_SECONDS = 0.001  # long enough for another thread to take the interpreter's lock
MOST_MICROSECONDS, MOST_TIMES_THE_FLOOR, MOST_SHARE_OF_OTEL = 4.0, 4.5, 0.1
MOST_P99_RATIO, MOST_FIRST_CALL_MILLISECONDS = 1.10, 2.0

FIRST_CALL = f"""
import time
from instrument import tracked
ask = tracked(service="openai")(lambda: {_sides.payload(0)})
began = time.perf_counter()
ask()
print(1000 * (time.perf_counter() - began))
"""

Figures = dict[str, dict[str, tuple[float, float]]]  # row -> side -> (median, least), microseconds


def figures(row: Callable[[Side], Loop], sides: list[Side], rounds: int) -> dict[str, Any]:
    """Return the median and the least cost over the bare call, in microseconds, for each side."""
    loops = {side.name: row(side) for side in sides}
    samples: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(-1, rounds):
        for side in _rotated(sides, number):
            spent = _sample(loops[side.name], side)
            if number >= 0:  # the round before the first warms up
                samples[side.name].append(spent)
    base = samples.pop(BARE)
    return {name: _over(base, found) for name, found in samples.items()}


def _rotated(sides: list[Side], number: int) -> list[Side]:
    start = number % len(sides)
    return sides[start:] + sides[:start]


def _sample(loop: Loop, side: Side) -> float:
    """Return the microseconds of one call."""
    gc.collect()
    try:
        return 1e6 * loop(side.calls) / side.calls
    finally:
        side.settle()


def _over(base: list[float], found: list[float]) -> tuple[float, float]:
    middle = median([one - other for one, other in zip(found, base, strict=True)])
    return middle, min(found) - min(base)


@contextmanager
def all_sides() -> Iterator[list[Side]]:
    """Set every side up, in one temporary log and one session."""
    from instrument import configure, session

    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(loopback_server())
        configure(log_dir=directory)
        stack.enter_context(session("benchmark"))
        respond = _sides.next_response()
        yield [
            _sides.bare(respond),
            *stack.enter_context(_sides.floors(respond, directory)),
            *_sides.ours(respond),
            *(_sides.peer(name, respond, address, stack) for name in _peers.installed()),
            _sides.original(respond, directory),
        ]


def cost_figures(rounds: int) -> Figures:
    from instrument import context

    with all_sides() as sides:
        few = [side for side in sides if side.name in (BARE, OURS, WITHOUT_USAGE)]
        beside = figures(ROWS["sync"], few, rounds)
        context.beside = None  # from here on as in a program that has not loaded OpenTelemetry
        others = [side for side in sides if side.name != READY]
        found = {
            title: figures(row, sides if title in OF_FUNCTIONS else others, rounds)
            for title, row in ROWS.items()
        }
        found |= {INSIDE: figures(inside_row, few, rounds), BESIDE: beside}
    return found


def reader_and_claim(found: Figures) -> dict[str, float]:
    """Return what reading the usage and leaving the claim add to a call, in microseconds."""
    alone, inside = found["sync"], found[INSIDE]
    reader = alone[OURS][0] - alone[WITHOUT_USAGE][0]
    return {"reader": reader, "claim": inside[OURS][0] - inside[WITHOUT_USAGE][0] - reader}


@contextmanager
def busy_thread() -> Iterator[None]:
    """Keep one thread computing in Python meanwhile."""
    done = threading.Event()

    def compute() -> None:
        while not done.is_set():
            sum(range(100))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def http_calls(calls: int) -> dict[str, list[float]]:
    """Return the milliseconds of loopback HTTP calls, bare and tracked in turns.

    A thread that computes takes the interpreter's lock whenever a call waits for its answer.
    """
    from instrument import configure, session, tracked

    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        address = stack.enter_context(loopback_server(SERVER_DELAY_SECONDS))
        configure(log_dir=directory)
        stack.enter_context(session("benchmark"))
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        stack.callback(connection.close)

        def ask() -> bytes:
            connection.request("GET", "/")
            return connection.getresponse().read()

        sides = {BARE: ask, OURS: tracked(service="loopback")(ask)}
        taken: dict[str, list[float]] = {name: [] for name in sides}
        stack.enter_context(busy_thread())
        for number in range(calls):
            for name in sorted(sides, reverse=number % 2 == 0):
                began = time.perf_counter()
                sides[name]()
                taken[name].append(1000 * (time.perf_counter() - began))
    return taken


def first_call_milliseconds(runs: int) -> dict[str, float]:
    """Return the median time of a fresh process's first tracked call."""
    with tempfile.TemporaryDirectory() as used:
        known = [_first_call(used) for _ in range(runs + 1)][1:]
    fresh = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as directory:
            fresh.append(_first_call(directory))
    return {"a log that exists": median(known), "a log that does not": median(fresh)}


def _first_call(directory: str) -> float:
    done = python("-c", FIRST_CALL, INSTRUMENT_DIR=str(Path(directory, "log")))
    return float(done.stdout)


def measure(*, quick: bool) -> dict[str, Any]:
    taken = http_calls(calls=200 if quick else 3_000)  # first: the peers start threads that stay
    found = cost_figures(rounds=3 if quick else 15)
    return {
        "microseconds": found,
        "added": reader_and_claim(found),
        "http_milliseconds": {
            name: {"p50": percentile(one, 0.5), "p99": percentile(one, 0.99)}
            for name, one in taken.items()
        },
        "first_call_milliseconds": first_call_milliseconds(5 if quick else 25),
    }


def report(result: dict[str, Any]) -> str:
    return "\n".join(
        [
            *_cost_table(result["microseconds"], result["added"]),
            "",
            *_http_table(result["http_milliseconds"]),
            "",
            *_first_call_table(result["first_call_milliseconds"]),
            "",
            versions("instrument-kit", "openai", *_peers.DISTRIBUTIONS.values()),
            "",
            *_verdicts(result),
        ]
    )


def _cost_table(found: Figures, added: dict[str, float]) -> list[str]:
    names = list(found["sync"])
    rows = [[name, *(_cell(found[row], name) for row in found)] for name in names]
    told = [f"{name} {cost:.2f} µs" for name, cost in added.items()]
    return [
        table(["µs a call over bare: median (least)", *found], rows),
        "",
        f"Of that: {', '.join(told)}.",
    ]


def _cell(row: dict[str, tuple[float, float]], name: str) -> str:
    if name not in row:
        return "-"
    middle, least = row[name]
    return f"{middle:.2f} ({least:.2f})"


def _http_table(found: dict[str, dict[str, float]]) -> list[str]:
    rows = [[name, f"{one['p50']:.2f}", f"{one['p99']:.2f}"] for name, one in found.items()]
    return [table(["ms of an HTTP call beside a busy thread", "p50", "p99"], rows)]


def _first_call_table(found: dict[str, float]) -> list[str]:
    rows = [[f"into {name}", f"{one:.2f}"] for name, one in found.items()]
    return [table(["ms of a process's first call", "median"], rows)]


def _verdicts(result: dict[str, Any]) -> list[str]:
    sync, whole = (result["microseconds"][row] for row in ("sync", "sync, in all"))
    ours, floor = sync[OURS][0], sync[FLOOR][0]
    most = max(MOST_MICROSECONDS, MOST_TIMES_THE_FLOOR * floor)
    http_p99 = {name: one["p99"] for name, one in result["http_milliseconds"].items()}
    ratio = http_p99[OURS] / http_p99[BARE]
    first = max(result["first_call_milliseconds"].values())
    lines = [
        verdict(f"sync, {ours:.2f} µs, is at most {most:.2f} µs", holds=ours <= most),
        verdict(f"p99 of the HTTP call is {ratio:.2f} of bare", holds=ratio <= MOST_P99_RATIO),
        verdict(f"first call takes {first:.2f} ms", holds=first <= MOST_FIRST_CALL_MILLISECONDS),
    ]
    if OTEL in sync:
        lines += [_share("sync", sync), _share("sync, in all", whole)]
    return lines


def _share(row: str, found: dict[str, tuple[float, float]]) -> str:
    ours, ready, theirs = found[OURS][0], found[READY][0], found[OTEL][0]
    claim = (
        f"{row}, {ours:.2f} µs, is 1/{theirs / ours:.1f} of {OTEL}'s {theirs:.1f} µs "
        f"(the floor in a wrapper: 1/{theirs / ready:.1f})"
    )
    return verdict(claim, holds=ours <= MOST_SHARE_OF_OTEL * theirs)


def main() -> None:
    asked = options(__doc__).parse_args()
    result = measure(quick=asked.quick)
    show(result, report(result), as_json=asked.json)


if __name__ == "__main__":
    main()
