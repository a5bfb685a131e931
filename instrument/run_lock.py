"""The lock file by which others can tell whether a process lives that began slow operations.

<log_dir>/run/<run>.lock
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from instrument._files import (
    OpenFile,
    close,
    is_open,
    is_there,
    lock,
    make_private_directory,
    open_locked,
    open_regular,
)
from instrument._guard import belongs_to_program

__all__ = ["RunLock", "is_alive"]

LOOK_EVERY_NS = 1_000_000_000

Report = Callable[[str, str], None]


class RunLock:
    """The lock file that this process holds while it lives, so that others can tell."""

    def __init__(self, log_dir: Path, run: str, report: Report) -> None:
        self.run = run
        self._path = log_dir / "run" / f"{run}.lock"
        self._report = report
        self._file: OpenFile | None = None
        self._look_at_ns = 0

    def hold(self, now_ns: int) -> None:
        """See to it that the file is there and locked; looks at most once a second."""
        if now_ns < self._look_at_ns:
            return
        self._look_at_ns = now_ns + LOOK_EVERY_NS
        try:
            self._hold()
        except OSError as error:
            if belongs_to_program(error):
                raise
            self._report(error.strerror or str(error), str(self._path))

    def forget(self) -> None:
        """Let go of the descriptor without unlocking: in a forked child it is the parent's."""
        if self._file is not None:
            close(self._file)
        self._file = None

    def __del__(self) -> None:
        with suppress(Exception):  # the interpreter may be half gone
            self.release()

    def release(self) -> None:
        """Remove the file: what it stands for has ended in good order."""
        if self._file is not None and is_open(self._file):
            self._path.unlink(missing_ok=True)
        self.forget()

    def _hold(self) -> None:
        held = self._file
        if held is not None and is_open(held) and is_there(held):
            os.utime(held.descriptor)
            return
        make_private_directory(self._path.parent)
        before, self._file = held, open_locked(self._path, exclusive=True)
        if before is not None:
            close(before)


def is_alive(log_dir: Path, run: str) -> bool:
    """Tell whether the process that holds `run/<run>.lock` lives. Takes no lock that it keeps."""
    try:
        descriptor = open_regular(log_dir / "run" / f"{run}.lock", os.O_RDONLY)
    except (OSError, ValueError) as error:
        if belongs_to_program(error):
            raise
        return False
    try:
        lock(descriptor, exclusive=False)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
