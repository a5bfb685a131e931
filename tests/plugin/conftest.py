"""Runs of pytest with the plugin, in processes of their own, and the logs that they leave."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instrument.log import UsageLog
from instrument.operation import Operation

ASK = """
    from instrument import session, track, tracked

    @tracked(service="fake", usage=lambda tokens: tokens)
    def ask(tokens=1):
        return tokens
"""
UNLOADED = (
    "randomly",
    "xdist",
    "asyncio",
    "anyio",
    "rerunfailures",
    "hypothesispytest",
    "pytest_cov",
    "pytest_opentelemetry",
)


class Run:
    """One run: what pytest said, and the log and the JSON that it left."""

    def __init__(self, result: pytest.RunResult, log_dir: Path, file: Path) -> None:
        self.result = result
        self.text = result.stdout.str() + result.stderr.str()
        self.log = UsageLog(log_dir)
        self.log_dir = log_dir
        self._file = file

    @property
    def json(self) -> Any:
        return json.loads(self._file.read_text())

    @property
    def tests(self) -> dict[str, Operation]:
        """The operations of tests, by the last part of their node ids."""
        return {
            each.operation.rpartition("::")[2]: each
            for each in self.log.operations(service="pytest")
            if "::" in each.operation
        }

    def tree(self) -> list[str]:
        """Return the operations of the run in start order, indented by their ancestors."""
        operations = self.log.operations()
        parents = {each.operation_id: each.parent_id for each in operations}
        return [
            "  " * _depth(each, parents) + each.operation.rpartition("::")[2]
            for each in _in_call_order(operations)
        ]

    def places(self) -> list[tuple[str, str, int | None]]:
        """Return the test and phase in which each tracked call was made, and its tokens."""
        by_id = {each.operation_id: each for each in self.log.operations()}
        found = []
        for each in self.log.operations(service="fake"):
            phase = by_id[each.parent_id]
            while phase.service != "pytest":
                phase = by_id[phase.parent_id]
            test = by_id[phase.parent_id].operation.rpartition("::")[2]
            found.append((test, phase.operation, each.tokens))
        return found


def _depth(operation: Operation, parents: dict[str | None, str | None]) -> int:
    depth, parent = 0, operation.parent_id
    while parent in parents:
        depth, parent = depth + 1, parents[parent]
    return depth


def _in_call_order(operations: list[Operation]) -> list[Operation]:
    below: dict[str | None, list[Operation]] = {}
    ids = {each.operation_id for each in operations}
    for each in operations:
        below.setdefault(each.parent_id if each.parent_id in ids else None, []).append(each)

    def walk(parent: str | None) -> list[Operation]:
        return [
            found for each in below.get(parent, []) for found in (each, *walk(each.operation_id))
        ]

    return walk(None)


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Run pytest on a test module that begins with `ask`, with `--instrument` unless told not to.

    `load` names the plugins that the run shall have beside ours.
    """
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("INSTRUMENT_DIR", str(pytester.path / "log"))

    def go(
        source: str,
        *arguments: str,
        load: tuple[str, ...] = (),
        instrument: bool = True,
        strict: bool = True,
    ) -> Run:
        pytester.makepyfile(calls=ASK)
        pytester.makepyfile(test_it=f"from calls import *\n{textwrap.dedent(source)}")
        without = [f"-pno:{each}" for each in UNLOADED if each not in load]
        switched_on = ["--instrument", "--instrument-json=out.json"] if instrument else []
        checks = ["-Werror", "--strict-markers", "--strict-config"] if strict else []
        result = pytester.runpytest_subprocess(*without, *checks, *switched_on, *arguments)
        return Run(result, pytester.path / "log", pytester.path / "out.json")

    return go
