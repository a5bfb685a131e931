"""Whose exception is it: ours, to be swallowed, or the program's, to be let through."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import CodeType, TracebackType

__all__ = ["belongs_to_program"]

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


def belongs_to_program(error: BaseException, *, in_callback: bool = False) -> bool:
    """Tell whether `error`, caught while we were recording, was raised by the watched program.

    A signal handler's always is. So is one whose innermost frame lies neither in this package nor
    in the standard library that it calls, unless we were running a callback (`in_callback`), whose
    own exceptions are ours to swallow. An exception that another thread threw into our frame has
    no frame of its own; its class gives it away, for ours raise only builtin ones.
    """
    codes = list(_codes(error.__traceback__))
    if not _handler_codes().isdisjoint(codes):
        return True
    if in_callback or not codes:
        return False
    if not _is_ours(codes[-1].co_filename):
        return True
    module = type(error).__module__.partition(".")[0]
    return module not in _OUR_CLASSES


_OUR_CLASSES = frozenset(("builtins", "instrument", "msgspec", "_socket", "socket", "json"))


def _is_ours(filename: str) -> bool:
    if filename.startswith(_PACKAGE):
        return True
    return filename.startswith((_LIBRARY, "<frozen")) and "-packages" not in filename


def _codes(traceback: TracebackType | None) -> Iterator[CodeType]:
    while traceback is not None:
        yield traceback.tb_frame.f_code
        traceback = traceback.tb_next


def _handler_codes() -> frozenset[CodeType]:
    handlers = (signal.getsignal(number) for number in signal.valid_signals())
    found = (_code_of(handler) for handler in handlers if callable(handler))
    return frozenset(code for code in found if code is not None)


def _code_of(handler: object) -> CodeType | None:
    handler = getattr(handler, "__wrapped__", handler)
    for place in (handler, getattr(handler, "func", None), getattr(handler, "__call__", None)):  # noqa: B004 - the method itself is wanted
        code = getattr(getattr(place, "__func__", place), "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
