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
from contextvars import Context, copy_context
from functools import partial, wraps
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from instrument import _config, context
from instrument._loading import importing, no_longer_when_loaded, when_loaded
from instrument._processes import carrying, handed_to_child
from instrument.context import Scope, run_in

__all__ = ["follow_settings"]

_CARRIED = "_instrument_carried"
_POOLS = ("concurrent.futures.", "multiprocessing.", "joblib.", "loky.", "anyio.", "trio.")
_POOLS_OWN = ("_", "worker", "WorkerThread")

Replace = Callable[[Callable[..., Any]], Callable[..., Any]]


class Patch(NamedTuple):
    """One method, or function of a module, that is replaced."""

    owner: type | ModuleType
    name: str
    original: Callable[..., Any]
    replacement: Callable[..., Any]


def follow_settings() -> None:
    """Patch, or take back what was patched, as `configure(propagate_threads=...)` says."""
    with importing:  # one thread at a time
        wanted = _config.propagates_threads()
        if wanted and not _patches:
            _patch_all()
        elif not wanted and _patches:
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
        patch = _patches.pop()
        if patch.owner.__dict__.get(patch.name) is patch.replacement:
            setattr(patch.owner, patch.name, patch.original)
        else:  # somebody else has wrapped ours, which then does nothing
            _buried.append(patch)


def _put(owner: Any, name: str, replace: Replace) -> None:
    original = owner.__dict__.get(name) if isinstance(owner, (type, ModuleType)) else None
    if original is None or not callable(original):
        return
    patch = _dug_up(owner, name, original)
    if patch is None:
        replacement = wraps(original)(replace(_unbound(original)))
        setattr(owner, name, replacement)
        patch = Patch(owner, name, original, replacement)
    _patches.append(patch)


def _dug_up(owner: type | ModuleType, name: str, found: Any) -> Patch | None:
    """Return the patch that was left below somebody else's wrapper, if it is still there."""
    below = [found]
    while (inner := getattr(below[-1], "__wrapped__", None)) is not None and len(below) < 100:
        below.append(inner)
    for patch in _buried:
        if (patch.owner, patch.name) == (owner, name) and patch.replacement in below:
            _buried.remove(patch)
            return patch
    return None


