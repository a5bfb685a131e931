"""Measures what importing what records costs, loads and leaves behind.

python benchmarks/imports.py [--quick] [--json]

CPU time of a fresh interpreter that imports, minus one that does not, in turns.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from _measure import environment_with, median, options, python, show, table, verdict, versions

PEER = "opentelemetry.sdk.trace"
OURS = "from instrument import session, track, tracked"
PROGRAMS = {"bare": "pass", OURS: OURS, PEER: f"import {PEER}"}
MUST_NOT_LOAD = (
    "asyncio",
    "click",
    "contextvars_extras",
    "duckdb",
    "opentelemetry",
    "pydantic",
    "rich",
    "starlette",
    "wrapt",
)
MOST_MILLISECONDS = 70


def cpu_milliseconds(program: str) -> float | None:
    """Return the CPU time of one interpreter; `None` if the program fails."""
    arguments = [sys.executable, "-c", program]
    devnull = os.open(os.devnull, os.O_WRONLY)
    silent = [(os.POSIX_SPAWN_DUP2, devnull, 2)]
    process = os.posix_spawn(sys.executable, arguments, environment_with(), file_actions=silent)
    os.close(devnull)
    _, status, usage = os.wait4(process, 0)
    return None if status else 1000 * (usage.ru_utime + usage.ru_stime)


def costs(rounds: int) -> dict[str, float]:
    """Return the median cost in milliseconds over the bare interpreter of what can be imported."""
    samples: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            spent = cpu_milliseconds(program)
            if spent is not None:
                samples[name].append(spent)
    bare = median(samples.pop("bare"))
    return {name: median(found) - bare for name, found in samples.items() if found}


def loaded_modules() -> list[str]:
    """Return the names in `sys.modules` after the import."""
    return python("-c", f"{OURS}; import sys; print(*sys.modules)").stdout.split()


def created_files() -> list[str]:
    """Return what the import leaves in an empty home and working directory."""
    with tempfile.TemporaryDirectory() as home:
        python("-c", f"import os; os.chdir({home!r}); {OURS}", HOME=home, TMPDIR=home)
        return [str(path.relative_to(home)) for path in Path(home).rglob("*")]


def measure(rounds: int) -> dict[str, object]:
    modules = loaded_modules()
    return {
        "cpu_milliseconds": costs(rounds),
        "modules": len(modules),
        "unwanted_modules": [name for name in MUST_NOT_LOAD if name in modules],
        "created_files": created_files(),
    }


def report(result: dict[str, object]) -> str:
    spent = result["cpu_milliseconds"]
    rows = [[f"`{PROGRAMS[name]}`", f"{cost:.1f}"] for name, cost in spent.items()]
    ours, peers = spent[OURS], spent.get(PEER)
    unwanted, files = result["unwanted_modules"], result["created_files"]
    lines = [
        table(["", "CPU ms over a bare interpreter"], rows),
        "",
        versions("instrument-kit", "opentelemetry-sdk"),
        verdict(f"{ours:.1f} ms is at most {MOST_MILLISECONDS}", holds=ours <= MOST_MILLISECONDS),
        verdict(f"loads none of {', '.join(MUST_NOT_LOAD)}: {unwanted}", holds=not unwanted),
        verdict(f"creates no file: {files}", holds=not files),
    ]
    if peers is not None:
        lines.append(verdict(f"{ours:.1f} ms is at most {PEER}'s {peers:.1f}", holds=ours <= peers))
    return "\n".join(lines)


def main() -> None:
    asked = options(__doc__).parse_args()
    result = measure(rounds=5 if asked.quick else 25)
    show(result, report(result), as_json=asked.json)


if __name__ == "__main__":
    main()
