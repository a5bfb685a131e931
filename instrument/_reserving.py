"""One budget as this process sees it: what its calls reserve before they begin, and used then.

Before a call a budget reserves what the call may take: what its request allows (`max_tokens` and
the like, in the metadata or seen by our own patch of a client), else what calls of its kind took on
average, else a hundredth of the limit. When it has ended, what it used takes the reservation's
place.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from instrument import _config
from instrument._account import internal_error
from instrument._config import Settings
from instrument._guard import belongs_to_program
from instrument._ledger import Ledger
from instrument._ledger_records import (
    NOTHING,
    Amounts,
    Header,
    Held,
    Kind,
    State,
    cut,
    name_of,
)
from instrument._spending import BILLION, budget_of, limits_of, spenders, spent_of
from instrument.budget import (
    METRICS,
    Budget,
    BudgetExceeded,
    BudgetUnavailable,
)
from instrument.operation import Operation, OperationLine
from instrument.pricing import Pricing
from instrument.recorder import warn_once

__all__ = ["Account", "Given", "Reservation", "ledger_in", "not_told"]

_HINTS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""What requests call the largest number of tokens that the response may have."""

_OF_UNKNOWN = 100
_PRICED_KEPT = 1024


class Reservation(Struct, frozen=True, gc=False):
    """What one operation holds of one budget. `is_inside`: of a call whose time counts already.

    `number` is what its ledger calls it, `model` the one that was given before the call.
    """

    account: Account
    number: int
    held: Held
    is_inside: bool
    model: str | None = None


Given = tuple[Path, Budget | None, str, str | None, str | None]


