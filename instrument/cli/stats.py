"""`instrument stats`: every figure of a session, or of the whole log."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from instrument._grouped import summed_in_session
from instrument.cli import options
from instrument.cli.query import ALL, NoOperationsError, resolved
from instrument.cli.render_groups import most_first, render_groups
from instrument.cli.render_stats import render_stats
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.log import UsageLog
from instrument.operation import SessionStats, SummaryRow

__all__ = ["command"]


@click.command("stats", short_help=COMMANDS["stats"])
@options.session
@options.by("service,model")
@click.option("--plot", is_flag=True, help="Draw a bar for each group.")
@options.reads_log('Print {"session": {...}, "by": [...], "groups": [{...}, ...]}.')
def command(
    log: UsageLog,
    output: Output,
    session: str,
    by: tuple[str, ...],
    plot: bool,
    filters: dict[str, Any],
) -> None:
    """Show every figure of a session, and what each service and model contributed.

    SESSION is an id, its unique beginning, @last (the default), or @all for the whole log. Under
    --json the keys of "session" are those of SessionStats, and those of each group too, beside
    the keys it is grouped by; null means not reported.

    \b
    Examples:
      instrument stats
      instrument stats @all --since 7d --by day,service --plot
      instrument stats --json | jq .session.total_tokens
    """
    stats, groups = _asked(log, output, session, by, filters)
    if output.as_json:
        output.document({"session": stats, "by": by, "groups": groups})
        return
    lines = render_stats(stats, output.view, grouped_by=by if groups else ())
    if groups and by:
        lines += [Text(), *render_groups(groups, by, output.view, plot=plot)]
    output.lines(lines)


def _asked(
    log: UsageLog, output: Output, session: str, by: tuple[str, ...], filters: dict[str, Any]
) -> tuple[SessionStats, list[SummaryRow]]:
    if session != ALL:
        report = log.report(resolved(log, session), **filters)
        finished = [each for each in report.operations if each.outcome != "running"]
        return report.stats, most_first(summed_in_session(finished, by, output.zone), by)
    everything = log.summary((), **filters)
    if not everything:
        raise NoOperationsError("no operations in the log that fit")
    return everything[0], most_first(log.summary(by, zone=output.zone, **filters), by)
