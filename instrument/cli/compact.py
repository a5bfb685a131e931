"""`instrument compact`: closed segments of the journal become Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from instrument.cli import options
from instrument.cli.progress import progress
from instrument.cli.query import opened, size_of
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.cli.words import human_bytes

if TYPE_CHECKING:
    from instrument.compaction import Compaction  # it loads duckdb

__all__ = ["command"]


@click.command("compact", short_help=COMMANDS["compact"])
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Today's segments too, where no process has them open.",
)
@options.directories
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Print {"segments", "operations", "bytes_before", "bytes_after", "left": {name: why}}.',
)
@click.option("--quietly", is_flag=True, hidden=True)
def command(everything: bool, directories: tuple[str, ...], as_json: bool, quietly: bool) -> None:
    """Move what is closed of the journal into the archive, which is about ten times smaller.

    Closed are the segments of past days (UTC) and those that a later one of their day has
    followed. Every answer stays the same, and questions about a long log are answered sooner.
    The files are Parquet, one or a few for each day: archive/date=2026-11-21/*.parquet. It may be
    killed at any moment, and others may write and read meanwhile.

    \b
    Examples:
      instrument compact
      instrument compact --all --dir ~/logs
      duckdb -c "from '~/logs/archive/date=*/*.parquet' limit 9"
    """
    log = opened(directories)
    if quietly:
        os.nice(10)
    with progress("Compacting", total=size_of(log)) as advance:
        done = log.compact(all=everything, advance=advance)
    if as_json:
        Output.of(utc=False, colour=False, pager=False, as_json=True).document(done)
        return
    for line in _summary(done):
        click.echo(line)


def _summary(done: Compaction) -> Iterator[str]:
    if done.segments:
        yield (
            f"moved {_counted(done.operations, 'operation')} of"
            f" {_counted(done.segments, 'segment')} into the archive:"
            f" {human_bytes(done.bytes_before)} became {human_bytes(done.bytes_after)}"
        )
    elif not done.left:
        yield "nothing to compact: no segment is closed"
    for name, why in done.left.items():
        yield f"left {name}: {why}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
