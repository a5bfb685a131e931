"""`instrument show`: a session's operations as a tree."""

from __future__ import annotations

import click

from instrument.cli import options
from instrument.cli.query import opened, operations_of, resolved
from instrument.cli.render import render_session
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import view_of, write_document, write_lines

__all__ = ["command"]


@click.command("show", short_help=COMMANDS["show"])
@options.session
@options.directories
@click.option("--all", "everything", is_flag=True, help="Show every operation of a long session.")
@options.utc
@options.colour
@options.as_json('Print {"session": {...}, "operations": [{...}, ...]} with every operation.')
def command(
    session: str,
    directories: tuple[str, ...],
    everything: bool,
    utc: bool,
    no_color: bool,
    as_json: bool,
) -> None:
    """Show a session's operations as a tree, each with its outcome, tokens and time bar.

    SESSION is an id, its unique beginning, or @last (the default). Under --json the keys of
    "session" are those of SessionStats and the keys of each operation those of Operation;
    null means not reported.

    \b
    Examples:
      instrument show
      instrument show session_1764000000 --all
      instrument show --json | jq '.operations[] | select(.outcome == "error")'
    """
    log = opened(directories)
    session_id = resolved(log, session)
    stats, operations = log.stats(session_id), operations_of(log, session_id)
    if as_json:
        write_document({"session": stats, "operations": operations})
    else:
        view = view_of(utc=utc, everything=everything)
        write_lines(render_session(stats, operations, view), colour=not no_color)
