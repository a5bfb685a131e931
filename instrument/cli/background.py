"""Compaction by itself: a command that has met many closed segments starts it when it is done."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from instrument._scan import sources_of
from instrument._snapshot import closed_segments
from instrument.log import UsageLog

__all__ = ["compact_later"]

MANY_BYTES = 512 * 1024**2
MANY_SEGMENTS = 500


def compact_later(log: UsageLog) -> None:
    """Start `instrument compact` for each directory with so much to compact that it is worth it.

    It goes on behind the command, out of the terminal's way, and gives way to other programs.
    """
    for log_dir in log.paths:
        with suppress(OSError):
            if _is_worth_it(log_dir):
                _start(log_dir)


def _is_worth_it(log_dir: Path) -> bool:
    closed = closed_segments(sources_of([log_dir], may_vanish=True))
    if len(closed) >= MANY_SEGMENTS:
        return True
    return sum(each.path.stat().st_size for each in closed) >= MANY_BYTES


def _start(log_dir: Path) -> None:
    import subprocess  # most commands start nothing

    subprocess.Popen(
        [sys.executable, "-m", "instrument", "compact", "--quietly", "--dir", str(log_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
