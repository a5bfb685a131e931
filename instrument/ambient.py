"""The session of everything outside an explicit one, shared through `session.json`.

`{"session_id": ..., "created_at": ..., "last_activity": ...}`, Unix seconds, as the original
format's tools read and write it. It is made by a link, which one process alone can do, and
replaced as a whole, by a rename under `session.lock`.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from instrument import _clock
from instrument._clock import Clock, Ids
from instrument._files import (
    lock,
    make_private_directory,
    open_private,
    read_regular,
    write_private,
)
from instrument._guard import belongs_to_program
from instrument.carrier import is_session_id
from instrument.context import SessionIdentity

__all__ = ["AmbientSession"]

LOOK_EVERY_SECONDS = 1.0
_LOCK_WITHIN_SECONDS = 0.02


class Stored(Struct):
    """What stands in `session.json`."""

    session_id: str
    created_at: float
    last_activity: float


class AmbientSession:
    """Finds, keeps alive and replaces the ambient session of one log directory.

    Never raises for what a file system does: then the session is a provisional one, in memory.
    """

    def __init__(
        self, log_dir: Path, timeout_seconds: float, clock: Clock = time, ids: Ids = _clock
    ) -> None:
        self._log_dir = log_dir
        self._path = log_dir / "session.json"
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._ids = ids
        self._look_every_seconds = min(LOOK_EVERY_SECONDS, timeout_seconds / 4)
        self._identity: SessionIdentity | None = None
        self._provisional: SessionIdentity | None = None
        self._finders: set[int] = set()
        self._look_at_ns = 0

    def of_operation(self, now_ns: int) -> SessionIdentity:
        """Return the session of an operation that starts at `now_ns` (monotonic); keep it alive."""
        if self._identity is None or now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + int(self._look_every_seconds * 1e9)
            return self._find(refresh=True)
        return self._identity

    def peek(self) -> SessionIdentity:
        """Return the session that an operation would get now, without counting as activity."""
        return self._find(refresh=False)

    def provisional(self) -> SessionIdentity:
        """Return the session in memory, where nothing may be written."""
        if self._identity is None:
            made = SessionIdentity(self._ids.new_session_id())
            if self._identity is None:  # still: another thread may have made one meanwhile
                self._identity = self._provisional = made
        return self._identity

    def _find(self, *, refresh: bool) -> SessionIdentity:
        finder = threading.get_ident()
        if finder in self._finders:
            # a signal handler or finaliser came in between, and must not wait for what it stopped
            return self.provisional()
        self._finders.add(finder)
        try:
            return self._looked_up(refresh=refresh)
        finally:
            self._finders.discard(finder)

    def _looked_up(self, *, refresh: bool) -> SessionIdentity:
        stored = self._living()
        if stored is None or (refresh and self._idle_seconds(stored) >= self._look_every_seconds):
            stored = self._refreshed_or_new() or stored
        if stored is None:
            return self.provisional()
        if self._identity is None or self._identity.id != stored.session_id:
            self._identity = SessionIdentity(stored.session_id)
        return self._identity

    def _refreshed_or_new(self) -> Stored | None:
        """Return what now stands in the file; `None` where it cannot be written or the lock had."""
        give_up_at = time.monotonic() + _LOCK_WITHIN_SECONDS
        try:
            if self._is_missing() and (created := self._created()) is not None:
                return created
            while (stored := self._written() or self._living()) is None:
                if time.monotonic() >= give_up_at:
                    # on a busy machine that may be long after the last look
                    return self._living()
                time.sleep(random.uniform(0.0005, 0.002))
        except OSError as error:
            if belongs_to_program(error):
                raise
            return None
        return stored

    def _is_missing(self) -> bool:
        # not os.path.lexists, which would swallow a handler's timeout
        try:
            os.lstat(self._path)
        except OSError as error:
            if belongs_to_program(error):
                raise
            return True
        return False

    def _created(self) -> Stored | None:
        """Store the first session, or return that of whoever was quicker; `None`: neither."""
        make_private_directory(self._log_dir)
        waiting = self._provisional
        stored = self._new()
        try:
            self._write(stored, os.link)
        except OSError as error:  # some file systems have no links
            if belongs_to_program(error):
                raise
            self._provisional = waiting
            return self._living()
        return stored

    def _written(self) -> Stored | None:
        """Write once `session.lock` is ours; `None` where it is another's. Does not wait."""
        make_private_directory(self._log_dir)
        descriptor = open_private(self._log_dir / "session.lock", os.O_RDWR)
        # not a generator's context manager, whose disposal would swallow a handler's timeout
        try:
            if not _is_taken(descriptor):
                return None
            stored = self._living() or self._new()
            stored.last_activity = self._now_seconds()
            self._write(stored)
            return stored
        finally:
            os.close(descriptor)

    def _living(self) -> Stored | None:
        """Return what is stored, unless it is invalid or its time is over."""
        try:
            stored = msgspec.json.decode(read_regular(self._path), type=Stored, strict=False)
        except (msgspec.MsgspecError, ValueError, OSError) as error:
            if belongs_to_program(error):
                raise
            return None
        alive = (
            is_session_id(stored.session_id) and self._idle_seconds(stored) < self._timeout_seconds
        )
        return stored if alive else None

    def _new(self) -> Stored:
        now = self._now_seconds()
        waiting, self._provisional = self._provisional, None
        return Stored(self._ids.new_session_id() if waiting is None else waiting.id, now, now)

    def _idle_seconds(self, stored: Stored) -> float:
        # a clock that was set back must not keep a session alive for long
        return abs(self._now_seconds() - stored.last_activity)

    def _now_seconds(self) -> float:
        return self._clock.time_ns() / 1e9

    def _write(self, stored: Stored, put: Callable[[Path, Path], None] = os.replace) -> None:
        name = f"session.json.{os.getpid()}.{threading.get_ident()}.tmp"
        temporary = self._path.with_name(name)
        try:
            write_private(temporary, msgspec.json.encode(stored))
            put(temporary, self._path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def _is_taken(descriptor: int) -> bool:
    try:
        lock(descriptor, exclusive=True)
    except BlockingIOError:
        return False
    return True
