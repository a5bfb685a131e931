"""`instrument demo`: the main job on real input, offline and in seconds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path

import click
from rich.text import Text

from instrument._config import configure, disabled_by_environment
from instrument._grouped import summed_in_session
from instrument.cli import options
from instrument.cli.demo_job import write_digest
from instrument.cli.demo_meter import Tally, Tokens
from instrument.cli.demo_server import DemoServer
from instrument.cli.layout import View, wrapped
from instrument.cli.render import render_session
from instrument.cli.render_groups import most_first, render_groups
from instrument.cli.render_stats import render_stats
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import view_of, write_lines
from instrument.errors import ConfigurationError
from instrument.log import UsageLog
from instrument.operation import SessionStats
from instrument.session import session

__all__ = ["command"]

GROUPED_BY = ("service", "model")
NEXT = """\
from instrument import session, tracked
@tracked(service="openai")  # above the function that calls the client
with session("my-job") as work: main(); print(work.stats())"""


@click.command("demo", short_help=COMMANDS["demo"])
@click.option("--dir", "directory", metavar="DIR", help="Keep the log in DIR.")
@click.option("--keep", is_flag=True, help="Keep the temporary log.")
@options.utc
@options.colour
@click.pass_context
def command(
    ctx: click.Context, directory: str | None, keep: bool, utc: bool, no_color: bool
) -> None:
    """Run a small offline job and show what it cost.

    Three services on 127.0.0.1 answer in the wire formats of OpenAI, Anthropic and Gemini. The
    job calls them one by one, at once, from threads and from another process; one call meets a
    rate limit, and one answer is left early. Your own log is not touched unless --dir names it.
    """
    if disabled_by_environment():
        value = os.environ["INSTRUMENT_DISABLED"]
        raise ConfigurationError("INSTRUMENT_DISABLED", value, "0, or unset it, for the demo")
    view = view_of(utc=utc)
    with _log_directory(directory, keep) as (place, fate):
        write_lines(_introduction(place, fate, view), colour=not no_color)
        session_id, tally = _run_job(place)
        log = UsageLog(place)
        report = log.report(session_id)
        stats = report.stats
        groups = summed_in_session(report.operations, GROUPED_BY, UTC, log.pricing)
        lines = [
            *render_session(stats, report.operations, view),
            Text(),
            *render_stats(stats, view, grouped_by=GROUPED_BY),
            Text(),
            *render_groups(most_first(groups, GROUPED_BY), GROUPED_BY, view),
            Text(),
            *_compared(stats, tally, view),
            Text(),
            *_next_steps(),
        ]
        write_lines(lines, colour=not no_color)
    ctx.exit(0 if _logged(stats) == tally.total() else 1)


def _run_job(directory: Path) -> tuple[str, Tally]:
    configure(log_dir=directory)
    with DemoServer(refused={"gpt-5.4-nano": 1}) as server, session("demo") as work:
        write_digest(server.url)
    return work.id, server.tally


@contextmanager
def _log_directory(given: str | None, keep: bool) -> Iterator[tuple[Path, str]]:
    if given is not None:
        place = Path(given).expanduser()
        if place.exists() and not place.is_dir():
            raise ConfigurationError("--dir", given, "a directory: this is a file")
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(place, os.W_OK | os.X_OK):
            raise ConfigurationError("--dir", given, "a directory that you may write to")
        yield place, "kept"
        return
    place = Path(tempfile.mkdtemp(prefix="instrument-demo-"))
    try:
        yield place, "kept" if keep else "removed at the end; --keep keeps it"
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def _introduction(place: Path, fate: str, view: View) -> list[Text]:
    what = (
        "A small job runs against loopback services that answer like OpenAI, Anthropic and "
        "Gemini. Nothing leaves this machine."
    )
    where = Text(f"Log: {place} ({fate})", "dim")
    return [*wrapped(what, "", view), where, Text()]


def _logged(stats: SessionStats) -> Tokens:
    return Tokens(
        stats.input_tokens,
        stats.output_tokens,
        stats.cache_read_tokens,
        stats.cache_write_tokens,
        stats.reasoning_tokens,
    )


def _compared(stats: SessionStats, tally: Tally, view: View) -> list[Text]:
    sent, logged = tally.total(), _logged(stats)
    answered = tally.requests.total() - tally.refused.total()
    answers = f"The services sent {sent.total:,} tokens in {answered:,} answers"
    if logged == sent:
        return wrapped(f"{answers}; the log has the same.", "green", view)
    return wrapped(f"{answers}: {sent}. The log differs: {logged}.", "bold red", view)


def _next_steps() -> list[Text]:
    lines = [Text(f"  {line}", "cyan") for line in NEXT.splitlines()]
    return [Text("In your own program, and then `instrument show`:"), *lines]
