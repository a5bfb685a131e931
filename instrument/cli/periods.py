"""What days, weeks and months came to: the body of three commands."""

from __future__ import annotations

from typing import Any

import click

from instrument.cli import options
from instrument.cli.render_groups import render_groups
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.log import UsageLog

__all__ = ["period_command"]


def period_command(name: str, period: str) -> click.Command:
    """Return the command that sums up the log by `period`."""

    @options.by("")
    @options.reads_log("Print one JSON object a line, with the keys of SummaryRow.")
    def command(
        log: UsageLog, output: Output, by: tuple[str, ...], filters: dict[str, Any]
    ) -> None:
        keys = (period, *(key for key in by if key != period))
        total, rows = log.overview(keys, zone=output.zone, **filters)
        if output.as_json:
            output.json_lines(rows)
        elif rows:
            output.lines(render_groups(rows, keys, output.view, plot=True, total=total))
        else:
            output.nothing("no operations in the log that fit")

    command.__doc__ = f"""Show what each {period} came to, in local time: calls, tokens, cost.

    \b
    Examples:
      instrument {name} --since 30d
      instrument {name} --by service,model
      instrument {name} --json | jq -r '[.{period}, .total_tokens] | @tsv'
    """
    return click.command(name, short_help=COMMANDS[name])(command)
