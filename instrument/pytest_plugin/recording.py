"""A run that is recorded: one session, over all workers of pytest-xdist."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from msgspec.structs import replace

from instrument import _config, context
from instrument._clock import new_session_id
from instrument._config import as_path
from instrument.errors import ConfigurationError
from instrument.log import UsageLog
from instrument.pytest_plugin.asking import uses_ours
from instrument.pytest_plugin.attempt import Attempt
from instrument.pytest_plugin.figures import RunFigures, TestFigures, figures_of, keep_figures
from instrument.pytest_plugin.limits import limits_of
from instrument.pytest_plugin.live import TestUsage
from instrument.pytest_plugin.spending import Spending, figures_of_dead
from instrument.pytest_plugin.stage import Stage
from instrument.pytest_plugin.summary import properties_of, write, write_json
from instrument.pytest_plugin.unchecked import warn_of_budget
from instrument.recorder import Recorder, recorder
from instrument.session import Session, session

__all__ = ["Recording"]

_VARIABLES = ("INSTRUMENT_DIR", "INSTRUMENT_SESSION_ID", "INSTRUMENT_PARENT_ID")
_FIGURES = "instrument_figures"
_OFF = "recording is switched off, by INSTRUMENT_DISABLED or configure(enabled=False)"
_Result = Generator[None, Any, Any]


class Recording:
    """The hooks of a run that is recorded.

    `is_on` says that the whole run shall be; else only the tests that have a budget or the
    fixture `usage` are operations, and nothing is summed up.
    """

    def __init__(self, config: pytest.Config, *, is_on: bool) -> None:
        self._config = config
        self._is_on = is_on
        of_worker = getattr(config, "workerinput", {})
        self._worker: str | None = of_worker.get("workerid")
        self._given: dict[str, str] = of_worker.get("instrument", {})
        self._session_id = self._given.get("session_id") or _session_id(config)
        self._log_dir = _directory(self._given.get("log_dir") or config.getoption("instrument_dir"))
        self._json = _file(config.getoption("instrument_json"))
        self._began = perf_counter()
        self._fault: str | None = None
        self._before: dict[str, str | None] = {}
        self._session: Session | None = None
        self._stage: Stage | None = None
        self._spending: Spending | None = None
        self._attempt: Attempt | None = None
        self._earlier: TestFigures | None = None
        self._tests: dict[str, TestFigures] = {}
        self._latest: tuple[pytest.TestReport, TestFigures] | None = None
        # those in which a worker died
        self._dead: list[str] = []

    def begin(self) -> None:
        """Enter the session, unless recording is switched off."""
        self._before = {name: os.environ.get(name) for name in _VARIABLES}
        active = self._recorder()
        if not active.enabled:
            return
        self._log_dir = active.settings.log_dir
        self._session = session("pytest", id=self._session_id)
        self._session.__enter__()
        entry = context.scope.get()
        assert entry is not None  # just entered
        context.backdrop = entry
        self._stage = Stage(entry, active)
        self._spending = Spending(self._log_dir)
        _followed.append(self._spending)
        if self._is_on:
            self._tell_children()

    def usage(self) -> TestUsage:
        """Return what the test that is running has used so far."""
        if self._attempt is None:
            pytest.fail(f"usage: {_OFF}", pytrace=False)
        return self._attempt.usage

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist which session it is part of."""
        if self._is_on:
            log_dir = "" if self._log_dir is None else str(self._log_dir)
            node.workerinput["instrument"] = {"session_id": self._session_id, "log_dir": log_dir}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> _Result:
        """Have what test modules call when they are imported be part of the session."""
        self.begin()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> _Result:
        """Record a test, however often it is run."""
        self._earlier = None
        try:
            return (yield)
        except BaseException as error:
            if self._attempt is not None:
                self._attempt.raised(error)
                self._attempt = None
            raise
        finally:
            self._close()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> _Result:
        """Begin an attempt at a test."""
        self._close()
        attempt = self._attempt = self._opened(item)
        if attempt is None:
            return (yield)
        return (yield from _phase(attempt, "setup"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> _Result:
        """Have the test fail that used more than its budget."""
        if self._attempt is None:
            return (yield)
        return (yield from _phase(self._attempt, "call"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> _Result:
        """Have the teardown fail that did."""
        if self._attempt is None:
            warn_of_budget(item, _OFF if self._stage is None else None)
            return (yield)
        return (yield from _phase(self._attempt, "teardown"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> _Result:
        """Record how a phase ended, and put what the test used on its last report."""
        report: pytest.TestReport = yield
        if self._attempt is not None and self._attempt.reported(report, call):
            self._put(self._attempt, report)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather what tests came to, here or in workers."""
        plain = getattr(report, _FIGURES, None)
        if plain is not None:
            latest, self._latest = self._latest, None
            if latest is not None and latest[0] is report:
                self._tests[report.nodeid] = latest[1]
            else:
                self._tests[report.nodeid] = TestFigures.from_dict(plain)
        elif report.when not in ("setup", "call", "teardown"):
            self._dead.append(report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> _Result:
        """Sum up, and leave the session."""
        if self._is_on and self._worker is None:
            self._sum_up(session)
        try:
            return (yield)
        finally:
            self._leave()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what the run came to, unless pytest is told to be quiet."""
        run = figures_of(self._config)
        if run is None:
            return
        if self._stage is None:
            terminalreporter.write_line(f"instrument: {_OFF}", yellow=True)
        elif run.tests and self._config.get_verbosity() >= 0:
            write(terminalreporter, run, self._config.getoption("instrument_top"))
        if self._fault is not None:
            terminalreporter.write_line(f"instrument: {self._fault}", red=True)

    def _recorder(self) -> Recorder:
        """Return what the run is recorded by, whatever the program configures meanwhile."""
        if self._log_dir is None:
            return recorder()
        os.environ["INSTRUMENT_DIR"] = str(self._log_dir)
        _config.configure()  # to have the environment read again
        active = recorder()
        if active.settings.log_dir == self._log_dir:
            return active
        return Recorder(replace(active.settings, log_dir=self._log_dir, fallback=False))

    def _opened(self, item: pytest.Item) -> Attempt | None:
        if self._stage is None or self._spending is None:
            return None
        if not self._is_on:
            self._spending.pass_over()  # of tests that do not count
            if limits_of(item) is None and not uses_ours(item):
                return None
            self._tell_children()
        return Attempt(
            item,
            self._stage,
            self._spending,
            self._session_id,
            number=1 if self._earlier is None else self._earlier.attempts + 1,
            worker=self._worker,
        )

    def _close(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.close()
            if not self._is_on:
                self._put_environment_back()

    def _put(self, attempt: Attempt, report: pytest.TestReport) -> None:
        """Put on a test's last report what it used, in all of its attempts so far."""
        figures = attempt.figures()
        if self._earlier is not None:
            figures = self._earlier.and_then(figures)
        self._earlier = figures
        if self._is_on:
            report.user_properties += properties_of(figures)
            setattr(report, _FIGURES, figures.to_dict())
            self._latest = report, figures

    def _sum_up(self, run: pytest.Session) -> None:
        log = UsageLog(*filter(None, [self._log_dir]))
        for node_id in self._dead:
            if node_id not in self._tests:
                self._tests[node_id] = figures_of_dead(log, self._session_id, node_id)
        figures = RunFigures(
            session_id=self._session_id,
            log_dir=str(self._log_dir),
            tests=self._tests,
            wall_seconds=perf_counter() - self._began,
        )
        keep_figures(self._config, figures)
        try:
            if self._json is not None:
                write_json(figures, self._json)
        except OSError as error:
            self._fault = f"--instrument-json={self._json}: cannot be written: {error}"
            run.exitstatus = run.exitstatus or pytest.ExitCode.USAGE_ERROR

    def _leave(self) -> None:
        if self._spending is not None:
            _followed.remove(self._spending)
        if self._session is not None:
            context.backdrop = None
            self._session.__exit__(None, None, None)
        self._put_environment_back()
        if self._before.get("INSTRUMENT_DIR") != str(self._log_dir):
            _config.configure()  # to have the environment read again

    def _tell_children(self) -> None:
        """Have processes that tests start be part of the session."""
        os.environ["INSTRUMENT_DIR"] = str(self._log_dir)
        os.environ["INSTRUMENT_SESSION_ID"] = self._session_id

    def _put_environment_back(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _phase(attempt: Attempt, when: str) -> _Result:
    attempt.begin(when)
    try:
        result = yield
        attempt.passed(when)
        return result
    finally:
        attempt.over()


def _session_id(config: pytest.Config) -> str:
    """Return the run's session: without the controller's word, the same in all of its workers."""
    run: str | None = getattr(config, "workerinput", {}).get("testrunuid")
    return new_session_id() if run is None else f"pytest-{run}"


def _directory(given: str | None) -> Path | None:
    if not given:
        return None
    try:
        found = as_path("--instrument-dir", given)
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from None
    if found.exists() and not found.is_dir():
        raise pytest.UsageError(f"--instrument-dir={given}: use the path of a directory")
    return found


def _file(given: str | None) -> Path | None:
    if given is None:
        return None
    found = Path(given).expanduser().absolute()
    if not given or found.is_dir():
        raise pytest.UsageError(f"--instrument-json={given}: use the path of a file")
    return found


def _settings_changed() -> None:
    for each in _followed:
        each.settings_changed()


_followed: list[Spending] = []
_config.on_change(_settings_changed)
