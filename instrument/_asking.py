"""Where the gates of budgets come from, whose own modules are loaded where there are budgets."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from instrument import context
from instrument._config import Settings
from instrument._files import read_regular, write_private
from instrument.budget import Budget, ledgers_in
from instrument.context import Gate, SessionIdentity

__all__ = ["gate_of_session"]


class Gates:
    """What makes the gates of a process; see `context.Gates`."""

    def named(self, settings: Settings) -> Gate:
        """Return the gate of the budgets over everything in a log."""
        from instrument._gates import NamedGate

        return NamedGate(settings)

    def inherited(self, told: str, settings: Settings) -> Gate | None:
        """Return the gate that `INSTRUMENT_BUDGETS` speaks of."""
        from instrument._gates import SessionGate

        return SessionGate.inherited(told, settings)


def gate_of_session(
    session: SessionIdentity, budget: Budget | None, around: Gate | None, settings: Settings
) -> Gate | None:
    """Return the gate of a session that is entered, inside of what is around it.

    `budget` is its own, which other processes find from now on; without one, the session has the
    budget that one of its id began with here, or, where none is around it, those that were around
    the last time that it was entered so.
    """
    if budget is None and not os.path.isdir(ledgers_in(settings.log_dir)):
        return around
    from instrument._gates import SessionGate, directory_of_session, noted_of_session, told_in

    if budget is not None:
        gate = SessionGate.of(budget, session.id, session.name, around, settings)
        gate.open()
        return gate
    directory = directory_of_session(settings.log_dir, session.id)
    if os.path.isdir(directory):
        return SessionGate.joined({directory: None}, around, settings)
    place = noted_of_session(settings.log_dir, session.id)
    here, noted = "" if around is None else around.text(), _noted(place)
    if here:
        if here != noted:
            _note(place, here)
        return around
    # a ledger that was forgotten meanwhile limits nothing
    there = {path: how for path, how in told_in(noted).items() if path.is_dir()}
    return SessionGate.joined(there, around, settings) if there else around


def _noted(place: Path) -> str:
    try:
        return read_regular(place).decode()
    except (OSError, ValueError):
        return ""


def _note(place: Path, text: str) -> None:
    """Note for other processes which budgets a session is inside of."""
    with suppress(OSError):  # who joins it is not limited then
        write_private(place, text.encode())


context.gates = Gates()
