"""Measures what carrying a session along costs, side by side with OpenTelemetry.

python benchmarks/propagation.py [--quick] [--json]

Every side does the same in one process, in turns, inside of one session, operation and span.
Submitting is the CPU time of the thread that submits, over what the bare method takes; "and
running" that of the whole process until the work is done. Headers are whole calls: for
OpenTelemetry the W3C propagators for trace context and baggage, and attaching what they found.
Where OpenTelemetry is loaded, ours looks at its context as well: so ours is measured alone before.
"""

from __future__ import annotations

import gc
import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any

from _measure import median, options, show, table, verdict, version, versions

BARE, OURS, OTEL = "bare", "instrument", "OpenTelemetry"
BESIDE = "instrument beside OpenTelemetry"
THREADING = "opentelemetry-instrumentation-threading"
SUBMIT, RUN = "submit", "and running"
INJECT, INTO = "inject", "into 5 headers"
EXTRACT, PAIRS = "extract", "from ASGI's pairs"
ROWS = SUBMIT, RUN, INJECT, INTO, EXTRACT, PAIRS
MOST = {SUBMIT: 1.5, INJECT: 2.0, INTO: 2.0, EXTRACT: 4.0}

AT_ONCE = 100  # calls on headers that were just made, as those of a request are

FIVE = {
    "accept": "*/*",
    "content-length": "312",
    "content-type": "application/json",
    "host": "localhost",
    "user-agent": "benchmark",
}

Loop = Callable[[int], float]  # a number of calls -> seconds
Figures = dict[str, dict[str, tuple[float, float]]]  # row -> side -> (median, least), microseconds


def nothing() -> None:
    """Do nothing."""


def their_submit(bare: Any) -> dict[str, Any]:
    """Return OpenTelemetry's `submit` around the bare one, if it is installed."""
    if not version(THREADING):
        return {}
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor

    before = ThreadPoolExecutor.submit
    ThreadPoolExecutor.submit = bare
    ThreadingInstrumentor().instrument()
    found = ThreadPoolExecutor.__dict__["submit"]
    ThreadingInstrumentor().uninstrument()
    ThreadPoolExecutor.submit = before
    return {OTEL: found}


def submit_loop(pool: ThreadPoolExecutor, submit: Any) -> Loop:
    """Time submitting alone: the only worker waits meanwhile."""

    def loop(calls: int) -> float:
        free = threading.Event()
        pool.submit(free.wait)
        bound = submit.__get__(pool, ThreadPoolExecutor)
        began = time.thread_time()
        for _ in range(calls):
            bound(nothing)
        spent = time.thread_time() - began
        free.set()
        pool.submit(nothing).result()
        return spent

    return loop


def run_loop(pool: ThreadPoolExecutor, submit: Any) -> Loop:
    def loop(calls: int) -> float:
        bound = submit.__get__(pool, ThreadPoolExecutor)
        began = time.process_time()
        wait([bound(nothing) for _ in range(calls)])
        return time.process_time() - began

    return loop


def call_loop(call: Callable[[Any], Any], arguments: Callable[[int], list[Any]]) -> Loop:
    def loop(calls: int) -> float:
        spent = 0.0
        for _ in range(0, calls, AT_ONCE):
            given = arguments(AT_ONCE)
            began = time.thread_time()
            for each in given:
                call(each)
            spent += time.thread_time() - began
        return spent

    return loop


def no_headers(calls: int) -> list[None]:
    return [None] * calls


def five_headers(calls: int) -> list[dict[str, str]]:
    return [dict(FIVE) for _ in range(calls)]


def arriving(calls: int) -> list[dict[str, str]]:
    """Return headers of requests: each of a trace of its own, a few of each session."""
    return [
        {
            "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01",
            "baggage": f"userId=alice,session.id=session_1790000000_{number % 50:08x}",
            **FIVE,
        }
        for number in range(calls)
    ]


def arriving_pairs(calls: int) -> list[list[tuple[bytes, bytes]]]:
    return [
        [(name.encode(), value.encode()) for name, value in headers.items()]
        for headers in arriving(calls)
    ]


