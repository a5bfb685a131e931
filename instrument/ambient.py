"""The session of everything outside an explicit one, shared through `session.json`.

`{"session_id": ..., "created_at": ..., "last_activity": ...}`, Unix seconds, as the original
format's tools read and write it. It is replaced as a whole, by a rename under `session.lock`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from instrument._guard import belongs_to_program
from instrument.carrier import is_session_id
from instrument.context import SessionIdentity
from instrument.journal import make_private_directory

try:
    import fcntl
except ImportError:  # Windows, where nothing is recorded
    fcntl = None  # type: ignore[assignment]  # every caller is behind a check for the platform

__all__ = ["AmbientSession", "new_session_id"]

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

    def __init__(self, log_dir: Path, timeout_seconds: float) -> None:
        self._log_dir = log_dir
        self._path = log_dir / "session.json"
        self._timeout_seconds = timeout_seconds
        self._look_every_ns = int(min(LOOK_EVERY_SECONDS, timeout_seconds / 4) * 1e9)
        self._identity: SessionIdentity | None = None
        self._look_at_ns = 0

    def of_operation(self, now_ns: int) -> SessionIdentity:
        """Return the session of an operation that starts at `now_ns` (monotonic); keep it alive."""
        if self._identity is None or now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + self._look_every_ns
            return self._find(refresh=True)
        return self._identity

    def peek(self) -> SessionIdentity:
        """Return the session that an operation would get now, without counting as activity."""
        return self._find(refresh=False)

    def provisional(self) -> SessionIdentity:
        """Return the session in memory, where nothing may be written."""
        if self._identity is None:
            self._identity = SessionIdentity(new_session_id())
        return self._identity

    def _find(self, *, refresh: bool) -> SessionIdentity:
        stored = None
        try:
            stored = self._stored_or_new(refresh=refresh)
        except OSError as error:
            if belongs_to_program(error):
                raise
        if stored is None:
            return self.provisional()
        if self._identity is None or self._identity.id != stored.session_id:
            self._identity = SessionIdentity(stored.session_id)
        return self._identity

    def _stored_or_new(self, *, refresh: bool) -> Stored | None:
        give_up_at = time.monotonic() + _LOCK_WITHIN_SECONDS
        while True:
            stored = self._living()
            if stored is not None and not refresh:
                return stored
            with self._lock() as locked:
                if locked:
                    stored = self._living() or _new_stored()
                    stored.last_activity = time.time()
                    self._write(stored)
            if stored is not None or time.monotonic() >= give_up_at:
                return stored
            time.sleep(random.uniform(0.0005, 0.002))

    def _living(self) -> Stored | None:
        """Return what is stored, unless it is invalid or its time is over."""
        try:
            stored = msgspec.json.decode(self._path.read_bytes(), type=Stored, strict=False)
        except (msgspec.MsgspecError, UnicodeError, FileNotFoundError, IsADirectoryError):
            return None
        idle_seconds = abs(time.time() - stored.last_activity)
        alive = is_session_id(stored.session_id) and idle_seconds < self._timeout_seconds
        return stored if alive else None

    def _write(self, stored: Stored) -> None:
        temporary = self._path.with_name(f"session.json.{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(stored))
        finally:
            os.close(descriptor)
        os.replace(temporary, self._path)

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Try for `session.lock` once, without waiting; yield whether it is ours."""
        make_private_directory(self._log_dir)
        path = self._log_dir / "session.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                locked = False
            yield locked
        finally:
            os.close(descriptor)


def new_session_id() -> str:
    """Return `session_<unix seconds>_<8 hex>`."""
    return f"session_{int(time.time())}_{os.urandom(4).hex()}"


def _new_stored() -> Stored:
    now = time.time()
    return Stored(new_session_id(), now, now)
