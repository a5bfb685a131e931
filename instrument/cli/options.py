"""The options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from instrument._lines import OUTCOMES
from instrument._wanted import KEYS
from instrument.cli.background import compact_later
from instrument.cli.moments import CURE, aware, moment_or_ago
from instrument.cli.progress import Waiting
from instrument.cli.query import ALL, LAST, opened, recent_values, size_of, skipped_lines
from instrument.cli.terminal import Output
from instrument.cli.words import human_bytes
from instrument.errors import InstrumentError
from instrument.log import UsageLog

__all__ = [
    "MOMENT",
    "by",
    "colour",
    "complete_session",
    "directories",
    "limit",
    "outcome",
    "reads_log",
    "session",
    "utc",
]

Command = TypeVar("Command", bound=Callable[..., Any])
COMPLETED = 50
LONGEST = 200
TAKE_ALL = ("stats", "export")


def reads_log(json_help: str, *, filtered: bool = True) -> Callable[[Command], Callable[..., Any]]:
    """Give a command `log` and `output` by the options that all readers share.

    With `filtered` it also gets `filters`, keywords for `UsageLog`'s methods.
    """

    def decorate(command: Command) -> Callable[..., Any]:
        @wraps(command)
        def run(
            directories: tuple[str, ...],
            utc: bool,
            no_color: bool,
            no_pager: bool,
            as_json: bool,
            verbose: bool,
            **given: Any,
        ) -> Any:
            output = Output.of(utc=utc, colour=not no_color, pager=not no_pager, as_json=as_json)
            if filtered:
                given["filters"] = _taken_filters(given, utc=utc)
            log = opened(directories)
            output = replace(output, waiting=waiting_for(log, output))
            try:
                return command(log=log, output=output, **given)
            finally:
                output.begin()
                for line in skipped_lines(log, everything=verbose):
                    click.echo(line, err=True)
                compact_later(log)

        options = [*(_filter_options() if filtered else []), directories, *_output(json_help)]
        for option in reversed(options):
            run = option(run)
        return run

    return decorate


def waiting_for(log: UsageLog, output: Output) -> Waiting:
    """Show after a second that the log is being read."""
    what = f"reading the log ({human_bytes(size_of(log))})"
    waiting = Waiting(what, ascii_only=output.view.ascii_only, colour=output.colour)
    waiting.start()
    return waiting


def _named(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    if "" in value:  # a variable that is not set
        raise click.BadParameter("'' names no directory")
    return value


def directories(command: Command) -> Command:
    """Add `--dir`, which may be repeated: the logs to read as one."""
    return click.option(
        "--dir",
        "directories",
        multiple=True,
        metavar="DIR",
        callback=_named,
        shell_complete=lambda ctx, param, incomplete: [CompletionItem(incomplete, type="dir")],
        help="Read the log in DIR instead of the configured one; repeat to read several as one.",
    )(command)


def limit(default: int, what: str) -> Callable[[Command], Command]:
    """Add `--limit` with a default."""
    return click.option(
        "--limit", "-n", type=click.IntRange(min=1), default=default, show_default=True, help=what
    )


def by(default: str) -> Callable[[Command], Command]:
    """Add `--by`, which gives the command a tuple of keys."""
    return click.option(
        "--by",
        default=default,
        show_default=bool(default),
        metavar="KEYS",
        callback=_keys,
        shell_complete=_complete_keys,
        help=f"Group by these, separated by commas: {', '.join(KEYS)}.",
    )


def utc(command: Command) -> Command:
    """Add `--utc`."""
    return click.option("--utc", is_flag=True, help="Show and read times in UTC, not local time.")(
        command
    )


def colour(command: Command) -> Command:
    """Add `--no-color`."""
    return click.option(
        "--no-color", is_flag=True, help="Print without colours (so does NO_COLOR)."
    )(command)


def outcome(command: Command) -> Command:
    """Add `--outcome`."""
    return click.option(
        "--outcome",
        type=click.Choice(OUTCOMES),
        metavar="OUTCOME",
        help=f"One of {', '.join(OUTCOMES)} only.",
    )(command)


def session(command: Command) -> Command:
    """Add the argument SESSION, which is `@last` if it is left out."""
    return click.argument(
        "session", default="@last", metavar="[SESSION]", shell_complete=complete_session
    )(command)


def complete_session(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete `@last`, `@all` where that is taken, and the ids of the latest sessions."""
    special = [LAST, ALL] if ctx.info_name in TAKE_ALL else [LAST]
    found = _asked(ctx, lambda log: log.find_sessions(incomplete, limit=COMPLETED))
    return _items((*special, *found), incomplete)


def _keys(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    keys = tuple(filter(None, (each.strip() for each in value.split(","))))
    for key in keys:
        if key not in KEYS or keys.count(key) > 1:
            message = f"{value!r}: use each at most once, of {', '.join(KEYS)}"
            raise click.BadParameter(message, ctx, param)
    return keys


def _complete_keys(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    before, comma, begun = incomplete.rpartition(",")
    found = (each for each in KEYS if each.startswith(begun) and each not in before.split(","))
    return [CompletionItem(f"{before}{comma}{each}") for each in found]


def _complete_column(name: str) -> Callable[..., list[CompletionItem]]:
    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return _items(_asked(ctx, lambda log: recent_values(log, name)), incomplete)

    return complete


def _asked(ctx: click.Context, question: Callable[[UsageLog], list[str]]) -> list[str]:
    """Ask the log for completions; in the middle of a command line, complaints are out of place."""
    try:
        return question(opened(ctx.params.get("directories") or ()))
    except (click.ClickException, InstrumentError, OSError):
        return []


def _items(values: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Return those values that a shell can take: its protocol has one a line."""
    fitting = (each for each in values if each.startswith(incomplete) and each.isprintable())
    return [CompletionItem(each) for each in fitting if len(each) <= LONGEST]


class _Moment(click.ParamType[Any]):
    """A moment, or a time ago."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = moment_or_ago(value)
        if found is None:
            self.fail(f"{value!r}: use {CURE}", param, ctx)
        return found


MOMENT = _Moment()


def _filter_options() -> list[Callable[[Command], Command]]:
    return [
        click.option("--since", type=MOMENT, metavar="WHEN", help=f"From then on: {CURE}."),
        click.option("--until", type=MOMENT, metavar="WHEN", help="Before then."),
        click.option(
            "--service", shell_complete=_complete_column("service"), help="This service only."
        ),
        click.option("--model", shell_complete=_complete_column("model"), help="This model only."),
    ]


def _taken_filters(given: dict[str, Any], *, utc: bool) -> dict[str, Any]:
    filters = {name: given.pop(name) for name in ("since", "until", "service", "model")}
    for name in ("since", "until"):
        filters[name] = aware(filters[name], utc=utc)
    return filters


def _output(json_help: str) -> list[Callable[[Command], Command]]:
    return [
        utc,
        colour,
        click.option("--no-pager", is_flag=True, help="Print long output at once."),
        click.option("--json", "as_json", is_flag=True, help=json_help),
        click.option("--verbose", "-v", is_flag=True, help="Name the lines that were skipped."),
    ]
