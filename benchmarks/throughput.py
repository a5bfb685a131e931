"""Has several processes record at full speed into one log while another one reads it.

python benchmarks/throughput.py [--quick] [--json]

Eight processes make 100,000 tracked calls each, all of which return a chat completion, in sessions
of 1,000, once beside a reader that polls the latest session's stats and once without. In the same
run eight processes write lines as long as ours to one file with bare `os.write`, and nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from _measure import ROOT, environment_with, options, show, table, verdict, versions
from _sides import payload

PROCESSES = 8
SESSION_CALLS = 1_000
ROUNDS = 2
GOAL_PER_SECOND = 200_000
GROWTH_BYTES = 10 * 1024**2


class Round(NamedTuple):
    """What one round came to, of all processes together; times in seconds, sizes in bytes.

    `processor_seconds` is the writers' CPU time, `longest_call` the longest of all calls, `growth`
    that of the process that grew most.
    """

    side: str
    records: int
    seconds: float
    processor_seconds: float
    longest_call: float
    growth: int
    polls: int = 0
    torn: int = 0

    @property
    def per_second(self) -> float:
        return self.records / self.seconds


def record(log: str, calls: int, size: int) -> None:
    """Make the calls; the memory is compared with that after the first session."""
    from instrument import session, tracked

    responses = itertools.cycle([payload(number) for number in range(SESSION_CALLS)])
    ask, clock = tracked(service="openai")(lambda: next(responses)), time.perf_counter
    ask()
    began_cpu = _wait_for_the_others()
    longest, grown_from = 0.0, 0
    for number in range(calls // SESSION_CALLS):
        with session(f"job {number}"):
            for _ in range(SESSION_CALLS):
                began = clock()
                ask()
                longest = max(longest, clock() - began)
        grown_from = grown_from or resident_bytes()
    _tell(longest, resident_bytes() - grown_from, time.process_time() - began_cpu)


def write_bare(log: str, calls: int, size: int) -> None:
    """Write lines of that size, and do nothing else."""
    line = b"x" * (size - 1) + b"\n"
    descriptor = os.open(Path(log, "bare"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write, clock = os.write, time.perf_counter
    began_cpu = _wait_for_the_others()
    longest, grown_from = 0.0, resident_bytes()
    for _ in range(calls):
        began = clock()
        write(descriptor, line)
        longest = max(longest, clock() - began)
    _tell(longest, resident_bytes() - grown_from, time.process_time() - began_cpu)


def poll(log: str, calls: int, size: int) -> None:
    """Ask for the latest session's stats until standard input is closed; count the answers."""
    from instrument import UsageLog

    usage = UsageLog(log)
    polls, seen = 0, {}
    _tell()
    while not select.select([0], [], [], 0)[0]:
        for session_id in usage.find_sessions(limit=1):
            count = usage.stats(session_id).operation_count
            if count < seen.get(session_id, 0):
                raise AssertionError(f"{session_id}: {count} after {seen[session_id]}")
            seen = {session_id: count}
            polls += 1
    _tell(polls)


WORKERS = {each.__name__: each for each in (record, write_bare, poll)}


def _wait_for_the_others() -> float:
    """Return the CPU time of this process when all begin."""
    _tell()
    sys.stdin.buffer.read(1)
    return time.process_time()


def _tell(*values: float) -> None:
    print(*values, flush=True)


