"""Measures what the pytest plugin costs: per test when it records, and per run when it does not.

python benchmarks/pytest_overhead.py [--quick] [--json]

CPU time of whole runs of pytest on trivial tests, in turns. What a run costs is that of one test,
over that without any plugin; what a test costs is the rest, by the number of tests. No other
plugins are loaded than the side's own; pytest-opentelemetry makes its spans and exports none. An
empty suite is collected with ours and with an empty plugin.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from _measure import (
    ROOT,
    environment_with,
    median,
    options,
    show,
    table,
    verdict,
    version,
    versions,
)

MOST_MILLISECONDS = 0.5
MOST_MILLISECONDS_OF_COLLECTING = 20.0
WITHOUT = "no plugin"
SIDES = {
    WITHOUT: (),
    "--durations=0": ("--durations=0",),
    "instrument": ("-p", "instrument.pytest_plugin", "--instrument"),
    "instrument, inert": ("-p", "instrument.pytest_plugin"),
    "pytest-opentelemetry": ("-p", "pytest_opentelemetry.plugin"),
}
# what pytest takes to find a plugin by its name is not ours
COLLECTING = {
    "an empty plugin": ("-p", "empty_plugin"),
    "instrument, inert": ("-p", "instrument.pytest_plugin"),
}
TEST = "import pytest\n@pytest.mark.parametrize('n', range({count}))\ndef test_it(n): pass\n"


def sides() -> dict[str, tuple[str, ...]]:
    """Return the arguments of each side that can run here."""
    has_peer = version("pytest-opentelemetry") is not None
    return {name: given for name, given in SIDES.items() if has_peer or "telemetry" not in name}


def seconds_of(arguments: tuple[str, ...], directory: Path) -> tuple[float, float]:
    """Return CPU and elapsed seconds of one run of pytest; each writes to a new log."""
    log_dir = tempfile.mkdtemp(dir=directory.parent)
    environment = environment_with(
        INSTRUMENT_DIR=log_dir,
        PYTEST_ADDOPTS="",
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
        PYTHONPATH=f"{ROOT}{os.pathsep}{directory.parent}",
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [*arguments, str(directory)]
    devnull = os.open(os.devnull, os.O_WRONLY)
    silent = [(os.POSIX_SPAWN_DUP2, devnull, 1), (os.POSIX_SPAWN_DUP2, devnull, 2)]
    began = time.perf_counter()
    process = os.posix_spawn(sys.executable, command, environment, file_actions=silent)
    _, status, usage = os.wait4(process, 0)
    elapsed = time.perf_counter() - began
    os.close(devnull)
    shutil.rmtree(log_dir)
    # 5: there are no tests
    if os.waitstatus_to_exitcode(status) not in (0, 5):
        raise RuntimeError(f"{' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime, elapsed


def in_turns(
    arguments: dict[str, tuple[str, ...]], directory: Path, rounds: int
) -> dict[str, dict[str, float]]:
    """Run each side in each round; return the medians and the least of all."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in arguments}
    for _ in range(rounds):
        for name, given in arguments.items():
            samples[name].append(seconds_of(given, directory))
    return {
        name: {
            "cpu": median([cpu for cpu, _ in found]),
            "least_cpu": min(cpu for cpu, _ in found),
            "elapsed": median([elapsed for _, elapsed in found]),
        }
        for name, found in samples.items()
    }


def measure(count: int, rounds: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as home:
        Path(home, "empty_plugin.py").touch()
        several, single, none = (Path(home, name) for name in ("several", "single", "none"))
        for directory, tests in ((several, count), (single, 1), (none, 0)):
            directory.mkdir()
            if tests:
                (directory / "test_it.py").write_text(TEST.format(count=tests))
        collecting = {name: ("--collect-only", *given) for name, given in COLLECTING.items()}
        return {
            "tests": count,
            "runs": in_turns(sides(), several, rounds),
            "runs_of_one": in_turns(sides(), single, rounds),
            "collecting": in_turns(collecting, none, 4 * rounds),
        }


def per_run(result: dict[str, object], name: str, figure: str) -> float:
    """Return the milliseconds that a side costs once."""
    runs = result["runs_of_one"]
    return 1000 * (runs[name][figure] - runs[WITHOUT][figure])


def per_test(result: dict[str, object], name: str, figure: str) -> float:
    """Return the milliseconds that it costs for each test."""
    runs = result["runs"]
    whole = 1000 * (runs[name][figure] - runs[WITHOUT][figure])
    return (whole - per_run(result, name, figure)) / (result["tests"] - 1)


def report(result: dict[str, object]) -> str:
    header = ["", "CPU s", "ms a test", "by the least", "ms a run", "elapsed s"]
    rows = [
        [
            name,
            f"{run['cpu']:.2f}",
            *(f"{per_test(result, name, each):.3f}" for each in ("cpu", "least_cpu")),
            f"{per_run(result, name, 'cpu'):.0f}",
            f"{run['elapsed']:.2f}",
        ]
        for name, run in result["runs"].items()
    ]
    bare, inert = result["collecting"].values()
    more = 1000 * (inert["cpu"] - bare["cpu"])
    least = 1000 * (inert["least_cpu"] - bare["least_cpu"])
    ours = per_test(result, "instrument", "cpu")
    cost = f"a recorded test costs {ours:.3f} ms, at most {MOST_MILLISECONDS}"
    collecting = f"collecting an empty suite costs {more:.1f} ms more ({least:.1f} by the least)"
    return "\n".join(
        [
            f"{result['tests']:,} trivial tests, medians of CPU time:",
            "",
            table(header, rows),
            "",
            versions("instrument-kit", "pytest", "pytest-opentelemetry"),
            verdict(cost, holds=ours <= MOST_MILLISECONDS),
            verdict(
                f"{collecting}, at most {MOST_MILLISECONDS_OF_COLLECTING:.0f}",
                holds=more <= MOST_MILLISECONDS_OF_COLLECTING,
            ),
        ]
    )


def main() -> None:
    asked = options(__doc__).parse_args()
    count, rounds = (500, 3) if asked.quick else (2000, 7)
    result = measure(count, rounds)
    show(result, report(result), as_json=asked.json)


if __name__ == "__main__":
    main()
