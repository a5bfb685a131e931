"""How a test and its phases ended, from pytest's reports, and what the record says of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from instrument._said import kind_name
from instrument.usage.reading import Reading

__all__ = ["PASSED", "Ended", "ended_as", "of_test", "verdict_of"]


@dataclass(frozen=True)
class Ended:
    """How something ended: a word of pytest's, the kind of error, and what it says."""

    word: str
    error_type: str | None = None
    message: str | None = None

    @property
    def went_wrong(self) -> bool:
        """Whether it counts as failed."""
        return self.word in ("failed", "error", "rerun")


PASSED = Ended("passed")


def ended_as(report: pytest.TestReport, error: BaseException | None, root: Path) -> Ended:
    """Return how a phase ended that raised `error`, or nothing, in a project at `root`."""
    expected = getattr(report, "wasxfail", None)
    if report.outcome == "passed":
        return PASSED if expected is None else Ended("xpassed", None, expected or None)
    if report.outcome == "skipped":
        if expected is not None:
            return Ended("xfailed", None, expected or None)
        return Ended("skipped", "Skipped", _reason(report))
    if error is None:
        return Ended("failed", "XPassStrict", str(report.longrepr))
    return Ended("failed", kind_name(type(error)), _where(report, error, root))


def of_test(phases: dict[str, Ended], *, is_rerun: bool) -> Ended:
    """Return how a test ended whose phases did so; `is_rerun` if it runs again."""
    if all(each is PASSED for each in phases.values()):
        return PASSED
    call = phases.get("call", PASSED)
    around = [phases.get(when, PASSED) for when in ("setup", "teardown")]
    worst = _first_wrong([call]) or _first_wrong(around)
    if worst is not None:
        word = "rerun" if is_rerun else "failed" if worst is call else "error"
        return Ended(word, worst.error_type, worst.message)
    return next((each for each in (*around, call) if each.word != "passed"), PASSED)


def verdict_of(ended: Ended) -> Reading | None:
    """Return what is recorded: a failure is an error, a skipped test neither that nor a success."""
    if ended.went_wrong:
        return Reading(outcome="error", error_type=ended.error_type, error_message=ended.message)
    if ended.word == "skipped":
        return Reading(
            outcome="cancelled", error_type=ended.error_type, error_message=ended.message
        )
    return None


def _first_wrong(phases: Iterable[Ended]) -> Ended | None:
    return next((each for each in phases if each.went_wrong), None)


def _reason(report: pytest.TestReport) -> str | None:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return None


def _where(report: pytest.TestReport, error: BaseException, root: Path) -> str | None:
    """Say where a test failed, and why, unless that may be what a model said: a comparison."""
    if isinstance(error, pytest.fail.Exception) and not error.pytrace:
        return str(error.msg).partition("\n")[0]
    crash = getattr(report.longrepr, "reprcrash", None)
    where = None if crash is None else f"{str(crash.path).removeprefix(f'{root}/')}:{crash.lineno}"
    if isinstance(error, AssertionError):
        return where
    first = str(getattr(crash, "message", None) or report.longrepr).partition("\n")[0]
    return first if where is None else f"{where}: {first}"
