"""`instrument budget`: how every budget stands."""

from __future__ import annotations

import click

from instrument._spending import damaged_ledgers
from instrument.cli import options
from instrument.cli.query import opened
from instrument.cli.render_budgets import render_budgets
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output

__all__ = ["command"]


@click.command("budget", short_help=COMMANDS["budget"])
@click.argument("name", default="", metavar="[NAME]")
@options.limit(20, "Show at most this many budgets of sessions.")
@options.directories
@options.utc
@options.colour
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of BudgetState.")
def command(
    name: str, limit: int, directories: tuple[str, ...], utc: bool, no_color: bool, as_json: bool
) -> None:
    """Show what was spent of each budget: those over the log, then those of the latest sessions.

    NAME is a budget's name, or a session's name or id: then who spent it is shown too. What running
    calls have reserved is spent, until they end; so is what calls had reserved whose process died.
    Ledgers that are damaged are named on standard error.

    \b
    Examples:
      instrument budget
      instrument budget daily
      instrument budget --json | jq '.[] | select(.refused_count > 0).name'
    """
    output = Output.of(utc=utc, colour=not no_color, pager=False, as_json=as_json)
    log = opened(directories)
    found = log.budgets(limit=None if name else limit)
    if name:
        found = [each for each in found if name in (each.name, each.session_id)]
    if as_json:
        output.document(found)
    elif found:
        output.lines(render_budgets(found, output.view, by=bool(name)))
    else:
        output.nothing(_NAMED.format(name) if name else _NONE)
    for each in (each for path in log.paths for each in damaged_ledgers(path)):
        click.echo(f"instrument: {each.path}: {each.fault}; {each.cure}", err=True)


_NAMED = "no budget is named {!r}; `instrument budget` lists them"
_NONE = "no budgets: session(budget=Budget(usd=5)) or configure(budgets={...}) makes one"
