"""The options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["as_json", "colour", "directories", "session", "utc"]

Command = TypeVar("Command", bound=Callable[..., Any])


def directories(command: Command) -> Command:
    """Add `--dir`, which may be repeated: the logs to read as one."""
    return click.option(
        "--dir",
        "directories",
        multiple=True,
        metavar="DIR",
        help="Read the log in DIR instead of the configured one; repeat to read several as one.",
    )(command)


def session(command: Command) -> Command:
    """Add the argument SESSION."""
    return click.argument("session", default="@last", metavar="[SESSION]")(command)


def as_json(what: str) -> Callable[[Command], Command]:
    """Add `--json`; `what` says what is printed."""
    return click.option("--json", "as_json", is_flag=True, help=what)


def utc(command: Command) -> Command:
    """Add `--utc`."""
    return click.option("--utc", is_flag=True, help="Show times in UTC instead of local time.")(
        command
    )


def colour(command: Command) -> Command:
    """Add `--no-color`."""
    return click.option(
        "--no-color", is_flag=True, help="Print without colours (so does NO_COLOR=1)."
    )(command)
