"""`instrument weekly`: what each week came to."""

from __future__ import annotations

import click

from instrument.cli.periods import period_command

__all__ = ["command"]

command: click.Command = period_command("weekly", "week")
