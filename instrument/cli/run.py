"""`instrument run`: a program or any command in a session, without a line of it changed."""

from __future__ import annotations

import atexit
import os
import runpy
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import click

from instrument._config import disabled_by_environment
from instrument.cli.shell import COMMANDS
from instrument.clients import install
from instrument.session import Session, session
from instrument.tracked import track

__all__ = ["command"]

NOT_FOUND, NOT_EXECUTABLE = 127, 126
# what tells of this process itself, or stops and continues everything that a terminal runs
OURS = "KILL STOP CHLD ABRT BUS FPE ILL SEGV SYS TRAP PIPE CONT TSTP TTIN TTOU"
TYPED = (signal.SIGINT, signal.SIGQUIT)


class RunCommand(click.Command):
    """Leaves everything behind `-m MODULE` to the module, as Python does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        place = 0
        while place < len(args) and args[place].startswith("-") and args[place] != "--":
            if args[place] == "-m":
                args = [*args[: place + 2], "--", *args[place + 2 :]]
                break
            place += 2 if args[place] in ("--session", "--id") else 1
        return super().parse_args(ctx, args)


@click.command(
    "run",
    cls=RunCommand,
    short_help=COMMANDS["run"],
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("--session", "name", metavar="NAME", help="Name the session.")
@click.option("--id", "session_id", metavar="ID", help="Join the session of this id.")
@click.option("--quiet", "-q", is_flag=True, help="Do not print what it came to at the end.")
@click.option("-m", "module", metavar="MODULE", help="Run a module, as python -m does.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[SCRIPT.py|COMMAND] ...")
def command(
    name: str | None,
    session_id: str | None,
    quiet: bool,
    module: str | None,
    arguments: tuple[str, ...],
) -> int:
    """Run a Python script or module with the clients of all known SDKs tracked, in one session.

    Any other command, and what comes after --, gets the session through its environment, so that
    Python programs in it that use instrument take part. The exit code is the program's own. What
    it came to is printed on standard error at the end.

    \b
    Examples:
      instrument run report.py --month 11
      instrument run --session nightly -m myapp.jobs
      instrument run -- make evaluate
    """
    if module == "--" or (module is None and not arguments):
        raise click.UsageError("name a script, a module (-m) or a command")
    if module is not None and not _exists(module):
        raise click.UsageError(f"no module named {module}")
    is_script = module is None and arguments[0].endswith(".py") and Path(arguments[0]).is_file()
    work = session(name or _named(module, arguments), id=session_id)
    # never left: the program's threads and exit handlers, which come before ours, are inside
    work.__enter__()
    if not quiet and not disabled_by_environment():
        atexit.register(_sum_up, work, os.getpid())
    if module is not None:
        return _run_python(module, ["-m", *arguments], as_module=True)
    if is_script:
        return _run_python(arguments[0], list(arguments), as_module=False)
    return _run_command(work, arguments)


def _sum_up(work: Session, pid: int) -> None:
    if os.getpid() == pid:  # no fork that ends as the program does
        click.echo(f"instrument: {work.stats()}; instrument show {work.id}", err=True)


def _exists(module: str) -> bool:
    sys.path.insert(0, os.getcwd())  # where a module to run is looked for first
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _named(module: str | None, arguments: Sequence[str]) -> str:
    return module or Path(arguments[0]).name


def _run_python(target: str, arguments: list[str], *, as_module: bool) -> int:
    """Run it in this process, as Python would, and return its exit code."""
    install()
    sys.argv = arguments
    if not as_module:
        sys.path.insert(0, str(Path(target).resolve().parent))
    try:
        if as_module:
            runpy.run_module(target, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(target, run_name="__main__")
    except SystemExit as leaving:
        return _code_of(leaving.code)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception:
        return _traceback()
    finally:
        sys.stdout.flush()
    return 0


def _traceback() -> int:
    """Print the program's traceback, without the frames that ran it."""
    kind, error, trace = sys.exc_info()
    while trace is not None and trace.tb_frame.f_globals.get("__name__") != "__main__":
        trace = trace.tb_next
    if kind is not None and error is not None:
        sys.excepthook(kind, error.with_traceback(trace), trace)
    return 1


def _code_of(code: Any) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _run_command(work: Session, arguments: Sequence[str]) -> int:
    """Run another program, hand signals on to it, and return its exit code as a shell does."""
    found = shutil.which(arguments[0])
    if found is None:
        exists = Path(arguments[0]).exists()
        problem = "cannot be executed" if exists else "no such command"
        click.echo(f"instrument: {arguments[0]}: {problem}", err=True)
        return NOT_EXECUTABLE if exists else NOT_FOUND
    with track(Path(found).name, service="process") as operation:
        try:
            code = Forwarding().run(arguments, {**os.environ, **work.env()})
        except OSError as error:
            operation.fail(str(error))
            return _not_begun(arguments[0], error)
        if code:
            operation.fail(f"exit code {code}")
    return 128 - code if code < 0 else code


def _not_begun(command: str, error: OSError) -> int:
    """Say why a file that may be executed cannot be."""
    is_missing = isinstance(error, FileNotFoundError)
    problem = "its interpreter does not exist" if is_missing else error.strerror
    click.echo(f"instrument: {command}: cannot be executed: {problem}", err=True)
    return NOT_FOUND if is_missing else NOT_EXECUTABLE


class Forwarding:
    """Hands signals on to another program; those that come before it has begun, when it has."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run the program to its end and return its exit code; raises what `Popen` does."""
        before = {number: signal.signal(number, self._hand_on) for number in _forwarded()}
        try:
            self._child = subprocess.Popen(arguments, env=environment)
            while self._early:
                self._hand_on(self._early.pop(0))
            _await_end(self._child)
            return self._child.wait()
        finally:
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)

    def _hand_on(self, number: int, frame: FrameType | None = None) -> None:
        if self._child is None:
            self._early.append(number)
        # what is typed at a terminal goes to the child too
        elif number not in TYPED or not sys.stdin or not sys.stdin.isatty():
            self._child.send_signal(number)


def _await_end(child: subprocess.Popen[bytes]) -> None:
    """Wait for the end, looking up once a second.

    A signal that comes just before a wait begins is not heard of in it, which would last for ever.
    """
    try:
        descriptor = os.pidfd_open(child.pid)
    except (AttributeError, OSError):  # not on this system
        return
    try:
        ending = select.poll()
        ending.register(descriptor, select.POLLIN)
        while not ending.poll(1000):
            pass
    finally:
        os.close(descriptor)


def _forwarded() -> list[int]:
    """Return the signals to hand on; one that is ignored stays so, in the child too (`nohup`)."""
    ours = {getattr(signal, f"SIG{name}") for name in OURS.split()}
    numbers = signal.valid_signals() - ours
    return [each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN]
