"""What is current: the innermost session and the operation that is running.

One context variable holds both, so that they can never disagree. Its value is a `Scope`: an entered
session, or a running operation (a subclass, in `running`). `None` is outside of everything. It is
reached through this module, as `context.scope`, because something else stands in its place while
the garbage collector runs (`_collector`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from instrument.carrier import trace_id_of

__all__ = [
    "Beside",
    "Entered",
    "Gate",
    "Gates",
    "Scope",
    "SessionIdentity",
    "bind_to_context",
    "enclosing",
    "enter_session",
    "give_way",
    "leave",
    "leave_by",
    "leave_entered",
    "leave_session",
    "lineage",
    "run_in",
    "scope",
    "stay_outside",
    "still_open",
]

T = TypeVar("T")


class Gate(Protocol):
    """Decides whether an operation may begin, and hears how it ended."""

    def admit(self, operation: Any) -> None:
        """Return to let the `RunningOperation` begin; raise what the caller shall see."""

    def text(self) -> str:
        """Return what tells a child process of it, in its environment."""

    def open(self) -> None:
        """Make what other processes shall find."""

    def withdraw(self, operation: Any) -> None:
        """Take note that an operation which was admitted did not begin."""

    def settle(self, operation: Any, line: Any) -> None:
        """Take note of the finished operation's `OperationLine`."""

    def charge(self, line: Any) -> None:
        """Take note of the `OperationLine` of one that was not asked about before."""


class Gates(Protocol):
    """Makes the gates of processes with budgets."""

    def named(self, settings: Any) -> Gate:
        """Return the gate of the budgets over everything in a log, of the `Settings` in force."""

    def inherited(self, told: str, settings: Any) -> Gate | None:
        """Return the gate that the environment variable of a process speaks of."""


class Beside(Protocol):
    """Traces beside us in the same program; `None` everywhere means that nothing is traced."""

    def began(self, operation: Any) -> None:
        """Have a `RunningOperation` that just began follow the trace."""

    def lineage(self, parent_id: str | None) -> tuple[str, str] | None:
        """Return the ids of parent and trace of what is called below `parent_id` in a span."""

    def traceparent(self) -> str | None:
        """Return the W3C header of the current span."""

    def session(self) -> Scope | None:
        """Return the session that is current there."""

    def entered(self, scope: Scope) -> None:
        """Take note that a session is current from now on."""

    def left(self, scope: Scope) -> None:
        """Take note that it is not any more."""

    def gave_way(self, scope: Scope) -> None:
        """Take note that nobody is in it any more, in contexts out of reach neither."""

    def stay_outside(self) -> None:
        """Take note that none is current from now on."""

    def resumed(self, inside: Scope | None) -> Any:
        """Take note that the sessions are current again in which a generator stood still."""

    def suspended(self, inside: Scope | None, before: Any) -> None:
        """Take note that it stands still; `before` is what `resumed` returned."""


