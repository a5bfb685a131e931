"""Budgets at work: what is asked before an operation begins, and told when it has ended.

Those of the sessions around a call are asked, and those of `configure(budgets=...)`, which begin
with what is in the log already.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from msgspec.structs import replace

from instrument import _config
from instrument._config import Settings
from instrument._ledger import remove_ledger
from instrument._ledger_records import (
    LONGEST_NAME,
    Amounts,
    Header,
    Kind,
    cut,
    name_of,
    number_of,
)
from instrument._reserving import Account, Given, ledger_in, not_told
from instrument._spending import BILLION, limits_of
from instrument.budget import (
    Budget,
    ledgers_in,
    window,
)
from instrument.errors import InstrumentError

__all__ = ["NamedGate", "SessionGate", "directory_of_session", "noted_of_session", "told_in"]


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
                not_told(one.account, error)

    def settle(self, operation: Any, line: Any) -> None:
        """Take note of the finished operation's `OperationLine`."""
        held, operation.reserved = operation.reserved or (), None
        for one in held:
            try:
                one.account.settle(one, line)
            except OSError as error:
                not_told(one.account, error)

    def charge(self, line: Any) -> None:
        """Count a finished operation's `OperationLine` of which nobody asked before."""
        moment = datetime.fromisoformat(line.timestamp)
        for account in self.accounts(int(moment.timestamp() * BILLION)):
            try:
                account.charge(line)
            except OSError as error:
                not_told(account, error)


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
                for each in ledger_in(directory, None, fsync=False).header().within:
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


def _rejoined(given: tuple[Given, ...]) -> SessionGate:
    settings = _config.settings()
    return SessionGate(
        Account(directory, budget, name, session_id, None, settings, how)
        for directory, budget, name, session_id, how in given
    )


# what the pytest plugin records of tests and their phases, which are nobody's calls
_TEST_RUNS = "pytest"
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_OUTERMOST = (
    "select sum(duration_seconds) from operations where parent_id is null and timestamp >= $1"
    " and service <> $2"
)
