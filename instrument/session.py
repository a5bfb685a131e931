"""`with session(...)`: everything done for one purpose, here and in other processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from instrument import _config, carrier, context
from instrument._asking import gate_of_session
from instrument._clean import copied
from instrument._clock import format_timestamp
from instrument._guard import belongs_to_program
from instrument._opentelemetry import session_beside
from instrument.budget import Budget, BudgetUnavailable
from instrument.carrier import Carried
from instrument.context import (
    Entered,
    Gate,
    Scope,
    SessionIdentity,
    enclosing,
    enter_session,
    leave_entered,
    leave_session,
    lineage,
    still_open,
)
from instrument.errors import ConfigurationError, ConfigurationTypeError, reject_unknown
from instrument.operation import Operation, SessionLine, SessionStats
from instrument.recorder import (
    NO_SESSION,
    Muted,
    Recorder,
    current,
    handed_down,
    recorder,
    swallow,
    warn_once,
)
from instrument.running import RunningOperation
from instrument.wrappers import in_scope, like

if TYPE_CHECKING:
    from instrument.log import UsageLog

__all__ = ["Session", "carried_here", "current_session", "headers_of", "leave_anywhere", "session"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_ALPHABET = "1 to 128 characters of [A-Za-z0-9._~:-]"


class Session(SessionIdentity):
    """Everything done for one purpose. Made by `session(...)`, not by hand.

    `id` and `name` are fixed, and so is `parent_id`, the session around it where it was made, else
    where it was entered first; `started_at` is aware, in UTC. It may be entered again, nested and
    at the same time elsewhere.
    """

    __slots__ = ("_around", "_budget", "_given_id", "_started_ns", "_written_by", "metadata")

    def __init__(
        self,
        id: str,  # noqa: A002 - the public attribute's name
        name: str | None = None,
        parent_id: str | None = None,
        *,
        trace_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        given_id: str | None = None,
        budget: Budget | None = None,
        around: Gate | None = None,
    ) -> None:
        # not by super(), which costs a request that joins a session a tenth of what it pays us
        self.id = id
        self.name = name
        self.parent_id = parent_id
        self.trace_id = trace_id
        self.gate = around
        self._around = around
        self._budget = budget
        self.metadata: dict[str, Any] = metadata if metadata is not None else {}
        self._started_ns = _config.clock.time_ns()
        self._given_id = given_id
        self._written_by: Recorder | None = None

    @property
    def started_at(self) -> datetime:
        """When the session was made: aware, in UTC."""
        return datetime.fromtimestamp(self._started_ns / 1e9, UTC)

    def __repr__(self) -> str:
        named = f" {self.name!r}" if self.name else ""
        return f"<Session{named} {self.id}>"

    def __reduce__(self) -> Any:
        """Take it to another process as somebody there would join it by its id."""
        about = (self.id, self.name, self.parent_id, self.trace_id, self.metadata, self._budget)
        return _joined, (*about, self._started_ns)

    def __enter__(self) -> Session:
        outer = context.scope.get()
        if not isinstance(outer, Muted):
            if outer is not None and self.parent_id is None and self._written_by is None:
                self._put_parent()
            _put_gate(self, self._around if outer is None else outer.session.gate)
            _write(self)
            entry = _entry(self, outer)
            try:
                enter_session(entry)
            except BaseException:  # a signal handler's: then nobody leaves it
                leave_anywhere(entry)
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        entry = None
        try:
            entry = enclosing(self._is_entry)
            if entry is not None:
                leave_anywhere(entry)
        except BaseException:  # as above
            entry = entry or enclosing(self._is_entry)
            if entry is not None:
                leave_anywhere(entry)
            raise

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Run every call of `function` in a fresh session of this name (or of this `id=`)."""
        if not isinstance(function, FunctionType):
            raise ConfigurationTypeError("session: what is decorated", function, "a function")
        decorated: F = like(function, in_scope(function, partial(_fresh_entry, self._afresh)))
        return decorated

    def stats(self, children: bool = True) -> SessionStats:
        """Return what the session came to so far; `children`: with the sessions inside it."""
        stats = _read(lambda log: log.stats(self.id, children=children))
        return SessionStats(session_id=self.id) if stats is None else stats

    def operations(self, children: bool = True) -> list[Operation]:
        """Return the finished operations in start order; `children`: with the sessions inside."""
        return _read(lambda log: log.operations(session=self.id, children=children)) or []

    def headers(self) -> dict[str, str]:
        """Return W3C `traceparent` and `baggage` headers that carry the session to a service."""
        return headers_of(self._carried())

    def env(self) -> dict[str, str]:
        """Return the environment variables that carry the session to a child process.

        `subprocess.run(..., env={**os.environ, **work.env()})`
        """
        log_dir = str(recorder().settings.log_dir)
        variables = carrier.to_environment(self._carried(), log_dir, os.environ)
        if context.beside is not None:
            variables["TRACEPARENT"] = context.beside.traceparent() or variables["TRACEPARENT"]
        if self.gate is self._around:
            _put_gate(self, self._around)
        budgets = "" if self.gate is None else self.gate.text()
        if budgets or carrier.BUDGETS in os.environ:
            variables[carrier.BUDGETS] = budgets
        return variables

    def _carried(self) -> Carried:
        """Return this session and the operation here that belongs to it."""
        found = enclosing(lambda each: each.session is self or each.session.id == self.id)
        if found is not None:
            return _carried_at(found)
        around = handed_down()
        parent_id, _ = carrier.outer_trace(os.environ)
        if around is not None and around.session.id in (self.id, self.parent_id):
            parent_id = around.parent_id
        return Carried(self.id, *lineage(self, None, parent_id))

    def _put_parent(self) -> None:
        parent_id, trace_id, _ = _around()
        if parent_id != self.id:
            self.parent_id, self.trace_id = parent_id, trace_id

    def _is_entry(self, found: Scope) -> bool:
        return found.session is self and not isinstance(found, RunningOperation)

    def _afresh(self) -> Session:
        return session(self.name, id=self._given_id, budget=self._budget, metadata=self.metadata)


