"""What each test of a run came to: summary, JSON and baselines are all made of this.

Made once, at the end of the run, by the process that the user started; under pytest-xdist that is
the controller, which has the figures of all workers. `figures_of(config)` gives them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct
from msgspec.structs import asdict, replace

if TYPE_CHECKING:
    import pytest

__all__ = ["NAMELESS", "OUTCOMES", "RunFigures", "TestFigures", "figures_of", "keep_figures"]

OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
"""How a test can end, in pytest's words; `error` is a failure of setup or teardown."""

NAMELESS = "unknown"
"""What stands for the model of a call that names none."""


class TestFigures(Struct, frozen=True, kw_only=True):
    """What one test came to, over all of its attempts where a plugin ran it again.

    `operations` counts the tracked calls in setup, call and teardown; `durations` has the seconds
    of each in start order. `seconds` is the time inside of them, where a call within another
    counts once. `tokens` is `None` where no call reported any, `usd` where none has a price;
    `unpriced_models` are those of calls that used tokens and have no price. `wall_seconds` is what
    the test took in all.
    """

    __test__: ClassVar[bool] = False

    node_id: str
    outcome: str
    attempts: int = 1
    operations: int = 0
    error_count: int = 0
    tokens: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = None
    unpriced_models: tuple[str, ...] = ()
    seconds: float = 0.0
    wall_seconds: float = 0.0
    durations: tuple[float, ...] = ()
    worker: str | None = None

    def and_then(self, later: TestFigures) -> TestFigures:
        """Return what this and a later attempt at the same test came to together."""
        models = tuple(sorted({*self.unpriced_models, *later.unpriced_models}))
        return replace(
            later,
            tokens=_sum([self.tokens, later.tokens]),
            usd=_sum([self.usd, later.usd]),
            unpriced_models=models,
            **{name: getattr(self, name) + getattr(later, name) for name in _ADDED},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the same in types that cross to another process, and that JSON has."""
        lists = {"unpriced_models": list(self.unpriced_models), "durations": list(self.durations)}
        return {**asdict(self), **lists}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TestFigures:
        """Return what `to_dict` was called on."""
        tuples = {name: tuple(plain[name]) for name in ("unpriced_models", "durations")}
        return cls(**{**plain, **tuples})


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """What a run came to: the figures of each test, by node id, in the order they ended.

    `wall_seconds` is the time from the start of the run to its end.
    """

    session_id: str
    log_dir: str
    tests: dict[str, TestFigures] = field(default_factory=dict)
    wall_seconds: float = 0.0

    @property
    def operations(self) -> int:
        """How many tracked calls there were in tests."""
        return sum(each.operations for each in self.tests.values())

    @property
    def seconds(self) -> float:
        """The time inside of them."""
        return math.fsum(each.seconds for each in self.tests.values())

    @property
    def tokens(self) -> int | None:
        """The tokens that they used; `None` where none reported any."""
        total: int | None = _sum(each.tokens for each in self.tests.values())
        return total

    @property
    def usd(self) -> float | None:
        """What they cost; `None` where none has a price."""
        total: float | None = _sum(each.usd for each in self.tests.values())
        return total

    @property
    def unpriced_models(self) -> tuple[str, ...]:
        """The models that used tokens and have no price."""
        return tuple(
            sorted({each for test in self.tests.values() for each in test.unpriced_models})
        )


def figures_of(config: pytest.Config) -> RunFigures | None:
    """Return the figures of a run that is over; `None` before its end, and in a worker of xdist.

    They are there from `pytest_sessionfinish(tryfirst)` on, so for whoever implements that hook
    later, and `pytest_terminal_summary`.
    """
    found = getattr(config, _ATTRIBUTE, None)
    return found if isinstance(found, RunFigures) else None


def keep_figures(config: pytest.Config, figures: RunFigures) -> None:
    """Have `figures_of` find these."""
    setattr(config, _ATTRIBUTE, figures)


_ATTRIBUTE = "_instrument_figures"
_ADDED = (
    "attempts",
    "operations",
    "error_count",
    "input_tokens",
    "output_tokens",
    "seconds",
    "wall_seconds",
    "durations",
)


def _sum(amounts: Iterable[Any]) -> Any:
    known = [each for each in amounts if each is not None]
    return sum(known) if known else None