class Account:
    """One budget, in one ledger, as this process sees it.

    `budget` is `None` where another process gave it: its ledger says what it is, but for what is
    done on excess where that process, in `how`, says otherwise than whoever made the ledger.
    """

    def __init__(
        self,
        directory: Path,
        budget: Budget | None,
        name: str,
        session_id: str | None,
        opening: Callable[[], Header] | None,
        settings: Settings,
        how: str | None = None,
    ) -> None:
        self.directory = directory
        self.name = name
        self.session_id = session_id
        self.ends_at: datetime | None = None
        self._given = budget
        self._how = how
        self.ledger = ledger_in(directory, opening, fsync=settings.durability == "fsync")
        self._own_prices = settings.prices
        self._pricing: Pricing | None = None
        self._models: dict[tuple[str, str], str] = {}
        self._priced: set[tuple[str, str | None]] = set()
        self._counts_calls_alone = False
        self._limits: tuple[int, ...] = ()
        # of tokens, billionths of a dollar and nanoseconds; 0: there is none
        self._limit: Held = NOTHING
        self._is_open = False

    def open(self) -> Ledger:
        """See to it that the ledger is there, with the limits of now; raises `OSError`."""
        ledger = self.ledger
        if not self._is_open:
            ledger.open()
            if self._given is None:
                header = ledger.header()
                self.name, self.session_id = header.name, header.session_id
                self._given = budget_of(header, self._how)
            else:
                ledger.limit(limits_of(self._given))
            self._follow(ledger.open())
            self._is_open = True
        return ledger

    def _follow(self, state: State) -> None:
        """Go by the limits that hold now, which another process may have changed."""
        assert self._given is not None
        header = self.ledger.header().limited(state.limits)
        told: dict[str, Any] = {**budget_of(header).limits(), "per": self._given.per}
        told["on_exceed"] = self._given.on_exceed
        self._given = Budget(**told)
        _, tokens, nanodollars, nanoseconds = header.limits
        self._limit = tokens or 0, nanodollars or 0, nanoseconds or 0
        self._counts_calls_alone = self._limit == NOTHING
        self._limits = state.limits

    @property
    def budget(self) -> Budget:
        """The budget; of one whose ledger cannot be read, one that refuses."""
        if self._given is None:
            return _UNREADABLE_WARNING if self._how == "warn" else _UNREADABLE
        return self._given

    def given(self) -> Given:
        """Return what another process makes the same account of."""
        return self.directory, self._given, self.name, self.session_id, self._how

    def named(self) -> str:
        """Return what a child process makes it of: its place, and what is done on excess.

        The latter is left out where it is to raise, as the ledger says. A callable cannot go
        there: raise.
        """
        place, how = quote(str(self.directory)), self._how
        if self._given is not None:
            how = "warn" if self._given.on_exceed == "warn" else "raise"
        if how == "raise":
            with suppress(OSError):  # told at the first call
                how = None if self.ledger.header().on_exceed != "warn" else how
        return place if how is None else f"{place}?{how}"

    def reserve(self, operation: Any) -> Reservation | None:
        """Reserve for an operation; `None` where it goes on without. Raises what `admit` does."""
        held, unpriced = NOTHING, None
        problem: BudgetExceeded | BudgetUnavailable
        try:
            ledger = self.ledger if self._is_open else self.open()
            state = ledger.now().state
            if state.limits is not self._limits:
                self._follow(state)
            parent = operation.parent
            is_inside = parent is not None and _holds(parent, self)
            if not self._counts_calls_alone:
                held, unpriced = self._expected(operation, state, is_inside=is_inside)
            number = ledger.reserve(held) if unpriced is None else None
            if number is not None:
                return Reservation(self, number, held, is_inside, operation.model)
            problem = self._excess(held, operation, unpriced)
        except OSError as error:
            if belongs_to_program(error):
                raise
            held, problem = NOTHING, _unavailable(self.name, error)
        except Exception as error:  # our own defect, which must not let everything pass
            if belongs_to_program(error):
                raise
            internal_error()
            held, problem = NOTHING, _defect(self.name, error)
        self._stop(operation, problem)
        return self._anyway(operation, held)

    def withdraw(self, one: Reservation) -> None:
        """Give back what an operation holds: it never started."""
        self.ledger.give_back(one.number, one.held)

    def charge(self, line: OperationLine) -> None:
        """Count an operation that nobody was asked about before."""
        number = self.open().reserve_anyway(NOTHING)
        self.settle(Reservation(self, number, NOTHING, False, line.model), line)

    def settle(self, one: Reservation, line: OperationLine) -> None:
        """Put what an operation used in the place of what it reserved.

        What a response used that does not say it, or cost that nobody can price, stays reserved.
        """
        held, tokens = one.held, line.tokens
        is_silent = tokens is None and line.success and line.usage_operation_id is None
        is_silent = is_silent and (line.provider is not None or line.model != one.model)
        cost = held[1] if is_silent else self._cost(line)
        seconds = line.duration_seconds if line.active_seconds is None else line.active_seconds
        used = (
            held[0] if is_silent else tokens or 0,
            held[1] if cost is None else cost,
            0 if one.is_inside else int(seconds * BILLION),
        )
        service, operation, model = line.service, line.operation, line.model
        if model is not None:
            self._models[service, operation] = model
        name = name_of(service, operation, model)
        unpriced = int(cost is None or is_silent)
        self.ledger.settle(one.number, held, used, name, unpriced=unpriced)

    def _anyway(self, operation: Any, held: Held) -> Reservation | None:
        """Count an operation that goes on although it does not fit."""
        try:
            number = self.open().reserve_anyway(held)
        except OSError as error:  # said before, as on_exceed= wants it
            if belongs_to_program(error):
                raise
            return None
        is_inside = _holds(operation.parent, self)
        return Reservation(self, number, held, is_inside, operation.model)

    def _stop(self, operation: Any, problem: BudgetExceeded | BudgetUnavailable) -> None:
        """Do what the budget wants done on excess: raise, warn once, or ask the program."""
        how = self.budget.on_exceed
        if how == "raise":
            raise problem
        if how == "warn":
            once = f"{type(problem).__name__} of {self.directory}"
            warn_once(once, f"{problem}; the call goes on")
        elif callable(how):
            operation.recorder.muted(how, problem)

    def _expected(
        self, operation: Any, state: State, *, is_inside: bool
    ) -> tuple[Held, str | None]:
        """Return what an operation may take of what is limited, or the model without a price."""
        site = operation.site
        service, name = site.service, site.operation
        model = operation.model or self._models.get((service, name))
        kind = state.kinds.get(name_of(service, name, model).number)
        if kind is None and model is None:
            kind = _any_model(state, service, name)
            model = None if kind is None else kind.model
        of_tokens, of_nanodollars, of_nanoseconds = self._limit
        is_priced = not of_nanodollars or (kind is not None and kind.nanodollars)
        if not is_priced and (service, model) not in self._priced:
            unpriced = self._without_price(operation, state)
            if unpriced is not None:
                return NOTHING, unpriced
        noted = operation.noted
        hint = operation.allowed or (_hint(noted) if noted else 0)
        if kind is None or hint or kind.operations == kind.unpriced:
            return self._estimate(service, model, state, kind, hint, is_inside=is_inside), None
        count = kind.operations
        return (
            -(-kind.tokens // count) if of_tokens else 0,
            -(-kind.nanodollars // (count - kind.unpriced)) if of_nanodollars else 0,
            -(-kind.nanoseconds // count) if of_nanoseconds and not is_inside else 0,
        ), None

    def _estimate(
        self,
        service: str,
        model: str | None,
        state: State,
        kind: Kind | None,
        hint: int,
        *,
        is_inside: bool,
    ) -> Held:
        """Return the same where the request says something, or the kind is not known well."""
        of_tokens, of_nanodollars, of_nanoseconds = self._limit
        tokens = nanodollars = nanoseconds = 0
        if of_tokens:
            tokens = max(hint, _mean(state, kind, "tokens", 0 if hint else of_tokens))
        if of_nanodollars:
            hinted = self._price_of(service, model, hint) if hint else 0
            mean = _mean(state, kind, "nanodollars", 0 if hinted else of_nanodollars)
            nanodollars = max(hinted, mean)
        if of_nanoseconds and not is_inside:
            nanoseconds = _mean(state, kind, "nanoseconds", of_nanoseconds)
        return tokens, nanodollars, nanoseconds

    def _prices(self) -> Pricing:
        if self._pricing is None:
            self._pricing = Pricing(self._own_prices)
        return self._pricing

    def _without_price(self, operation: Any, state: State) -> str | None:
        """Return the model that would be called, if nobody has a price for it.

        Where it is not known which one will answer, all that did before have to be without.
        """
        service, name = operation.site.service, operation.site.operation
        kinds = [one for one in state.kinds.values() if one.operations and one.model is not None]
        if operation.model is not None:
            same = [one for one in kinds if one.model == operation.model]
            return None if self._may_cost(service, operation.model, same) else operation.model
        same = [one for one in kinds if (one.service, one.operation) == (service, name)]
        if not same or any(self._may_cost(service, one.model or "", [one]) for one in same):
            return None
        return same[-1].model

    def _may_cost(self, service: str, model: str, kinds: list[Kind]) -> bool:
        """Tell whether a model has a price, in a list or given with its calls so far."""
        if self._prices().may_price(service, model):
            if len(self._priced) < _PRICED_KEPT:
                self._priced.add((service, model))
            return True
        return any(one.nanodollars for one in kinds)

    def _price_of(self, service: str, model: str | None, output_tokens: int) -> int:
        if model is None:
            return 0
        call = Operation(
            timestamp=_config.now(),
            session_id="",
            service=service,
            operation="",
            model=model,
            tokens=output_tokens,
            input_tokens=0,
            output_tokens=output_tokens,
        )
        found = self._prices().priced(call)
        return 0 if found is None else _nanodollars(found[0])

    def _cost(self, line: OperationLine) -> int | None:
        """Return the cost in billionths of a dollar, rounded up; `None` where it is not known."""
        if line.cost_usd is not None:
            return _nanodollars(line.cost_usd)
        if line.tokens is None or not self._limit[1]:
            return 0
        found = self._prices().priced(_as_read(line))
        return None if found is None else _nanodollars(found[0])

    def _excess(self, held: Held, operation: Any, unpriced: str | None) -> BudgetExceeded:
        self.ledger.mark(operation.session.id)
        state = self.ledger.caught_up()
        short = state.lacks(*held)
        # another call may have made room meanwhile
        metric = self._tightest(state) if short is None else METRICS[short]
        if unpriced is not None:
            metric = "usd"
        return BudgetExceeded(
            self.budget,
            self.name,
            metric,
            spent_of(state),
            reserve=getattr(spent_of(Amounts(1, *held)), metric),
            by=spenders(state, metric),
            session_id=self.session_id,
            model=unpriced,
            resets_at=self.ends_at,
        )

    def _tightest(self, state: State) -> str:
        limits, spent = self.budget.limits(), spent_of(state)
        shares = {name: getattr(spent, name) / limit for name, limit in limits.items() if limit}
        return max(shares, key=shares.__getitem__)


def not_told(account: Account, error: OSError) -> None:
    """Say that a ledger could not be told how it ended; what was reserved stays spent there."""
    if belongs_to_program(error):
        raise error
    warn_once(f"budget in {account.directory}", str(_unavailable(account.name, error)))


def _unavailable(name: str, error: OSError) -> BudgetUnavailable:
    where = error.filename or ""
    return BudgetUnavailable(
        f"budget {name!r}: {error.strerror or error} {where}".rstrip()
        + "; see to it that the log directory can be written, or do without budgets there"
    )


def _nanodollars(dollars: float) -> int:
    return math.ceil(min(dollars, _DEAREST) * BILLION)


def _defect(name: str, error: Exception) -> BudgetUnavailable:
    return BudgetUnavailable(f"budget {name!r}: {error!r}; this is a defect of instrument")


def _holds(parent: Any, account: Account) -> bool:
    """Tell whether an operation holds something of this budget."""
    reserved = () if parent is None else parent.reserved or ()
    return any(one.account.ledger is account.ledger for one in reserved)


def _any_model(state: State, service: str, operation: str) -> Kind | None:
    """Return what calls came to of which it is not known which model will answer."""
    same = (cut(service), cut(operation))
    kinds = state.kinds.values()
    return next((one for one in kinds if (one.service, one.operation) == same), None)


def _mean(state: State, kind: Kind | None, metric: str, limit: int) -> int:
    """Return what a call of a kind takes on average, rounded up; of an unknown kind, of any."""
    if kind is not None and (count := _known(kind, metric)):
        return -(-int(getattr(kind, metric)) // count)
    known = [one for one in state.kinds.values() if getattr(one, metric)]
    count = sum(_known(one, metric) for one in known)
    if count:
        return -(-sum(int(getattr(one, metric)) for one in known) // count)
    return -(-limit // _OF_UNKNOWN)


def _known(kind: Kind, metric: str) -> int:
    """Return of how many operations it is known how much they took."""
    return kind.operations - (kind.unpriced if metric == "nanodollars" else 0)


def _hint(noted: Any) -> int:
    """Return the largest number of tokens that the caller says the response may have, or 0."""
    for name in _HINTS:
        value = noted.get(name)
        if type(value) is int and value > 0:
            return value
    return 0


def _as_read(line: OperationLine) -> Operation:
    """Return the operation as the log would give it, as far as its price goes."""
    return Operation(
        timestamp=datetime.fromisoformat(line.timestamp),
        session_id=line.session_id,
        service=line.service,
        operation=line.operation,
        tokens=line.tokens,
        metadata=line.metadata or {},
        provider=line.provider,
        model=line.model,
        input_tokens=line.input_tokens,
        output_tokens=line.output_tokens,
        cache_read_tokens=line.cache_read_tokens,
        cache_write_tokens=line.cache_write_tokens,
        reasoning_tokens=line.reasoning_tokens,
        kind=line.kind,
    )


def ledger_in(directory: Path, opening: Callable[[], Header] | None, *, fsync: bool) -> Ledger:
    """Return the one ledger of this process for a directory."""
    found = _ledgers.get(str(directory))
    if found is None:
        found = _ledgers[str(directory)] = Ledger(directory, opening, fsync=fsync)
    elif opening is not None:
        found.opening = opening
    return found


_DEAREST = 1e9
_UNREADABLE = Budget(operations=1)
_UNREADABLE_WARNING = Budget(operations=1, on_exceed="warn")
_ledgers: weakref.WeakValueDictionary[str, Ledger] = weakref.WeakValueDictionary()
