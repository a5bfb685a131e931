"""What is done with a result: handed back as it is, or followed to its end.

`PLANS` and `STREAM_PLANS` (for `stream=True`) give for each class of result how to follow it and
how to read it, so that a call costs one look-up.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from instrument._loading import importing
from instrument._said import kind_name
from instrument.context import Scope
from instrument.recorder import swallow
from instrument.running import RunningOperation
from instrument.usage import Reader, is_unread, read_wrapped, reader_for, stream_for
from instrument.usage.reading import ITSELF
from instrument.wrappers import (
    ONCE,
    async_generator_wrapper,
    coroutine_wrapper,
    generator_wrapper,
    is_gone,
    references,
    steps_of,
)

__all__ = ["give_back", "give_back_stream"]

Follow = Callable[[RunningOperation, Any], Any]
Plan = tuple[Follow | None, Reader | None]

_HOLDS = "ResponseMetadata"
"""A key of every plain dict that AWS's clients return, which may hold a stream."""

_PLANS_KEPT = 4096
_PLANS: dict[type, Plan] = {}
_STREAM_PLANS: dict[type, Plan] = {}
_not_started: set[weakref.ref[Any]] = set()


def give_back(operation: RunningOperation, result: Any) -> Any:
    """End the operation with `result` and return it, or what follows it to its end."""
    kind = type(result)
    try:
        follow, read = _PLANS.get(kind) or _plan(_PLANS, kind)
    except Exception as error:  # a class of classes that does not even let itself be looked up
        follow, read = _unread(operation, kind, error)
    if follow is not None:
        return _followed(follow, operation, result)
    if kind is dict and _HOLDS in result:
        return _followed(partial(_follow_held, read), operation, result)
    operation.returned(result, read)
    return result


def give_back_stream(operation: RunningOperation, result: Any) -> Any:
    """The same, with any iterator followed."""
    kind = type(result)
    try:
        follow, read = _STREAM_PLANS.get(kind) or _plan(_STREAM_PLANS, kind)
    except Exception as error:  # as above
        follow, read = _unread(operation, kind, error)
    if follow is not None:
        return _followed(follow, operation, result)
    if kind is dict and _HOLDS in result:
        return _followed(partial(_follow_held, read), operation, result)
    operation.returned(result, read)
    return result


def _followed(follow: Follow, operation: RunningOperation, result: Any) -> Any:
    try:
        return follow(operation, result)
    except Exception as error:  # what cannot be followed is handed back as it is
        swallow(error)
        operation.returned(result, None)
        return result


def _unread(operation: RunningOperation, kind: type, error: Exception) -> Plan:
    operation.recorder.not_read(error, kind_name(kind))
    return (None, None)


def _plan(plans: dict[type, Plan], kind: type) -> Plan:
    follow = _native_follow(kind) or _sdk_follow(kind)
    if follow is None and reader_for(kind) is read_wrapped:
        follow = _follow_raw
    if follow is None and plans is _STREAM_PLANS:
        follow = _iterator_follow(kind)
    plan = (follow, None if follow is not None else reader_for(kind))
    if getattr(kind, "followed_by_instrument", False) is True:
        return plan  # a class for this one object
    if len(plans) >= _PLANS_KEPT:
        plans.clear()
    plans[kind] = plan
    return plan


def _native_follow(kind: type) -> Follow | None:
    if issubclass(kind, CoroutineType):
        return _follow_coroutine
    if issubclass(kind, GeneratorType):
        return _follow_generator
    if issubclass(kind, AsyncGeneratorType):
        return _follow_async_generator
    for module in ("asyncio", "concurrent.futures"):
        future = getattr(sys.modules.get(module), "Future", None)
        if future is not None and issubclass(kind, future):
            return _follow_future
    return None


def _sdk_follow(kind: type) -> Follow | None:
    if getattr(kind, "followed_by_instrument", False) is True:
        return _follow_again
    stream = stream_for(kind)
    if stream is None:
        return None
    with importing:
        from instrument import proxies  # wrapt, on first need
    if stream.iterator is None:
        return partial(proxies.follow_manager, is_async=stream.is_async)
    if stream.iterator == ITSELF:
        return proxies.follow_either
    return partial(proxies.follow_stream, of=stream)


def _iterator_follow(kind: type) -> Follow | None:
    for method, is_async in (("__next__", False), ("__anext__", True)):
        if hasattr(kind, method):
            with importing:
                from instrument import proxies  # wrapt, on first need
            return partial(proxies.follow_iterator, is_async=is_async)
    return None


def _follow_held(read: Reader | None, operation: RunningOperation, result: Any) -> Any:
    for value in result.values():
        stream = stream_for(type(value))
        if stream is not None and stream.iterator is not None and stream.iterator != ITSELF:
            with importing:
                from instrument import proxies  # wrapt, on first need
            return proxies.follow_held(operation, result, value, stream)
    operation.returned(result, read)
    return result


