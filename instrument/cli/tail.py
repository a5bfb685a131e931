"""`instrument tail`: the newest operations, and those that follow."""

from __future__ import annotations

from itertools import chain
from typing import Any

import click

from instrument.cli import options
from instrument.cli.render_lists import tail_line, tail_title
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.log import UsageLog

__all__ = ["command"]


@click.command("tail", short_help=COMMANDS["tail"])
@options.limit(10, "Begin with so many of the newest operations.")
@click.option("--follow", "-f", is_flag=True, help="Go on with every operation that finishes.")
@options.outcome
@options.reads_log("Print one JSON object a line, with the keys of Operation.")
def command(
    log: UsageLog,
    output: Output,
    limit: int,
    follow: bool,
    outcome: str | None,
    filters: dict[str, Any],
) -> None:
    """Print the newest operations, one a line, and with -f those that follow.

    \b
    Examples:
      instrument tail -f
      instrument tail -f --service openai --outcome error
      instrument tail -f --json | jq -r '[.model, .tokens] | @tsv'
    """
    filters["outcome"] = outcome
    coming = log.follow(**filters) if follow else iter(())
    latest = log.operations(limit=limit, **filters)
    # what was written while the log was being read is in both
    shown = {each.operation_id for each in latest if each.operation_id is not None}
    if not output.as_json:
        output.at_once(tail_title(output.view))
    for each in chain(latest, (each for each in coming if each.operation_id not in shown)):
        if output.as_json:
            output.json_lines([each])
        else:
            output.at_once(tail_line(each, output.view))
