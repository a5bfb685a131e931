"""`instrument doctor`: what happened to the log, and what a person has to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from instrument.cli import options
from instrument.cli.layout import View, wrapped
from instrument.cli.progress import progress
from instrument.cli.query import CURE, NoLogError, size_of
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.cli.words import clean, duration, moment
from instrument.errors import InstrumentError
from instrument.log import Finding, Health, UsageLog

__all__ = ["command", "render_findings"]

INDENT = 9
SHOWN = 5
STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


@click.command("doctor", short_help=COMMANDS["doctor"])
@click.option("--fix", is_flag=True, help="Remove orphaned run locks, make a lost manifest anew.")
@options.directories
@options.utc
@options.colour
@click.option("--no-pager", is_flag=True, help="Print long output at once.")
@click.option("--json", "as_json", is_flag=True, help='Print {"findings": [...], "health": {...}}.')
def command(
    fix: bool,
    directories: tuple[str, ...],
    utc: bool,
    no_color: bool,
    no_pager: bool,
    as_json: bool,
) -> int:
    """Examine the log: damage, losses, interrupted operations, clock, permissions and disk.

    The exit code is 1 where a person has to do something, a "problem", and 0 otherwise; what
    happened over a day ago is a "note". Under --json each finding has the keys check, level,
    message, cure, log_dir and details; those of "health" are null where nothing is known, as what
    recording costs is outside of the recording process.

    \b
    Examples:
      instrument doctor
      instrument doctor --fix
      instrument doctor --json | jq -r '.findings[] | select(.level == "problem").message'
    """
    output = Output.of(utc=utc, colour=not no_color, pager=not no_pager, as_json=as_json)
    log = _opened(directories)
    with progress("Examining", total=_size_of(log)) as advance:
        findings = log.doctor(fix=fix, advance=advance)
    if as_json:
        output.document({"findings": findings, "health": _health(log)})
    else:
        output.lines(render_findings(findings, output.view))
    return int(any(each.level == "problem" for each in findings))


def render_findings(findings: Sequence[Finding], view: View) -> list[Text]:
    """Render what was found, directory by directory, and how many problems that makes."""
    lines: list[Text] = []
    for log_dir in dict.fromkeys(each.log_dir for each in findings):
        lines += [*wrapped(clean(log_dir, ascii_only=view.ascii_only), "bold", view), Text()]
        for each in findings:
            if each.log_dir == log_dir:
                lines += _rendered(each, view)
        lines.append(Text())
    levels = Counter(each.level for each in findings)
    summary = f"{_counted(levels['problem'], 'problem')}, {_counted(levels['note'], 'note')}"
    return [*lines, Text(summary, STYLES["problem" if levels["problem"] else "ok"])]


def _rendered(finding: Finding, view: View) -> list[Text]:
    said = _shown(f"{finding.check}: {finding.message}", view)
    first, *rest = wrapped(said, "", view, indent=INDENT)
    level = f"{finding.level:<{INDENT}}"
    lines = [Text.assemble((level, STYLES[finding.level]), first.plain[INDENT:]), *rest]
    if finding.cure is not None:
        lines += wrapped(_shown(finding.cure, view), "dim", view, indent=INDENT)
    for example in finding.details.get("examples", ())[:SHOWN]:
        text = _shown(_example(example, view), view)
        lines += wrapped(text, "cyan", view, indent=INDENT + 2)
    return lines


def _example(example: Any, view: View) -> str:
    """Say one example in a line: a path, or the values of what has several."""
    if not isinstance(example, dict):
        return str(example)
    return "  ".join(_value(name, value, view) for name, value in example.items())


def _value(name: str, value: Any, view: View) -> str:
    if isinstance(value, datetime):
        return moment(value, view.zone)
    if name == "offset":
        return f"byte {value:,}"
    return duration(value) if name == "duration_seconds" else str(value)


def _shown(text: str, view: View) -> str:
    return clean(text, ascii_only=view.ascii_only)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _opened(directories: Sequence[str]) -> UsageLog:
    """Open the logs that were named, or the configured one, which may not exist yet."""
    for each in directories:
        if not Path(each).expanduser().is_dir():
            raise NoLogError(f"no log in {each}: there is no such directory; {CURE}")
    return UsageLog(*directories)


def _size_of(log: UsageLog) -> int:
    try:
        return size_of(log)
    except OSError:
        return 0


def _health(log: UsageLog) -> Health | None:
    try:
        return log.health()
    except (InstrumentError, OSError):  # which the findings tell
        return None
