"""The four wrappers, one for each kind of function, chosen once when decorating.

Each is a function of the kind that it wraps, so that nobody can tell them apart by kind, and each
adds one frame. `open` begins the operation; generators and coroutines call it at their first step.
The context variable is set around each step of a generator and never across a `yield`, so that
whoever resumes or closes it, from whichever task or thread, finds the context as it was. It is
reached through its module, because a function that is pickled by value (cloudpickle) takes its
globals along.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import suppress
from contextvars import Token
from functools import partial, wraps
from types import GeneratorType, coroutine
from typing import Any, Protocol

from instrument import context
from instrument._finished import Following
from instrument._kinds import (
    isasyncgenfunction,
    iscoroutinefunction,
    isgeneratorfunction,
    signature_of,
)
from instrument._said import is_cancellation
from instrument.context import Scope, enter_session, leave, leave_session
from instrument.running import RunningOperation, Site, begin
from instrument.usage import new_merge

__all__ = [
    "ONCE",
    "SessionSteps",
    "async_generator_wrapper",
    "coroutine_wrapper",
    "generator_wrapper",
    "in_scope",
    "is_gone",
    "like",
    "references",
    "steps_of",
    "sync_wrapper",
    "tapped",
]

Open = Callable[[Scope | None], RunningOperation | None]
Give = Callable[[RunningOperation, Any], Any]

_ITERABLE_COROUTINE = 0x100
_OUTSIDE: Any = object()


class Steps(Protocol):
    """What happens around the steps of a generator."""

    def enter(self) -> None: ...
    def leave(self) -> None: ...
    def yielded(self, chunk: Any) -> None: ...
    def returned(self, *value: Any) -> None: ...
    def raised(self, error: BaseException) -> None: ...


def never() -> bool:
    """Return that it is not so."""
    return False


def is_gone(known: list[weakref.ref[Any]]) -> bool:
    """Tell whether what is known by a weak reference, once it is, is there no more."""
    return bool(known) and known[0]() is None


def sync_wrapper(function: Callable[..., Any], site: Site, give: Give) -> Callable[..., Any]:
    """Return a function that records each call of `function`; `give` ends it."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        operation = begin(site, context.scope.get())
        if operation is None:
            return function(*args, **kwargs)
        try:
            context.scope.set(operation)
            # handing on keywords costs more, even where there are none
            return give(operation, function(*args, **kwargs) if kwargs else function(*args))
        except BaseException as error:
            operation.raised(error)
            raise
        finally:
            try:
                leave(operation)
            except BaseException:  # a signal handler's, which must not leave this call current
                leave(operation)
                raise

    return wrapper


def coroutine_wrapper(function: Callable[..., Any], open_: Open, give: Give) -> Callable[..., Any]:
    """Return a coroutine function around one, or around a callable that returns a coroutine."""

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        operation = open_(context.scope.get())
        if operation is None:
            return await function(*args, **kwargs)
        try:
            context.scope.set(operation)
            coroutine = function(*args, **kwargs)
            del args, kwargs  # which the function may let go of before it ends
            return give(operation, await coroutine)
        except BaseException as error:
            operation.raised(error)
            raise
        finally:
            try:
                leave(operation)
            except BaseException:  # a signal handler's, which must not leave this call current
                leave(operation)
                raise

    return wrapper


def generator_wrapper(
    function: Callable[..., Generator[Any, Any, Any]],
    steps_of: Callable[[], Steps],
    is_dropped: Callable[[], bool] = never,
    *,
    has_begun: bool = False,
) -> Callable[..., Generator[Any, Any, Any]]:
    """Return a generator function with all of PEP 380's delegation to what `function` returns.

    If it `is_dropped` when it closes, nobody has closed it, and what others hold stays open. Where
    that one `has_begun`, the first step of ours is none of it.
    """

    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        del args, kwargs  # as above
        step, argument = generator.send, None
        if has_begun:
            try:
                argument = yield
            except BaseException as error:
                if is_dropped() and references(generator) > ONCE + 1:  # `step` has it, too
                    raise
                step, argument = generator.throw, error
        steps = steps_of()
        while True:
            try:
                try:
                    steps.enter()
                    chunk = step(argument)
                finally:
                    steps.leave()
            except StopIteration as stop:
                steps.returned(stop.value)
                return stop.value
            except BaseException as error:
                argument = None
                steps.leave()
                steps.raised(error)
                raise
            steps.yielded(chunk)
            # the exception is thrown in outside of its handler, so that it becomes nobody's context
            try:
                step, argument = generator.send, (yield chunk)
            except BaseException as error:
                if is_dropped() and references(generator) > ONCE + 1:  # `step` has it, too
                    steps.raised(error)
                    raise
                step, argument = generator.throw, error

    return wrapper


