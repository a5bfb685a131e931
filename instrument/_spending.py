"""What the ledgers of a log say of its budgets."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from instrument._ledger import foreign_records, is_begun, read_ledger, remove_ledger
from instrument._ledger_records import Amounts, Header, State
from instrument.budget import (
    METRICS,
    Budget,
    BudgetState,
    Spender,
    Spent,
    ledgers_in,
    window,
)
from instrument.errors import InstrumentError

__all__ = [
    "BILLION",
    "DamagedLedger",
    "budget_of",
    "damaged_ledgers",
    "forget_ledgers",
    "limits_of",
    "spenders",
    "spent_of",
    "states",
]

BILLION = 1_000_000_000


def states(
    log_dir: Path, *, refused: str | None = None, limit: int | None = None
) -> list[BudgetState]:
    """Return the budgets of a log: named ones in their latest period, then sessions', newest first.

    `refused`: those alone that refused a call of this session. Ledgers that cannot be read are
    left out.
    """
    named: dict[str, tuple[float, BudgetState]] = {}
    of_sessions: list[tuple[float, BudgetState]] = []
    for directory in _directories(log_dir):
        with suppress(OSError):
            header, state = read_ledger(directory)
            found = _state(header, state)
            whose = (*state.hit, header.session_id) if state.hit else ()
            if refused is not None and refused not in whose:
                continue
            changed = _changed_at(directory), found
            if found.session_id is not None:
                of_sessions.append(changed)
            elif found.name not in named or named[found.name][0] <= changed[0]:
                named[found.name] = changed
    of_sessions.sort(key=lambda each: -each[0])
    latest = [found for _, found in of_sessions[:limit]]
    return [found for _, (_, found) in sorted(named.items())] + latest


class DamagedLedger(NamedTuple):
    """A ledger that is not as its budget's processes wrote it; `is_read`: the rest of it counts."""

    path: Path
    fault: str
    cure: str
    is_read: bool


def damaged_ledgers(log_dir: Path) -> list[DamagedLedger]:
    """Return the ledgers of a log's budgets that cannot be read, or hold what is no record.

    The torn records of processes that were killed are no damage.
    """
    found = map(_damage, sorted(_directories(log_dir)))
    return [each for each in found if each is not None]


def _damage(directory: Path) -> DamagedLedger | None:
    anew = f"remove {directory}: its budget begins anew, with nothing spent"
    try:
        if not is_begun(directory):
            return None
        _state(*read_ledger(directory))
        count = foreign_records(directory)
    except PermissionError:
        return DamagedLedger(
            directory, "this user cannot read it", f"chmod or chown it, or {anew}", False
        )
    except OSError as error:
        if not is_begun(directory):
            return None  # removed meanwhile
        return DamagedLedger(directory, str(error.strerror or error), anew, False)
    if not count:
        return None
    said = "a record of it is" if count == 1 else f"{count:,} records of it are"
    return DamagedLedger(
        directory, f"{said} damaged, and what they told does not count", anew, True
    )


def forget_ledgers(log_dir: Path, before: datetime) -> None:
    """Remove the ledgers of budgets that nobody spent of since a moment, and older notes."""
    for path in _listed(log_dir):
        with suppress(OSError):
            is_ledger = path.is_dir()
            changed_at = _changed_at(path) if is_ledger else path.stat().st_mtime
            if changed_at < before.timestamp():
                (remove_ledger if is_ledger else os.unlink)(path)


def limits_of(budget: Budget) -> tuple[int | None, int | None, int | None, int | None]:
    """Return the limits in a ledger's units."""
    return (
        budget.operations,
        budget.tokens,
        None if budget.usd is None else round(budget.usd * BILLION),
        None if budget.seconds is None else round(budget.seconds * BILLION),
    )


def budget_of(header: Header, how: str | None = None) -> Budget:
    """Return the budget whose ledger begins so. A callable of another process is not there: raise.

    `how` says otherwise what is done on excess. Raises `OSError` where the header is none of a
    budget.
    """
    operations, tokens, nanodollars, nanoseconds = header.limits
    try:
        return Budget(
            operations=operations,
            tokens=tokens,
            usd=None if nanodollars is None else nanodollars / BILLION,
            seconds=None if nanoseconds is None else nanoseconds / BILLION,
            per=header.per,  # type: ignore[arg-type]  # checked there
            on_exceed="warn" if (how or header.on_exceed) == "warn" else "raise",
        )
    except InstrumentError as error:
        raise OSError(str(error)) from None


def spent_of(amounts: Amounts | State) -> Spent:
    """Return the same in the units of budgets."""
    return Spent(
        operations=amounts.operations,
        tokens=amounts.tokens,
        usd=amounts.nanodollars / BILLION,
        seconds=amounts.nanoseconds / BILLION,
    )


def spenders(state: State, metric: str) -> tuple[Spender, ...]:
    """Return who spent, those first who spent most of `metric`."""
    found = [
        Spender(
            service=kind.service,
            operation=kind.operation,
            model=kind.model,
            operations=kind.operations,
            tokens=kind.tokens,
            usd=kind.nanodollars / BILLION,
            seconds=kind.nanoseconds / BILLION,
        )
        for kind in state.kinds.values()
        if kind.operations
    ]
    return tuple(sorted(found, key=lambda one: -getattr(one, metric)))


def _state(header: Header, state: State) -> BudgetState:
    budget = budget_of(header.limited(state.limits))
    since = None if header.since is None else datetime.fromisoformat(header.since)
    limited = [name for name in METRICS if budget.limits()[name] is not None]
    return BudgetState(
        name=header.name,
        session_id=header.session_id,
        per=header.per,
        since=since,
        until=None if since is None else window(budget.per, since.astimezone(UTC))[1],
        on_exceed=header.on_exceed,
        limits=budget.limits(),
        spent=spent_of(state),
        refused_count=state.refused,
        refused_sessions=state.hit,
        by=spenders(state, limited[0]),
    )


def _directories(log_dir: Path) -> list[Path]:
    return [each for each in _listed(log_dir) if each.is_dir()]


def _listed(log_dir: Path) -> list[Path]:
    place = ledgers_in(log_dir)
    try:
        return [place / name for name in os.listdir(place)]
    except FileNotFoundError:
        return []


def _changed_at(directory: Path) -> float:
    return max((each.stat().st_mtime for each in directory.iterdir()), default=0.0)
