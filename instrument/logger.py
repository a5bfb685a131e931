"""The interface of the original usage logger: say what was used, after the work, and ask for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import time
from typing import Any

from msgspec.structs import asdict, replace

from instrument import context
from instrument._clean import jsonable, plain_text, shown_error
from instrument._clock import format_timestamp
from instrument._config import as_path
from instrument._counts import impossible
from instrument._guard import belongs_to_program
from instrument._stats import SessionFacts, session_stats, total_tokens
from instrument.context import Scope, SessionIdentity, enclosing
from instrument.errors import ConfigurationError, ConfigurationTypeError
from instrument.log import UsageLog
from instrument.operation import Operation, OperationLine, SessionStats
from instrument.recorder import (
    NO_SESSION,
    Muted,
    Recorder,
    handed_down,
    recorder,
    swallow,
    warn_once,
)
from instrument.session import session
from instrument.usage.reading import Reading

__all__ = ["UsageLogger", "correlate_sessions"]

_ORIGINAL_KEYS = (
    "timestamp",
    "session_id",
    "service",
    "operation",
    "tokens",
    "success",
    "duration_seconds",
    "error_type",
    "error_message",
    "metadata",
)


class UsageLogger:
    """Log what one service was used for, after the work, and read it back.

    - `service`: what is called: `gemini`, `qwen`, `stripe`.
    - `session_id`: log into this session; without it, into the one that is current at each call,
      so that loggers of several services share it.
    - `log_dir`: where the log is kept; without it, where `configure` says at each call.

    Logging goes into the same log as `tracked`: what is tracked needs no logging too, or its
    tokens count twice. The methods that read give this service's operations as dicts with the
    original's keys, always (`timestamp` is the start, ISO 8601 in UTC with `Z`; `tokens` is 0
    where none were reported, and then `tokens_reported` is false), and with the log's other keys
    where they are known. What a file system does raises nothing: it is warned about once.

    Threads and forked processes may share a logger; it pickles without what it has open.
    Raises `ConfigurationError` (a `ValueError`; for wrong types also a `TypeError`).
    """

    def __init__(
        self,
        service: str,
        *,
        session_id: str | None = None,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(service, str):
            raise ConfigurationTypeError("service", service, "text that is not empty")
        if not service.strip():
            raise ConfigurationError("service", service, "text that is not empty")
        self.service: str = service
        self._given_id = None if session_id is None else session(id=session_id).id
        self._log_dir: Path | None = None if log_dir is None else as_path("log_dir", log_dir)
        self._elsewhere: Recorder | None = None

    def __repr__(self) -> str:
        return f"<UsageLogger {self.service}>"

    def __reduce__(self) -> tuple[Any, ...]:
        again = partial(type(self), session_id=self._given_id, log_dir=self._log_dir)
        return again, (self.service,)

    @property
    def session_id(self) -> str:
        """The id of the session that a call of `log_usage` would log into now."""
        if self._given_id is not None:
            return self._given_id
        around = context.scope.get()
        if around is None or around.session is NO_SESSION:
            around = self._recorder().peek()
        return around.session.id

    def log_usage(
        self,
        operation: str,
        tokens: int | None = 0,
        success: bool = True,
        duration: float = 0.0,
        error_type: str | None = None,
        error_message: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Log one operation that has just ended, and took `duration` seconds.

        `tokens` is the total; `None` says that it is not known. What is impossible (negative
        tokens, a duration that is no number) is left out and named in the metadata. Never raises.
        """
        try:
            active = self._recorder()
            if not active.enabled or isinstance(context.scope.get(), Muted):
                return
            now_ns = active.now_ns()
            line = _line(active, self.service, operation, tokens, duration, metadata)
            _put_verdict(line, active, success, error_type, error_message)
            inside = self._inside(active, now_ns)
            _put_place(line, inside)
            active.write(line, now_ns)
            for gate in active.gates(inside.session):
                gate.charge(line)
        except Exception as error:
            swallow(error)

    def get_recent_operations(self, hours: float = 24) -> list[dict[str, Any]]:
        """Return the operations that started in the last `hours`, in start order."""
        return [_entry(each) for each in self._operations(since=_ago("hours", hours))]

    def get_session_operations(self, session_id: str | None = None) -> list[dict[str, Any]]:
        """Return the operations of a session in start order; `None`: of the current one."""
        return [_entry(each) for each in self._operations(session=session_id or self.session_id)]

    def get_session_stats(self, session_id: str | None = None) -> dict[str, Any]:
        """Return what a session came to; `None`: the current one.

        Keys: `session_id`, `operation_count`, and those of `get_usage_summary` from `error_count`
        on. A response that several operations report is charged once.
        """
        wanted = session_id or self.session_id
        stats = _summed(self._operations(session=wanted))
        return {
            "session_id": wanted,
            "operation_count": stats.operation_count,
            **_sums(stats),
        }

    def get_recent_errors(self, count: int = 10) -> list[dict[str, Any]]:
        """Return the latest `count` operations that failed, newest first."""
        failed = self._operations(outcome="error", limit=_at_most(count))
        return [_entry(each) for each in reversed(failed)]

    def get_usage_summary(self, days: float = 7) -> dict[str, Any]:
        """Return what was used in the last `days`.

        Keys: `total_operations`, `error_count`, `total_tokens`, `operations_without_usage`,
        `success_rate` (0..1, 0.0 of nothing; those cancelled or interrupted left out),
        `total_duration` (seconds) and `estimated_cost`: US dollars, the sum of the costs that the
        log knows. No flat price per token is assumed, so that it is 0.0 where none is known.
        """
        stats = _summed(self._operations(since=_ago("days", days)))
        return {"total_operations": stats.operation_count, **_sums(stats)}

    def _recorder(self) -> Recorder:
        """Return the recorder of the log that is written to, under the settings in force."""
        usual = recorder()
        if self._log_dir is None or self._log_dir == usual.settings.log_dir:
            return usual
        wanted = replace(usual.settings, log_dir=self._log_dir, fallback=False, complaints=())
        found = self._elsewhere
        if found is None or found.closed or found.settings != wanted:
            self._elsewhere = found = Recorder(wanted)
        return found

    def _inside(self, active: Recorder, now_ns: int) -> Scope:
        """Return the session, and the operation in it, that what is logged belongs to."""
        around = context.scope.get()
        if self._given_id is not None:
            return _joined(self._given_id, around or handed_down())
        return active.outermost(now_ns) if around is None else around

    def _operations(self, **wanted: Any) -> list[Operation]:
        log_dir = self._recorder().settings.log_dir
        try:
            return _opened(log_dir).operations(service=self.service, **wanted)
        except OSError as error:
            if belongs_to_program(error):
                raise
            warn_once(f"reading {log_dir}", f"cannot read the log in {log_dir}: {error}")
            return []

    def _source(self) -> tuple[str, str]:
        """Return what two loggers that read the same operations have in common."""
        return self.service, os.path.realpath(self._recorder().settings.log_dir)


