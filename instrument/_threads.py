"""Threads, pools and processes carry the session of whoever starts them or gives them work.

Nothing is patched before the first session or operation, and nothing stays so after
`configure(propagate_threads=False)`. What is carried is taken when work is handed over, and left
behind by a pool's worker when it is done; the threads and processes that pools start for
themselves carry nothing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextvars import Context
from functools import partial, wraps
from types import ModuleType
from typing import Any, NamedTuple

from instrument import _config, context
from instrument._loading import no_longer_when_loaded, when_loaded
from instrument._processes import carrying, handed_to_child
from instrument.context import Scope

__all__ = ["follow_settings"]

_CARRIED = "_instrument_carried"
_POOLS = ("concurrent.futures", "multiprocessing", "joblib", "loky")

Replace = Callable[[Callable[..., Any]], Callable[..., Any]]


class Patch(NamedTuple):
    """One method that is replaced."""

    owner: type
    name: str
    original: Callable[..., Any]
    replacement: Callable[..., Any]


def follow_settings() -> None:
    """Patch, or take back what was patched, as `configure(propagate_threads=...)` says."""
    wanted = _config.propagates_threads()
    if wanted and not _patches:
        _patch_all()
    elif not wanted:
        _take_back()


def _patch_all() -> None:
    _put(threading.Thread, "start", _starting_thread)
    if sys.version_info < (3, 14):
        _put(threading.Thread, "_bootstrap_inner", _beginning_thread)
    for module, patch in _WHEN_LOADED.items():
        when_loaded(module, patch)


def _take_back() -> None:
    no_longer_when_loaded(*_WHEN_LOADED)
    while _patches:
        owner, name, original, replacement = _patches.pop()
        # somebody else may have wrapped ours meanwhile, which then does nothing
        if owner.__dict__.get(name) is replacement:
            setattr(owner, name, original)


def _put(owner: type, name: str, replace: Replace) -> None:
    original = owner.__dict__.get(name)
    if callable(original):
        replacement = wraps(original)(replace(original))
        setattr(owner, name, replacement)
        _patches.append(Patch(owner, name, original, replacement))


def _here() -> Scope | None:
    """Return what is to be carried, `None` if nothing is, or nothing is patched any more."""
    found = context.scope.get() if _patches else None
    return None if found is None or not found.session.id else found.elsewhere()


def _in(carried: Scope, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run `fn` inside of what was current where it was handed over."""
    before = context.scope.get()
    try:
        context.scope.set(carried)
        return fn(*args, **kwargs)
    finally:
        context.scope.set(before)


def _starting_thread(start: Callable[..., None]) -> Callable[..., None]:
    def starting(self: threading.Thread) -> None:
        carried = _here()
        if carried is None or _is_of_a_pool(self):
            return start(self)
        if sys.version_info < (3, 14):
            self.__dict__[_CARRIED] = carried
        elif self._context is None and not sys.flags.thread_inherit_context:
            self._context = Context()
            self._context.run(context.scope.set, carried)
        return start(self)

    return starting


def _beginning_thread(begin: Callable[..., None]) -> Callable[..., None]:
    def beginning(self: threading.Thread) -> None:
        carried = self.__dict__.pop(_CARRIED, None)
        if carried is not None:
            context.scope.set(carried)
        return begin(self)

    return beginning


def _is_of_a_pool(starting: Any) -> bool:
    """Tell whether a pool starts this thread or process for itself."""
    work = getattr(starting, "_target", None) or type(starting)
    module = getattr(work, "__module__", None)
    return isinstance(module, str) and module.startswith(_POOLS)


def _submitting_to_threads(submit: Callable[..., Any]) -> Callable[..., Any]:
    def submitting(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        carried = _here()
        if carried is None:
            return submit(self, fn, *args, **kwargs)
        return submit(self, _in, carried, fn, *args, **kwargs)

    return submitting


def _submitting_to_processes(submit: Callable[..., Any]) -> Callable[..., Any]:
    def submitting(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        carried = _here()
        return submit(self, fn if carried is None else carrying(fn, carried), *args, **kwargs)

    return submitting


def _giving_to_pool(give: Callable[..., Any]) -> Callable[..., Any]:
    def giving(self: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        carried = _here()
        if carried is None or not callable(func):
            return give(self, func, *args, **kwargs)
        from multiprocessing.pool import ThreadPool  # loaded, for this is a pool

        in_thread = isinstance(self, ThreadPool)
        bound = partial(_in, carried, func) if in_thread else carrying(func, carried)
        return give(self, bound, *args, **kwargs)

    return giving


def _starting_process(start: Callable[..., None]) -> Callable[..., None]:
    def starting(self: Any) -> None:
        if not _patches:
            return start(self)
        before = context.scope.get()
        is_of_a_pool = _is_of_a_pool(self)
        carried = None if is_of_a_pool or before is None else before.elsewhere()
        try:
            if is_of_a_pool:
                context.scope.set(None)  # a forked worker would keep it
            self.__dict__[_CARRIED] = handed_to_child(carried)
            return start(self)
        finally:
            context.scope.set(before)
            self.__dict__.pop(_CARRIED, None)

    return starting


def _patch_thread_executor(module: ModuleType) -> None:
    _put(module.ThreadPoolExecutor, "submit", _submitting_to_threads)


def _patch_process_executor(module: ModuleType) -> None:
    _put(module.ProcessPoolExecutor, "submit", _submitting_to_processes)


def _patch_pool(module: ModuleType) -> None:
    for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
        _put(module.Pool, name, _giving_to_pool)


def _patch_process(module: ModuleType) -> None:
    _put(module.BaseProcess, "start", _starting_process)


_patches: list[Patch] = []
_WHEN_LOADED: dict[str, Callable[[ModuleType], None]] = {
    "concurrent.futures.process": _patch_process_executor,
    "concurrent.futures.thread": _patch_thread_executor,
    "joblib.externals.loky.process_executor": _patch_process_executor,
    "loky.process_executor": _patch_process_executor,
    "multiprocessing.pool": _patch_pool,
    "multiprocessing.process": _patch_process,
}
_config.on_change(follow_settings)
