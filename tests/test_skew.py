"""Hosts whose clocks differ: what `correlate` and `show` make of their logs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_writing import at, begin, operation, write

from instrument import Operation, UsageLog
from instrument._lines import moment_of
from instrument._skew import placed
from instrument.cli.tree import arrange

HOSTS = {name: f"2026-11-20-{name}-0001.jsonl" for name in ("a", "b")}
JOB, SERVE, MODEL, AFTER = (f"{number:016x}" for number in range(4))


def skewed(log_dir: Path, behind: float) -> UsageLog:
    """Forge a job on one host and a service, `behind` by its clock, on another."""
    write(
        log_dir / "a",
        operation(0, operation="job", pid=1, duration_seconds=10.0),
        operation(3, operation="after", pid=1, timestamp=at(8), parent_id=JOB),
    )
    write(
        log_dir / "b",
        operation(1, operation="serve", pid=2, timestamp=at(2 - behind), parent_id=JOB),
        operation(2, operation="model", pid=2, timestamp=at(3 - behind), parent_id=SERVE),
    )
    return UsageLog(log_dir / "a", log_dir / "b")


def show(*arguments: Path | str, command: str = "show") -> str:
    """Run `instrument show`, or another command, over directories."""
    line = [sys.executable, "-m", "instrument", command, "work"]
    for each in arguments:
        line += ["--dir", str(each)] if isinstance(each, Path) else [each]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def names(operations: list[Operation]) -> list[str]:
    return [each.operation for each in operations]


def test_no_operation_stands_before_the_one_that_called_it(tmp_path: Path) -> None:
    found = skewed(tmp_path, behind=60).correlate("work")
    assert names(found) == ["job", "serve", "model", "after"]
    assert found[1].timestamp == moment_of(at(-58))


def test_clocks_that_agree_change_nothing(tmp_path: Path) -> None:
    log = skewed(tmp_path, behind=0)
    assert log.correlate("work") == log.operations("work")
    assert {each.early_seconds for each in placed(log.operations("work"))} == {0.0}


def test_a_clock_that_is_behind_is_said_once_with_its_least_difference(tmp_path: Path) -> None:
    skewed(tmp_path, behind=60)
    _, _, table = show(tmp_path / "a", tmp_path / "b").partition("\n\n")
    rows = [line.strip().split("  ")[0] for line in table.splitlines()[1:]]
    said = "its host's clock is at least 58.0 s behind its caller's"
    assert rows == ["gemini job", "gemini serve", said, "gemini model", "gemini after"]
    assert "10.0 s" in table.splitlines()[0]  # the axis is no longer than the job


def test_what_a_late_clock_called_keeps_its_distance(tmp_path: Path) -> None:
    nodes = arrange(skewed(tmp_path, behind=60).correlate("work"))
    first = nodes[0].start
    assert [(node.operation.operation, round(node.start - first, 3)) for node in nodes] == [
        ("job", 0.0),
        ("serve", 0.0),
        ("model", 1.0),
        ("after", 8.0),
    ]


def test_what_a_late_host_calls_on_one_that_is_right_stays_where_it_was(tmp_path: Path) -> None:
    write(
        tmp_path,
        operation(0, operation="job", pid=1),
        operation(2, operation="model", pid=3, timestamp=at(0.5), parent_id=SERVE),
        name=HOSTS["a"],
    )
    write(
        tmp_path,
        operation(1, operation="serve", pid=2, timestamp=at(-50), parent_id=JOB),
        operation(3, operation="near", pid=4, timestamp=at(-49), parent_id=SERVE),
        name=HOSTS["b"],
    )
    report = UsageLog(tmp_path).report("work")
    found = {each.operation.operation: each for each in placed(report.operations, report.hosts)}
    first = found["job"].start
    seconds = {name: (each.start - first, each.early_seconds) for name, each in found.items()}
    assert seconds == {"job": (0, 0), "serve": (0, 50), "near": (1, 0), "model": (0.5, 0)}


def test_what_a_clock_ahead_calls_back_bounds_it(tmp_path: Path) -> None:
    log_dir = tmp_path / "log"
    write(
        log_dir,
        operation(0, operation="job", pid=1, duration_seconds=10.0),
        operation(3, operation="callback", pid=1, timestamp=at(5), parent_id=SERVE),
        name=HOSTS["a"],
    )
    write(
        log_dir,
        operation(1, operation="serve", pid=2, timestamp=at(62), parent_id=JOB),
        operation(2, operation="model", pid=2, timestamp=at(63), parent_id=SERVE),
        name=HOSTS["b"],
    )
    report = UsageLog(log_dir).report("work")
    found = placed(report.operations, report.hosts)
    first = found[0].start
    places = {each.operation.operation: (each.start - first, each.ahead_seconds) for each in found}
    assert places == {"job": (0, 0), "serve": (5, 57), "callback": (5, 0), "model": (6, 0)}
    assert {each.early_seconds for each in found} == {0}
    shown = show(log_dir)
    assert "10.0 s" in shown.splitlines()[2]
    assert "its host's clock is at least 57.0 s ahead" in shown


SERVES = {
    "finished": operation(1, operation="serve", pid=1, timestamp=at(62), parent_id=JOB),
    "interrupted": begin(1, operation="serve", pid=1, timestamp=at(62), parent_id=JOB),
}


@pytest.mark.parametrize("is_compacted", [False, True], ids=["journal", "archive"])
@pytest.mark.parametrize("serve", SERVES.values(), ids=SERVES)
@pytest.mark.parametrize("pid", [1, 2], ids=["same process", "another process"])
def test_a_clock_is_that_of_a_host_whatever_the_numbers_of_its_processes(
    tmp_path: Path, pid: int, serve: dict[str, object], is_compacted: bool
) -> None:
    write(
        tmp_path,
        operation(0, operation="job", pid=1, duration_seconds=40.0),
        operation(2, operation="back", pid=pid, timestamp=at(5), parent_id=SERVE),
        operation(3, operation="after", pid=1, timestamp=at(30), parent_id=JOB),
        name=HOSTS["a"],
    )
    write(tmp_path, serve, name=HOSTS["b"])
    log = UsageLog(tmp_path)
    if is_compacted:
        log.compact()
    assert names(log.correlate("work")) == ["job", "serve", "back", "after"]
    shown = show(tmp_path)
    assert "its host's clock is at least 57.0 s ahead" in shown
    assert "behind its caller's" not in shown
    assert "40.0 s" in shown.splitlines()[2]


def test_the_heading_and_the_figures_of_a_session_are_on_the_axis_of_its_tree(
    tmp_path: Path,
) -> None:
    skewed(tmp_path, behind=60)
    directories = tmp_path / "a", tmp_path / "b"
    stats = json.loads(show(*directories, "--json"))["session"]
    assert (stats["elapsed_seconds"], stats["first_at"]) == (10.0, at(0))
    heading, _, _ = show(*directories).partition("\n\n")
    assert "10.0 s" in heading


def test_its_figures_are_those_of_its_tree(tmp_path: Path) -> None:
    skewed(tmp_path, behind=60)
    directories = tmp_path / "a", tmp_path / "b"
    shown, summed = (
        json.loads(show(*directories, "--json", command=command)) for command in ("show", "stats")
    )
    assert summed["session"] == shown["session"]


links = st.lists(
    st.tuples(st.integers(-5, 5), st.none() | st.integers(0, 11), st.integers(1, 3)), max_size=12
)


@given(links)
def test_any_clocks_and_callers_are_placed_once_callers_first(
    drawn: list[tuple[int, int | None, int]],
) -> None:
    operations = [
        Operation(
            timestamp=moment_of(at(seconds)) or moment_of(at(0)),  # type: ignore[arg-type]
            session_id="work",
            service="s",
            operation=str(number),
            operation_id=f"{number:016x}",
            parent_id=None if parent is None else f"{parent:016x}",
            pid=pid,
        )
        for number, (seconds, parent, pid) in enumerate(drawn)
    ]
    found = placed(operations)
    assert sorted(each.operation.operation for each in found) == sorted(
        each.operation for each in operations
    )
    order = {each.operation.operation_id: index for index, each in enumerate(found)}
    circles = {each.operation.operation_id for each in found if each.depth == 0}
    for each in found:
        if each.operation.operation_id not in circles:
            assert order[each.operation.parent_id] < order[each.operation.operation_id]
    assert len(arrange(operations)) == len(operations)
