"""`instrument import-log`: the logs of the original usage logger."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from instrument.cli.progress import progress
from instrument.cli.shell import COMMANDS
from instrument.importers.original import (
    OLDER_SERVICE,
    Damaged,
    Imported,
    import_original,
)

__all__ = ["command"]


@click.command("import-log", short_help=COMMANDS["import-log"])
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--dir", "directory", metavar="DIR", help="Write to the log in DIR instead of the configured."
)
@click.option(
    "--service",
    default=OLDER_SERVICE,
    show_default=True,
    help="The service of lines that name none, as the older format's do.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Print {"imported": N, "already_there": M, "skipped": K}.',
)
@click.option("--verbose", "-v", is_flag=True, help="Name the lines that are skipped.")
def command(
    files: tuple[str, ...], directory: str | None, service: str, as_json: bool, verbose: bool
) -> None:
    """Bring logs that the original usage logger wrote into this one.

    Each FILE holds one JSON object a line. Times, sessions, tokens and metadata stay as they
    were. What the log holds already is left out, so that importing again changes nothing. Lines
    that hold no operation are skipped and counted. Prompts in the older format's commands are
    not taken over.

    \b
    Examples:
      instrument import-log ~/.claude/leyline/usage/*.jsonl
      instrument import-log --service gemini ~/.claude/hooks/gemini/logs/usage.jsonl
      instrument import-log old.jsonl --dir ~/logs -v
    """
    with progress("Importing", total=_bytes_in(files)) as advance:
        done = import_original(
            files,
            directory,
            service=service,
            damaged=_name if verbose else _leave_unnamed,
            advance=advance,
        )
    click.echo(msgspec.json.encode(done) if as_json else _summary(done))


def _summary(done: Imported) -> str:
    noun = "operation" if done.imported == 1 else "operations"
    return (
        f"imported {done.imported:,} {noun}, {done.already_there:,} already there, "
        f"{done.skipped:,} skipped"
    )


def _bytes_in(files: Sequence[str]) -> int:
    found = (os.stat(each) for each in files)
    return sum(each.st_size for each in found if stat.S_ISREG(each.st_mode))


def _name(path: Path, line: Damaged) -> None:
    click.echo(f"{path}: byte {line.offset}: {line.reason}", err=True)


def _leave_unnamed(path: Path, line: Damaged) -> None:
    """Let the count say it."""
