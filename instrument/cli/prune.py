"""`instrument prune`: old days leave the log for good."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from instrument.cli import options
from instrument.cli.moments import aware
from instrument.cli.progress import progress
from instrument.cli.query import opened, size_of
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.cli.words import human_bytes

if TYPE_CHECKING:
    from instrument.retention import Pruned  # it loads duckdb

__all__ = ["command"]


@click.command("prune", short_help=COMMANDS["prune"])
@click.option(
    "--older-than",
    type=options.MOMENT,
    required=True,
    metavar="WHEN",
    help="What began before then: 90d, 12w, 2026-01-01.",
)
@click.option("--keep-summary", is_flag=True, help="Keep what each day came to.")
@options.directories
@options.utc
@click.option("--json", "as_json", is_flag=True, help='Print {"operations": N, "bytes": M}.')
def command(
    older_than: datetime | timedelta,
    keep_summary: bool,
    directories: tuple[str, ...],
    utc: bool,
    as_json: bool,
) -> None:
    """Remove operations of old days for good, and sessions in which nothing happened later.

    Whole days (UTC) go. What of the journal is closed is compacted before; segments that a process
    has open stay. With --keep-summary what each day came to, by service and model, stays: `daily`,
    `monthly` and `stats @all` go on to count it in, by days in UTC.

    \b
    Examples:
      instrument prune --older-than 90d
      instrument prune --older-than 2026-01-01 --keep-summary
    """
    before = aware(older_than, utc=utc)
    assert before is not None  # the option is required
    log = opened(directories)
    with progress("Compacting", total=size_of(log)) as advance:
        done = log.prune(before, keep_summary=keep_summary, advance=advance)
    if as_json:
        Output.of(utc=utc, colour=False, pager=False, as_json=True).document(done)
    else:
        click.echo(_summary(done))


def _summary(done: Pruned) -> str:
    if not done.operations:
        return "nothing to remove: no archived day is as old as that"
    noun = "operation" if done.operations == 1 else "operations"
    return f"removed {done.operations:,} {noun}, {human_bytes(done.bytes)}"
