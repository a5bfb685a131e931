"""The command `instrument`: finds its subcommands, and turns what goes wrong into one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

import click

from instrument.errors import InstrumentError

__all__ = ["COMMANDS", "VARIABLE", "instrument", "run"]

COMMANDS = {
    "demo": "Run a small offline job and show what it cost.",
    "run": "Run a program or command in a session, its SDK clients tracked.",
    "sessions": "List the latest sessions, the newest first.",
    "show": "Show a session's operations as a tree with time bars.",
    "stats": "Show every figure of a session, by service and model.",
    "budget": "Show what was spent of each budget, and what was refused.",
    "diff": "Compare two sessions.",
    "daily": "Show what each day came to.",
    "weekly": "Show what each week came to.",
    "monthly": "Show what each month came to.",
    "errors": "List the latest failures.",
    "running": "List the operations that are running now.",
    "tail": "Print the newest operations, and follow the log.",
    "sql": "Ask anything in SQL.",
    "export": "Export operations as CSV, Parquet or JSON.",
    "import-log": "Bring a log of the original usage logger into this one.",
    "compact": "Move past days into the archive, ten times smaller.",
    "prune": "Remove old days for good.",
    "doctor": "Examine the log, and say what needs a person.",
    "where": "Show which log is read and written, and why.",
    "completion": "Print the completion script for bash, zsh or fish.",
}
VARIABLE = "_INSTRUMENT_COMPLETE"
CLOSED_PIPE = 0
INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run, and listed without it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(_module_of(cmd_name)).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        # click itself would answer a closed pipe with exit code 1, and Ctrl-C with a blank line
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_output()
            return CLOSED_PIPE
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                click.echo(err=True)  # the terminal has written ^C
            return INTERRUPTED
        return result


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `instrument demo`. The log is read from $INSTRUMENT_DIR or --dir.",
)
@click.option("--version", is_flag=True, help="Print the version and exit.")
@click.pass_context
def instrument(ctx: click.Context, version: bool) -> None:
    """Tell what a piece of work cost: calls, tokens, money, time and failures."""
    if version:
        click.echo(f"instrument {_version()}")
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; says what went wrong in one line, if anything."""
    try:
        result = instrument.main(list(arguments), prog_name="instrument", standalone_mode=False)
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        return _complain(_usage_hint(error), error.exit_code)
    except (InstrumentError, OSError) as error:
        return _complain(str(error), 2)
    except Exception as error:
        # a person at a terminal has no use for a traceback; whoever mends the command has
        if sys.flags.dev_mode:
            raise
        hint = "run it with `python -X dev -m instrument` to see where"
        return _complain(f"unexpected {type(error).__name__}: {error}; {hint}", 1)
    return result if isinstance(result, int) else 0


def _usage_hint(error: click.ClickException) -> str:
    message = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message.rstrip('.')}; see `{error.ctx.command_path} --help`"
    return message


def _complain(message: str, code: int) -> int:
    click.echo(f"instrument: {' '.join(message.split())}", err=True)
    return code


def _forget_output() -> None:
    # Python flushes the standard streams once more at exit, and would complain then
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _module_of(command: str) -> str:
    return f"instrument.cli.{command.replace('-', '_')}"


def _version() -> str:
    return version("instrument-kit")
