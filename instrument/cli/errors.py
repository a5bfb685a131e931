"""`instrument errors`: what failed last."""

from __future__ import annotations

from typing import Any

import click

from instrument.cli import options
from instrument.cli.render_lists import render_errors
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.log import UsageLog

__all__ = ["command"]


@click.command("errors", short_help=COMMANDS["errors"])
@options.limit(10, "List so many errors at most.")
@options.reads_log("Print one JSON object a line, with the keys of Operation.")
def command(log: UsageLog, output: Output, limit: int, filters: dict[str, Any]) -> None:
    """List the latest operations that failed, the newest last.

    \b
    Examples:
      instrument errors --since today
      instrument errors -n 100 --json | jq -r .error_type | sort | uniq -c
    """
    found = log.operations(outcome="error", limit=limit, **filters)
    if output.as_json:
        output.json_lines(found)
    elif found:
        output.lines(render_errors(found, output.view))
    else:
        output.nothing("no errors in the log that fit")
