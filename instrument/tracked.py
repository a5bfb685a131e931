"""`@tracked` and `with track(...)`: where operations come from."""

from __future__ import annotations

import functools
import sys
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Token
from functools import partial
from types import FunctionType, MethodType, TracebackType
from typing import Any, NoReturn, Protocol, TypeVar

from instrument import _asking, context  # noqa: F401 - with it, recorders find the gates of budgets
from instrument._clean import copied
from instrument._config import disabled_by_environment
from instrument._kinds import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from instrument._loading import importing
from instrument.context import Scope, enclosing, leave, leave_by
from instrument.errors import (
    ConfigurationError,
    ConfigurationTypeError,
    InstrumentWarning,
    reject_type,
    reject_unknown,
)
from instrument.operation import Usage
from instrument.recorder import current, recorder
from instrument.running import RunningOperation, Site, begin
from instrument.streams import give_back, give_back_stream
from instrument.usage import prepare
from instrument.wrappers import (
    async_generator_wrapper,
    coroutine_wrapper,
    generator_wrapper,
    like,
    steps_of,
    sync_wrapper,
)

__all__ = ["track", "tracked", "tracked_client"]

T = TypeVar("T")

_TRACKED_ACCEPTS = "service, operation, model, usage, success, metadata or stream"
_TRACK_ACCEPTS = "service, model or metadata"
_CALLABLE = "a function, method, class, partial or other callable"
_BLOCK_SITES_KEPT = 4096
_LOOK_FOR_DEAD_AT = 1024

# by id, without callbacks: Python drops what a signal handler raises in one
_sites: dict[int, tuple[weakref.ref[Any], Site]] = {}
_block_sites: dict[tuple[str, str], Site] = {}


class Decorator(Protocol):
    """Gives back what it decorates, with the same type."""

    def __call__(self, target: T, /) -> T: ...


def tracked(
    *misplaced: NoReturn,
    service: str,
    operation: str | None = None,
    model: str | None = None,
    usage: Callable[[Any], Usage | int | Mapping[str, Any] | None] | None = None,
    success: Callable[[Any], object] | None = None,
    metadata: Mapping[str, Any] | None = None,
    stream: bool = False,
    **unknown: NoReturn,
) -> Decorator:
    """Record every call of what is decorated: how long it took, what it used, how it ended.

    - `service`: what is called: `openai`, `gemini`, `stripe`.
    - `operation`: the name of the call; by default the qualified name, `Client.ask`.
    - `model`: the model, where the response does not say it.
    - `usage`: a callable from the result to a `Usage`, its fields as a mapping, a number of
      tokens, a provider's own usage, or `None` for none; without it, the known providers'
      responses are read.
    - `success`: a callable from the result to whether the call succeeded.
    - `metadata`: what is recorded beside the numbers; copied for each call.
    - `stream`: whether any iterator that is returned is followed to its end.

    Functions of all kinds, methods, class and static methods, partials, callable objects and
    classes (their public methods) may be decorated, and behave as before. Of a generator and of
    a coroutine function, a wrong list of arguments is reported at the first step.

    Raises `ConfigurationError` (a `ValueError`; for wrong types also a `TypeError`).
    """
    if misplaced:
        reject_type("tracked() argument", misplaced[0], "keywords: tracked(service=...)")
    reject_unknown("tracked", dict(unknown), _TRACKED_ACCEPTS)
    site = Site(
        service=_name("service", service),
        operation=_name("operation", operation) if operation is not None else "",
        model=_text("model", model),
        metadata=_metadata(metadata),
        usage=_callable("usage", usage),
        success=_callable("success", success),
        stream=_boolean("stream", stream),
    )
    prepare(service)
    return partial(_decorated, site)


def tracked_client(service: str, operation: str) -> Decorator:
    """Track functions of a client that tell the operation what they `requested`."""
    return partial(_decorated, Site(service, operation, tells=True))


