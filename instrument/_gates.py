"""Budgets at work: what is asked before an operation begins, and told when it has ended.

Before a call each budget reserves what the call may take: what its request allows (`max_tokens` and
the like, in the metadata or seen by our own patch of a client), else what calls of its kind took on
average, else a hundredth of the limit. When it has ended, what it used takes the reservation's
place.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from msgspec import Struct
from msgspec.structs import replace

from instrument import _config
from instrument._account import internal_error
from instrument._config import Settings
from instrument._guard import belongs_to_program
from instrument._ledger import (
    LONGEST_NAME,
    NOTHING,
    Amounts,
    Header,
    Held,
    Kind,
    Ledger,
    State,
    cut,
    name_of,
    number_of,
    remove_ledger,
)
from instrument._spending import BILLION, budget_of, limits_of, spenders, spent_of
from instrument.budget import (
    METRICS,
    Budget,
    BudgetExceeded,
    BudgetUnavailable,
    ledgers_in,
    window,
)
from instrument.errors import InstrumentError
from instrument.operation import Operation, OperationLine
from instrument.pricing import Pricing
from instrument.recorder import warn_once

__all__ = ["NamedGate", "SessionGate", "directory_of_session", "noted_of_session", "told_in"]

HINTS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
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


_Given = tuple[Path, Budget | None, str, str | None, str | None]


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
        self.ledger = _ledger(directory, opening, fsync=settings.durability == "fsync")
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

    def given(self) -> _Given:
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


class Gate:
    """Asks the accounts of some budgets. `operation.reserved` is what an operation holds of all."""

    _accounts: tuple[Account, ...] = ()  # where they are always the same

    def accounts(self, moment_ns: int) -> Iterable[Account]:
        """Return the accounts of a call that begins then (Unix time)."""
        return self._accounts

    def admit(self, operation: Any) -> None:
        """Reserve for an operation, or raise `BudgetExceeded` or `BudgetUnavailable`.

        Or what `on_exceed=` raises. Then nothing of it is reserved.
        """
        held = operation.reserved
        if held is None:
            held = operation.reserved = []
        try:
            for account in self._accounts or self.accounts(operation.started_ns):
                reservation = account.reserve(operation)
                if reservation is not None:
                    held.append(reservation)
        except BaseException:
            self.withdraw(operation)
            raise

    def text(self) -> str:
        """Return what `INSTRUMENT_BUDGETS` says in a child process."""
        return ""

    def open(self) -> None:
        """Make the ledgers that do not exist yet, so that other processes find them."""

    def withdraw(self, operation: Any) -> None:
        """Give back what an operation holds: it never started."""
        held, operation.reserved = operation.reserved or (), None
        for one in held:
            try:
                one.account.withdraw(one)
            except OSError as error:
                _not_told(one.account, error)

    def settle(self, operation: Any, line: Any) -> None:
        """Take note of the finished operation's `OperationLine`."""
        held, operation.reserved = operation.reserved or (), None
        for one in held:
            try:
                one.account.settle(one, line)
            except OSError as error:
                _not_told(one.account, error)

    def charge(self, line: Any) -> None:
        """Count a finished operation's `OperationLine` of which nobody asked before."""
        moment = datetime.fromisoformat(line.timestamp)
        for account in self.accounts(int(moment.timestamp() * BILLION)):
            try:
                account.charge(line)
            except OSError as error:
                _not_told(account, error)


