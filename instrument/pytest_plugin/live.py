"""The fixture `usage`: what a test has called and used so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from instrument.operation import Operation, SessionStats
from instrument.pytest_plugin.spending import Spent

__all__ = ["TestUsage"]


class TestUsage:
    """What the tracked calls of a test have come to so far, setup included.

    Has the attributes of `SessionStats`, which are read anew each time, from the log: so what
    child processes have done counts as well. Once the test is over they stay as they are.
    """

    __test__ = False

    def __init__(self, look: Callable[[], Spent]) -> None:
        self._look = look
        self._last: Spent | None = None

    def __getattr__(self, name: str) -> Any:
        if name not in SessionStats.__struct_fields__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.stats(), name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *SessionStats.__struct_fields__})

    def __repr__(self) -> str:
        return f"<TestUsage {self.stats()}>"

    @property
    def operations(self) -> list[Operation]:
        """The calls that have ended, in start order."""
        return list(self._now().operations)

    @property
    def seconds(self) -> float:
        """The time inside of tracked calls, where a call within another counts once."""
        return self._now().seconds

    def stats(self) -> SessionStats:
        """Return all figures, from one reading."""
        return self._now().stats

    def keep(self, last: Spent) -> None:
        """Show this from now on."""
        self._last = last

    def _now(self) -> Spent:
        return self._last or self._look()
