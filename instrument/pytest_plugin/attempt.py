"""One run of a test, which a plugin may run again: its phases, its budget and what it used."""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns
from typing import Any

import pytest

from instrument.pytest_plugin.breach import check
from instrument.pytest_plugin.figures import TestFigures
from instrument.pytest_plugin.limits import limits_of
from instrument.pytest_plugin.live import TestUsage
from instrument.pytest_plugin.outcomes import Ended, ended_as, of_test
from instrument.pytest_plugin.spending import Spending, figures_from
from instrument.pytest_plugin.stage import Stage

__all__ = ["Attempt"]


class Attempt:
    """Begins the operation of a test; `close` ends it."""

    def __init__(
        self,
        item: pytest.Item,
        stage: Stage,
        spending: Spending,
        session_id: str,
        *,
        number: int,
        worker: str | None,
    ) -> None:
        self._node_id = item.nodeid
        self._root = item.config.rootpath
        self._item = item
        self._stage = stage
        self._spending = spending
        self._session_id = session_id
        self.number = number
        self._worker = worker
        self.usage: TestUsage = TestUsage(partial(spending.spent, session_id))
        self._phases: dict[str, Ended] = {}
        self._reports: list[pytest.TestReport] = []
        self._running: str | None = None
        self._ended_ns = self._began_ns = perf_counter_ns()
        self._subtests: list[Ended] = []
        spending.begin(stage.begin_test(item.nodeid))

    def begin(self, when: str) -> None:
        """Begin setup, call or teardown."""
        self._running = when
        self._spending.add(self._stage.begin(when))

    def passed(self, when: str) -> None:
        """Raise if the budget is used up after a phase that went well."""
        self._ended_ns = perf_counter_ns()
        if when == "setup":
            return
        if when == "teardown" and self._phases.get("call", _NOT_CALLED).went_wrong:
            return
        limits = limits_of(self._item)  # to which the test itself may have added
        if limits is not None:
            check(limits, self._spending.spent(self._session_id))

    def over(self) -> None:
        """Take note that the phase is over, however it went."""
        if self._ended_ns < self._stage.begun_ns:
            self._ended_ns = perf_counter_ns()
        self._running = None

    def reported(self, report: pytest.TestReport, call: pytest.CallInfo[Any]) -> bool:
        """Take a report into account; tell whether it is the last one, that of the teardown."""
        error = None if call.excinfo is None else call.excinfo.value
        ended = ended_as(report, error, self._root)
        if self._running is not None:
            self._subtests.append(ended)
            return False
        if call.when == "call" and not ended.went_wrong:
            ended = next((each for each in self._subtests if each.went_wrong), ended)
        self._phases[report.when or ""] = ended
        self._reports.append(report)
        self._stage.end(ended, self._ended_ns)
        return report.when == "teardown"

    def figures(self) -> TestFigures:
        """Return what it came to, once it is over."""
        spent = self._spending.spent(self._session_id)
        self.usage.keep(spent)
        wall_seconds = (self._ended_ns - self._began_ns) / 1e9
        return figures_from(spent, self._node_id, self._ended().word, wall_seconds, self._worker)

    def close(self) -> None:
        """End the test's operation."""
        ended = self._ended()
        failed = sum(each.went_wrong for each in self._subtests)
        self._stage.end_test(
            ended,
            self._ended_ns,
            self.number if self.number > 1 or ended.word == "rerun" else None,
            reason=ended.message if ended.word in ("skipped", "xfailed", "xpassed") else None,
            subtests=len(self._subtests) or None,
            subtests_failed=failed or None,
            worker=self._worker,
        )

    def raised(self, error: BaseException) -> None:
        """End it with what ends the whole run."""
        self._stage.raised(error)

    def _ended(self) -> Ended:
        outcomes: list[str] = [each.outcome for each in self._reports]
        return of_test(self._phases, is_rerun="rerun" in outcomes)


_NOT_CALLED = Ended("failed")