class SessionGate(Gate):
    """Asks the budgets of a session and of the sessions around it."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        found: dict[Path, Account] = {}
        for account in accounts:
            found.setdefault(account.directory, account)
        self._accounts = tuple(found.values())

    def __reduce__(self) -> Any:
        return _rejoined, (tuple(account.given() for account in self._accounts),)

    @classmethod
    def of(
        cls,
        budget: Budget,
        session_id: str,
        name: str | None,
        around: Any,
        settings: Settings,
    ) -> SessionGate:
        """Return the gate of a session with a budget, inside of what is around it."""
        outer: tuple[Account, ...] = () if around is None else around._accounts
        directory = directory_of_session(settings.log_dir, session_id)
        shown = cut(name or session_id)
        within = tuple(str(each.directory) for each in outer if each.directory != directory)
        opening = partial(_header, budget, shown, session_id=session_id, within=within)
        account = Account(directory, budget, shown, session_id, opening, settings)
        return cls((account, *outer))

    @classmethod
    def joined(cls, told: dict[Path, str | None], around: Any, settings: Settings) -> SessionGate:
        """Return the gate of budgets that another process, or an earlier session, began.

        `told` has the directories of their ledgers, and what is done on excess (see `Account`).
        """
        accounts = [] if around is None else list(around._accounts)

        def join(directory: Path) -> None:
            how = told.get(directory)
            accounts.append(Account(directory, None, directory.name, None, None, settings, how))

        for directory in told:
            join(directory)
            with suppress(OSError):  # told at the first call
                for each in _ledger(directory, None, fsync=False).header().within:
                    join(Path(each))
        return cls(accounts)

    @classmethod
    def inherited(cls, told: str, settings: Settings) -> SessionGate | None:
        """Return the gate of the budgets that `INSTRUMENT_BUDGETS` names."""
        found = told_in(told)
        return cls.joined(found, None, settings) if found else None

    def open(self) -> None:
        """Make the ledgers that do not exist yet, so that other processes find them."""
        for account in self._accounts:
            with suppress(OSError):  # told at the first call
                account.open()

    def text(self) -> str:
        """Return what `INSTRUMENT_BUDGETS` says in a child process."""
        return os.pathsep.join(each.named() for each in self._accounts)


class NamedGate(Gate):
    """Asks the budgets of `configure(budgets=...)`, which are over everything in the log."""

    def __init__(self, settings: Settings) -> None:
        budgets = settings.budgets or {}
        self._named = [_Renewed(name, budget, settings) for name, budget in budgets.items()]

    def accounts(self, moment_ns: int) -> Iterable[Account]:
        return [one.account(moment_ns) for one in self._named]


class _Renewed:
    """A named budget, whose account is another one in each of its periods."""

    def __init__(self, name: str, budget: Budget, settings: Settings) -> None:
        self._name = name
        self._budget = budget
        self._settings = settings
        self._account: Account | None = None
        self._until_ns = 0

    def account(self, moment_ns: int) -> Account:
        found = self._account
        if found is None or moment_ns >= self._until_ns:
            moment = datetime.fromtimestamp(moment_ns / BILLION, UTC)
            since, until = window(self._budget.per, moment)
            found = self._new(since)
            found.ends_at = until
            self._account = found
            self._until_ns = 1 << 62 if until is None else int(until.timestamp()) * BILLION
        return found

    def _new(self, since: datetime | None) -> Account:
        # of other kinds of limits, or of another period, another one, which the log is read for
        kinds = "".join(name[0] for name, limit in self._budget.limits().items() if limit)
        prefix = f"name-{quote(self._name, safe='')}@{self._budget.per or 'always'}-{kinds}@"
        began = "begun" if since is None else f"{since:%Y-%m-%dT%H%M}"
        directory = ledgers_in(self._settings.log_dir) / f"{prefix}{began}"
        opening = partial(self._opening, since, prefix, directory)
        return Account(directory, self._budget, self._name, None, opening, self._settings)

    def _opening(self, since: datetime | None, prefix: str, directory: Path) -> Header:
        """Begin with what is in the log of this period already."""
        _remove_older(directory, prefix)
        spent, kinds = _in_log(self._settings.log_dir, since, seconds=self._budget.seconds)
        return replace(_header(self._budget, self._name, since=since), spent=spent, kinds=kinds)


def told_in(text: str) -> dict[Path, str | None]:
    """Return the ledgers that a gate's `text` names, and what it says is done on excess."""
    parts = (each.partition("?") for each in text.split(os.pathsep))
    found = {Path(unquote(place)): how for place, _, how in parts}
    return {path: how or None for path, how in found.items() if path.is_absolute()}


