"""Where lines go: the journal, the sessions around it, and what happens when that fails.

Everything that goes wrong in here is ours alone: it is counted and warned about once, and the
caller gets its own result or its own exception. What a signal handler of the program raises while
we are busy is not ours, and goes on to the program (`_guard`).
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any, cast

from msgspec import Struct

from instrument import _account, _collector, _config, _opentelemetry, _threads, context
from instrument._account import account_of, internal_error
from instrument._clean import (
    jsonable,
    plain_copy,
    plain_text,
    whole_text,
)
from instrument._clock import new_id, reseed
from instrument._config import Settings
from instrument._files import IS_SUPPORTED, make_private_directory
from instrument._guard import belongs_to_program
from instrument.ambient import AmbientSession
from instrument.carrier import BUDGETS, from_environment, inherited, outer_trace
from instrument.context import Gate, Scope, SessionIdentity
from instrument.errors import InstrumentWarning
from instrument.journal import Journal
from instrument.run_lock import RunLock

__all__ = [
    "FAILED",
    "NO_SESSION",
    "Muted",
    "Recorder",
    "current",
    "handed_down",
    "lost_count",
    "recorder",
    "swallow",
    "warn_once",
]

NO_SESSION = SessionIdentity("")
"""The session of muted code that runs outside of every session."""

FAILED: Any = object()
"""What `Recorder.call` returns when the callback raised."""

_PLAIN = {bool, float, int, str, type(None)}
_MESSAGE_CHARACTERS = 500
_CURE = (
    "the program goes on, and what cannot be written is not recorded. Choose a directory that "
    "can be written with configure(log_dir=...) or INSTRUMENT_DIR, or make room there."
)


class Muted(Scope, eq=False):
    """Current while code that is not ours runs inside us: tracked calls in it pass untracked.

    `outer` and its session are what is current around it.
    """

    @classmethod
    def here(cls) -> Muted:
        around = context.scope.get()
        return cls(NO_SESSION if around is None else around.session, around)


class Recorder:
    """One log directory being written to, under one set of settings.

    `closed` says that this process is a fork of the one that made it, so that what it began is
    not ours to record.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.enabled: bool = settings.enabled and IS_SUPPORTED
        self.closed: bool = False
        self.pid: int = os.getpid()
        self.time_ns: Callable[[], int] = settings.clock.time_ns
        self.now_ns: Callable[[], int] = settings.clock.perf_counter_ns
        self.new_id: Callable[[], str] = settings.ids.new_id
        self._account = account_of(settings.log_dir)
        self._journal = Journal(
            settings.log_dir,
            fsync=settings.durability == "fsync",
            max_bytes=settings.max_bytes,
            report=self._report,
            grown=self._grown,
            account=self._account,
            clock=lambda: settings.clock.time_ns() / 1e9,
            monotonic_ns=self.now_ns,
        )
        self.write: Callable[[Struct, int], None] = self._journal.write
        self._run_lock = RunLock(settings.log_dir, new_id(), self._report)
        self._ambient = AmbientSession(
            settings.log_dir, settings.session_timeout_seconds, settings.clock, settings.ids
        )
        self._ambient_scope = Scope(SessionIdentity(""))
        self.gate: Gate | None = _named_gate(settings)
        self._inherited = _inherited(self)
        if self.enabled and settings.fallback:
            self._use_fallback(settings.log_dir)
        _living.add(self)

    def inherited(self) -> Scope | None:
        """Return the session that this process was started in, if any."""
        return self._inherited

    def gates(self, session: SessionIdentity) -> list[Gate]:
        """Return what is asked about operations of a session: its own gate, and that of all."""
        return [gate for gate in (session.gate, self.gate) if gate is not None]

    def outermost(self, now_ns: int) -> Scope:
        """Return the scope of an operation outside every session: inherited or ambient."""
        if self._inherited is not None:
            return self._inherited
        if context.beside is not None and (found := context.beside.session()) is not None:
            return found
        return self._ambient_as_scope(self._ambient.of_operation(now_ns))

    def peek(self) -> Scope:
        """Return the same without counting as activity of the ambient session."""
        if self._inherited is not None:
            return self._inherited
        if context.beside is not None and (found := context.beside.session()) is not None:
            return found
        if not self.enabled:
            return self._ambient_as_scope(self._ambient.provisional())
        return self._ambient_as_scope(self._ambient.peek())

    def hold_run_lock(self) -> str:
        """See to it that others can tell that this process lives; return the lock's name."""
        self._run_lock.hold(perf_counter_ns())
        return self._run_lock.run

    def call(self, what: str, callback: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the user's callback returns, or `FAILED`; calls in it are not tracked."""
        try:
            return self.muted(callback, *arguments)
        except Exception as error:  # the callback's failure must not become its caller's
            if belongs_to_program(error, in_callback=True):
                raise
            self.warn(what, f"{what} raised {error!r}; it is left out of the record")
            return FAILED

    def muted(self, callback: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a callback returns, or raise what it raises; calls in it are not tracked."""
        before = context.scope.get()
        try:
            context.scope.set(Muted.here())
            return callback(*arguments)
        finally:
            context.scope.set(before)

    def clean_metadata(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Return what of `metadata` is recorded: redacted, and such that JSON can hold it."""
        if self.settings.redact is None:
            # no code of the program runs, so what a signal handler calls meanwhile is tracked
            plain = plain_copy(metadata)
            if plain is not None:
                return plain
            if _is_plain(metadata):
                return cast("dict[str, Any]", jsonable(metadata.copy()))
        cleaned = self.call("metadata", self._cleaned, metadata)
        return {} if cleaned is FAILED else cleaned

    def clean_message(self, message: str | None) -> str | None:
        """Return what of an error's message is recorded."""
        if not message or message is FAILED or not self.settings.error_messages:
            return None
        if self.settings.redact is not None:
            message = self.call("redact=", _as_text, self.settings.redact, message)
        if message is None or message is FAILED:
            return None
        return whole_text(message[:_MESSAGE_CHARACTERS])

    def not_read(self, error: Exception, what: str) -> None:
        """Let go of what a result says, which could not be read; say so once."""
        if belongs_to_program(error, in_callback=True):
            raise error
        self.warn(f"reading {what}", f"the usage of a {what} could not be read: {error!r}")

    def warn(self, once: str, message: str) -> None:
        """Give one `InstrumentWarning` for everything that is called `once`."""
        warn_once(once, message)

    def forget(self) -> None:
        """Leave everything to the parent process, which this one was forked from."""
        self.closed = True
        self._journal.forget()
        self._run_lock.forget()

    def release(self) -> None:
        """Take the sign of life away: this process ends in good order."""
        try:
            self._run_lock.release()
        except OSError as error:  # what is left there is harmless
            if belongs_to_program(error):
                raise

    def _cleaned(self, metadata: dict[str, Any]) -> dict[str, Any]:
        if self.settings.redact is None:
            return cast("dict[str, Any]", jsonable(dict(metadata)))
        redact = self.settings.redact
        redacted = {
            name: self.call("redact=", redact, name, value)
            for name, value in metadata.copy().items()
        }
        kept = {
            name: value
            for name, value in redacted.items()
            if value is not None and value is not FAILED
        }
        return cast("dict[str, Any]", jsonable(kept))

    def _ambient_as_scope(self, session: SessionIdentity) -> Scope:
        if self._ambient_scope.session is not session:
            parent_id, session.trace_id = outer_trace(os.environ)
            self._ambient_scope = Scope(session, parent_id=parent_id)
        return self._ambient_scope

    def _report(self, what: str, where: str) -> None:
        self.warn(
            f"writing to {self.settings.log_dir}", f"cannot write to {where}: {what}; {_CURE}"
        )

    def _grown(self, size: int) -> None:
        log_dir = self.settings.log_dir
        self.warn(
            f"size of {log_dir}",
            f"the log in {log_dir} has grown to {size:,} bytes; recording goes on. Move old "
            "segments away, or allow more with configure(max_bytes=...)",
        )

    def _use_fallback(self, log_dir: Path) -> None:
        try:
            make_private_directory(log_dir)
            found = os.lstat(log_dir)
            self.enabled = found.st_uid == os.getuid() and not found.st_mode & 0o077
        except OSError as error:
            if belongs_to_program(error):
                raise
            self.enabled = False
        if self.enabled:
            self.warn("fallback", f"the state directory cannot be written: recording in {log_dir}")
        else:
            self._report("not a directory of this user alone", str(log_dir))


def recorder() -> Recorder:
    """Return the recorder of the settings in force."""
    return in_force or _activate()


def handed_down() -> Scope | None:
    """Return what the environment of this process hands down, as it was when that was first read.

    Later the program may put there what its own children shall find. No recorder is made for
    nothing, because sessions may be made long before they are entered.
    """
    if in_force is None and inherited(os.environ) is None:
        return None
    return recorder().inherited()


def current() -> Scope:
    """Return what is current; outside of everything what `peek` gives."""
    found = context.scope.get()
    return recorder().peek() if found is None or found.session is NO_SESSION else found


def swallow(error: Exception) -> None:
    """Swallow an exception of our own, counted and said once; let the program's go on."""
    if belongs_to_program(error):
        raise error
    internal_error()
    warn_once(
        f"internal {type(error).__name__}",
        f"an operation was not recorded: {error!r}. This is a defect of instrument; "
        "the program is not affected.",
    )


def warn_once(once: str, message: str) -> None:
    """Give one `InstrumentWarning` for everything that is called `once`."""
    if once in _warned or sys.is_finalizing():
        return
    _warned.add(once)
    before = context.scope.get()
    try:
        context.scope.set(Muted.here())
        warnings.warn(message, InstrumentWarning, stacklevel=3)
    except Exception as error:  # -W error, or a showwarning of the program that fails
        if belongs_to_program(error, in_callback=True):
            raise
    finally:
        context.scope.set(before)


def lost_count() -> int:
    """Return how many operations this process could not record."""
    dropped = sum(each.dropped_count for each in _account.accounts().values())
    return dropped + _account.internal_error_count()


def _is_plain(metadata: dict[str, Any]) -> bool:
    if type(metadata) is not dict:
        return False
    return {str}.issuperset(map(type, metadata)) and _PLAIN.issuperset(map(type, metadata.values()))


def _activate() -> Recorder:
    global _prepared
    if not _prepared:
        # A fork before this left the processes with one series of ids. Each of several threads
        # that come here at once draws its own start, so that none goes on before that is done.
        reseed()
        if not _preparing.acquire(blocking=False):
            return _made()
        os.register_at_fork(after_in_child=_forget_in_child)
        _prepared = True
        _collector.watch()
        _threads.follow_settings()
        _opentelemetry.watch()
        atexit.register(_release_at_exit)
    return _made()


def _made() -> Recorder:
    global in_force
    in_force = made = Recorder(_config.settings())
    for complaint in made.settings.complaints:
        made.warn(complaint, f"{complaint}; the default is used")
    return made


def _retire() -> None:
    # what is running keeps its recorder, and so its journal, until it ends
    global in_force
    in_force = None


def _release_at_exit() -> None:
    for each in list(_living):
        each.release()


def _forget_in_child() -> None:
    _account.forget()
    _collector.forget_other_threads()
    reseed()
    for each in list(_living):
        each.forget()
    _retire()


def _as_text(redact: Callable[[str, Any], Any], message: str) -> str | None:
    redacted = redact("error_message", message)
    return None if redacted is None else plain_text(redacted)


def _inherited(active: Recorder) -> Scope | None:
    try:
        carried = from_environment(os.environ)
    except ValueError as error:
        active.warn(
            "INSTRUMENT_SESSION_ID",
            f"INSTRUMENT_SESSION_ID={str(error)!r} is ignored: "
            "use 1 to 128 characters of [A-Za-z0-9._~:-]",
        )
        return None
    if carried is None:
        return None
    session = SessionIdentity(carried.session_id, trace_id=carried.trace_id)
    budgets = os.environ.get(BUDGETS)
    if budgets and context.gates is not None:
        session.gate = context.gates.inherited(budgets, active.settings)
    return Scope(session, parent_id=carried.parent_id)


def _named_gate(settings: Settings) -> Gate | None:
    if not settings.budgets or context.gates is None:
        return None
    return context.gates.named(settings)


_living: weakref.WeakSet[Recorder] = weakref.WeakSet()
_warned: set[str] = set()
in_force: Recorder | None = None
"""The recorder of the settings in force, once they were asked for."""
_prepared = False
_preparing = _thread.allocate_lock()
_config.on_change(_retire)
