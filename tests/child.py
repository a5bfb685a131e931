"""Runs programs that record into a log directory, as real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

PRELUDE = """
import asyncio, os, signal, sys, threading, time, warnings
from pathlib import Path
from instrument import UsageLog, configure, current_operation, session, track, tracked

@tracked(service="s")
def ask(result=None):
    return result

def segments(log_dir):
    return sorted(Path(log_dir, "journal").iterdir())

def same_second():
    # rotation and deletion are noticed at the next second's look
    time.sleep(1.05)
"""


# Python 3.12 and later warn wherever a program with threads forks, DuckDB's included
FORKING_BESIDE_THREADS = ("-W", "ignore:This process:DeprecationWarning")


def start(
    program: str, log_dir: Path, *flags: str, under: Sequence[str] = (), **options: Any
) -> subprocess.Popen[str]:
    """Start `program`, given a log directory by the environment, and with `ask` tracked in it.

    `under` is the command that starts it, if it is not to be started directly.
    """
    changes = {"INSTRUMENT_DIR": str(log_dir)} | options.pop("env", {})
    environment = {key: value for key, value in (os.environ | changes).items() if value is not None}
    return subprocess.Popen(
        [*under, sys.executable, *flags, "-c", PRELUDE + dedent(program)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(program: str, log_dir: Path, *flags: str, **options: Any) -> tuple[str, str]:
    """Run `program` to its end, whatever that is; return its output and its errors."""
    process = start(program, log_dir, *flags, **options)
    output, errors = process.communicate(timeout=60)
    return output.strip(), errors.strip()


def raw_lines(log_dir: Path) -> list[bytes]:
    """Return every line of the journal, as it stands there."""
    found = sorted((log_dir / "journal").iterdir())
    return [line for each in found for line in each.read_bytes().splitlines()]


def raw_ids(log_dir: Path) -> list[bytes]:
    """Return the operation id of every operation's line, before the reader looks at doubles."""
    lines = [line for line in raw_lines(log_dir) if b'"success":' in line]
    return [line.split(b'"operation_id":"')[1][:16] for line in lines]