def _follow_raw(operation: RunningOperation, response: Any) -> Any:
    if is_unread(response):
        with importing:
            from instrument import proxies  # wrapt, on first need
        return proxies.follow_raw(operation, response)
    operation.returned(response, read_wrapped)
    return response


def _follow_again(operation: RunningOperation, result: Any) -> Any:
    return result.follow_for_instrument(operation)


def _follow_coroutine(operation: RunningOperation, result: Any) -> Any:
    if result.cr_suspended or result.cr_frame is None:
        return _as_it_is(operation, result)
    operation.withdraw()
    held, watched = [result], list[weakref.ref[Any]]()
    start = partial(_start_awaited, operation, held, watched)
    follower = _named(coroutine_wrapper(held.pop, start, give_back)(), result)
    _warn_only_once(follower, held, watched)
    return follower


def _follow_generator(operation: RunningOperation, result: Any) -> Any:
    if result.gi_frame is None:
        return _as_it_is(operation, result)
    if not result.gi_suspended:
        return _followed_steps(generator_wrapper, operation, result)
    follower = _followed_steps(partial(generator_wrapper, has_begun=True), operation, result)
    next(follower)  # and now it can be sent to, thrown into and closed as the one inside
    return follower


def _follow_async_generator(operation: RunningOperation, result: Any) -> Any:
    if result.ag_frame is None or _has_begun(result):
        return _as_it_is(operation, result)
    return _followed_steps(async_generator_wrapper, operation, result)


def _followed_steps(wrapper: Any, operation: RunningOperation, result: Any) -> Any:
    operation.withdraw()
    held, known = [result], list[weakref.ref[Any]]()
    steps = partial(steps_of, partial(_start, operation))
    follower = _named(wrapper(held.pop, steps, partial(is_gone, known))(), result)
    known.append(weakref.ref(follower))
    return follower


def _as_it_is(operation: RunningOperation, result: Any) -> Any:
    """Hand back what somebody has begun or ended, which no `usage=` may be let go on with."""
    operation.ended(operation.recorder.now_ns(), None, None)
    return result


def _has_begun(generator: Any) -> bool:
    """Tell whether an async generator has made a step."""
    is_suspended: bool | None = getattr(generator, "ag_suspended", None)
    if is_suspended is None:  # Python 3.11: what comes before the body's first instruction
        from opcode import opmap

        code = generator.ag_code.co_code
        return bool(generator.ag_frame.f_lasti > 2 * code[::2].index(opmap["RESUME"]))
    return is_suspended


def _follow_future(operation: RunningOperation, result: Any) -> Any:
    if result.done():  # its event loop may be closed, and call nothing back
        _future_done(operation, result)
    else:
        result.add_done_callback(partial(_future_done, operation))
    return result


def _future_done(operation: RunningOperation, future: Any) -> None:
    error = _error_of(future)
    if error is not None:
        operation.raised(error)
        return
    value = future.result()
    try:
        read = reader_for(type(value))
    except Exception as broken:  # as in give_back
        _, read = _unread(operation, type(value), broken)
    operation.returned(value, read)


def _error_of(future: Any) -> BaseException | None:
    if future.cancelled():
        from concurrent.futures import CancelledError  # loaded, for there is a future

        return CancelledError()
    # not .exception(), which would tell asyncio that somebody has looked at it
    error: BaseException | None = getattr(future, "_exception", None)
    return error


def _named(follower: Any, result: Any) -> Any:
    follower.__name__, follower.__qualname__ = result.__name__, result.__qualname__
    return follower


def _start(operation: RunningOperation, outer: Scope | None) -> RunningOperation:
    operation.start(outer)
    return operation


def _start_awaited(
    operation: RunningOperation,
    held: list[Any],
    watched: list[weakref.ref[Any]],
    outer: Scope | None,
) -> RunningOperation:
    # before the coroutine can end: Python drops what a signal handler raises in a callback
    _not_started.difference_update(watched)
    watched.clear()
    try:
        operation.start(outer)
    except BaseException:  # a budget's refusal: what never starts shall not complain
        _close_unless_shared(held)
        raise
    return operation


def _warn_only_once(follower: Any, held: list[Any], watched: list[weakref.ref[Any]]) -> None:
    """Close a coroutine when its `follower` is dropped unawaited, so that Python warns of one."""

    def close(reference: weakref.ref[Any]) -> None:
        _not_started.discard(reference)
        _close_unless_shared(held)

    watched.append(weakref.ref(follower, close))
    _not_started.update(watched)


def _close_unless_shared(held: list[Any]) -> None:
    """Close the coroutine, unless others have it, who may await it yet."""
    coroutine = held.pop()
    if references(coroutine) <= ONCE:
        coroutine.close()