def async_generator_wrapper(
    function: Callable[..., AsyncGenerator[Any, Any]],
    steps_of: Callable[[], Steps],
    is_dropped: Callable[[], bool] = never,
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Return an async generator function that hands on `asend`, `athrow` and `aclose`."""

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        del args, kwargs  # as above
        steps = steps_of()
        step: Callable[[Any], Any] = partial(_first_step, generator)
        argument = None
        while True:
            try:
                try:
                    steps.enter()
                    chunk = await step(argument)
                finally:
                    steps.leave()
            except StopAsyncIteration:
                steps.returned()
                return
            except BaseException as error:
                steps.leave()
                steps.raised(_cause_of(error, argument))
                argument = None
                raise
            steps.yielded(chunk)
            try:
                step, argument = generator.asend, (yield chunk)
            except BaseException as error:
                is_kept = is_dropped() and references(generator) > ONCE + 1  # `step` has it, too
                # of two in a cycle the garbage collector may have closed the one inside first
                if is_kept or getattr(generator, "ag_frame", step) is None:
                    steps.raised(error)
                    raise
                step, argument = generator.athrow, error

    return wrapper


def references(value: Any) -> int:
    """Return how often it is held, `ONCE` if by one variable of the caller alone."""
    return sys.getrefcount(value)


def _references_of_one() -> int:
    value = object()
    return references(value)


ONCE = _references_of_one()


def _cause_of(error: BaseException, thrown: Any) -> BaseException:
    """Return why a generator ended: one that is being closed was left, even if that is cancelled.

    An event loop that ends cancels what it has not finished closing.
    """
    closing = isinstance(thrown, GeneratorExit) and is_cancellation(type(error))
    return thrown if closing else error


def _first_step(generator: AsyncGenerator[Any, Any], argument: Any) -> Any:
    """Make the first step unseen by the event loop, which closes every generator that it has seen.

    Ours is seen, and closes the one inside; closed by both at once, that one would complain.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return generator.asend(argument)
    finally:
        sys.set_asyncgen_hooks(*hooks)


class EntersEachStep:
    """Makes a scope current inside each step, and what the step left current in the next one."""

    __slots__ = ("_before", "_beside", "_inside", "_token")

    def __init__(self, inside: Scope | None) -> None:
        self._before: Scope | None = _OUTSIDE
        self._beside: Any = None
        self._inside = inside
        self._token: Token[Scope | None] | None = None

    def enter(self) -> None:
        self._before = context.scope.get()
        self._token = context.scope.set(self._inside)
        if context.beside is not None:
            self._beside = context.beside.resumed(self._inside)

    def leave(self) -> None:
        token = self._token
        if token is None:
            if self._before is not _OUTSIDE:  # a signal handler's exception came before the token
                context.scope.set(self._before)
                self._before = _OUTSIDE
            return
        self._inside = context.scope.get()
        if context.beside is not None:
            context.beside.suspended(self._inside, self._beside)
        # ValueError: the step ends in another context, which never saw us. RuntimeError: a signal
        # handler's exception came between this and the next line, and this is the second try.
        # TypeError: the step began while the garbage collector ran, and ends afterwards.
        try:  # noqa: SIM105 - `suppress` takes a sixth of a step
            context.scope.reset(token)
        except (ValueError, RuntimeError, TypeError):
            pass
        self._before = _OUTSIDE
        self._token = None

    def yielded(self, chunk: Any) -> None:
        """Nothing to do."""

    def returned(self, *value: Any) -> None:
        """Nothing to do."""

    def raised(self, error: BaseException) -> None:
        """Nothing to do."""


class SessionSteps(EntersEachStep):
    """The same for a session, which those who trace beside us know of meanwhile."""

    __slots__ = ()

    def enter(self) -> None:
        super().enter()
        if context.beside is not None and self._inside is not None:
            context.beside.entered(self._inside)


class OperationSteps(EntersEachStep):
    """The same for an operation: measures the steps and looks at what is yielded."""

    __slots__ = ("_following", "_now_ns", "_operation", "_resumed_ns")

    def __init__(self, operation: RunningOperation) -> None:
        super().__init__(operation)
        self._now_ns = operation.recorder.now_ns
        self._operation = operation
        self._following = operation.following = Following(new_merge(), [True])
        self._resumed_ns = 0
        operation.left = False  # a call that returns a stream is over, and the stream is not

    def enter(self) -> None:
        EntersEachStep.enter(self)  # `super()` takes as long as all that is done in it
        self._resumed_ns = self._now_ns()

    def leave(self) -> None:
        if self._token is not None:
            self._following.active_ns += self._now_ns() - self._resumed_ns
        EntersEachStep.leave(self)

    def yielded(self, chunk: Any) -> None:
        self._operation.yielded(chunk)

    def returned(self, *value: Any) -> None:
        self._operation.exhausted(*value)
        self._operation.outer = None

    def raised(self, error: BaseException) -> None:
        self._operation.raised(error)
        self._operation.outer = None


class TapSteps(OperationSteps):
    """The same for the tap on a stream, whose return value is nobody's."""

    __slots__ = ("_is_last",)

    def __init__(
        self, operation: RunningOperation, opening: Any, is_last: Callable[[Any], bool] | None
    ) -> None:
        super().__init__(operation)
        self._following.is_tap = True
        self._is_last = is_last
        if opening is not None:
            operation.opened(opening)

    def yielded(self, chunk: Any) -> None:
        self._operation.yielded(chunk)
        if self._is_last is not None and self._is_last(chunk):
            self._operation.exhausted()

    def returned(self, *value: Any) -> None:
        super().returned()


def steps_of(open_: Open) -> Steps:
    """Begin the operation and return what to do around its steps, if it is recorded."""
    operation = open_(context.scope.get())
    return _NO_STEPS if operation is None else OperationSteps(operation)


class _NoSteps:
    """Leaves everything as it is."""

    def enter(self) -> None: ...
    def leave(self) -> None: ...
    def yielded(self, chunk: Any) -> None: ...
    def returned(self, *value: Any) -> None: ...
    def raised(self, error: BaseException) -> None: ...


_NO_STEPS = _NoSteps()


def in_scope(
    function: Callable[..., Any], make: Callable[[Scope | None], Scope]
) -> Callable[..., Any]:
    """Return a function of the same kind that runs in a scope made for each call.

    `make` is given what is current at the call, or at the first step.
    """
    steps = partial(_scope_steps, make)
    if iscoroutinefunction(function):
        return _coroutine_in_scope(function, make)
    if isgeneratorfunction(function):
        return generator_wrapper(function, steps)
    if isasyncgenfunction(function):
        return async_generator_wrapper(function, steps)
    return _function_in_scope(function, make)


def _function_in_scope(
    function: Callable[..., Any], make: Callable[[Scope | None], Scope]
) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        entry = make(context.scope.get())
        try:
            enter_session(entry)
            return function(*args, **kwargs)
        finally:
            try:
                leave_session(entry)
            except BaseException:  # as in sync_wrapper
                leave_session(entry)
                raise

    return wrapper


def _coroutine_in_scope(
    function: Callable[..., Any], make: Callable[[Scope | None], Scope]
) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        entry = make(context.scope.get())
        try:
            enter_session(entry)
            return await function(*args, **kwargs)
        finally:
            try:
                leave_session(entry)
            except BaseException:  # as above
                leave_session(entry)
                raise

    return wrapper


def _scope_steps(make: Callable[[Scope | None], Scope]) -> Steps:
    return SessionSteps(make(context.scope.get()))


def tapped(
    operation: RunningOperation,
    iterator: Any,
    *,
    is_async: bool,
    opening: Any = None,
    is_last: Callable[[Any], bool] | None = None,
) -> Any:
    """Return an iterator over `iterator` that tells the operation of every item and of the end.

    `opening` is what was said of the response before the first item, `is_last` a `StreamClass`'s.
    When it is dropped before its end, by the garbage collector or the end of the process, the
    operation ends as left early.
    """
    steps = partial(TapSteps, operation, opening, is_last)
    if is_async:
        tap: Any = AsyncTap(iterator, steps)
    else:
        held = [iterator if isinstance(iterator, GeneratorType) else _items(iterator)]
        known: list[weakref.ref[Any]] = []
        tap = generator_wrapper(held.pop, steps, partial(is_gone, known))()
        known.append(weakref.ref(tap))
    weakref.finalize(tap, operation.left_early)
    return tap


class AsyncTap:
    """Around an asynchronous iterator, which alone is a generator, and closed as without us.

    Of two of which one closes the other, the garbage collector may meet the inner one first.
    """

    def __init__(self, iterator: Any, steps_of: Callable[[], Steps]) -> None:
        self._iterator = iterator
        self._steps_of = steps_of
        self._steps: Steps | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)

    def __aiter__(self) -> AsyncTap:
        return self

    async def __anext__(self) -> Any:
        steps = self._steps
        if steps is None:
            steps = self._steps = self._steps_of()
        try:
            try:
                steps.enter()
                chunk = await self._iterator.__anext__()
            finally:
                steps.leave()
        except StopAsyncIteration:
            steps.returned()
            raise
        except BaseException as error:
            steps.leave()
            steps.raised(error)
            raise
        steps.yielded(chunk)
        return chunk

    async def aclose(self) -> None:
        try:
            await self._iterator.aclose()
        finally:
            if self._steps is not None:
                self._steps.raised(GeneratorExit())


def like(original: Any, wrapper: Any) -> Any:
    """Make `wrapper` look like the function `original`."""
    dressed: Any = wraps(original)(wrapper)
    dressed.__defaults__ = getattr(original, "__defaults__", None)
    dressed.__kwdefaults__ = getattr(original, "__kwdefaults__", None)
    # for those who do not follow __wrapped__: getfullargspec, and so Celery
    with suppress(TypeError, ValueError):
        dressed.__signature__ = signature_of(original)
    code = getattr(original, "__code__", None)
    if code is not None and code.co_flags & _ITERABLE_COROUTINE:
        return coroutine(dressed)
    return dressed


def _items(iterator: Iterator[Any]) -> Generator[Any, Any, None]:
    for item in iterator:  # noqa: UP028 - `yield from` would close it, which is the program's
        yield item
