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
from instrument._clean import whole_text
from instrument._clock import new_id
from instrument._config import Settings
from instrument._guard import belongs_to_program
from instrument._ledger import (
    NOTHING,
    Amounts,
    Header,
    Kind,
    Ledger,
    State,
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

__all__ = ["NamedGate", "SessionGate", "directory_of_session"]

HINTS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""What requests call the largest number of tokens that the response may have."""

_OF_UNKNOWN = 100
_LONGEST_NAME = 200


class Reservation(Struct, frozen=True):
    """What one operation holds of one budget. `is_inside`: of a call whose time counts already.

    `model` is the one that was given before the call.
    """

    account: Account
    ledger: Ledger
    id: str
    held: Amounts
    is_inside: bool
    model: str | None = None


class Account:
    """One budget, in one ledger, as this process sees it.

    `budget` is `None` where another process gave it: its ledger says what it is.
    """

    def __init__(
        self,
        directory: Path,
        budget: Budget | None,
        name: str,
        session_id: str | None,
        opening: Callable[[], Header] | None,
        settings: Settings,
    ) -> None:
        self.directory = directory
        self.name = name
        self.session_id = session_id
        self.ends_at: datetime | None = None
        self._given = budget
        self._ledger = _ledger(directory, opening, fsync=settings.durability == "fsync")
        self._own_prices = settings.prices
        self._pricing: Pricing | None = None
        self._models: dict[tuple[str, str], str] = {}
        self._counts_calls_alone = False
        self._limits: tuple[int, ...] = ()
        self._is_open = False

    def open(self) -> Ledger:
        """See to it that the ledger is there, with the limits of now; raises `OSError`."""
        ledger = self._ledger
        if not self._is_open:
            ledger.open()
            if self._given is None:
                header = ledger.header()
                self.name, self.session_id = header.name, header.session_id
                self._given = budget_of(header)
            else:
                ledger.limit(limits_of(self._given))
            self._follow(ledger.open())
            self._is_open = True
        return ledger

    def _follow(self, state: State) -> None:
        """Go by the limits that hold now, which another process may have changed."""
        assert self._given is not None
        header = self._ledger.header().limited(state.limits)
        told: dict[str, Any] = {**budget_of(header).limits(), "per": self._given.per}
        told["on_exceed"] = self._given.on_exceed
        self._given = Budget(**told)
        self._counts_calls_alone = header.limits[1:] == (None, None, None)
        self._limits = state.limits

    @property
    def budget(self) -> Budget:
        """The budget; of one whose ledger cannot be read, one that refuses."""
        return _UNREADABLE if self._given is None else self._given

    def given(self) -> tuple[Path, Budget | None, str, str | None]:
        """Return what another process makes the same account of."""
        return self.directory, self._given, self.name, self.session_id

    def reserve(self, operation: Any) -> Reservation | None:
        """Reserve for an operation; `None` where it goes on without. Raises what `admit` does."""
        problem: BudgetExceeded | BudgetUnavailable
        try:
            reservation, held, found = self._tried(operation)
            if reservation is not None:
                return reservation
            assert found is not None
            problem = found
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

    def charge(self, line: OperationLine) -> None:
        """Count an operation that nobody was asked about before."""
        ledger, id_ = self.open(), new_id()
        ledger.reserve(id_, 0, 0, 0, force=True)
        self.settle(Reservation(self, ledger, id_, NOTHING, False, line.model), line)

    def settle(self, one: Reservation, line: OperationLine) -> None:
        """Put what an operation used in the place of what it reserved.

        What a response used that does not say it, or cost that nobody can price, stays reserved.
        """
        is_silent = line.tokens is None and line.success and line.usage_operation_id is None
        is_silent = is_silent and (line.provider is not None or line.model != one.model)
        cost = one.held.nanodollars if is_silent else self._cost(line)
        seconds = line.duration_seconds if line.active_seconds is None else line.active_seconds
        used = Amounts(
            1,
            one.held.tokens if is_silent else line.tokens or 0,
            one.held.nanodollars if cost is None else cost,
            0 if one.is_inside else int(seconds * BILLION),
        )
        if line.model is not None:
            self._models[line.service, line.operation] = line.model
        kind = Kind(_cut(line.service), _cut(line.operation), line.model and _cut(line.model))
        one.ledger.settle(one.id, one.held, used, kind, unpriced=int(cost is None or is_silent))

    def _tried(
        self, operation: Any
    ) -> tuple[Reservation | None, Amounts, BudgetExceeded | BudgetUnavailable | None]:
        ledger = self._ledger if self._is_open else self.open()
        state = ledger.open()
        if state.limits is not self._limits:
            self._follow(state)
        is_inside = _holds(operation.parent, self)
        held = NOTHING
        if not self._counts_calls_alone:
            kind, model = self._kind(operation, state)
            if self.budget.usd is not None:
                unpriced = self._without_price(operation, state)
                if unpriced is not None:
                    excess = self._excess(ledger, NOTHING, operation, unpriced=unpriced)
                    return None, NOTHING, excess
            held = self._estimate(operation, state, kind, model, is_inside=is_inside)
        id_ = new_id()  # not the operation's, which may reserve again
        if ledger.reserve(id_, held.tokens, held.nanodollars, held.nanoseconds):
            reservation = Reservation(self, ledger, id_, held, is_inside, operation.model)
            return reservation, held, None
        return None, held, self._excess(ledger, held, operation)

    def _anyway(self, operation: Any, held: Amounts) -> Reservation | None:
        """Count an operation that goes on although it does not fit."""
        id_ = new_id()
        try:
            ledger = self.open()
            ledger.reserve(id_, held.tokens, held.nanodollars, held.nanoseconds, force=True)
        except OSError as error:  # said before, as on_exceed= wants it
            if belongs_to_program(error):
                raise
            return None
        is_inside = _holds(operation.parent, self)
        return Reservation(self, ledger, id_, held, is_inside, operation.model)

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

    def _kind(self, operation: Any, state: State) -> tuple[Kind | None, str | None]:
        """Return what calls of this kind came to so far, and the model that this one will use."""
        site = operation.site
        model = operation.model or self._models.get((site.service, site.operation))
        found = state.kinds.get(number_of(site.service, site.operation, model))
        if found is None and model is None:
            same = (site.service, site.operation)
            kinds = state.kinds.values()
            found = next((one for one in kinds if (one.service, one.operation) == same), None)
            model = None if found is None else found.model
        return (found if found is not None and found.operations else None), model

    def _estimate(
        self, operation: Any, state: State, kind: Kind | None, model: str | None, *, is_inside: bool
    ) -> Amounts:
        budget = self.budget
        tokens = nanodollars = nanoseconds = 0
        hint = operation.allowed or _hint(operation.noted)
        if budget.tokens is not None:
            tokens = max(hint, _mean(state, kind, "tokens", 0 if hint else budget.tokens))
        if budget.usd is not None:
            hinted = self._price_of(operation.site.service, model, hint)
            limit = 0 if hinted else int(budget.usd * BILLION)
            nanodollars = max(hinted, _mean(state, kind, "nanodollars", limit))
        if budget.seconds is not None and not is_inside:
            nanoseconds = _mean(state, kind, "nanoseconds", int(budget.seconds * BILLION))
        return Amounts(1, tokens, nanodollars, nanoseconds)

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
        was_given = any(one.nanodollars for one in kinds)
        return was_given or self._prices().may_price(service, model)

    def _price_of(self, service: str, model: str | None, output_tokens: int) -> int:
        if model is None or not output_tokens:
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
        if line.tokens is None or self.budget.usd is None:
            return 0
        found = self._prices().priced(_as_read(line))
        return None if found is None else _nanodollars(found[0])

    def _excess(
        self, ledger: Ledger, held: Amounts, operation: Any, *, unpriced: str | None = None
    ) -> BudgetExceeded:
        ledger.mark(operation.session.id)
        state = ledger.caught_up()
        short = state.lacks(held.tokens, held.nanodollars, held.nanoseconds)
        # another call may have made room meanwhile
        metric = self._tightest(state) if short is None else METRICS[short]
        if unpriced is not None:
            metric = "usd"
        return BudgetExceeded(
            self.budget,
            self.name,
            metric,
            spent_of(state),
            reserve=getattr(spent_of(held), metric),
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

    def accounts(self, moment_ns: int) -> Iterable[Account]:
        """Return the accounts of a call that begins then (Unix time)."""
        raise NotImplementedError

    def admit(self, operation: Any) -> None:
        """Reserve for an operation, or raise `BudgetExceeded` or `BudgetUnavailable`.

        Or what `on_exceed=` raises. Then nothing of it is reserved.
        """
        held = operation.reserved
        if held is None:
            held = operation.reserved = []
        try:
            for account in self.accounts(operation.started_ns):
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
            give_back = partial(
                one.ledger.give_back,
                one.id,
                one.held.tokens,
                one.held.nanodollars,
                one.held.nanoseconds,
            )
            _told(one.account, give_back)

    def settle(self, operation: Any, line: Any) -> None:
        """Take note of the finished operation's `OperationLine`."""
        held, operation.reserved = operation.reserved or (), None
        for one in held:
            _told(one.account, partial(one.account.settle, one, line))

    def charge(self, line: Any) -> None:
        """Count a finished operation's `OperationLine` of which nobody asked before."""
        moment = datetime.fromisoformat(line.timestamp)
        for account in self.accounts(int(moment.timestamp() * BILLION)):
            _told(account, partial(account.charge, line))


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
        shown = _cut(name or session_id)
        within = tuple(str(each.directory) for each in outer if each.directory != directory)
        opening = partial(_header, budget, shown, session_id=session_id, within=within)
        account = Account(directory, budget, shown, session_id, opening, settings)
        return cls((account, *outer))

    @classmethod
    def joined(cls, directories: Iterable[Path], around: Any, settings: Settings) -> SessionGate:
        """Return the gate of budgets that another process, or an earlier session, began."""
        accounts = [] if around is None else list(around._accounts)
        for directory in directories:
            accounts.append(Account(directory, None, directory.name, None, None, settings))
            with suppress(OSError):  # told at the first call
                accounts += [
                    Account(Path(each), None, Path(each).name, None, None, settings)
                    for each in _ledger(directory, None, fsync=False).header().within
                ]
        return cls(accounts)

    @classmethod
    def inherited(cls, told: str, settings: Settings) -> SessionGate | None:
        """Return the gate of the budgets that `INSTRUMENT_BUDGETS` names."""
        paths = [Path(unquote(each)) for each in told.split(os.pathsep) if each]
        found = [path for path in paths if path.is_absolute()]
        return cls.joined(found, None, settings) if found else None

    def accounts(self, moment_ns: int) -> Iterable[Account]:
        return self._accounts

    def open(self) -> None:
        """Make the ledgers that do not exist yet, so that other processes find them."""
        for account in self._accounts:
            with suppress(OSError):  # told at the first call
                account.open()

    def text(self) -> str:
        """Return what `INSTRUMENT_BUDGETS` says in a child process."""
        return os.pathsep.join(quote(str(each.directory)) for each in self._accounts)


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


def directory_of_session(log_dir: Path, session_id: str) -> Path:
    """Return where the ledger of a session's budget is."""
    # the prefix, too, because an id may be two dots
    name = quote(session_id, safe="")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{number_of(session_id, '', None)}"
    return ledgers_in(log_dir) / f"session-{name}"


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
        number_of(row.service or "", row.operation or "", row.model): Kind(
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


def _told(account: Account, tell: Callable[[], None]) -> None:
    """Tell a ledger how it ended; what was reserved stays spent where that cannot be told."""
    try:
        tell()
    except OSError as error:
        if belongs_to_program(error):
            raise
        warn_once(f"budget in {account.directory}", str(_unavailable(account.name, error)))


def _unavailable(name: str, error: OSError) -> BudgetUnavailable:
    where = error.filename or ""
    return BudgetUnavailable(
        f"budget {name!r}: {error.strerror or error} {where}".rstrip()
        + "; see to it that the log directory can be written, or do without budgets there"
    )


def _cut(name: str) -> str:
    """Return a name as the ledger has it."""
    return whole_text(name[:_LONGEST_NAME])


def _nanodollars(dollars: float) -> int:
    return math.ceil(min(dollars, _DEAREST) * BILLION)


def _defect(name: str, error: Exception) -> BudgetUnavailable:
    return BudgetUnavailable(f"budget {name!r}: {error!r}; this is a defect of instrument")


def _holds(parent: Any, account: Account) -> bool:
    """Tell whether an operation holds something of this budget."""
    reserved = () if parent is None else parent.reserved or ()
    return any(one.account.directory == account.directory for one in reserved)


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
    if not noted:
        return 0
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
    )


def _ledger(directory: Path, opening: Callable[[], Header] | None, *, fsync: bool) -> Ledger:
    """Return the one ledger of this process for a directory."""
    found = _ledgers.get(str(directory))
    if found is None:
        found = _ledgers[str(directory)] = Ledger(directory, opening, fsync=fsync)
    elif opening is not None:
        found.opening = opening
    return found


def _rejoined(given: tuple[tuple[Path, Budget | None, str, str | None], ...]) -> SessionGate:
    settings = _config.settings()
    return SessionGate(
        Account(directory, budget, name, session_id, None, settings)
        for directory, budget, name, session_id in given
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
_ledgers: weakref.WeakValueDictionary[str, Ledger] = weakref.WeakValueDictionary()