class track:  # noqa: N801 - it is used like a function
    """Record a block as one operation: `with track("parse", service="pdf") as op:`.

    Works with `async with`, and as a decorator. `op` is the running operation, with `set_usage`,
    `add_usage` and `fail`. Raises `ConfigurationError` as `tracked` does.
    """

    def __init__(
        self,
        operation: str,
        /,
        *,
        service: str,
        model: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **unknown: NoReturn,
    ) -> None:
        reject_unknown("track", dict(unknown), _TRACK_ACCEPTS)
        self._site = _block_site(_name("service", service), _name("operation", operation))
        self._model = _text("model", model)
        self._metadata = _metadata(metadata)
        self._entered: list[RunningOperation] = []
        self._tokens: dict[RunningOperation, Token[Scope | None]] = {}

    def __enter__(self) -> RunningOperation:
        noted = None if self._metadata is None else copied(self._metadata)
        begun = begin(self._site, context.scope.get(), self._model, noted)
        operation = begun or _unrecorded(self._site, self._model, noted)
        try:
            self._entered.append(operation)
            if begun is not None:
                self._tokens[begun] = context.scope.set(begun)
        except BaseException as error:  # a signal handler's: then nobody leaves it
            self._leave(operation, error)
            raise
        return operation

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        operation = None
        try:
            operation = self._innermost()
            self._leave(operation, error)
        except BaseException:  # as above
            self._leave(operation or self._innermost(), error)
            raise

    def _leave(self, operation: RunningOperation, error: BaseException | None) -> None:
        """Leave it and end it, unless that is done."""
        with suppress(ValueError):
            self._entered.remove(operation)
        token = self._tokens.pop(operation, None)
        if token is None:
            leave(operation)
        else:
            leave_by(token, operation)
        if error is None:
            operation.returned(None, None)
        else:
            operation.raised(error)

    def _innermost(self) -> RunningOperation:
        found = enclosing(self._entered.__contains__)
        return found if isinstance(found, RunningOperation) else self._entered[-1]

    async def __aenter__(self) -> RunningOperation:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, target: T) -> T:
        """Track every call of `target`, as `tracked` does."""
        site = Site(
            service=self._site.service,
            operation=self._site.operation,
            model=self._model,
            metadata=self._metadata,
        )
        decorated: T = _decorated(site, target)
        return decorated


def _decorated(site: Site, target: Any) -> Any:
    if disabled_by_environment() or not _is_supported():
        return target
    return _track(site, target)


def _track(site: Site, target: Any) -> Any:
    if isinstance(target, type):
        return _track_class(site, target)
    if isinstance(target, (classmethod, staticmethod)):
        return _same_descriptor(target, _track(site, target.__func__))
    if isinstance(target, functools.partialmethod):
        return functools.partialmethod(_track(site, target.func), *target.args, **target.keywords)
    if not callable(target):
        raise ConfigurationTypeError("tracked: what is decorated", target, _cure(target))
    named = _named(site, target)
    return _track_once(named, target)


def _same_descriptor(target: Any, function: Any) -> Any:
    """Return a descriptor of the target's class around `function`, with its attributes."""
    kind, base = type(target), classmethod if isinstance(target, classmethod) else staticmethod
    try:
        same: Any = kind(function)
    except TypeError:  # those of this class are made of more
        same = kind.__new__(kind, function)
        base.__init__(same, function)
        for name in {name for each in kind.__mro__ for name in vars(each).get("__slots__", ())}:
            with suppress(AttributeError):
                setattr(same, name, getattr(target, name))
    own = vars(same)
    for name, value in vars(target).items():
        own.setdefault(name, function if value is target.__func__ else value)
    return same


def _track_once(site: Site, target: Any) -> Any:
    """Track what is not tracked yet; decorating it anew for the same operation takes its place."""
    before = _site_of(target)
    if before is not None and (before.service, before.operation) == (site.service, site.operation):
        if isinstance(target, MethodType):
            return target
        target = target.__wrapped__
    if isinstance(target, FunctionType):
        wrapper = like(target, _wrapper(target, site))
        _remember(wrapper, site)
        return wrapper
    return proxy(target, site)


def proxy(target: Any, site: Site) -> Any:
    """Return a transparent proxy of a callable object that is tracked at `site`."""
    with importing:
        from instrument.proxies import TrackedCallable  # wrapt, on first need

    return TrackedCallable(target, site, _wrapper(target, site), proxy)


def _wrapper(target: Any, site: Site) -> Callable[..., Any]:
    kind = target if isinstance(target, (FunctionType, MethodType)) else _kind(target)
    give = give_back_stream if site.stream else give_back
    open_ = partial(begin, site)
    if iscoroutinefunction(kind):
        return coroutine_wrapper(target, open_, give)
    if isgeneratorfunction(kind):
        return generator_wrapper(target, partial(steps_of, open_))
    if isasyncgenfunction(kind):
        return async_generator_wrapper(target, partial(steps_of, open_))
    return sync_wrapper(target, site, give)


