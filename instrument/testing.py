"""For tests of programs that use `instrument`: nothing reaches the real log."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

from instrument import _config
from instrument.log import UsageLog
from instrument.operation import Operation, SessionStats

__all__ = ["CapturedOperations", "capture"]


class CapturedOperations(Sequence[Operation]):
    """The operations finished since `capture()`, in start order: a sequence that grows.

    `log` is the captured log, for everything else that can be asked of one. It lives as long as
    this object, after the block too.
    """

    def __init__(self, log_dir: Path) -> None:
        self.log: UsageLog = UsageLog(log_dir)
        self.log_dir: Path = log_dir
        weakref.finalize(self, _remove, log_dir, os.getpid())

    @overload
    def __getitem__(self, index: int) -> Operation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Operation]: ...
    def __getitem__(self, index: int | slice) -> Operation | Sequence[Operation]:
        return self.log.operations()[index]

    def __len__(self) -> int:
        return len(self.log.operations())

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.log.operations())  # one reading, where the mixin's would read for each

    def __eq__(self, other: object) -> bool:
        return list(self) == other if isinstance(other, list) else self is other

    def __repr__(self) -> str:
        return f"<CapturedOperations {list(self)!r}>"

    def stats(self, session_id: str) -> SessionStats:
        """Return what the captured operations of a session come to."""
        return self.log.stats(session_id)


@contextmanager
def capture(**settings: Any) -> Iterator[CapturedOperations]:
    """Record into a log of its own until the block ends, in all threads and child processes.

    Yields the operations as a sequence that grows, and that stays after the block.
    `settings` are those of `configure`, for the time of the block.
    """
    log_dir = Path(tempfile.mkdtemp(prefix="instrument-capture-"))
    captured = CapturedOperations(log_dir)
    before = os.environ.get("INSTRUMENT_DIR")
    try:
        with _config.override(log_dir=log_dir, **{"enabled": True, **settings}):
            os.environ["INSTRUMENT_DIR"] = str(log_dir)
            yield captured
    finally:
        _put_back("INSTRUMENT_DIR", before)


def _remove(log_dir: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a fork, which may end before we do
        shutil.rmtree(log_dir, ignore_errors=True)


def _put_back(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
