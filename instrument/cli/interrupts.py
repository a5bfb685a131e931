"""Ctrl-C while the database works, which looks for signals only between its steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ended_by_interrupt"]

GRACE_SECONDS = 1.0
EXIT_CODE = 130


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """End the process a second after a Ctrl-C that the block has taken no notice of."""
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
        if signal.SIGINT in numbers and not over.wait(GRACE_SECONDS):
            os._exit(EXIT_CODE)
