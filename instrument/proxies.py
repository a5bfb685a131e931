"""Transparent proxies: around the SDKs' streams, other iterators, and callable objects.

Loaded on first need, for `wrapt` takes long to import. `AutoObjectProxy` makes a class for each
object, with the special methods that the object has, so more may be put on that class.
"""

from __future__ import annotations

import copy
import sys
import weakref
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from importlib import import_module
from inspect import isawaitable
from operator import attrgetter
from types import FunctionType, MethodType
from typing import Any

import wrapt

from instrument import context
from instrument.context import leave
from instrument.recorder import swallow
from instrument.running import RunningOperation, Site
from instrument.usage import StreamClass, is_unread, read_wrapped, reader_for, stream_for
from instrument.wrappers import tapped

__all__ = [
    "TrackedCallable",
    "follow_either",
    "follow_held",
    "follow_iterator",
    "follow_manager",
    "follow_raw",
    "follow_stream",
]

_READS = frozenset({"iter_bytes", "iter_lines", "iter_text", "json", "parse", "read", "text"})


class Followed(wrapt.AutoObjectProxy[Any]):
    """Around a stream: the operation ends when the stream is closed or its `with` block is left."""

    followed_by_instrument = True

    def __init__(
        self, wrapped: Any, operation: RunningOperation, again: Callable[..., Any]
    ) -> None:
        super().__init__(wrapped)
        self._self_operation = operation
        self._self_again = again

    def follow_for_instrument(self, operation: RunningOperation) -> Any:
        """Return the same around this proxy, for an outer operation that returned it."""
        return self._self_again(operation, self)

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if name in ("close", "aclose") and callable(value):
            return _ending(value, self._self_end)
        return value

    def _self_end(self) -> None:
        self._self_operation.left_early()

    def __enter__(self) -> Any:
        entered = self.__wrapped__.__enter__()
        return self if entered is self.__wrapped__ else entered

    def __exit__(self, *exception: Any) -> Any:
        try:
            return self.__wrapped__.__exit__(*exception)
        finally:
            self._self_operation.left_early()

    async def __aenter__(self) -> Any:
        entered = await self.__wrapped__.__aenter__()
        return self if entered is self.__wrapped__ else entered

    async def __aexit__(self, *exception: Any) -> Any:
        try:
            return await self.__wrapped__.__aexit__(*exception)
        finally:
            self._self_operation.left_early()


class FollowedManager(Followed):
    """Around a stream manager: the operation runs from entering it to leaving it.

    What some give is no stream but a response, whose body is read or not when it is left.
    """

    def __init__(
        self,
        wrapped: Any,
        operation: RunningOperation,
        again: Callable[..., Any],
        enter: Callable[..., Any],
    ) -> None:
        super().__init__(wrapped, operation, again)
        self._self_enter = enter
        self._self_response: Any = None

    def __enter__(self) -> Any:
        operation = self._self_operation
        operation.start(context.scope.get())
        try:
            context.scope.set(operation)
            return self._self_entered(self.__wrapped__.__enter__())
        except BaseException as error:
            operation.raised(error)
            raise
        finally:
            leave(operation)

    async def __aenter__(self) -> Any:
        operation = self._self_operation
        operation.start(context.scope.get())
        try:
            context.scope.set(operation)
            return self._self_entered(await self.__wrapped__.__aenter__())
        except BaseException as error:
            operation.raised(error)
            raise
        finally:
            leave(operation)

    def __exit__(self, *exception: Any) -> Any:
        try:
            return self.__wrapped__.__exit__(*exception)
        finally:
            self._self_left(exception)

    async def __aexit__(self, *exception: Any) -> Any:
        try:
            return await self.__wrapped__.__aexit__(*exception)
        finally:
            self._self_left(exception)

    def _self_entered(self, given: Any) -> Any:
        followed = self._self_enter(self._self_operation, given)
        if isinstance(followed, FollowedResponse):
            self._self_response = followed._self_bare
        elif followed is given:
            self._self_response = given
        return followed

    def _self_left(self, exception: tuple[Any, ...]) -> None:
        operation, response = self._self_operation, self._self_response
        if response is None or exception[0] is not None or operation.following is not None:
            operation.left_early()
        else:
            operation.returned(response, reader_for(type(response)))