def our_headers() -> dict[str, Loop]:
    from instrument import extract, inject

    def enter(headers: Any) -> None:
        with extract(headers):
            pass

    return {
        INJECT: call_loop(inject, no_headers),
        INTO: call_loop(inject, five_headers),
        EXTRACT: call_loop(enter, arriving),
        PAIRS: call_loop(enter, arriving_pairs),
    }


def their_headers(stack: ExitStack) -> dict[str, Loop]:
    if not version("opentelemetry-sdk"):
        return {}
    from opentelemetry import baggage, context, trace
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.propagators.composite import CompositePropagator
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    w3c = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    span = TracerProvider().get_tracer("benchmark").start_span("benchmark")
    here = baggage.set_baggage("session.id", "benchmark", trace.set_span_in_context(span))
    stack.callback(context.detach, context.attach(here))

    def enter(headers: dict[str, str]) -> None:
        token = context.attach(w3c.extract(headers))
        context.detach(token)

    return {
        INJECT: call_loop(lambda _: w3c.inject({}), no_headers),
        INTO: call_loop(w3c.inject, five_headers),
        EXTRACT: call_loop(enter, arriving),
    }


def samples(loops: dict[str, Loop], rounds: int, calls: int) -> dict[str, list[float]]:
    """Return each side's microseconds a call, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(-1, rounds):
        names = list(loops)
        for name in itertools.islice(itertools.cycle(names), number + 1, number + 1 + len(names)):
            gc.collect()
            gc.disable()
            spent = 1e6 * loops[name](calls) / calls
            gc.enable()
            if number >= 0:  # the round before the first warms up
                taken[name].append(spent)
    return taken


def figures(taken: dict[str, list[float]]) -> dict[str, tuple[float, float]]:
    """Return the median and the least; over the bare side, where there is one."""
    base = taken.pop(BARE, None)
    if base is None:
        return {name: (median(found), min(found)) for name, found in taken.items()}
    return {
        name: (
            median([one - other for one, other in zip(found, base, strict=True)]),
            min(found) - min(base),
        )
        for name, found in taken.items()
    }


def measure(*, quick: bool) -> dict[str, Any]:
    from instrument import configure, session, track

    rounds, calls = (5, 500) if quick else (41, 2_000)
    with ExitStack() as stack:
        bare = ThreadPoolExecutor.submit
        configure(log_dir=stack.enter_context(tempfile.TemporaryDirectory()))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        stack.enter_context(session("benchmark"))
        stack.enter_context(track("benchmark", service="benchmark"))
        ours = our_headers()
        taken = {row: samples({OURS: loop}, rounds, calls) for row, loop in ours.items()}
        sides = {BARE: bare, OURS: ThreadPoolExecutor.submit, **their_submit(bare)}
        for row, made in ((SUBMIT, submit_loop), (RUN, run_loop)):
            loops = {name: made(pool, submit) for name, submit in sides.items()}
            taken[row] = samples(loops, rounds, calls)
        for row, loop in their_headers(stack).items():
            taken[row] |= samples({BESIDE: ours[row], OTEL: loop}, rounds, calls)
    return {
        "bare": {row: median(found[BARE]) for row, found in taken.items() if BARE in found},
        "microseconds": {row: figures(taken[row]) for row in ROWS},
    }


def report(result: dict[str, Any]) -> str:
    found: Figures = result["microseconds"]
    rows = [[name, *(_cell(found[row], name) for row in found)] for name in (OURS, BESIDE, OTEL)]
    bare = ", ".join(f"{row} {spent:.2f} µs" for row, spent in result["bare"].items())
    goals = [
        verdict(
            f"{row}, {found[row][OURS][0]:.2f} µs, is at most {most} µs",
            holds=found[row][OURS][0] <= most,
        )
        for row, most in MOST.items()
    ]
    return "\n".join(
        [
            table(["µs: median (least)", *found], rows),
            "",
            f"The first two over bare, which takes: {bare}.",
            "",
            versions("instrument-kit", "opentelemetry-sdk", THREADING),
            "",
            *goals,
        ]
    )


def _cell(row: dict[str, tuple[float, float]], name: str) -> str:
    if name not in row:
        return "-"
    middle, least = row[name]
    return f"{middle:.2f} ({least:.2f})"


def main() -> None:
    asked = options(__doc__).parse_args()
    result = measure(quick=asked.quick)
    show(result, report(result), as_json=asked.json)


if __name__ == "__main__":
    main()