def _unbound(method: Any) -> Callable[..., Any]:
    """Return what is called with `self` first; a wrapper of somebody else's may have to be bound.

    wrapt's, for one, learns only so whose method it is.
    """
    if type(method) is FunctionType or not hasattr(method, "__get__"):
        return method  # type: ignore[no-any-return]

    def binding(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return method.__get__(self, type(self))(*args, **kwargs)

    return binding


def _here() -> Scope | None:
    """Return what is to be carried, `None` if nothing is, or nothing is patched any more."""
    found = context.scope.get()
    if found is None or not _patches or not found.session.id:
        return None
    return found.elsewhere()


def _starting_thread(start: Callable[..., None]) -> Callable[..., None]:
    def starting(self: threading.Thread) -> None:
        carried = _here()
        if carried is None:
            return start(self)
        if _is_of_a_pool(self):
            carried = None
        if sys.version_info >= (3, 14):
            if getattr(self, "_context", self) is None:
                self._context = _context_with(carried)
        elif carried is not None:
            self.__dict__[_CARRIED] = carried
        try:
            return start(self)
        finally:
            self.__dict__.pop(_CARRIED, None)

    return starting


def _context_with(carried: Scope | None) -> Context:
    """Return the context that a thread would get by itself (Python 3.14), with `carried` in it."""
    inherits = getattr(sys.flags, "thread_inherit_context", False)
    made = copy_context() if inherits else Context()
    if carried is None:
        made.run(context.stay_outside)
    else:
        made.run(context.enter_session, carried)
    return made


def _beginning_thread(begin: Callable[..., None]) -> Callable[..., None]:
    def beginning(self: threading.Thread) -> None:
        carried = self.__dict__.pop(_CARRIED, None)
        if carried is not None:
            context.enter_session(carried)
        return begin(self)

    return beginning


def _is_of_a_pool(starting: Any) -> bool:
    """Tell whether a pool starts this thread or process for itself."""
    work = getattr(starting, "_target", None)
    if work is None:
        work = type(starting)
    elif isinstance(work, MethodType):
        work = work.__func__
    elif not isinstance(work, FunctionType):
        return False
    name: str = work.__name__
    return f"{work.__module__}.".startswith(_POOLS) and name.startswith(_POOLS_OWN)


def _submitting_to_threads(submit: Callable[..., Any]) -> Callable[..., Any]:
    def submitting(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        carried = _here()
        if carried is None or (sys.version_info >= (3, 14) and _is_of_interpreters(self)):
            return submit(self, fn, *args, **kwargs)
        return submit(self, run_in, carried, fn, *args, **kwargs)

    return submitting


def _is_of_interpreters(executor: Any) -> bool:
    """Tell whether this pool pickles its work for interpreters which cannot import us."""
    module = sys.modules.get("concurrent.futures.interpreter")
    return module is not None and isinstance(executor, module.InterpreterPoolExecutor)


def _submitting_to_processes(submit: Callable[..., Any]) -> Callable[..., Any]:
    def submitting(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return submit(self, carrying(fn, _here()) if _patches else fn, *args, **kwargs)

    return submitting


def _adding_callback(add: Callable[..., None]) -> Callable[..., None]:
    def adding(self: Any, fn: Callable[..., Any]) -> None:
        carried = _here()
        return add(self, fn if carried is None else partial(run_in, carried, fn))

    return adding


def _giving_to_pool(first_callback: int, give: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a method that takes `func`, and callbacks after `first_callback` more arguments."""

    def giving(self: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not _patches or not callable(func):
            return give(self, func, *args, **kwargs)
        from multiprocessing.pool import ThreadPool  # loaded, for this is a pool

        carried = _here()

        def bound(fn: Any) -> Any:
            return partial(run_in, carried, fn) if carried is not None and callable(fn) else fn

        work = bound(func) if isinstance(self, ThreadPool) else carrying(func, carried)
        given = args[:first_callback] + tuple(map(bound, args[first_callback:]))
        named = {name: bound(each) if name in _CALLBACKS else each for name, each in kwargs.items()}
        return give(self, work, *given, **named)

    return giving


def _starting_process(start: Callable[..., None]) -> Callable[..., None]:
    def starting(self: Any) -> None:
        if not _patches:
            return start(self)
        if _is_of_a_pool(self):
            # a fork would keep the session
            return copy_context().run(_outside, _starting_child, start, self)
        return _starting_child(start, self)

    return starting


def _outside(fn: Callable[..., None], *args: Any) -> None:
    context.stay_outside()
    fn(*args)


def _starting_child(start: Callable[..., None], process: Any) -> None:
    handed = handed_to_child(_here())
    if handed is not None:
        process.__dict__[_CARRIED] = handed
    try:
        return start(process)
    finally:
        process.__dict__.pop(_CARRIED, None)


def _patch_futures(module: ModuleType) -> None:
    _put(_of(module, "Future"), "add_done_callback", _adding_callback)


def _patch_thread_executor(module: ModuleType) -> None:
    _put(_of(module, "ThreadPoolExecutor"), "submit", _submitting_to_threads)


def _patch_process_executor(module: ModuleType) -> None:
    _put(_of(module, "ProcessPoolExecutor"), "submit", _submitting_to_processes)


def _patch_pool(module: ModuleType) -> None:
    for name, first_callback in _GIVING.items():
        _put(_of(module, "Pool"), name, partial(_giving_to_pool, first_callback))


def _serving_all_to_come(serve: Callable[..., None]) -> Callable[..., None]:
    def serving(*args: Any) -> None:
        copy_context().run(_outside, serve, *args)

    return serving


def _patch_grpc(module: ModuleType) -> None:
    # the threads of a channel, which copy the context of the call that happens to be the first
    for name in ("_run_channel_spin_thread", "_spawn_poll_connectivity"):
        _put(module, name, _serving_all_to_come)
    _put(_of(module, "_MultiThreadedRendezvous"), "add_done_callback", _adding_callback)


def _patch_process(module: ModuleType) -> None:
    _put(_of(module, "BaseProcess"), "start", _starting_process)


def _of(module: ModuleType, name: str) -> Any:
    return getattr(module, name, None)


_patches: list[Patch] = []
_buried: list[Patch] = []
_GIVING = {"apply_async": 2, "_map_async": 3, "imap": 2, "imap_unordered": 2}
_CALLBACKS = ("callback", "error_callback")
_WHEN_LOADED: dict[str, Callable[[ModuleType], None]] = {
    "concurrent.futures._base": _patch_futures,
    "concurrent.futures.process": _patch_process_executor,
    "concurrent.futures.thread": _patch_thread_executor,
    "grpc._channel": _patch_grpc,
    "joblib.externals.loky.process_executor": _patch_process_executor,
    "loky.process_executor": _patch_process_executor,
    "multiprocessing.pool": _patch_pool,
    "multiprocessing.process": _patch_process,
}
_config.on_change(follow_settings)
