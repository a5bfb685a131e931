"""Which attempt a call is, where tenacity makes it again.

What tells it is a local of the frame of tenacity's that made the call; of the program's frames
nothing is looked at.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

__all__ = ["attempt_around", "attempt_behind"]

_OURS, _THEIRS = "instrument", "tenacity"
_MOST_ATTEMPTS = 10_000
_MOST_FRAMES = 16


def attempt_around() -> int | None:
    """Return which attempt the tracked call is that ends here, if tenacity itself made it."""
    if _THEIRS not in sys.modules:
        return None
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        if frame is None or _package(frame) != _OURS:
            break
        frame = frame.f_back
    return None if frame is None else _attempt_in(frame)


def attempt_behind(error: BaseException) -> int | None:
    """Return how often tenacity had tried what it let go with this exception."""
    if _THEIRS not in sys.modules:
        return None
    trace = error.__traceback__
    for _ in range(_MOST_FRAMES):
        package = "" if trace is None else _package(trace.tb_frame)
        if trace is None or package not in (_OURS, _THEIRS):
            return None
        found = _attempt_in(trace.tb_frame)
        if found is not None:
            return found
        trace = trace.tb_next
    return None


def _package(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name.partition(".")[0] if type(name) is str else ""


def _attempt_in(frame: FrameType) -> int | None:
    if frame.f_code.co_name != "__call__" or _package(frame) != _THEIRS:
        return None
    state: Any = frame.f_locals.get("retry_state")
    number = getattr(state, "attempt_number", None)
    return number if type(number) is int and 1 <= number <= _MOST_ATTEMPTS else None
