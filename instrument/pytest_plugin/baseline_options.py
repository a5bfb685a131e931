"""`--instrument-save`, `-compare`, `-fail` and `-markdown`: what a run asks of baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["add_options", "is_asked", "set_up"]


def add_options(group: pytest.OptionGroup) -> None:
    """Add the options to those of the plugin."""
    group.addoption(
        "--instrument-save",
        metavar="NAME",
        help="save what each test used and how long its calls took as the baseline NAME, in "
        ".instrument/baselines; times add to those of runs before",
    )
    group.addoption(
        "--instrument-compare",
        metavar="NAME",
        help="compare with the baseline NAME",
    )
    group.addoption(
        "--instrument-fail",
        metavar="METRIC:+N%,...",
        help="fail if a test, or all together, went further beyond the baseline: "
        "tokens:+10%%,usd:+5%%,p95:+30%%; also input_tokens, output_tokens, operations, errors, "
        "seconds, p50 and p99",
    )
    group.addoption(
        "--instrument-markdown",
        metavar="FILE",
        help="write the comparison as GitHub-flavoured Markdown",
    )


def is_asked(config: pytest.Config) -> bool:
    """Tell whether the run has to do with baselines."""
    return any(config.getoption(f"instrument_{name}") is not None for name in _OPTIONS)


def set_up(config: pytest.Config) -> None:
    """Have the run saved and compared as asked; raises `pytest.UsageError` before any test."""
    # loaded by the runs that use it alone
    from instrument.pytest_plugin.baseline_run import BaselineRun

    run = BaselineRun(config)
    if not config.getoption("collectonly", False):
        config.pluginmanager.register(run, "instrument-baselines")


_OPTIONS = ("save", "compare", "fail", "markdown")
