"""Counts what is lost when a process that makes tracked calls is killed, or hurries.

python benchmarks/durability.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from _measure import ROOT, environment_with, options, show, table, verdict, versions

THREADS = 4
PROCESSES = 8


class Row(NamedTuple):
    """What one experiment came to; `returned` is how many tracked calls had returned."""

    experiment: str
    returned: int
    whole_lines: int
    torn_lines: int
    unique_ids: int
    seconds: float

    @property
    def lost(self) -> int:
        return max(0, self.returned - self.unique_ids)


def answer() -> dict[str, object]:
    return {"model": "gpt-5", "usage": {"prompt_tokens": 12, "completion_tokens": 3}}


def call_in_sequence(calls: int) -> None:
    from instrument import tracked

    ask = tracked(service="openai")(answer)
    for _ in range(calls):
        ask()


def call_in_a_loop(calls: int) -> None:
    from instrument import tracked

    async def later() -> dict[str, object]:
        return answer()

    ask = tracked(service="openai")(later)

    async def main() -> None:
        for _ in range(calls):
            await ask()

    asyncio.run(main())


def call_from_threads(calls: int) -> None:
    threads = [
        threading.Thread(target=call_in_sequence, args=(calls // THREADS,)) for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def call_and_count(calls: int) -> None:
    """Write one byte to standard output behind each returned call."""
    from instrument import tracked

    ask = tracked(service="openai")(answer)
    for _ in range(calls):
        ask()
        os.write(1, b".")


def call_for_ever(_: int) -> None:
    from instrument import tracked

    @tracked(service="openai")
    def never_returns() -> None:
        os.write(1, b".")
        time.sleep(3600)

    never_returns()


WORKERS: dict[str, Callable[[int], None]] = {
    worker.__name__: worker
    for worker in (
        call_in_sequence,
        call_in_a_loop,
        call_from_threads,
        call_and_count,
        call_for_ever,
    )
}


def start(worker: Callable[[int], None], calls: int, log: str, *flags: str) -> subprocess.Popen:
    command = [sys.executable, __file__, "--worker", worker.__name__, "--calls", str(calls), *flags]
    return subprocess.Popen(
        command, env=environment_with(INSTRUMENT_DIR=log), stdout=subprocess.PIPE
    )


def killed_behind(worker: Callable[[int], None], calls: int, title: str) -> Row:
    """The process kills itself with SIGKILL as soon as the last call has returned."""
    return _run(title, calls, lambda log: [start(worker, calls, log, "--kill")])


def killed_at_full_speed(calls: int) -> Row:
    """The process is killed from outside, at whatever it is doing."""
    with tempfile.TemporaryDirectory() as log:
        began = time.perf_counter()
        process = start(call_and_count, 10**9, log)
        returned = len(process.stdout.read(calls))
        process.kill()
        returned += len(process.stdout.read())
        process.wait()
        return _row("SIGKILL at full speed", returned, log, began)


def burst(calls: int) -> Row:
    return _run("burst, one process", calls, lambda log: [start(call_in_sequence, calls, log)])


def many_processes(calls: int) -> Row:
    return _run(
        f"{PROCESSES} processes of {calls:,}",
        PROCESSES * calls,
        lambda log: [start(call_in_sequence, calls, log) for _ in range(PROCESSES)],
    )


def _run(title: str, returned: int, launch: Callable[[str], list[subprocess.Popen]]) -> Row:
    with tempfile.TemporaryDirectory() as log:
        began = time.perf_counter()
        for process in launch(log):
            process.communicate()
        return _row(title, returned, log, began)


def _row(title: str, returned: int, log: str, began: float) -> Row:
    seconds = time.perf_counter() - began
    ids: set[str] = set()
    whole = torn = 0
    for line in _lines(log):
        try:
            found = json.loads(line)
        except ValueError:
            torn += 1
            continue
        if "type" not in found:
            whole += 1
            ids.add(found["operation_id"])
    return Row(title, returned, whole, torn, len(ids), seconds)


def _lines(log: str) -> list[bytes]:
    segments = sorted(Path(log, "journal").glob("*.jsonl"))
    return [line for segment in segments for line in segment.read_bytes().splitlines()]


def outcome_of_a_call_killed_in_flight() -> list[str]:
    """Return the outcomes that the log tells of a call whose process was killed during it."""
    from instrument import UsageLog

    with tempfile.TemporaryDirectory() as log:
        process = start(call_for_ever, 1, log)
        process.stdout.read(1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return [operation.outcome for operation in UsageLog(log).operations()]


def measure(*, quick: bool) -> dict[str, object]:
    few, many = (200, 2_000) if quick else (2_000, 100_000)
    rows = [
        killed_behind(call_in_sequence, few, f"SIGKILL behind {few:,} calls, sync"),
        killed_behind(call_in_a_loop, few, f"SIGKILL behind {few:,} calls, async"),
        killed_behind(call_from_threads, few, f"SIGKILL behind {few:,} calls, {THREADS} threads"),
        killed_at_full_speed(few),
        burst(many),
        many_processes(500 if quick else 5_000),
    ]
    return {
        "rows": [row._asdict() | {"lost": row.lost} for row in rows],
        "killed_in_flight": outcome_of_a_call_killed_in_flight(),
    }


def report(result: dict[str, object]) -> str:
    header = ["experiment", "calls returned", "read back", "lost", "torn lines", "seconds"]
    shown = ("experiment", "returned", "unique_ids", "lost", "torn_lines", "seconds")
    rows = [[_cell(row[key]) for key in shown] for row in result["rows"]]
    lost = sum(row["lost"] for row in result["rows"])
    torn = sum(row["torn_lines"] for row in result["rows"])
    doubled = sum(row["whole_lines"] - row["unique_ids"] for row in result["rows"])
    in_flight = result["killed_in_flight"]
    lines = [
        table(header, rows),
        "",
        versions("instrument-kit"),
        verdict(f"calls lost: {lost}", holds=lost == 0),
        verdict(f"lines torn: {torn}; ids given twice: {doubled}", holds=torn == doubled == 0),
        verdict(f"a call killed in flight is {in_flight}", holds=in_flight == ["interrupted"]),
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--calls", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kill", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        WORKERS[asked.worker](asked.calls)
        if asked.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return
    result = measure(quick=asked.quick)
    show(result, report(result), as_json=asked.json)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
