"""The pytest plugin: what tests call, use and cost, and budgets for them.

Loaded by pytest in every run, so it is inert, and loads nothing, until it is asked for: by
`--instrument`, by `instrument = true` in pytest's configuration, by `--instrument-json`, by the
options of baselines, or by a test with the fixture `usage` or the marker `budget`. Then the run is
one session, under pytest-xdist too; with `--instrument` each test is an operation of the service
`pytest`, with its phases setup, call and teardown in it, and every tracked call in one of those.

`--instrument-json FILE` writes an object with `format` (1), `session_id`, `log_dir`, `totals` and
`tests`, a list in the order in which tests ended. Each test has `node_id`, `outcome` (`passed`,
`failed`, `error`, `skipped`, `xfailed`, `xpassed`), `attempts`, `operations`, `error_count`,
`tokens`, `input_tokens`, `output_tokens`, `usd`, `unpriced_models`, `seconds` (inside of tracked
calls), `wall_seconds`, `durations` (of each tracked call, in seconds) and `worker` (of
pytest-xdist). `tokens` and `usd` are null where they are not known. `totals` has `tests`,
`operations`, `error_count`, `tokens`, `usd`, `unpriced_models`, `seconds` and `wall_seconds`. Keys
may be added.

`--instrument-save NAME` saves the same as a baseline, `<rootdir>/.instrument/baselines/NAME.json`,
which is to be committed; `--instrument-compare NAME` shows what became of it, and
`--instrument-fail tokens:+10%,usd:+5%,p95:+30%` fails the run (exit code 1) where a test or all
together went further. Counts and money (`tokens`, `input_tokens`, `output_tokens`, `usd`,
`operations`, `errors`) are compared exactly, times (`seconds`, `p50`, `p95`, `p99`) only where
their repeats can be told apart (see `comparing`): save three runs under one name, and compare a
run with `--count 3` of pytest-repeat.

Reports have the `user_properties` `instrument_operations`, `instrument_seconds`,
`instrument_tokens` and `instrument_cost_usd`, for JUnit XML, where a test made tracked calls and
they are known.
"""

from __future__ import annotations

import argparse
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from instrument.pytest_plugin import baseline_options

if TYPE_CHECKING:
    from instrument.pytest_plugin.live import TestUsage
    from instrument.pytest_plugin.recording import Recording
    from instrument.testing import CapturedOperations

__all__ = ["capture_operations", "is_on", "usage"]

_RECORDING = "instrument-recording"
_MARKER = (
    "budget(tokens=, usd=, seconds=, operations=): fail the test if its tracked calls use more; "
    "seconds are those inside of tracked calls"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, none of which does anything by being there."""
    group = parser.getgroup("instrument", "what tests call, use and cost")
    group.addoption(
        "--instrument",
        action="store_true",
        default=False,
        help="record the run as one session, each test as an operation, and sum it up",
    )
    group.addoption(
        "--instrument-dir",
        metavar="DIR",
        help="the log directory of the run (default: the configured one)",
    )
    group.addoption(
        "--instrument-top",
        metavar="N",
        type=_number,
        default=5,
        help="how many tests each table of the summary shows (default: 5)",
    )
    group.addoption(
        "--instrument-json",
        metavar="FILE",
        help="write what each test came to as JSON; switches --instrument on",
    )
    baseline_options.add_options(group)
    parser.addini("instrument", "record each run, as --instrument does", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Start recording if the run is asked to."""
    config.addinivalue_line("markers", _MARKER)
    if baseline_options.is_asked(config) and not hasattr(config, "workerinput"):
        baseline_options.set_up(config)
    if is_on(config) and not config.getoption("collectonly", False):
        _register(config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail the collection of what has a budget that cannot be one."""
    report = yield
    mistakes = _mistakes_in(report.result) if report.outcome == "passed" else []
    if mistakes:
        report.outcome = "failed"
        report.longrepr = "\n".join(mistakes)
        report.result = []
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start recording if a test asks for it; markers may have been added since it was collected."""
    mistakes = _mistakes_in(items)
    if mistakes:
        raise pytest.UsageError("\n".join(mistakes))
    if config.getoption("collectonly", False) or config.pluginmanager.has_plugin(_RECORDING):
        return
    if any(map(_asks, items)):
        _register(config).begin()


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Warn of a budget that a test got too late for it to be checked."""
    if not item.config.pluginmanager.has_plugin(_RECORDING) and any(item.iter_markers("budget")):
        from instrument.pytest_plugin.unchecked import warn_of_budget  # of few runs

        warn_of_budget(item)


def is_on(config: pytest.Config) -> bool:
    """Tell whether this run was asked to be recorded, here or on the controller of pytest-xdist."""
    if hasattr(config, "workerinput"):
        return "instrument" in config.workerinput
    asked = (config.getoption(name) for name in ("instrument", "instrument_json"))
    return any(asked) or baseline_options.is_asked(config) or bool(config.getini("instrument"))


@pytest.fixture
def capture_operations() -> Iterator[CapturedOperations]:
    """The operations of this test, in a log of its own: nothing reaches the real one."""
    from instrument.testing import capture  # loaded by the tests that use it alone

    with capture() as captured:
        yield captured


@pytest.fixture
def usage(request: pytest.FixtureRequest) -> TestUsage:
    """What this test has called and used so far: the attributes of `SessionStats`, `operations`."""
    recording: Recording | None = request.config.pluginmanager.get_plugin(_RECORDING)
    if recording is None:
        pytest.fail("usage: name it among the test's arguments, or run with --instrument")
    return recording.usage()


def _mistakes_in(collected: Sequence[pytest.Item | pytest.Collector]) -> list[str]:
    items = [each for each in collected if isinstance(each, pytest.Item)]
    if not items:
        return []
    from instrument.pytest_plugin.limits import mistakes_in  # by the runs alone that have tests

    return mistakes_in(items)


def _asks(item: pytest.Item) -> bool:
    if any(item.iter_markers("budget")):
        return True
    if "usage" not in getattr(item, "fixturenames", ()):
        return False
    from instrument.pytest_plugin.asking import uses_ours  # of few runs

    return uses_ours(item)


def _register(config: pytest.Config) -> Recording:
    from instrument.pytest_plugin.recording import Recording  # it loads the recorder

    recording = Recording(config, is_on=is_on(config))
    config.pluginmanager.register(recording, _RECORDING)
    return recording


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: use a number from 0")
    return int(text)