class FollowedResponse(Followed):
    """Around an SDK's raw response: the operation lasts until its body is read, or left."""

    def __init__(self, wrapped: Any, operation: RunningOperation) -> None:
        super().__init__(wrapped, operation, follow_raw)
        self._self_bare: Any = getattr(wrapped, "_self_bare", wrapped)
        self._self_taken: tuple[Any, Any] = (None, None)

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if name in _READS and callable(value):
            return _passing(value, self._self_operation, self._self_take)
        return value

    def _self_take(self, body: Any) -> Any:
        """Return the body, or what follows it; the same each time that an SDK gives it again."""
        if body is not self._self_taken[0]:
            try:
                self._self_taken = body, self._self_followed(body)
            except Exception as error:  # what cannot be followed is handed on as it is
                swallow(error)
                self._self_taken = body, body
        return self._self_taken[1]

    def _self_followed(self, body: Any) -> Any:
        operation = self._self_operation
        followed = _follow_entered(operation, body)
        if followed is not body:
            return followed
        for method, is_async in (("__next__", False), ("__anext__", True)):
            if hasattr(body, method):
                return tapped(operation, body, is_async=is_async)
        operation.returned(self._self_bare, read_wrapped)
        return body

    def _self_end(self) -> None:
        operation = self._self_operation
        if operation.following is None:
            operation.returned(self._self_bare, read_wrapped)
        else:
            operation.left_early()


class ReadThroughTap(Followed):
    """Around an iterator that has no place for a tap: it is read through one."""

    def __init__(
        self, wrapped: Any, operation: RunningOperation, again: Callable[..., Any], tap: Any
    ) -> None:
        super().__init__(wrapped, operation, again)
        self._self_tap = tap


class FollowedIterator(ReadThroughTap):
    """The same for `for`."""

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._self_tap)


class FollowedAsyncIterator(ReadThroughTap):
    """The same for `async for`."""

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._self_tap)


class FollowedEither(ReadThroughTap):
    """The same for whichever of the two the program uses."""

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._self_tap[0])

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._self_tap[1])


def follow_stream(operation: RunningOperation, stream: Any, *, of: StreamClass) -> Any:
    """Return a proxy of an SDK's stream, tapped where every way of reading it passes."""
    _tap(operation, stream, of, None)
    return Followed(stream, operation, partial(follow_stream, of=of))


def follow_held(operation: RunningOperation, holder: Any, stream: Any, of: StreamClass) -> Any:
    """Return `holder` as it is: the stream in it stays the same object, tapped.

    Without a proxy, the stream itself tells when it is closed.
    """
    _tap(operation, stream, of, holder)
    stream.close = _ending(stream.close, operation.left_early)
    return holder


def follow_manager(operation: RunningOperation, manager: Any, *, is_async: bool) -> Any:
    """Return a proxy of a stream manager; the stream that it gives is followed."""
    operation.withdraw()
    again = partial(follow_manager, is_async=is_async)
    return FollowedManager(manager, operation, again, _follow_entered)


def follow_raw(operation: RunningOperation, response: Any) -> Any:
    """Return a proxy of a raw response whose body is unread."""
    followed = FollowedResponse(response, operation)
    # what reads the body refers to this one, too
    weakref.finalize(followed._self_bare.http_response, operation.left_early)
    return followed


def follow_iterator(operation: RunningOperation, iterator: Any, *, is_async: bool) -> Any:
    """Return a proxy of an iterator, for `stream=True`."""
    tap = tapped(operation, iterator, is_async=is_async)
    proxy: Any = FollowedAsyncIterator if is_async else FollowedIterator
    return proxy(iterator, operation, partial(follow_iterator, is_async=is_async), tap)


def follow_either(operation: RunningOperation, stream: Any) -> Any:
    """Return a proxy of a stream that is an iterator and an asynchronous one, whichever is used."""
    taps = tapped(operation, stream, is_async=False), tapped(operation, stream, is_async=True)
    return FollowedEither(stream, operation, follow_either, taps)


def _tap(operation: RunningOperation, stream: Any, of: StreamClass, opening: Any) -> None:
    attribute: Any = of.iterator
    iterator = getattr(stream, attribute)
    tap = tapped(operation, iterator, is_async=of.is_async, opening=opening, is_last=of.is_last)
    setattr(stream, attribute, tap)


