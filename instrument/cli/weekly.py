"""`instrument weekly`: what each week came to."""

from __future__ import annotations

from instrument.cli.periods import period_command

__all__ = ["command"]

command = period_command("weekly", "week")
