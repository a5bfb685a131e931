"""`instrument completion`: what a shell needs to complete commands, sessions and services."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from instrument.cli.shell import COMMANDS, VARIABLE, instrument

__all__ = ["command"]

SHELLS = ("bash", "zsh", "fish")


@click.command("completion", short_help=COMMANDS["completion"])
@click.argument("shell", type=click.Choice(SHELLS), required=False, metavar="[bash|zsh|fish]")
def command(shell: str | None) -> None:
    """Print the script that makes a shell complete commands, options, sessions and services.

    \b
    Add one of these to your shell's start-up file:
      bash  ~/.bashrc                  eval "$(instrument completion bash)"
      zsh   ~/.zshrc                   eval "$(instrument completion zsh)"
      fish  ~/.config/fish/config.fish instrument completion fish | source
    """
    chosen = shell or Path(os.environ.get("SHELL", "")).name
    found = get_completion_class(chosen) if chosen in SHELLS else None
    if found is None:
        raise click.UsageError(f"shell {chosen!r}: use one of {', '.join(SHELLS)}")
    click.echo(found(instrument, {}, "instrument", VARIABLE).source())
