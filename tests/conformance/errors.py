"""Hands probes the exception that a call raises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


def raised(call: Callable[..., Any], *arguments: Any) -> BaseException:
    """Return what `call` raises; it must raise."""
    try:
        call(*arguments)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


async def raised_by(pending: Awaitable[Any]) -> BaseException:
    """Return what awaiting `pending` raises; it must raise."""
    try:
        await pending
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def raising(error: BaseException) -> Callable[[], None]:
    """Return a function that raises `error`."""

    def fail() -> None:
        raise error

    return fail
