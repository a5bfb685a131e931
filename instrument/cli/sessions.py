"""`instrument sessions`: the latest sessions."""

from __future__ import annotations

from typing import Any

import click

from instrument.cli import options
from instrument.cli.render_stats import render_sessions
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.log import UsageLog

__all__ = ["command"]


@click.command("sessions", short_help=COMMANDS["sessions"])
@options.limit(20, "List so many sessions at most.")
@options.reads_log("Print one JSON object a line, with the keys of SessionStats.")
def command(log: UsageLog, output: Output, limit: int, filters: dict[str, Any]) -> None:
    """List the latest sessions, the newest first.

    Each has what was recorded in itself; `show` and `stats` count the sessions inside it, too.

    \b
    Examples:
      instrument sessions --limit 5
      instrument sessions --since 2d --service openai
      instrument sessions --json | jq -r 'select(.error_count > 0).session_id'
    """
    sessions = log.sessions(limit=limit, **filters)
    if output.as_json:
        output.json_lines(sessions)
    elif sessions:
        output.lines(render_sessions(sessions, output.view))
    else:
        output.nothing("no sessions in the log that fit; `instrument demo` shows one")