def session(
    name: str | None = None,
    *,
    id: str | None = None,  # noqa: A002 - the contract's name
    budget: Budget | None = None,
    metadata: Mapping[str, Any] | None = None,
    **unknown: NoReturn,
) -> Session:
    """Return a session to enter, `with` or `async with`, or to decorate a function with.

    - `name`: what people call it.
    - `id`: join the session of this id, begun here or anywhere else, and its budget, or on this
      log those around it.
    - `budget`: what may be spent in it, by all threads, tasks and processes, and in the sessions
      inside of it; what does not fit raises `BudgetExceeded` before it is called.
    - `metadata`: what is recorded with it.

    Raises `ConfigurationError` (a `ValueError`; for wrong types also a `TypeError`).
    """
    reject_unknown("session", dict(unknown), "name, id, budget or metadata")
    if name is not None and not isinstance(name, str):
        cure = "; to decorate with it, write @session()" if callable(name) else ""
        raise ConfigurationTypeError("session name", name, f"text or None{cure}")
    if id is not None and not isinstance(id, str):
        raise ConfigurationTypeError("session id", id, _ALPHABET)
    if id is not None and not carrier.is_session_id(id):
        raise ConfigurationError("session id", id, _ALPHABET)
    if budget is not None and not isinstance(budget, Budget):
        raise ConfigurationTypeError("session budget", budget, "a Budget, as Budget(usd=5)")
    if budget is not None and budget.per is not None:
        raise ConfigurationError(
            "session budget", budget, "one without per=, or configure(budgets={...}) for this one"
        )
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ConfigurationTypeError("session metadata", metadata, "a mapping with text as keys")
    for key in metadata or ():
        if not isinstance(key, str):
            raise ConfigurationTypeError("session metadata key", key, "text")
    parent_id, trace_id, gate = _around()
    return Session(
        id or _config.ids.new_session_id(),
        name or None,
        parent_id if parent_id != id else None,
        trace_id=trace_id,
        metadata=copied(dict(metadata or {})),
        given_id=id,
        budget=budget,
        around=gate,
    )


def current_session() -> Session:
    """Return the innermost explicit session, else the inherited one, else the ambient one."""
    found = current().session
    if isinstance(found, Session):
        return found
    trace_id = found.trace_id or carrier.outer_trace(os.environ)[1]
    return Session(found.id, found.name, found.parent_id, trace_id=trace_id, around=found.gate)


