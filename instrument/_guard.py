"""Whose exception is it: ours, to be swallowed, or the program's, to be let through."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FrameType, TracebackType
from typing import Any

__all__ = ["belongs_to_program"]

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


def belongs_to_program(error: BaseException, *, in_callback: bool = False) -> bool:
    """Tell whether `error`, caught while we were recording, was raised by the watched program.

    A signal handler's always is. So is one whose innermost frame lies neither in this package nor
    in the standard library that it calls, unless we were running a callback (`in_callback`), whose
    own exceptions are ours to swallow, or the program put functions of its own in the place of the
    system's, as fake file systems do. An exception that another thread threw into our frame has
    no frame of its own; its class gives it away, for ours raise only builtin ones.
    """
    frames = list(_frames(error.__traceback__))
    if _handler_codes().intersection(frame.f_code for frame in frames):
        return True
    if any(_is_called_by_signal(frame) for frame in frames):
        return True
    if in_callback or not frames:
        return False
    if not _is_ours(frames[-1].f_code.co_filename):
        return not _is_replaced()
    module = type(error).__module__.partition(".")[0]
    return module not in _OUR_CLASSES


# `signal` makes an enum's member of each number, which takes 0.1 ms in all
_signal: Any = sys.modules.get("_signal", signal)
_SIGNALS = frozenset(_signal.valid_signals())
_SYSTEM = (
    "fstat",
    "listdir",
    "lseek",
    "lstat",
    "mkdir",
    "open",
    "pread",
    "replace",
    "stat",
    "write",
)
_OUR_CLASSES = frozenset(("builtins", "instrument", "msgspec", "_socket", "socket", "json"))


def _is_ours(filename: str) -> bool:
    if filename.startswith(_PACKAGE):
        return True
    return filename.startswith((_LIBRARY, "<frozen")) and "-packages" not in filename


def _is_replaced() -> bool:
    """Tell whether the program has replaced one of the system's functions that we call."""
    return any(type(getattr(os, name, os.open)) is not BuiltinFunctionType for name in _SYSTEM)


def _frames(traceback: TracebackType | None) -> Iterator[FrameType]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _is_called_by_signal(frame: FrameType) -> bool:
    """Tell a handler that took itself off before it raised: it has its number and its caller."""
    if frame.f_back is None or frame.f_code.co_argcount < 2:
        return False
    values = list(frame.f_locals.values())
    return any(value is frame.f_back for value in values) and any(
        isinstance(value, int) and value in _SIGNALS for value in values
    )


def _handler_codes() -> frozenset[CodeType]:
    handlers = map(_signal.getsignal, _SIGNALS)
    found = (_code_of(handler) for handler in handlers if callable(handler))
    return frozenset(code for code in found if code is not None)


def _code_of(handler: object) -> CodeType | None:
    handler = getattr(handler, "__wrapped__", handler)
    for place in (handler, getattr(handler, "func", None), getattr(handler, "__call__", None)):  # noqa: B004 - the method itself is wanted
        code = getattr(getattr(place, "__func__", place), "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
