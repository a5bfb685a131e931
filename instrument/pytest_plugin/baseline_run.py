"""A run of pytest that is saved as a baseline, or compared with one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from instrument.pytest_plugin.baselines import (
    Baseline,
    BaselineError,
    Entry,
    baseline_of,
    dumps,
    loads,
    merged,
    path_of,
)
from instrument.pytest_plugin.comparing import Comparison, compare, limits_of
from instrument.pytest_plugin.comparison_texts import (
    exceeded_lines,
    markdown,
    terminal_lines,
    wrapped,
)
from instrument.pytest_plugin.figures import figures_of

__all__ = ["BaselineRun"]

_NARROWING = ("keyword", "markexpr", "deselect", "lf", "stepwise", "ignore", "ignore_glob")


class BaselineRun:
    """Saves and compares at the end of a run, in the process that the user started.

    Reads everything that it needs before any test; raises `pytest.UsageError`.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._save: str | None = config.getoption("instrument_save")
        self._compare: str | None = config.getoption("instrument_compare")
        self._markdown: str | None = config.getoption("instrument_markdown")
        self._comparison: Comparison | None = None
        self._lines: list[str] = []
        self._faults: list[str] = []
        self._selection = Selection(config)
        try:
            self._limits = _limits(config)
            self._saved = {} if self._save is None else self._read(self._save)
            self._baseline = {} if self._compare is None else self._existing(self._compare)
        except BaselineError as error:
            raise pytest.UsageError(str(error)) from None

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._selection.deselected.update(each.nodeid for each in items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed or report.skipped:
            self._selection.not_collected[report.nodeid] = report.outcome

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        figures = figures_of(self._config)
        if figures is None or exitstatus not in _RUN:
            self._faults = ["no baseline was saved or compared: the run did not come to its end"]
            return
        self._selection.finish(session)
        run = baseline_of(figures.tests.values(), repeats=_repeats(self._config))
        self._compare_with(run)
        self._save_as(run)
        if self._faults or (self._comparison and self._comparison.exceeded):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        is_quiet = self._config.get_verbosity() < 0
        exceeded = [] if self._comparison is None else exceeded_lines(self._comparison)
        lines = exceeded if is_quiet else self._lines
        if not lines and not self._faults:
            return
        if not is_quiet:
            terminalreporter.section("instrument: baseline")
        for line in lines:
            terminalreporter.write_line(line, red=line in exceeded)
        for fault in self._faults:
            for line in wrapped(fault):
                terminalreporter.write_line(line, red=True)

    def _compare_with(self, run: Baseline) -> None:
        if self._compare is None:
            return
        run = {**self._selection.skipped(self._baseline), **run}
        found = compare(self._baseline, run, self._limits, self._selection.is_gone)
        self._comparison = found
        self._lines += terminal_lines(self._compare, found)
        if self._markdown is not None:
            self._write(Path(self._markdown), markdown(self._compare, found))

    def _save_as(self, run: Baseline) -> None:
        if self._save is None:
            return
        if not run:
            self._lines.append(f'baseline "{self._save}" is not saved: no test ran')
            return
        if self._comparison is not None and self._comparison.exceeded:
            self._lines += wrapped(f'baseline "{self._save}" is not saved: a limit was exceeded')
            return
        gone = {each for each in self._saved if each not in run and self._selection.is_gone(each)}
        baseline = merged(self._saved, run, gone)
        path = path_of(self._config.rootpath, self._save)
        self._write(path, dumps(baseline))
        count = sum(each.is_complete for each in run.values() if each.counts.get("operations"))
        told = f'baseline "{self._save}" saved with {count} tests of this run: {_shown(path)}'
        self._lines += wrapped(told)

    def _write(self, path: Path, text: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
            temporary.write_text(text, encoding="utf-8", newline="\n")
            os.replace(temporary, path)
        except OSError as error:
            self._faults.append(f"{path} was not written: {error.strerror or error}")

    def _existing(self, name: str) -> dict[str, Entry]:
        path = path_of(self._config.rootpath, name)
        if path.exists():
            return self._read(name)
        saved = sorted(each.stem for each in path.parent.glob("*.json"))
        cure = f"saved are {', '.join(saved)}" if saved else "none is saved yet"
        raise BaselineError(
            f"no baseline {name!r} in {path.parent}: {cure}; --instrument-save {name} makes it"
        )

    def _read(self, name: str) -> dict[str, Entry]:
        path = path_of(self._config.rootpath, name)
        try:
            return loads(path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise BaselineError(f"the baseline {path} cannot be read: {error}") from None


class Selection:
    """Which tests a run was to run, as far as that can be known where it was started."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._is_narrow = False
        self._places: list[Path] = []
        self.deselected: set[str] = set()
        self.not_collected: dict[str, str] = {}

    def finish(self, session: pytest.Session) -> None:
        """Take into account how the run went."""
        config = self._config
        start = config.invocation_params.dir
        self._places = [Path(os.path.normpath(start / each)) for each in config.args]
        self._is_narrow = (
            bool(session.shouldstop or session.shouldfail)
            or any("::" in each for each in config.args)
            or any(config.getoption(each, None) for each in _NARROWING)
        )

    def is_gone(self, node_id: str) -> bool:
        """Tell whether a test that did not run exists no more; if in doubt, it is not gone."""
        if self._is_narrow or node_id in self.deselected or self._kept_out(node_id):
            return False
        path = Path(os.path.normpath(self._config.rootpath / node_id.partition("::")[0]))
        return any(path == each or each in path.parents for each in self._places)

    def skipped(self, baseline: Baseline) -> dict[str, Entry]:
        """Return the tests of modules and classes that were skipped as a whole."""
        return {each: Entry("skipped") for each in baseline if self._kept_out(each) == "skipped"}

    def _kept_out(self, node_id: str) -> str | None:
        parts = node_id.split("::")
        above = ("::".join(parts[:count]) for count in range(1, len(parts)))
        return next(
            (self.not_collected[each] for each in above if each in self.not_collected), None
        )


def _limits(config: pytest.Config) -> dict[str, Decimal]:
    text, compared = config.getoption("instrument_fail"), config.getoption("instrument_compare")
    for option in ("fail", "markdown"):
        if config.getoption(f"instrument_{option}") is not None and compared is None:
            raise BaselineError(
                f"--instrument-{option} is of a comparison: add --instrument-compare NAME"
            )
    return {} if text is None else limits_of(text)


def _repeats(config: pytest.Config) -> int | None:
    is_there = config.pluginmanager.has_plugin("repeat")
    return config.getoption("count", 1) if is_there else None


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


_RUN = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
