"""`instrument stats`: every figure of a session."""

from __future__ import annotations

import click

from instrument.cli import options
from instrument.cli.query import opened, operations_of, resolved
from instrument.cli.render_stats import breakdown, render_stats
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import view_of, write_document, write_lines

__all__ = ["command"]


@click.command("stats", short_help=COMMANDS["stats"])
@options.session
@options.directories
@options.utc
@options.colour
@options.as_json('Print {"session": {...}, "by_service_and_model": [{...}, ...]}.')
def command(
    session: str, directories: tuple[str, ...], utc: bool, no_color: bool, as_json: bool
) -> None:
    """Show every figure of a session, and what each service and model contributed.

    SESSION is an id, its unique beginning, or @last (the default). Under --json the keys of
    "session" are those of SessionStats, and each part has service, model, operation_count,
    error_count, input_tokens, cache_read_tokens, output_tokens, reasoning_tokens, total_tokens,
    cost_usd and total_duration_seconds; null means not reported.

    \b
    Examples:
      instrument stats
      instrument stats --json | jq .session.total_tokens
    """
    log = opened(directories)
    session_id = resolved(log, session)
    stats, parts = log.stats(session_id), breakdown(operations_of(log, session_id))
    if as_json:
        write_document({"session": stats, "by_service_and_model": parts})
    else:
        write_lines(render_stats(stats, parts, view_of(utc=utc)), colour=not no_color)
