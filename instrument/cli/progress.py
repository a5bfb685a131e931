"""Signs of life for what takes long, on a terminal alone."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Waiting", "progress"]

SHOWN_AFTER_SECONDS = 1.0
REFRESH_SECONDS = 0.1


@contextmanager
def progress(
    what: str, *, total: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[float], None]]:
    """Yield `advance(n)`, to be called as the work goes on: with progress("Importing", total=9).

    After a second a bar appears on standard error, if that is a terminal, and goes away at the
    end. `advance` is cheap and may be called as often as one likes. `clock` gives seconds.
    """
    bar = _Bar(what, total, clock)
    try:
        yield bar.advance if _is_terminal() else _nothing
    finally:
        bar.stop()


class Waiting:
    """Shows on standard error, after a second and until `stop`, what is being waited for.

    That is `what`, which may be changed at any time. Nothing is shown where standard error is no
    terminal.
    """

    def __init__(self, what: str, *, ascii_only: bool, colour: bool) -> None:
        self.what = what
        self._ascii_only = ascii_only
        self._colour = colour
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def start(self) -> None:
        if _is_terminal():
            self._thread.start()

    def stop(self) -> None:
        """Take the sign away; what is printed after that stands where it stood."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _show(self) -> None:
        if self._over.wait(SHOWN_AFTER_SECONDS):
            return
        from rich.console import Console  # most commands are over before a sign is wanted

        console = Console(stderr=True, no_color=not self._colour or None, markup=False)
        spinner = "line" if self._ascii_only else "dots"
        with console.status(self.what, spinner=spinner) as status:
            while not self._over.wait(REFRESH_SECONDS):
                status.update(self.what)


class _Bar:
    def __init__(self, what: str, total: float, clock: Callable[[], float]) -> None:
        self._what = what
        self._total = total
        self._clock = clock
        self._done = 0.0
        self._show_at = clock() + SHOWN_AFTER_SECONDS
        self._shown: Progress | None = None

    def advance(self, amount: float) -> None:
        self._done += amount
        now = self._clock()
        if now >= self._show_at:
            self._show_at = now + REFRESH_SECONDS
            self._show()

    def stop(self) -> None:
        if self._shown is not None:
            self._shown.stop()

    def _show(self) -> None:
        if self._shown is None:
            self._shown = _started(self._what, self._total)
        self._shown.update(self._shown.task_ids[0], completed=self._done, refresh=True)


def _started(what: str, total: float) -> Progress:
    from rich.console import Console  # most commands are over before a bar is wanted
    from rich.progress import Progress

    shown = Progress(console=Console(stderr=True), auto_refresh=False, transient=True)
    shown.add_task(what, total=total)
    shown.start()
    return shown


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _nothing(amount: float) -> None:
    """Take no notice."""