def carried_here() -> Carried:
    """Return what takes the current session and operation to another process."""
    return _carried_at(current())


def leave_anywhere(entry: Scope) -> None:
    """Leave a session. Never raises.

    Where another task entered it than the one that leaves it, it gives way to what is around it,
    for that task would stay in it for good, and so do tasks that were started inside.
    """
    if type(entry) is not Entered:
        leave_session(entry)
    elif not leave_entered(entry):
        try:
            context.give_way(entry, still_open(entry.outer), recorder().peek())
        except Exception as error:
            swallow(error)


def headers_of(carried: Carried) -> dict[str, str]:
    """Return W3C headers; their parent is the span that is current beside us, if there is one."""
    headers = carrier.to_headers(carried)
    if context.beside is not None:
        headers["traceparent"] = context.beside.traceparent() or headers["traceparent"]
    return headers


def _carried_at(found: Scope) -> Carried:
    parent = found if isinstance(found, RunningOperation) else found.parent
    return Carried(found.session.id, *lineage(found.session, parent, found.parent_id))


def _around() -> tuple[str | None, str | None, Gate | None]:
    """Return the id of the session that is around here, its trace id and its gate."""
    found = context.scope.get()
    if found is not None and found.session is not NO_SESSION:
        return found.session.id, found.session.trace_id, found.session.gate
    around = handed_down()
    if around is not None:
        return around.session.id, around.session.trace_id, around.session.gate
    beside = session_beside()
    around_id = None if beside is None else beside.session.id
    return around_id, carrier.outer_trace(os.environ)[1], None


def _put_gate(entered: Session, around: Gate | None) -> None:
    """Have the budgets around be asked, and its own, or the one a session of its id began with.

    Raises `BudgetUnavailable` where its own cannot be.
    """
    if entered._budget is None and entered._given_id is None:
        entered.gate = around
        return
    try:
        active = recorder()
        if active.enabled:
            entered.gate = gate_of_session(entered, entered._budget, around, active.settings)
    except Exception as error:
        swallow(error)
        if entered._budget is not None:
            raise BudgetUnavailable(
                f"the budget of {entered!r} cannot be asked: {error!r}"
            ) from error


def _entry(entered: Session, outer: Scope | None) -> Scope:
    if outer is None:
        around = handed_down()
        parent_id, _ = carrier.outer_trace(os.environ)
        return Entered(entered, parent_id=parent_id if around is None else around.parent_id)
    parent = outer if isinstance(outer, RunningOperation) else outer.parent
    return Entered(entered, outer, parent, None if parent is not None else outer.parent_id)


def _write(entered: Session) -> None:
    """Leave a session line, once for each recorder."""
    try:
        active = recorder()
        if not active.enabled or entered._written_by is active:
            return
        entered._written_by = active
        line = SessionLine(
            timestamp=format_timestamp(entered._started_ns),
            session_id=entered.id,
            session_name=entered.name,
            parent_session_id=entered.parent_id,
            metadata=active.clean_metadata(entered.metadata) or None,
            pid=active.pid,
        )
        active.write(line, active.now_ns())
    except Exception as error:
        swallow(error)


def _read(question: Callable[[UsageLog], T]) -> T | None:
    """Ask the log; `None`, said once, where its directory cannot be read: the program goes on."""
    from instrument.log import UsageLog  # the read path, which only this module reaches

    log_dir = recorder().settings.log_dir
    try:
        return question(UsageLog(log_dir))
    except (OSError, ConfigurationError) as error:
        if belongs_to_program(error):
            raise
        warn_once(f"reading {log_dir}", f"cannot read the log in {log_dir}: {error}")
        return None


def _joined(
    id: str,  # noqa: A002 - as in Session
    name: str | None,
    parent_id: str | None,
    trace_id: str | None,
    metadata: dict[str, Any],
    budget: Budget | None,
    started_ns: int,
) -> Session:
    joined = Session(
        id, name, parent_id, trace_id=trace_id, metadata=metadata, given_id=id, budget=budget
    )
    joined._started_ns = started_ns
    return joined


def _fresh_entry(afresh: Callable[[], Session], outer: Scope | None) -> Scope:
    fresh = afresh()
    _put_gate(fresh, fresh._around)
    _write(fresh)
    return _entry(fresh, outer)
