"""`instrument sessions`: the latest sessions."""

from __future__ import annotations

import click

from instrument.cli import options
from instrument.cli.query import opened
from instrument.cli.render_stats import render_sessions
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import view_of, write_json_lines, write_lines

__all__ = ["command"]


@click.command("sessions", short_help=COMMANDS["sessions"])
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="List so many sessions at most.",
)
@options.directories
@options.utc
@options.colour
@options.as_json("Print one JSON object a line, with the keys of SessionStats.")
def command(
    limit: int, directories: tuple[str, ...], utc: bool, no_color: bool, as_json: bool
) -> None:
    """List the latest sessions, the newest first.

    \b
    Examples:
      instrument sessions --limit 5
      instrument sessions --json | jq -r 'select(.error_count > 0).session_id'
    """
    sessions = opened(directories).sessions(limit=limit)
    if as_json:
        write_json_lines(sessions)
    elif sessions:
        write_lines(render_sessions(sessions, view_of(utc=utc)), colour=not no_color)
    else:
        click.echo(
            "no sessions in the log yet; `instrument demo` shows what one looks like", err=True
        )
