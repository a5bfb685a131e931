"""Where the gates of budgets come from, whose own modules are loaded where there are budgets."""

from __future__ import annotations

import os

from instrument import context
from instrument._config import Settings
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
    budget that one of its id began with here.
    """
    if budget is None and not os.path.isdir(ledgers_in(settings.log_dir)):
        return around
    from instrument._gates import SessionGate, directory_of_session

    if budget is not None:
        gate = SessionGate.of(budget, session.id, session.name, around, settings)
        gate.open()
        return gate
    directory = directory_of_session(settings.log_dir, session.id)
    is_there = os.path.isdir(directory)
    return SessionGate.joined([directory], around, settings) if is_there else around


context.gates = Gates()