def directory_of_session(log_dir: Path, session_id: str) -> Path:
    """Return where the ledger of a session's budget is."""
    return ledgers_in(log_dir) / f"session-{_file_name(session_id)}"


def noted_of_session(log_dir: Path, session_id: str) -> Path:
    """Return where it is noted which budgets a session without its own is inside of."""
    return ledgers_in(log_dir) / f"within-{_file_name(session_id)}"


def _file_name(session_id: str) -> str:
    """Return what a session's files are called behind a prefix, for an id may be two dots."""
    name = quote(session_id, safe="")
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}-{number_of(session_id, '', None)}"
    return name


def _header(
    budget: Budget,
    name: str,
    *,
    session_id: str | None = None,
    since: datetime | None = None,
    within: tuple[str, ...] = (),
) -> Header:
    how = budget.on_exceed if isinstance(budget.on_exceed, str) else "call"
    return Header(
        name=name,
        session_id=session_id,
        per=budget.per,
        since=None if since is None else since.isoformat(),
        on_exceed=how,
        within=within,
        limits=limits_of(budget),
    )


def _in_log(
    log_dir: Path, since: datetime | None, *, seconds: float | None
) -> tuple[Amounts, dict[str, Kind]]:
    """Return what the operations in the log since then came to, raising `OSError` alone.

    Of seconds, those of operations that are in no other.
    """
    from instrument.log import UsageLog  # the read path, once a period

    try:
        log = UsageLog(log_dir)
        rows = log.summary(("service", "operation", "model"), since=since)
        outermost = (
            log.sql(_OUTERMOST, [since or _EARLIEST, _TEST_RUNS]).fetchall() if seconds else [(0,)]
        )
    except InstrumentError as error:
        raise OSError(str(error)) from error
    kinds = {
        name_of(row.service or "", row.operation or "", row.model).number: Kind(
            row.service or "",
            row.operation or "",
            row.model,
            row.operation_count,
            row.total_tokens,
            int((row.cost_usd or 0) * BILLION),
            int(row.total_duration_seconds * BILLION),
            int(row.total_tokens > 0 and row.cost_usd is None),
        )
        for row in rows
        if row.service != _TEST_RUNS
    }
    spent = Amounts(
        sum(kind.operations for kind in kinds.values()),
        sum(kind.tokens for kind in kinds.values()),
        sum(kind.nanodollars for kind in kinds.values()),
        int((outermost[0][0] or 0) * BILLION),
    )
    return spent, kinds


def _remove_older(directory: Path, prefix: str) -> None:
    """Remove the ledgers of periods that are over, but for the last one before this."""
    with suppress(OSError):
        older = sorted(
            name
            for name in os.listdir(directory.parent)
            if name.startswith(prefix) and name < directory.name
        )
        for name in older[:-1]:
            remove_ledger(directory.parent / name)


def _not_told(account: Account, error: OSError) -> None:
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
    for name in HINTS:
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


def _ledger(directory: Path, opening: Callable[[], Header] | None, *, fsync: bool) -> Ledger:
    """Return the one ledger of this process for a directory."""
    found = _ledgers.get(str(directory))
    if found is None:
        found = _ledgers[str(directory)] = Ledger(directory, opening, fsync=fsync)
    elif opening is not None:
        found.opening = opening
    return found


def _rejoined(given: tuple[_Given, ...]) -> SessionGate:
    settings = _config.settings()
    return SessionGate(
        Account(directory, budget, name, session_id, None, settings, how)
        for directory, budget, name, session_id, how in given
    )


# what the pytest plugin records of tests and their phases, which are nobody's calls
_TEST_RUNS = "pytest"
_DEAREST = 1e9
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_OUTERMOST = (
    "select sum(duration_seconds) from operations where parent_id is null and timestamp >= $1"
    " and service <> $2"
)
_UNREADABLE = Budget(operations=1)
_UNREADABLE_WARNING = Budget(operations=1, on_exceed="warn")
_ledgers: weakref.WeakValueDictionary[str, Ledger] = weakref.WeakValueDictionary()
