"""`instrument where`: which log is read and written, and why."""

from __future__ import annotations

import os
from pathlib import Path

import click
from msgspec import Struct
from rich.text import Text

from instrument._config import disabled_by_environment, settings
from instrument.cli.layout import definition
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.cli.words import human_bytes

__all__ = ["command"]


class Place(Struct):
    """What `where` says, and the keys of its JSON."""

    log_dir: str
    why: str
    exists: bool
    is_writable: bool
    is_recording: bool
    file_count: int
    bytes: int


@click.command("where", short_help=COMMANDS["where"])
@click.option("--no-color", is_flag=True, help="Print without colours (so does NO_COLOR).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(no_color: bool, as_json: bool) -> None:
    """Show which directory the log is in, and why it is that one.

    \b
    Examples:
      instrument where
      du -sh "$(instrument where --json | jq -r .log_dir)"
    """
    output = Output.of(utc=False, colour=not no_color, pager=False, as_json=as_json)
    place = _place()
    if as_json:
        output.document(place)
        return
    entries = {
        "log directory": place.log_dir,
        "because": place.why,
        "state": _state(place),
        "recording": _recording(place),
        "files": f"{place.file_count:,}, {human_bytes(place.bytes)}",
    }
    lines: list[Text] = []
    for term, value in entries.items():
        lines += definition(term, value, output.view)
    output.lines(lines)


def _place() -> Place:
    found = settings()
    files = [path for path in _files(found.log_dir) if path.is_file()]
    return Place(
        log_dir=str(found.log_dir),
        why=_why(fallback=found.fallback),
        exists=found.log_dir.is_dir(),
        is_writable=_is_writable(_existing(found.log_dir)),
        is_recording=not disabled_by_environment(),
        file_count=len(files),
        bytes=sum(path.stat().st_size for path in files),
    )


def _why(*, fallback: bool) -> str:
    if os.environ.get("INSTRUMENT_DIR"):
        return "INSTRUMENT_DIR names it"
    if fallback:
        return "the platform's state directory cannot be written"
    return "it is the platform's directory for state; INSTRUMENT_DIR or configure() change it"


def _state(place: Place) -> str:
    if not place.exists:
        return "nothing has been recorded there yet"
    return "exists, and can be written to" if place.is_writable else "exists, and cannot be written"


def _recording(place: Place) -> str:
    if not place.is_recording:
        return "no: INSTRUMENT_DISABLED is set"
    return "yes" if place.is_writable else "no: it cannot be written"


def _is_writable(place: Path) -> bool:
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _files(log_dir: Path) -> list[Path]:
    return [*log_dir.glob("*.jsonl"), *log_dir.glob("journal/*.jsonl")]
