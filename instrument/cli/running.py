"""`instrument running`: what is going on now."""

from __future__ import annotations

import click

from instrument.cli import options
from instrument.cli.render_lists import render_running
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.log import UsageLog

__all__ = ["command"]


@click.command("running", short_help=COMMANDS["running"])
@options.reads_log("Print one JSON object a line, with the keys of Operation.", filtered=False)
def command(log: UsageLog, output: Output) -> None:
    """List the operations that have begun and not ended, and whose process lives.

    A call is seen here from its begin on if it is the first of its function, or if the one before
    took over 0.1 s.

    \b
    Examples:
      instrument running
      watch instrument running
    """
    found = log.running()
    if output.as_json:
        output.json_lines(found)
    elif found:
        output.lines(render_running(found, output.view))
    else:
        output.nothing("nothing is running")
