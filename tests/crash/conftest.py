"""One zygote for all tests, one seed, and what the kills came to, at the end of pytest's output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from killing import SEED
from zygote import Zygote

_KILLS: Counter[str] = Counter()


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with Zygote() as process:
        yield process


@pytest.fixture
def kills() -> Counter[str]:
    return _KILLS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _KILLS:
        by_scenario = ", ".join(f"{count} {name}" for name, count in _KILLS.items())
        terminalreporter.write_line(
            f"{_KILLS.total()} kills ({by_scenario}); INSTRUMENT_CRASH_SEED={SEED}"
        )