def _follow_entered(operation: RunningOperation, stream: Any) -> Any:
    kind = type(stream)
    if getattr(kind, "followed_by_instrument", False) is True:
        return stream.follow_for_instrument(operation)
    if reader_for(kind) is read_wrapped and is_unread(stream):
        return follow_raw(operation, stream)
    found = stream_for(kind)
    if found is None or found.iterator is None:
        return stream
    return follow_stream(operation, stream, of=found)


def _passing(
    read: Callable[..., Any], operation: RunningOperation, take: Callable[[Any], Any]
) -> Callable[..., Any]:
    """Return a `read` whose result, awaited where it must be, goes through `take`."""

    @wraps(read)
    def reading(*args: Any, **kwargs: Any) -> Any:
        try:
            result = read(*args, **kwargs)
        except BaseException as error:
            operation.raised(error)
            raise
        return _passing_later(result, operation, take) if isawaitable(result) else take(result)

    return reading


async def _passing_later(
    reading: Awaitable[Any], operation: RunningOperation, take: Callable[[Any], Any]
) -> Any:
    try:
        result = await reading
    except BaseException as error:
        operation.raised(error)
        raise
    return take(result)


def _ending(close: Callable[..., Any], end: Callable[[], None]) -> Callable[..., Any]:
    @wraps(close)
    def closing(*args: Any, **kwargs: Any) -> Any:
        try:
            result = close(*args, **kwargs)
        except BaseException:
            end()
            raise
        if isawaitable(result):
            return _ending_later(result, end)
        end()
        return result

    return closing


async def _ending_later(closing: Awaitable[Any], end: Callable[[], None]) -> Any:
    try:
        return await closing
    finally:
        end()


class TrackedCallable(wrapt.AutoObjectProxy[Any]):
    """Around a partial, a bound method, a builtin or another callable object.

    `call` is what is called in its place; `remake(wrapped, site)` makes such a proxy again.
    """

    def __init__(
        self, wrapped: Any, site: Site, call: Callable[..., Any], remake: Callable[..., Any]
    ) -> None:
        super().__init__(wrapped)
        self._self_site = site
        self._self_remake = remake
        mine: Any = type(self)
        mine.tracked_at_site = site
        mine.__call__ = staticmethod(call)  # no method of ours, so that there is one frame more
        if hasattr(type(wrapped), "__get__"):
            mine.__get__ = _bind

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __copy__(self) -> Any:
        return _around(self, copy.copy(self.__wrapped__))

    def __deepcopy__(self, memo: Any) -> Any:
        return _around(self, copy.deepcopy(self.__wrapped__, memo))

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if _goes_by_its_name(self, protocol):
            return self.__qualname__
        found = _place_beside_callback(self)
        if found is not None:
            return _global, found
        return self._self_remake, (self.__wrapped__, self._self_site)


def _around(proxy: Any, copied: Any) -> Any:
    return proxy if copied is proxy.__wrapped__ else proxy._self_remake(copied, proxy._self_site)


def _goes_by_its_name(proxy: Any, protocol: Any) -> bool:
    """Tell whether the wrapped object is pickled by a name under which the proxy stands now."""
    name = getattr(proxy, "__qualname__", None)
    module = getattr(proxy, "__module__", None)
    if not isinstance(name, str) or _find(module, name) is not proxy:
        return False
    return bool(proxy.__wrapped__.__reduce_ex__(protocol) == name)


def _place_beside_callback(proxy: Any) -> tuple[str, str] | None:
    """Return where the proxy stands in the module of a `usage=` or `success=` without a name."""
    for callback in (proxy._self_site.usage, proxy._self_site.success):
        if not isinstance(callback, FunctionType):
            continue
        module = callback.__module__
        if _find(module, callback.__qualname__) is not callback:
            names = list(vars(sys.modules.get(module, object)).items())
            return next(((module, name) for name, value in names if value is proxy), None)
    return None


def _find(module: Any, name: str) -> Any:
    try:
        return attrgetter(name)(sys.modules.get(module))
    except AttributeError:
        return None


def _global(module: str, name: str) -> Any:
    """Return what stands there, when it is unpickled."""
    return getattr(import_module(module), name)


def _bind(proxy: Any, instance: Any, owner: Any = None) -> Any:
    wrapped = proxy.__wrapped__
    bound = wrapped.__get__(instance, owner)
    if bound is wrapped:
        return proxy
    if isinstance(bound, MethodType) and bound.__func__ is wrapped:
        return MethodType(proxy, bound.__self__)
    return proxy._self_remake(bound, proxy._self_site)
