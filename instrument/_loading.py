"""Imports on first need, none of which a fork may cut in half.

A forked child has one thread. What another one was importing stays half imported there, with the
import's lock held, so that the child would wait for ever where it needs the same.
"""

from __future__ import annotations

import os
from threading import RLock, get_ident

__all__ = ["importing"]

_MOST_SECONDS = 1.0


class Importing:
    """Held, as `with importing:`, around an import that a tracked call may make; forks wait."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._held_by: dict[int, bool] = {}

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def hold(self) -> None:
        """Wait until nothing is being imported, but not for ever."""
        self._held_by[get_ident()] = self._lock.acquire(timeout=_MOST_SECONDS)

    def release(self) -> None:
        if self._held_by.pop(get_ident(), False):
            self._lock.release()

    def release_in_child(self) -> None:
        if not self._held_by.get(get_ident()):
            self._lock = RLock()  # a thread that is gone has the old one
        self.release()
        self._held_by.clear()


importing = Importing()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=importing.hold,
        after_in_parent=importing.release,
        after_in_child=importing.release_in_child,
    )
