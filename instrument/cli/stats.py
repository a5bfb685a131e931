"""`instrument stats`: every figure of a session, or of the whole log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.text import Text

from instrument._grouped import summed_in_session
from instrument._price_list import is_available
from instrument._skew import on_one_axis
from instrument.cli import options
from instrument.cli.moments import aware
from instrument.cli.query import ALL, NoOperationsError, resolved
from instrument.cli.render_budgets import render_refusals
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
@click.option(
    "--prices-as-of",
    type=options.MOMENT,
    metavar="WHEN",
    help="Take the list prices of that day for every call.",
)
@click.option("--what-if", metavar="MODEL", help="Price every call as if MODEL had answered.")
@options.reads_log('Print {"session": {...}, "by": [...], "groups": [...], "budgets": [...]}.')
def command(
    log: UsageLog,
    output: Output,
    session: str,
    by: tuple[str, ...],
    plot: bool,
    prices_as_of: datetime | timedelta | None,
    what_if: str | None,
    filters: dict[str, Any],
) -> None:
    """Show every figure of a session, and what each service and model contributed.

    SESSION is an id, its unique beginning, @last (the default), or @all for the whole log. Under
    --json the keys of "session" are those of SessionStats, and those of each group too, beside
    the keys it is grouped by; null means not reported. "budgets" are those that refused a call.
    Where the clocks of hosts differ, the times of a session are as those hosts see them that
    called.

    \b
    Examples:
      instrument stats
      instrument stats @all --since 7d --by day,service --plot
      instrument stats --what-if gpt-5-mini
      instrument stats --json | jq .session.total_tokens
    """
    if prices_as_of is not None or what_if is not None:
        log = log.repriced(as_of=aware(prices_as_of, utc=output.view.zone is UTC), model=what_if)
        if what_if is not None and not log.pricing.rates_of((None, "", what_if)) and is_available():
            raise click.UsageError(f"no price is known for {what_if!r}")
    stats, groups = _asked(log, output, session, by, filters)
    refusing = [] if session == ALL else log.budgets(refused=stats.session_id)
    if output.as_json:
        document = {"session": stats, "by": by, "groups": groups, "budgets": refusing}
        output.document(document)
        return
    lines = render_stats(stats, output.view, grouped_by=by if groups else ())
    lines += render_refusals(refusing, output.view)
    if groups and by:
        lines += [Text(), *render_groups(groups, by, output.view, plot=plot)]
    output.lines(lines)


def _asked(
    log: UsageLog, output: Output, session: str, by: tuple[str, ...], filters: dict[str, Any]
) -> tuple[SessionStats, list[SummaryRow]]:
    if session != ALL:
        report = log.report(resolved(log, session), **filters)
        finished = [each for each in report.operations if each.outcome != "running"]
        groups = summed_in_session(finished, by, output.zone, log.pricing)
        stats = on_one_axis(report.stats, report.operations, report.hosts)
        return stats, most_first(groups, by)
    everything, groups = log.overview(by, zone=output.zone, **filters)
    if everything is None:
        raise NoOperationsError("no operations in the log that fit")
    return everything, most_first(groups, by)
