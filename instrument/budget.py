"""`Budget`: what a session, or everything in a log, may cost; and what is raised beyond it."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NoReturn

from msgspec import Struct

from instrument.errors import (
    ConfigurationError,
    ConfigurationTypeError,
    InstrumentError,
    reject_unknown,
)

__all__ = [
    "METRICS",
    "Budget",
    "BudgetExceeded",
    "BudgetState",
    "BudgetUnavailable",
    "Spender",
    "Spent",
    "ledgers_in",
    "shown_amount",
    "shown_number",
    "window",
]

Period = Literal["minute", "hour", "day", "week", "month"]
Excess = Callable[["BudgetExceeded | BudgetUnavailable"], object]
OnExceed = Literal["raise", "warn"] | Excess

METRICS: tuple[str, ...] = ("operations", "tokens", "usd", "seconds")
"""What a budget can limit, in the order in which it is looked at."""

_PERIODS = ("minute", "hour", "day", "week", "month")
_ACCEPTED = "tokens, usd, seconds, operations, per or on_exceed"
_LARGEST = 10**15


class Budget:
    """What may be spent before the next call is refused: `Budget(usd=5, operations=1_000)`.

    - `tokens`: input and output tokens; `usd`: US dollars; `operations`: tracked calls that
      started, also those that failed; `seconds`: time inside of tracked calls, summed over all
      that run at once, with calls inside of calls counted once.
    - `per`: `minute`, `hour`, `day`, `week` (from Monday) or `month`, in UTC: the budget is new
      with each; for budgets of `configure(budgets=...)`.
    - `on_exceed`: `raise` (`BudgetExceeded`, before the call), `warn` (once, and the call goes
      on), or a callable that is given the `BudgetExceeded` and lets the call go on by returning.
      The same with `BudgetUnavailable`, where the ledger cannot be read or written. Processes
      that are started with a session's `env()` do the same, but raise for a callable, which
      cannot go there; those of `multiprocessing` and executors have it if it pickles.

    At least one limit; all of them hold. A budget is immutable and may be used more than once.
    Where nothing is recorded (`INSTRUMENT_DISABLED`, `enabled=False`) nothing is refused. The
    processes that share one are those of one host; a session whose id came in a header
    (`extract`) is in no budget but those that are around it here.

    A call reserves what its request allows, else what calls of its kind took on average; of an
    unknown kind, what any call took, and before any has ended, a hundredth of the limit.
    Raises `ConfigurationError` (a `ValueError`; for wrong types also a `TypeError`).
    """

    __slots__ = ("on_exceed", "operations", "per", "seconds", "tokens", "usd")

    on_exceed: OnExceed
    operations: int | None
    per: Period | None
    seconds: float | None
    tokens: int | None
    usd: float | None

    def __init__(
        self,
        *,
        tokens: int | None = None,
        usd: float | None = None,
        seconds: float | None = None,
        operations: int | None = None,
        per: Period | None = None,
        on_exceed: OnExceed = "raise",
        **unknown: NoReturn,
    ) -> None:
        reject_unknown("Budget", dict(unknown), _ACCEPTED)
        put = object.__setattr__
        put(self, "tokens", _count("tokens", tokens))
        put(self, "usd", _amount("usd", usd, "US dollars"))
        put(self, "seconds", _amount("seconds", seconds, "seconds"))
        put(self, "operations", _count("operations", operations))
        put(self, "per", _period(per))
        put(self, "on_exceed", _on_exceed(on_exceed))
        if all(limit is None for limit in self.limits().values()):
            raise ConfigurationError("Budget()", None, f"at least one of {', '.join(METRICS)}")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a Budget cannot be changed: make another one, with {name}={value!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Budget cannot be changed: make another one without {name}")

    def __repr__(self) -> str:
        said: dict[str, Any] = {**self.limits(), "per": self.per}
        if self.on_exceed != "raise":
            said["on_exceed"] = self.on_exceed
        shown = (f"{name}={value!r}" for name, value in said.items() if value is not None)
        return f"Budget({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Budget):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> Any:
        told: dict[str, Any] = {**self.limits(), "per": self.per, "on_exceed": _portable(self)}
        return _budget, (told,)

    def limits(self) -> dict[str, float | None]:
        """Return the limit of each of `METRICS`; `None`: there is none."""
        return {
            "operations": self.operations,
            "tokens": self.tokens,
            "usd": self.usd,
            "seconds": self.seconds,
        }

    def _key(self) -> tuple[Any, ...]:
        return (*self.limits().values(), self.per, self.on_exceed)


class Spent(Struct, frozen=True, kw_only=True):
    """What was spent of each kind: calls that ended as they came to, calls that run as reserved."""

    operations: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0


class Spender(Struct, frozen=True, kw_only=True):
    """What the calls of one operation to one model came to that have ended."""

    service: str
    operation: str
    model: str | None = None
    operations: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0


class BudgetState(Struct, frozen=True, kw_only=True):
    """How a budget stands: of a session, or (`session_id` is `None`) a named one over the log.

    `limits` has the limit of each of `METRICS` or `None`; `spent` includes what running calls have
    reserved, and what calls had reserved whose process died. `by` is what calls came to that have
    ended. `since` and `until` bound the period of a budget that has one (aware, UTC). A call of
    each of `refused_sessions` was refused.
    """

    name: str
    session_id: str | None = None
    per: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    on_exceed: str = "raise"
    limits: dict[str, float | None]
    spent: Spent
    refused_count: int = 0
    refused_sessions: tuple[str, ...] = ()
    by: tuple[Spender, ...] = ()


class BudgetExceeded(InstrumentError, RuntimeError):  # noqa: N818 - the contract's name
    """A call was refused, before it was made: it does not fit into a budget.

    `budget` is the `Budget`, `name` its name (or the session's, else its id), `session_id` the
    session it belongs to (`None`: it is one of `configure(budgets=...)`). `metric` is the one of
    `METRICS` that does not fit, `limit` what it allows, `spent` what was `Spent` of all of them,
    `reserve` what the call would have reserved of it, `by` who spent it, a tuple of `Spender`,
    the largest first. `model` is set where a budget in dollars refuses a model without a price.
    `resets_at` is when a budget with `per` is new, aware, in UTC.
    """

    def __init__(
        self,
        budget: Budget,
        name: str,
        metric: str,
        spent: Spent,
        *,
        reserve: float = 0,
        by: tuple[Spender, ...] = (),
        session_id: str | None = None,
        model: str | None = None,
        resets_at: datetime | None = None,
    ) -> None:
        self.budget = budget
        self.name = name
        self.metric = metric
        self.spent = spent
        self.reserve = reserve
        self.by = by
        self.session_id = session_id
        self.model = model
        self.resets_at = resets_at
        super().__init__(self._unpriced() if model is not None else self._message())

    @property
    def limit(self) -> float:
        """What the budget allows of `metric`."""
        return self.budget.limits()[self.metric] or 0

    def __reduce__(self) -> Any:
        told = {
            "reserve": self.reserve,
            "by": self.by,
            "session_id": self.session_id,
            "model": self.model,
            "resets_at": self.resets_at,
        }
        return _exceeded, (self.budget, self.name, self.metric, self.spent, told)

    def _message(self) -> str:
        spent = shown_number(self.metric, getattr(self.spent, self.metric))
        text = f"budget {self.name!r}: spent {spent} of {shown_amount(self.metric, self.limit)}"
        if self.metric != "operations" and self.reserve > 0:
            text += f", and the call may take {shown_amount(self.metric, self.reserve)}"
        if self.by:
            text += f"; by {', '.join(map(self._part, self.by[:3]))}"
        held = getattr(self.spent, self.metric) - sum(getattr(one, self.metric) for one in self.by)
        if self.metric != "operations" and held > self.limit / 100:
            shown = shown_amount(self.metric, held)
            text += f"; {shown} is held for calls that run, or of which it is not known"
        if self.resets_at is not None:
            text += f"; new at {self.resets_at:%Y-%m-%dT%H:%MZ}"
        return text

    def _part(self, one: Spender) -> str:
        named = " ".join(filter(None, (one.service, one.operation, one.model)))
        return f"{named} {shown_amount(self.metric, getattr(one, self.metric))}"

    def _unpriced(self) -> str:
        return (
            f"budget {self.name!r}: model {self.model!r} has no price, which is not the same as "
            "free: give it one with configure(prices={...}), or pip install "
            "'instrument-kit[prices]' for list prices"
        )


class BudgetUnavailable(InstrumentError, OSError):  # noqa: N818 - beside BudgetExceeded
    """It cannot be told whether a call fits into a budget: its ledger cannot be read or written."""


def ledgers_in(log_dir: Path) -> Path:
    """Return the directory of a log in which the ledgers of its budgets are."""
    return log_dir / "budgets"


def window(period: Period | None, moment: datetime) -> tuple[datetime | None, datetime | None]:
    """Return when the period around `moment` began and when it ends, aware, in UTC."""
    if period is None:
        return None, None
    minute = moment.astimezone(UTC).replace(second=0, microsecond=0)
    if period == "minute":
        return minute, minute + timedelta(minutes=1)
    hour = minute.replace(minute=0)
    if period == "hour":
        return hour, hour + timedelta(hours=1)
    day = hour.replace(hour=0)
    if period == "day":
        return day, day + timedelta(days=1)
    if period == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=7)
    first = day.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


def shown_amount(metric: str, amount: float) -> str:
    """Return `1,000 tokens`, `$2.50`, `3 operations`, `12.5 seconds`."""
    number = shown_number(metric, amount)
    if metric == "usd":
        return number
    return f"{number} {metric[:-1] if number == '1' else metric}"


def shown_number(metric: str, amount: float) -> str:
    """Return the same without the unit, but for the dollar sign."""
    if metric == "usd":
        if amount == 0 or amount >= 0.995:
            return f"${amount:,.2f}"
        return f"${amount:.2f}" if amount >= 0.0995 else f"${amount:.2g}"
    if metric == "seconds":
        return f"{amount:,.1f}" if amount >= 1 or amount == 0 else f"{amount:.2g}"
    return f"{amount:,.0f}"


def _budget(said: dict[str, Any]) -> Budget:
    return Budget(**said)


def _exceeded(*told: Any) -> BudgetExceeded:
    return BudgetExceeded(*told[:-1], **told[-1])


def _portable(budget: Budget) -> OnExceed:
    """Return what another process does on excess; a callable that does not pickle stays here."""
    if isinstance(budget.on_exceed, str):
        return budget.on_exceed
    import pickle  # loaded, for this goes to another process

    try:
        pickle.dumps(budget.on_exceed)
    except Exception:  # whatever its own pickling raises
        return "raise"
    return budget.on_exceed


def _count(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationTypeError(f"Budget({name}=)", value, "a whole number above 0")
    if not 0 < value <= _LARGEST:
        raise ConfigurationError(f"Budget({name}=)", value, "a whole number from 1 to 10^15")
    return value


def _amount(name: str, value: Any, unit: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationTypeError(f"Budget({name}=)", value, f"{unit} above 0")
    if not math.isfinite(value) or not 1e-9 <= value <= 1e9:
        raise ConfigurationError(f"Budget({name}=)", value, f"{unit} above 0, up to 10^9")
    return float(value)


def _period(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise ConfigurationTypeError("Budget(per=)", value, " or ".join(_PERIODS))
    if value is not None and value not in _PERIODS:
        raise ConfigurationError("Budget(per=)", value, " or ".join(_PERIODS))
    return value


def _on_exceed(value: Any) -> OnExceed:
    accepted = "'raise', 'warn' or a callable that takes the BudgetExceeded"
    if isinstance(value, str):
        if value not in ("raise", "warn"):
            raise ConfigurationError("Budget(on_exceed=)", value, accepted)
        return value  # type: ignore[return-value]  # one of the two
    if not callable(value):
        raise ConfigurationTypeError("Budget(on_exceed=)", value, accepted)
    from inspect import iscoroutinefunction  # it loads the tokenizer

    if iscoroutinefunction(value):
        raise ConfigurationTypeError("Budget(on_exceed=)", value, f"{accepted}, and no coroutine")
    found: OnExceed = value
    return found
