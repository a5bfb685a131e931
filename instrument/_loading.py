"""Imports on first need, none of which a fork may cut in half, and news of the program's own.

A forked child has one thread. What another one was importing stays half imported there, with the
import's lock held, so that the child would wait for ever where it needs the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from threading import RLock, get_ident
from types import ModuleType
from typing import Any, cast

__all__ = ["importing", "no_longer_when_loaded", "when_loaded"]

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


class Telling:
    """In the place of a module's loader, until the module is loaded: then `loaded` hears of it.

    Whatever else a loader is asked for is the module's own loader's.
    """

    def __init__(self, loader: Any, loaded: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._loaded = loaded

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_loader"), name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._loaded(module)


class Watcher:
    """A finder that finds nothing itself, and has the modules that are waited for tell.

    wrapt's `when_imported` does the same, but takes longer to import than a program to make its
    first call.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, Callable[[ModuleType], None]] = {}
        self._looking: set[tuple[int, str]] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.waiting:
            return None
        here = get_ident(), name
        if here in self._looking:
            return None
        self._looking.add(here)
        try:
            spec = find_spec(name)
        finally:
            self._looking.discard(here)
        # it may be a mere look, or an import that fails, and the next one is told of as well
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = cast("Any", Telling(spec.loader, self._tell))
        return spec

    def _tell(self, module: ModuleType) -> None:
        told = self.waiting.pop(module.__name__, None)
        if told is not None:
            told(module)


def when_loaded(name: str, told: Callable[[ModuleType], None]) -> None:
    """Call `told` with the module of that name: now if it is loaded, else when it is."""
    module = sys.modules.get(name)
    if getattr(getattr(module, "__spec__", None), "_initializing", False):
        module = import_module(name)  # another thread is at it, and we wait for its end
    if module is not None:
        told(module)
        return
    _watcher.waiting[name] = told
    if _watcher not in sys.meta_path:
        sys.meta_path.insert(0, _watcher)


def no_longer_when_loaded(*names: str) -> None:
    for name in names:
        _watcher.waiting.pop(name, None)
    if not _watcher.waiting and _watcher in sys.meta_path:
        sys.meta_path.remove(_watcher)


_watcher = Watcher()
importing = Importing()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=importing.hold,
        after_in_parent=importing.release,
        after_in_child=importing.release_in_child,
    )