def correlate_sessions(
    loggers: Iterable[UsageLogger], session_id: str | None = None
) -> list[dict[str, Any]]:
    """Return one session's operations over all loggers, by `timestamp`, then `operation_id`.

    `session_id`: which session; `None`: the first logger's current one. Each operation is there
    once, whichever loggers share a log. Raises `ConfigurationError` for what is no `UsageLogger`.
    """
    several = list(loggers)
    for each in several:
        if not isinstance(each, UsageLogger):
            raise ConfigurationTypeError("correlate_sessions: logger", each, "UsageLoggers")
    if not several:
        return []
    several = list({each._source(): each for each in several}.values())
    wanted = session_id or several[0].session_id
    entries = [entry for each in several for entry in each.get_session_operations(wanted)]
    once = {entry.get("operation_id") or id(entry): entry for entry in entries}
    return sorted(once.values(), key=_entry_order)


def _line(
    active: Recorder,
    service: str,
    operation: object,
    tokens: int | None,
    duration: float | None,
    metadata: dict[str, Any] | None,
) -> OperationLine:
    """Return the line of an operation that ends now."""
    noted = active.clean_metadata({} if metadata is None else metadata)
    dropped: dict[str, Any] = {}
    if impossible(Reading(total_tokens=tokens)):
        dropped["tokens"], tokens = tokens, None
    if not _is_duration(duration):
        dropped["duration_seconds"], duration = duration, None
    if dropped:
        noted = {**noted, "impossible_usage": jsonable(dropped)}
    seconds = float(duration or 0.0)
    return OperationLine(
        timestamp=format_timestamp(active.time_ns() - int(seconds * 1e9)),
        session_id="",
        service=service,
        operation=plain_text(operation),
        success=True,
        duration_seconds=seconds,
        tokens=tokens,
        metadata=noted,
        operation_id=active.new_id(),
        pid=active.pid,
    )


