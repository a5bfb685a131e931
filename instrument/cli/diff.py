"""`instrument diff`: two sessions side by side."""

from __future__ import annotations

import click

from instrument._grouped import summed_in_session
from instrument.cli import options
from instrument.cli.query import resolved
from instrument.cli.render_diff import paired, render_diff
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.log import SessionReport, UsageLog
from instrument.operation import SummaryRow

__all__ = ["command"]

KEYS = ("service", "model")


@click.command("diff", short_help=COMMANDS["diff"])
@click.argument("before", metavar="SESSION", shell_complete=options.complete_session)
@click.argument(
    "after", metavar="[SESSION]", default="@last", shell_complete=options.complete_session
)
@options.reads_log('Print {"a": {...}, "b": {...}, "groups": [{...}, ...]}.', filtered=False)
def command(log: UsageLog, output: Output, before: str, after: str) -> None:
    """Compare two sessions: calls, tokens, cost and time, in all and by service and model.

    The second is @last if it is left out. Under --json "a" and "b" have the keys of SessionStats,
    and each group has service, model, and a and b, of which one may be null.

    \b
    Examples:
      instrument diff session_1764000000
      instrument diff session_1764000000 session_1764003600 --json
    """
    reports = [log.report(resolved(log, each)) for each in (before, after)]
    first, second = (each.stats for each in reports)
    groups = paired(*(_groups(log, output, each) for each in reports))
    if output.as_json:
        named = [
            {"service": service, "model": model, "a": a, "b": b}
            for (service, model), (a, b) in groups.items()
        ]
        output.document({"a": first, "b": second, "groups": named})
    else:
        output.lines(render_diff(first, second, groups, output.view))


def _groups(log: UsageLog, output: Output, report: SessionReport) -> list[SummaryRow]:
    finished = [each for each in report.operations if each.outcome != "running"]
    return summed_in_session(finished, KEYS, output.zone, log.pricing)
