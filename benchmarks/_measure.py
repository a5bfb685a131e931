"""What the benchmarks share: paths, other processes, statistics, tables."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"


def options(description: str | None, *, can_be_quick: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the options that benchmarks share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    if can_be_quick:
        parser.add_argument("--quick", action="store_true", help="fewer samples: a look, no result")
    return parser


def show(result: Any, text: str, *, as_json: bool) -> None:
    print(json.dumps(result, indent=2) if as_json else text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0..1) of the values lie, interpolated linearly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def version(distribution: str) -> str | None:
    """Return the installed version; `None` if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(*distributions: str) -> str:
    """Name the interpreter, the machine and what is installed of `distributions`, in one line."""
    found = [f"{name} {version(name)}" for name in distributions if version(name)]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return ", ".join([f"Python {platform.python_version()}", *found, machine]) + "."


def verdict(claim: str, *, holds: bool) -> str:
    return f"- {'holds' if holds else 'MISSED'}: {claim}"


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the interpreter of this process, with the repository on its path."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment_with(**environment),
        capture_output=True,
        text=True,
        check=False,
    )


def environment_with(**changes: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("INSTRUMENT_")}
    # or else a checkout is compiled anew each time, which what is installed is not
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return inherited | {"PYTHONPATH": str(ROOT)} | changes


@contextmanager
def loopback_server(delay_seconds: float = 0) -> Iterator[str]:
    """Run a server in a process of its own, and give its address."""
    program = str(ROOT / "benchmarks" / "_loopback.py")
    command = [sys.executable, program, str(delay_seconds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.stdin.close()