def _put_verdict(
    line: OperationLine, active: Recorder, success: object, error_type: object, message: object
) -> None:
    told = success if isinstance(success, bool) else active.call("success=", bool, success)
    line.success = told is not False
    line.error_type = None if error_type is None else plain_text(error_type) or None
    if message is not None:
        text = shown_error(message) if isinstance(message, BaseException) else plain_text(message)
        line.error_message = active.clean_message(text)


def _put_place(line: OperationLine, inside: Scope) -> None:
    line.session_id = inside.session.id
    line.session_name = inside.session.name
    line.parent_session_id = inside.session.parent_id
    line.trace_id = inside.session.trace_id
    line.parent_id = _parent_id(inside)


def _is_duration(value: object) -> bool:
    """Tell whether it may be the seconds that something took which ends now."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value is None
    return 0 <= value < time()


def _joined(session_id: str, around: Scope | None) -> Scope:
    """Return the session of this id as it is entered here, or else as far as it is known."""
    entered = enclosing(lambda each: each.session.id == session_id)
    if entered is not None:
        return Scope(entered.session, parent_id=_parent_id(around or entered))
    if around is None:
        return Scope(SessionIdentity(session_id))
    identity = SessionIdentity(session_id, trace_id=around.session.trace_id)
    return Scope(identity, parent_id=_parent_id(around))


def _parent_id(inside: Scope) -> str | None:
    # a running operation is a scope that has an id
    operation_id: str | None = getattr(inside, "id", None)
    if operation_id is not None:
        return operation_id
    return inside.parent_id if inside.parent is None else inside.parent.id


def _opened(log_dir: Path) -> UsageLog:
    try:
        return UsageLog(log_dir)
    except ConfigurationError as error:  # a file in the way is the file system's fault here
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(log_dir)) from error


def _ago(unit: str, amount: float) -> timedelta:
    try:
        return timedelta(**{unit: amount})
    except OverflowError:
        return timedelta.max if amount > 0 else timedelta.min
    except (TypeError, ValueError):
        raise ConfigurationTypeError(unit, amount, f"a number of {unit}") from None


def _at_most(count: float) -> int | None:
    try:
        return max(0, int(count))
    except OverflowError:
        return None if count > 0 else 0
    except (TypeError, ValueError):
        raise ConfigurationTypeError("count", count, "a whole number") from None


def _summed(operations: Sequence[Operation]) -> SessionStats:
    return session_stats("", operations, SessionFacts(), lambda one: None)


def _sums(stats: SessionStats) -> dict[str, Any]:
    return {
        "error_count": stats.error_count,
        "total_tokens": stats.total_tokens,
        "operations_without_usage": stats.operations_without_usage,
        "success_rate": stats.success_rate or 0.0,
        "total_duration": stats.total_duration_seconds,
        "estimated_cost": stats.cost_usd or 0.0,
    }


def _entry(operation: Operation) -> dict[str, Any]:
    """Return the operation as the original's readers give it, and what else is known of it."""
    values = asdict(operation)
    extra, _ = values.pop("extra"), values.pop("v")
    tokens = total_tokens(operation)
    values["timestamp"] = operation.timestamp.isoformat(timespec="microseconds")[:-6] + "Z"
    values["tokens"] = tokens or 0
    if tokens is None and operation.usage_operation_id is None:
        values["tokens_reported"] = False
    entry = {name: values.pop(name) for name in _ORIGINAL_KEYS}
    known = {name: value for name, value in values.items() if value is not None}
    return {**extra, **entry, **known}


def _entry_order(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["timestamp"], entry.get("operation_id") or ""
