"""`instrument show`: a session's operations as a tree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from instrument._skew import on_one_axis
from instrument.cli import options
from instrument.cli.query import resolved
from instrument.cli.render import render_session
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.log import UsageLog

__all__ = ["command"]


@click.command("show", short_help=COMMANDS["show"])
@options.session
@click.option("--all", "everything", is_flag=True, help="Show every operation of a long session.")
@options.reads_log('Print {"session": {...}, "operations": [{...}, ...]} with every operation.')
def command(
    log: UsageLog, output: Output, session: str, everything: bool, filters: dict[str, Any]
) -> None:
    """Show a session's operations as a tree, each with its outcome, tokens and time bar.

    SESSION is an id, its unique beginning, or @last (the default). Under --json the keys of
    "session" are those of SessionStats and the keys of each operation those of Operation;
    null means not reported. Where the clocks of hosts differ, the times of "session" are as those
    hosts see them that called, and those of operations as they were recorded.

    \b
    Examples:
      instrument show
      instrument show session_1764000000 --all
      instrument show --json | jq '.operations[] | select(.outcome == "error")'
    """
    report = log.report(resolved(log, session), **filters)
    stats = on_one_axis(report.stats, report.operations, report.hosts)
    if output.as_json:
        output.document({"session": stats, "operations": report.operations})
    else:
        view = replace(output.view, everything=everything)
        output.lines(render_session(stats, report.operations, view, report.hosts))
