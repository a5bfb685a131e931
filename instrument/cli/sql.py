"""`instrument sql`: any question, in SQL."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from typing import Any

import click
import msgspec

from instrument.cli import options
from instrument.cli.interrupts import ended_by_interrupt
from instrument.cli.render_lists import render_rows
from instrument.cli.shell import COMMANDS
from instrument.cli.terminal import Output
from instrument.log import UsageLog
from instrument.operation import Operation

__all__ = ["command"]

COLUMNS = ", ".join(Operation.__struct_fields__)


@click.command("sql", short_help=COMMANDS["sql"])
@click.argument("query", metavar='"SELECT ..."')
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@options.reads_log("Print one JSON object a line, with the names of the columns.", filtered=False)
def command(log: UsageLog, output: Output, query: str, as_csv: bool) -> None:
    """Run a SELECT of DuckDB over the table operations; - reads it from standard input.

    The columns are the attributes of Operation: timestamp, session_id, service, operation,
    outcome, success, duration_seconds, tokens, model, input_tokens, cost_usd, error_type,
    metadata and so on; `select * from operations limit 1` shows all.

    \b
    Examples:
      instrument sql "select model, sum(tokens) from operations group by model"
      instrument sql "select * from operations where outcome = 'error'" --json
      instrument sql - < report.sql
    """
    asked = sys.stdin.read() if query == "-" else query
    with ended_by_interrupt():
        relation = log.sql(asked)
    rows = relation.fetchall()
    if as_csv:
        output.begin()
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([relation.columns, *rows])
    elif output.as_json:
        names = _distinct(relation.columns)
        documents = [str(kind) == "JSON" for kind in relation.types]
        output.json_lines(
            {
                name: _decoded(value) if is_document else value
                for name, is_document, value in zip(names, documents, row, strict=True)
            }
            for row in rows
        )
    else:
        output.lines(render_rows(relation.columns, rows, output.view))


def _decoded(text: Any) -> Any:
    """Return what a JSON document says; as it stands, if JSON has nothing for it."""
    try:
        return text if text is None else msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _distinct(names: list[str]) -> list[str]:
    """Number the names of columns that occur again."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return result