def resident_bytes() -> int:
    """Return the resident memory of this process; where `/proc` is missing, the most it was."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


def start(worker: str, log: str, calls: int, size: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--worker", worker, log, str(calls), str(size)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=environment_with(INSTRUMENT_DIR=log), text=True, **pipes)


def run(side: str, calls: int, *, size: int = 0, with_reader: bool = False) -> Round:
    with tempfile.TemporaryDirectory() as log:
        writers = [
            start("write_bare" if size else "record", log, calls, size) for _ in range(PROCESSES)
        ]
        reader = start("poll", log, 0) if with_reader else None
        for each in [*writers, *([reader] if reader else [])]:
            each.stdout.readline()
        began = time.perf_counter()
        for each in writers:
            each.stdin.write("g")
            each.stdin.flush()
        told = [each.stdout.readline().split() for each in writers]
        seconds = time.perf_counter() - began
        for each in writers:
            each.communicate()
        polls = int(reader.communicate()[0]) if reader else 0
        if reader and reader.returncode:
            raise AssertionError("the reader failed")
        records, torn = (calls * PROCESSES, 0) if size else _read_back(log)
        return Round(
            side,
            records,
            seconds,
            sum(float(spent) for *_, spent in told),
            max(float(longest) for longest, *_ in told),
            max(int(growth) for _, growth, _ in told),
            polls,
            torn,
        )


def _read_back(log: str) -> tuple[int, int]:
    """Count the operations in the files, each id once, and the lines that are not whole."""
    import msgspec

    class Line(msgspec.Struct):
        type: str | None = None
        operation_id: str = ""

    decode = msgspec.json.Decoder(Line).decode
    ids, torn = set(), 0
    for path in Path(log, "journal").iterdir():
        with path.open("rb") as file:
            for line in file:
                try:
                    found = decode(line)
                except ValueError:
                    torn += 1
                    continue
                if found.type is None:
                    ids.add(found.operation_id)
    return len(ids) - PROCESSES, torn  # each made one call before the others were ready


def _line_bytes(calls: int) -> int:
    """Return how long the lines are that the processes write."""
    with tempfile.TemporaryDirectory() as log:
        process = start("record", log, calls)
        process.communicate("g")
        (path,) = Path(log, "journal").iterdir()
        lines = path.read_bytes().splitlines(keepends=True)
        return round(statistics.mean(map(len, lines)))


def measure(*, quick: bool) -> dict[str, Any]:
    calls, rounds = (5_000, 1) if quick else (100_000, ROUNDS)
    size, found = _line_bytes(SESSION_CALLS), []
    for _ in range(rounds):
        found.append(run("bare os.write", calls, size=size))
        found.append(run("instrument", calls))
        found.append(run("instrument beside a reader", calls, with_reader=True))
    return {
        "calls": calls * PROCESSES,
        "line_bytes": size,
        "rounds": [each._asdict() | {"per_second": round(each.per_second)} for each in found],
    }


def report(result: dict[str, Any]) -> str:
    sides = dict.fromkeys(each["side"] for each in result["rounds"])
    best = {side: _best(result["rounds"], side) for side in sides}
    header = [
        *("side, best of its rounds", "records", "seconds", "records a second"),
        *("µs of CPU a record", "longest call, ms", "memory grew, MB", "polls"),
    ]
    ours = [each for each in result["rounds"] if each["side"] != "bare os.write"]
    lost = sum(result["calls"] - each["records"] for each in ours)
    torn, growth = sum(each["torn"] for each in ours), max(each["growth"] for each in ours)
    fastest = best["instrument"]["per_second"]
    share = fastest / best["bare os.write"]["per_second"]
    polls = sum(each["polls"] for each in ours)
    lines = [
        table(header, [_cells(each) for each in best.values()]),
        "",
        versions("instrument-kit"),
        verdict(f"records lost: {lost}, torn lines: {torn}", holds=lost == torn == 0),
        verdict(
            f"{fastest:,} records a second, {share:.0%} of bare os.write;"
            f" the goal is {GOAL_PER_SECOND:,}",
            holds=fastest >= GOAL_PER_SECOND,
        ),
        verdict(f"a writer grew by {growth / 1e6:.1f} MB", holds=growth < GROWTH_BYTES),
        verdict(f"{polls} polls of a reader, none failed or went back", holds=polls > 0),
    ]
    return "\n".join(lines)


def _best(rounds: list[dict[str, Any]], side: str) -> dict[str, Any]:
    return max((each for each in rounds if each["side"] == side), key=lambda it: it["per_second"])


def _cells(best: dict[str, Any]) -> list[str]:
    return [
        best["side"],
        f"{best['records']:,}",
        f"{best['seconds']:.2f}",
        f"{best['per_second']:,}",
        f"{best['processor_seconds'] / best['records'] * 1e6:.2f}",
        f"{best['longest_call'] * 1e3:.1f}",
        f"{best['growth'] / 1e6:.1f}",
        f"{best['polls']:,}",
    ]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        worker, log, calls, size = asked.worker
        WORKERS[worker](log, int(calls), int(size))
        return
    result = measure(quick=asked.quick)
    show(result, report(result), as_json=asked.json)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