def _kind(target: Any) -> Any:
    """Return the function that says of which kind a callable object is."""
    if isinstance(target, functools.partial):
        return target
    return getattr(type(target), "__call__", target)  # noqa: B004 - the method itself is wanted


def _track_class(site: Site, target: type) -> type:
    for name, member in list(vars(target).items()):
        if name.startswith("_") and name != "__call__":
            continue
        if not isinstance(member, (FunctionType, classmethod, staticmethod)):
            continue
        if not callable(getattr(member, "__func__", member)) or _is_generated(member):
            continue
        if _site_of(getattr(member, "__func__", member)) is None:
            type.__setattr__(target, name, _track(_member_site(site, name), member))
    return target


def _is_generated(member: Any) -> bool:
    """Tell whether pydantic has put it there for itself, as into models with private attributes."""
    return str(getattr(member, "__module__", "")).startswith("pydantic.")


def _member_site(site: Site, name: str) -> Site:
    operation = f"{site.operation}.{name}" if site.operation else ""
    return _copy(site, operation)


def _named(site: Site, target: Any) -> Site:
    """Return a site of its own for `target`, named after it if no name was given."""
    return _copy(site, site.operation or _default_name(target))


def _copy(site: Site, operation: str) -> Site:
    return Site(
        site.service,
        operation,
        site.model,
        site.metadata,
        site.usage,
        site.success,
        site.stream,
        tells=site.tells,
    )


def _default_name(target: Any) -> str:
    while isinstance(target, functools.partial):
        target = target.func
    name = getattr(target, "__qualname__", None) or type(target).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _site_of(target: Any) -> Site | None:
    function = getattr(target, "__func__", target)
    if isinstance(function, FunctionType):
        known = _sites.get(id(function))
        return known[1] if known is not None and known[0]() is function else None
    site = getattr(type(target), "tracked_at_site", None)
    return site if isinstance(site, Site) else None


def _remember(wrapper: Any, site: Site) -> None:
    """Remember that a function is tracked, and forget of those that are gone now and then."""
    size = len(_sites)
    if size >= _LOOK_FOR_DEAD_AT and not size & (size - 1):
        for key, (known, _) in [*_sites.items()]:
            if known() is None:
                _sites.pop(key, None)
    _sites[id(wrapper)] = weakref.ref(wrapper), site


def _block_site(service: str, operation: str) -> Site:
    key = (service, operation)
    site = _block_sites.get(key)
    if site is None:
        if len(_block_sites) >= _BLOCK_SITES_KEPT:
            _block_sites.clear()
        site = _block_sites[key] = Site(service, operation)
    return site


def _unrecorded(site: Site, model: str | None, noted: dict[str, Any] | None) -> RunningOperation:
    """Return an operation on which everything works and that leaves no record."""
    active = recorder()
    return RunningOperation(
        current().session,
        site=site,
        recorder=active,
        id=active.new_id(),
        noted=noted,
        model=model,
        done=True,
    )


def _is_supported() -> bool:
    if sys.platform != "win32":
        return True
    warnings.warn(
        "instrument records nothing on Windows: calls pass through untracked",
        InstrumentWarning,
        stacklevel=4,
    )
    return False


def _cure(target: Any) -> str:
    if isinstance(target, property) or hasattr(target, "__get__"):
        return f"{_CALLABLE}; put @tracked(...) below @{type(target).__name__}"
    return _CALLABLE


def _name(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigurationTypeError(name, value, "text that is not empty")
    if not value.strip():
        raise ConfigurationError(name, value, "text that is not empty")
    return value


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigurationTypeError(name, value, "text or None")
    return value or None


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationTypeError(name, value, "True or False")
    return value


def _callable(name: str, value: Any) -> Callable[[Any], Any] | None:
    if value is not None and not callable(value):
        raise ConfigurationTypeError(name, value, "a callable that takes the result, or None")
    result: Callable[[Any], Any] | None = value
    return result


def _metadata(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigurationTypeError("metadata", value, "a mapping with text as keys")
    for key in value:
        if not isinstance(key, str):
            raise ConfigurationTypeError("metadata key", key, "text")
    copy: dict[str, Any] = copied(dict(value))
    return copy