class SessionIdentity:
    """What an operation needs to know of its session."""

    __slots__ = ("__weakref__", "gate", "id", "name", "parent_id", "trace_id")

    def __init__(
        self,
        id: str,  # noqa: A002 - the public attribute's name
        name: str | None = None,
        parent_id: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        self.id: str = id
        self.name: str | None = name
        self.parent_id: str | None = parent_id
        self.trace_id: str | None = trace_id
        self.gate: Gate | None = None


class Scope(Struct, eq=False, weakref=True):
    """A session as it is entered here, inside the running operation `parent`, if there is one.

    `parent_id` is the parent operation's id where the parent runs in another process. `outer` is
    what was current before. `left` says that this ended where it was not current, so that whoever
    comes back to it passes it over.
    """

    session: SessionIdentity
    outer: Scope | None = None
    parent: Any = None
    parent_id: str | None = None
    left: bool = False

    def elsewhere(self) -> Scope:
        """Return what is current in a thread, process or callback that is given work here."""
        return Scope(self.session, None, self.parent, self.parent_id)


class Entered(Scope, eq=False, weakref=True):
    """A session that is entered until it is left; `token` is of the context in which that was."""

    token: Any = None


def give_way(entry: Entered, outer: Scope | None, outermost: Scope) -> None:
    """Be as what is around an entry for whoever has it as what is current, out of reach."""
    around = (outermost if outer is None else outer).elsewhere()
    entry.session, entry.parent, entry.parent_id = around.session, around.parent, around.parent_id
    entry.left, entry.outer = True, outer
    if beside is not None:
        beside.gave_way(entry)


scope: ContextVar[Scope | None] = ContextVar("instrument_scope", default=None)
beside: Beside | None = None
gates: Gates | None = None
backdrop: Scope | None = None
"""What a test run is recorded in, which is not around what a test captures."""


def run_in(carried: Scope, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Run `fn` inside of what was current where it was handed over."""
    before = scope.get()
    # for those beside us each run is an entry of its own
    inside = carried if beside is None else carried.elsewhere()
    try:
        enter_session(inside)
        return fn(*args, **kwargs)
    finally:
        if beside is not None:
            beside.left(inside)
        scope.set(before)


def stay_outside() -> None:
    """Have no session be current here for good, nor known as such to who traces beside us."""
    scope.set(None)
    if beside is not None:
        beside.stay_outside()


def enter_session(entry: Scope) -> None:
    """Make a session current here, and known to who traces beside us."""
    token = scope.set(entry)
    if type(entry) is Entered:
        entry.token = token
    if beside is not None:
        beside.entered(entry)


def leave_session(entry: Scope) -> None:
    """Make current what was before, as `leave` does."""
    if beside is not None:
        beside.left(entry)
    leave(entry)


def leave_entered(entry: Entered) -> bool:
    """Do the same in the context in which the session was entered; tell whether this is it."""
    if beside is not None:
        beside.left(entry)
    if not leave_by(entry.token, entry):
        return False
    entry.token = None
    return True


def leave_by(token: Token[Scope | None], this: Scope) -> bool:
    """Leave `this`, which was made current with that token; tell whether that was in this context.

    In the other one it still is current, and is passed over for what is around it. Never raises.
    """
    current, outer = scope.get(), this.outer
    try:
        scope.reset(token)
    except (ValueError, RuntimeError, TypeError):  # of another context, or of none any more
        leave(this)
        this.left, this.outer = True, outer
        return False
    if current is this and (this.outer is None or not this.outer.left):
        this.outer = None  # as in `leave`
    else:
        scope.set(current)
        leave(this)
    return True


def leave(this: Scope) -> None:
    """Make current what was current before `this`, if `this` is current here.

    Tasks that were started inside of `this` stay in it, and call after call comes back to it. In
    another context, or with something inside still open, a mark is set instead.
    """
    if scope.get() is this:
        outer = this.outer
        scope.set(outer if outer is None or not outer.left else still_open(outer))
        # or else a chain of tasks, each started by the one before, would hold all of them
        this.outer = None
    else:
        this.left = True


def lineage(session: SessionIdentity, parent: Any, parent_id: str | None) -> tuple[str | None, str]:
    """Return the ids of the parent operation and of the trace of what is called elsewhere.

    `parent` is the running operation whose session this is, `None` outside of every one, and
    `parent_id` that of one which runs in another process.
    """
    root = parent
    while root is not None and root.parent is not None:
        root = root.parent
    above = parent_id if parent is None else parent.id
    trace_id = session.trace_id if root is None else root.trace_id
    found = None if beside is None else beside.lineage(above)
    if found is not None:
        return found
    return above, trace_id or trace_id_of(session.id if root is None else root.id)


def still_open(found: Scope | None) -> Scope | None:
    """Return `found`, or the nearest around it that is not over."""
    while found is not None and found.left:
        found = found.outer
    return found


def enclosing(wanted: Callable[[Scope], bool]) -> Scope | None:
    """Return the innermost open scope here that is `wanted`."""
    found = scope.get()
    while found is not None and (found.left or not wanted(found)):
        found = found.outer
    return found


def bind_to_context(function: Callable[..., T]) -> Callable[..., T]:
    """Return `function` bound to a snapshot of all context variables; each call gets a copy."""
    from contextvars_extras.context_management import (  # type: ignore[import-untyped]
        bind_to_snapshot_context,
    )

    run = bind_to_snapshot_context(_call)

    def bound(*args: Any, **kwargs: Any) -> T:
        # by keyword, because the library hands on no positional arguments of the call
        result: T = run(function=function, args=args, kwargs=kwargs)
        return result

    return bound


def _call(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    return function(*args, **kwargs)
