"""`instrument export`: operations for other tools."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from instrument._outputs import is_special, put_whole
from instrument.cli import options
from instrument.cli.query import ALL, resolved
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.log import UsageLog
from instrument.operation import Operation

__all__ = ["command"]

COLUMNS = Operation.__struct_fields__
TOLD_EVERY = 1_000
_STANDARD_OUTPUT = {Path(each) for each in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")}


@click.command("export", short_help=COMMANDS["export"])
@click.argument(
    "session", default="@all", metavar="[SESSION]", shell_complete=options.complete_session
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "parquet", "json"]),
    default="csv",
    show_default=True,
    help="Comma-separated values, Apache Parquet, or JSON lines.",
)
@click.option(
    "--output",
    "-o",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to FILE instead of standard output; an existing file is replaced.",
)
@options.reads_log("The same as --format json.")
def command(
    log: UsageLog,
    output: Output,
    session: str,
    form: str,
    target: Path | None,
    filters: dict[str, Any],
) -> None:
    """Export operations, in start order, with a column for each attribute of Operation.

    SESSION is an id, its unique beginning, @last, or @all (the default). Of one session, what
    is in sessions inside it is left out.

    \b
    Examples:
      instrument export --since 2026-11-01 -o november.csv
      instrument export --format parquet -o log.parquet
      instrument export @last --format json | jq .tokens
    """
    target = None if target in _STANDARD_OUTPUT else target
    chosen = None if session == ALL else resolved(log, session)
    if form == "parquet" and not output.as_json:
        if target is None:
            raise click.UsageError("Parquet needs a file: --output FILE")
        log.write_parquet(target, chosen, **filters)
        return
    operations = log.iterate(chosen, **filters)
    first = next(operations, None)  # what is wrong with the log is told before a file is made
    operations = _counted(chain(() if first is None else (first,), operations), output)
    if target is None and sys.stdout.isatty():
        output.begin()
    with _opened(target) as file:
        if form == "json" or output.as_json:
            file.writelines(msgspec.json.encode(each) + b"\n" for each in operations)
        else:
            _write_csv(file, operations)


def _counted(operations: Iterable[Operation], output: Output) -> Iterator[Operation]:
    """Tell whoever waits how far it is."""
    for number, each in enumerate(operations):
        if output.waiting is not None and number % TOLD_EVERY == 0:
            output.waiting.what = f"exported {number:,} operations"
        yield each


@contextmanager
def _opened(target: Path | None) -> Iterator[BinaryIO]:
    if target is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if is_special(target):
        with target.open("wb") as file:
            yield file
        return
    with put_whole(target) as unfinished, unfinished.open("wb") as file:
        yield file


def _write_csv(file: BinaryIO, operations: Iterable[Operation]) -> None:
    writer = csv.writer(_Encoded(file), lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(getattr(each, name)) for name in COLUMNS] for each in operations)


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, (str, int, float)) and not isinstance(value, bool)):
        return value
    text = msgspec.json.encode(value).decode()
    return text.strip('"') if text.startswith('"') else text


class _Encoded:
    """What `csv` writes to: it gives text, and the file takes UTF-8 whatever the locale says."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        self._file.write(text.encode())
