"""Ctrl-C while the database works, which looks for signals only between its steps.

And other ways to ask a command to end: as after a Ctrl-C, it leaves no files of its own behind.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

__all__ = ["EXIT_CODE", "clean_up_when_ended", "end_as_asked", "ended_by_interrupt"]

GRACE_SECONDS = 1.0
EXIT_CODE = 130


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """End the process a second after it was asked to, where the block has taken no notice of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write)
    watcher = threading.Thread(target=_watch, args=(read, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        over.set()
        os.close(write)  # the watcher reads the end
        watcher.join()
        os.close(read)


def _watch(read: int, over: threading.Event) -> None:
    while numbers := os.read(read, 64):
        if _ENDINGS.intersection(numbers) and not over.wait(GRACE_SECONDS):
            end_as_asked()
            os._exit(EXIT_CODE)


def clean_up_when_ended() -> None:
    """Unwind on SIGTERM and SIGHUP, unless whoever started us has them ignored."""
    for number in _ENDINGS - {signal.SIGINT}:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _unwind)


def end_as_asked() -> None:
    """Leave no files behind; end by the signal that this process was asked to end by, if it was."""
    # what came while a directory was made or removed
    if "tempfile" in sys.modules:
        import shutil
        import tempfile

        from instrument._files import scratch_prefix

        for each in Path(tempfile.gettempdir()).glob(f"{scratch_prefix()}*"):
            shutil.rmtree(each, ignore_errors=True)
    for number in _asked:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        os._exit(128 + number)


def _unwind(number: int, frame: FrameType | None) -> None:
    _asked.append(number)
    raise KeyboardInterrupt


# Windows has no SIGHUP
_ENDINGS = frozenset({signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)})
_asked: list[int] = []
