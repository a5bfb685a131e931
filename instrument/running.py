"""One operation, from where it begins to the line that it becomes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from threading import RLock
from typing import Any, TypedDict, Unpack

from msgspec import Struct

from instrument import context
from instrument import recorder as recording
from instrument._clean import copied, shown, shown_error
from instrument._clock import format_timestamp
from instrument._counts import plus, says_nothing, tokens_of
from instrument._finished import (
    NOTHING,
    Following,
    counted,
    put_beside,
    put_end,
    put_steps,
    taken,
)
from instrument._said import (
    as_reading,
    by_caller,
    is_cancellation,
    judged,
    kind_name,
    reconciled,
    renamed,
    truth,
)
from instrument.context import Scope, still_open
from instrument.operation import BeginLine, OperationLine, Usage, VoidLine
from instrument.recorder import FAILED, Muted, recorder, swallow
from instrument.usage import read_raised
from instrument.usage.failures import NO_OUTCOME, Outcome, outcome_of
from instrument.usage.reading import Reader, Reading

__all__ = ["RunningOperation", "Site", "begin", "current_operation"]

SLOW_NS = 100_000_000
_NOTED_NOTHING: dict[str, Any] = {}


class UsageFields(TypedDict, total=False):
    """The fields of `Usage`, as keywords."""

    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    total_tokens: int | None
    cost_usd: float | None
    model: str | None
    response_id: str | None


class Site(Struct, eq=False):
    """A place that makes tracked calls, and what was decided about it when it was decorated.

    `slow` says that the next call leaves a begin line: the first one does, and every one after a
    call that lasted over 100 ms. `lazy` says that its calls return what starts later, `asks` that
    there is a `usage` or `success` to ask, `failed` that a call may be another attempt, `tells`
    that `requested` follows, which is when budgets are asked.
    """

    service: str
    operation: str
    model: str | None = None
    metadata: dict[str, Any] | None = None
    usage: Callable[[Any], Any] | None = None
    success: Callable[[Any], Any] | None = None
    stream: bool = False
    slow: bool = True
    lazy: bool = False
    asks: bool = False
    failed: bool = False
    tells: bool = False

    def __post_init__(self) -> None:
        self.asks = self.usage is not None or self.success is not None


class RunningOperation(Scope, eq=False, weakref=True):
    """A tracked call that has begun: what `track` and `current_operation` give.

    Beside the methods: `id`, `parent_id`, `session_id`, `model` and `metadata`, of which the last
    two may be set. Any thread may use it; what is said after its end is not recorded.
    """

    site: Any = None
    trace_id: str | None = None
    recorder: Any = None
    id: str = ""
    started_ns: int = 0
    begun_ns: int = 0
    claims: Any = None
    noted: dict[str, Any] | None = None
    model: str | None = None
    given: Reading | None = None
    added: Reading | None = None
    failure: str | None = None
    following: Following | None = None
    announced: str | None = None
    done: bool = False
    reserved: Any = None
    allowed: int = 0

    def __repr__(self) -> str:
        return f"<RunningOperation {self.site.service} {self.site.operation} {self.id}>"

    def elsewhere(self) -> Scope:
        return Scope(self.session, None, self, self.id)

    @property
    def session_id(self) -> str:
        """The id of the session that was current when the operation began."""
        return self.session.id

    @property
    def metadata(self) -> dict[str, Any]:
        """What is recorded beside the numbers; a dict of this operation's own."""
        if self.noted is None:
            noted: dict[str, Any] = {}  # finalizers may run here, and other threads
            with _sharing:
                if self.noted is None:
                    self.noted = noted
        return self.noted

    @metadata.setter
    def metadata(self, value: Mapping[str, Any]) -> None:
        if not isinstance(value, Mapping):
            raise TypeError(f"metadata={shown(value)}: use a mapping with text as keys")
        self.noted = dict(value)

    def set_usage(self, usage: Usage | None = None, /, **fields: Unpack[UsageFields]) -> None:
        """Say what the operation used, in place of what was said before or its result says.

        Takes a `Usage`, or its fields as keywords: `input_tokens` includes cached tokens,
        `output_tokens` includes reasoning, `cost_usd` is in US dollars. Impossible counts are
        dropped and named in the record's metadata. Raises `TypeError` for an unknown field.
        """
        self.given, self.added = by_caller(usage, fields), None

    def add_usage(self, usage: Usage | None = None, /, **fields: Unpack[UsageFields]) -> None:
        """Add to what `set_usage` said, else to what the result says; takes the same.

        Threads may add to one operation at once.
        """
        more = by_caller(usage, fields)
        while True:
            before = self.added
            after = more if before is None else plus(before, more)
            with _sharing:
                if self.added is before:  # nobody came in between
                    self.added = after
                    return

    def fail(self, reason: str) -> None:
        """Make the outcome `error`, with `error_type` `failed` and `reason` as its message."""
        self.failure = reason if isinstance(reason, str) else shown(reason)

    def returned(self, result: Any, read: Reader | None) -> None:
        """End with what the call returned, as `read` understands it."""
        active = self.recorder
        now = active.now_ns  # calling an attribute as a method takes longer
        now_ns = now()
        if self.done or active.closed:
            return
        try:
            try:
                reading = None if read is None else read(result)
            except Exception as error:  # as in `_read`
                reading = None
                active.not_read(error, kind_name(type(result)))
            if self.site.asks:
                reading = self._asked(result, reading)
            self._end(now_ns, reading, result)
        except Exception as error:
            swallow(error)

    def raised(self, error: BaseException) -> None:
        """End with the exception that goes to the caller."""
        try:
            self._raised(error)
        except BaseException:  # a signal handler's, which must not cost the record
            self._raised(error)
            raise

    def _raised(self, error: BaseException) -> None:
        now_ns = self.recorder.now_ns()
        if self.done or self.recorder.closed:
            return
        try:
            self.site.failed = True
            verdict = self._what_happened(error)
            following = self.following
            if following is None:
                self._end(now_ns, self._read(read_raised, error), None, verdict)
            else:
                self._end(now_ns, self._merged(following), following.latest, verdict)
        except Exception as ours:
            swallow(ours)

    def ended(self, now_ns: int, said: Reading | None, verdict: Reading | None) -> None:
        """End as of `now_ns` with what is known of it otherwise than by a result.

        `verdict` is what went wrong, if anything did.
        """
        if self.done or self.recorder.closed:
            return
        try:
            self._end(now_ns, said, None, verdict)
        except Exception as error:
            swallow(error)

    def left_early(self) -> None:
        """End a stream whose consumer wants no more of it."""
        self.raised(GeneratorExit())

    def yielded(self, chunk: Any) -> None:
        """Take a chunk of a followed result into account."""
        following = self.following
        if following is None or self.done:
            return
        following.chunks += 1
        following.latest = chunk
        if following.first_chunk_ns is None:
            following.first_chunk_ns = self.recorder.now_ns()
        try:
            following.merge.add(chunk)
        except Exception as error:  # a chunk that cannot be looked at must not cost the record
            self.recorder.not_read(error, kind_name(type(chunk)))

    def opened(self, opening: Any) -> None:
        """Take into account what a followed result says before its first chunk."""
        if self.following is not None:
            try:
                self.following.merge.add(opening)
            except Exception as error:  # as in `yielded`
                self.recorder.not_read(error, kind_name(type(opening)))

    def exhausted(self, *value: Any) -> None:
        """End a followed result that came to its end; `value` is a generator's return value."""
        now_ns = self.recorder.now_ns()
        following = self.following
        if self.done or self.recorder.closed or following is None:
            return
        try:
            for returned in value:
                if returned is not None:
                    following.merge.add(returned)
                    following.latest = returned
            reading = self._merged(following)
            if self.site.asks and not following.is_tap:
                reading = self._asked(value[0] if value else reading or Reading(), reading)
            if reading is not None and reading.hint is not None and self.given is None:
                self.recorder.warn("a stream without usage", reading.hint)
            self._end(now_ns, reading, following.latest)
        except Exception as error:
            swallow(error)

    def announce(self) -> None:
        """Write the begin line of a call that may last."""
        self.announced = format_timestamp(self.started_ns)
        line = BeginLine(
            timestamp=self.announced,
            session_id=self.session.id,
            service=self.site.service,
            operation=self.site.operation,
            operation_id=self.id,
            parent_id=self.parent_id,
            pid=self.recorder.pid,
            run=self.recorder.hold_run_lock(),
        )
        self.recorder.write(line, self.recorder.now_ns())
        self._restart()

    def withdraw(self) -> None:
        """Take the begin line back: what the call returned has not started yet."""
        self.site.lazy = True
        if self.reserved is not None:
            _give_back(self)
        self._void()

    def drop(self) -> None:
        """Leave no record of a call that has just begun, and was not asked about yet."""
        self.done = self.left = True  # so that what is called inside of it is not
        self._void()

    @property
    def is_gated(self) -> bool:
        """Whether there are budgets that it has to fit into."""
        return self.session.gate is not None or self.recorder.gate is not None

    def requested(self, model: str | None, allowed: int) -> None:
        """Take into account what the request says, where our own patch of a client sees it.

        `allowed` is the largest number of tokens that the response may have, 0 if it does not say.
        Raises what the gates raise, and then there was no operation.
        """
        self.model = model or self.model
        if not self.site.tells or not self.is_gated:
            return
        self.allowed = allowed
        try:
            _admit(self)
        except BaseException:
            self.drop()
            raise

    def start(self, outer: Scope | None) -> None:
        """Begin anew, inside of what is current at the first step of what the call returned.

        Raises what the gates raise.
        """
        try:
            _move(self, outer)
            self._restart()
        except Exception as error:
            swallow(error)
        if self.is_gated and not self.site.tells:
            try:
                _admit(self)
            except BaseException:
                self.done = True
                raise
        if self.site.slow:
            _announce(self)

    def _void(self) -> None:
        if self.announced is not None:
            line, self.announced = VoidLine(self.id, self.announced), None
            self.recorder.write(line, self.recorder.now_ns())

    def _restart(self) -> None:
        self.started_ns, self.begun_ns = self.recorder.time_ns(), self.recorder.now_ns()

    def _read(self, read: Reader, result: Any) -> Reading | None:
        try:
            return read(result)
        except Exception as error:  # a result that cannot be looked at must not cost the record
            self.recorder.not_read(error, kind_name(type(result)))
            return None

    def _merged(self, following: Following) -> Reading | None:
        reading = self._read(lambda merge: merge.reading(), following.merge)
        if self.site.asks and following.is_tap:
            return self._asked(reading or Reading(), reading)
        return reading

    def _asked(self, result: Any, reading: Reading | None) -> Reading | None:
        """Return the reading as the decorator's own `usage=` and `success=` have it."""
        site, call = self.site, self.recorder.call
        if site.usage is not None:
            said = call(f"usage= of {site.operation}", as_reading, site.usage, result)
            reading = reconciled(reading, None if said is FAILED else said)
        if site.success is not None:
            succeeded = call(f"success= of {site.operation}", truth, site.success, result)
            if succeeded is not FAILED:
                reading = judged(reading, succeeded=succeeded)
        return reading

    def _what_happened(self, error: BaseException) -> Reading:
        kind = type(error)
        if issubclass(kind, GeneratorExit):
            return Reading(outcome="partial")
        name = kind_name(kind)
        if is_cancellation(kind):
            return Reading(outcome="cancelled", error_type=name)
        message = self.recorder.call("an exception's message", shown_error, error)
        known = self._known_of(error)
        return Reading(
            outcome="error",
            error_type=name,
            error_message=message,
            details=known.details,
            attempt=known.attempt,
        )

    def _known_of(self, error: BaseException) -> Outcome:
        """Return what a provider's exception says beside its message."""
        if not issubclass(type(error), Exception):
            return NO_OUTCOME
        known = self.recorder.call("an exception's details", outcome_of, error)
        return NO_OUTCOME if known is FAILED else known

    def _with_said(self, reading: Reading | None) -> tuple[Reading | None, Reading | None]:
        """Return the reading as `set_usage` has it, and what is added to it.

        What is added to nothing is all there is; of names that the program says the later hold.
        """
        given, added = self.given, self.added
        if given is None and says_nothing(reading):
            given, added = added, None
        elif given is not None and added is not None:
            given = renamed(given, added)
        return reading if given is None else reconciled(reading, given), added

    def _end(
        self, now_ns: int, reading: Reading | None, result: Any, verdict: Reading | None = None
    ) -> None:
        """Write the line. `verdict` is what an exception says; it outranks everything else."""
        site, session, active = self.site, self.session, self.recorder
        elapsed_ns = now_ns - self.begun_ns
        following = self.following
        if following is not None and not taken(following.open):
            return
        added = self.added
        if added is not None or self.given is not None:
            reading, added = self._with_said(reading)
        own = reading = NOTHING if reading is None else reading
        owner = dropped = None
        is_plain = reading.is_plain and added is None
        if not is_plain or (reading is not NOTHING and (self.parent is not None or self.claims)):
            own, owner, dropped = counted(self, reading, result, added)
        line = OperationLine(
            format_timestamp(self.started_ns),
            session.id,
            site.service,
            site.operation,
            True,
            elapsed_ns / 1e9,
            own.total_tokens if is_plain else tokens_of(own),
            _NOTED_NOTHING if self.noted is None else active.clean_metadata(self.noted),
            self.id,
            self.parent_id,
            self.trace_id,
            session.parent_id,
            session.name,
            None,
            None,
            None,
            reading.provider,
            reading.model or self.model,
            reading.kind,
            own.input_tokens,
            own.output_tokens,
            own.cache_read_tokens,
            own.cache_write_tokens,
            own.reasoning_tokens,
            own.cost_usd,
            own.cost_source,
            reading.response_id,
            owner,
            pid=active.pid,  # with two more arguments, Python would collect them in a list first
        )
        if not is_plain and (
            own is not reading
            or dropped
            or reading.details is not None
            or reading.outcome is not None
            or reading.attempt is not None
        ):
            put_beside(line, reading, own, dropped, active)
        if self.failure is not None and verdict is None:
            verdict = Reading(outcome="error", error_type="failed", error_message=self.failure)
        if verdict is not None or site.failed:
            put_end(line, verdict, active)
        if following is not None:
            put_steps(line, following, self.begun_ns)
        if elapsed_ns > SLOW_NS or site.slow:
            site.slow = elapsed_ns > SLOW_NS
        self.done = True
        write = active.write
        write(line, now_ns)
        if session.gate is not None or active.gate is not None:
            _settle(self, line)


def begin(
    site: Site,
    outer: Scope | None,
    model: str | None = None,
    noted: dict[str, Any] | None = None,
) -> RunningOperation | None:
    """Begin an operation inside `outer`, what is current; `None` if it shall not be recorded.

    `model` and `noted`, its metadata, come before those of the site. Raises what the gates raise.
    """
    try:
        active = recording.in_force or recorder()
        if not active.enabled:
            return None
        if outer is not None and outer.left:
            outer = still_open(outer)
        kind = type(outer)
        if kind is Muted:
            return None
        around: Any = active.outermost(active.now_ns()) if outer is None else outer
        parent = around if kind is RunningOperation else around.parent
        session = around.session
        # calling an attribute as a method takes longer
        new_id, time_ns, now_ns = active.new_id, active.time_ns, active.now_ns
        operation = RunningOperation(
            session,
            outer,
            parent
            if parent is None or (not parent.done and parent.claims is not None)
            else _running(parent),
            around.parent_id if parent is None else parent.id,
            False,
            site,
            session.trace_id,
            active,
            new_id(),
            time_ns(),
            now_ns(),
            None,
            noted if site.metadata is None else copied(site.metadata),
            site.model if model is None else model,
        )
        if context.beside is not None:
            context.beside.began(operation)
    except Exception as error:
        swallow(error)
        return None
    if (session.gate is not None or active.gate is not None) and not site.tells:
        _admit(operation)
    if site.slow and not site.lazy:
        _announce(operation)
    return operation


def _admit(operation: RunningOperation) -> None:
    """Ask the gates of session and settings; each gives back what all have if it refuses."""
    active, session = operation.recorder, operation.session
    if session.gate is not None:
        session.gate.admit(operation)
    if active.gate is not None:
        active.gate.admit(operation)
    # what asking took is not the call's time
    operation.started_ns, operation.begun_ns = active.time_ns(), active.now_ns()


def _settle(operation: RunningOperation, line: OperationLine) -> None:
    active, session = operation.recorder, operation.session
    if session.gate is not None:
        session.gate.settle(operation, line)
    if active.gate is not None:
        active.gate.settle(operation, line)


def _give_back(operation: RunningOperation) -> None:
    for gate in operation.recorder.gates(operation.session):
        gate.withdraw(operation)


def _move(operation: RunningOperation, outer: Scope | None) -> None:
    """Put an operation that has not started inside of what is current where it starts."""
    operation.left, operation.outer = False, outer
    if isinstance(outer, Muted):
        return
    active = operation.recorder
    around = active.outermost(active.now_ns()) if outer is None else outer
    parent = around if isinstance(around, RunningOperation) else around.parent
    operation.session = around.session
    operation.parent_id = around.parent_id if parent is None else parent.id
    operation.parent = _running(parent)
    operation.trace_id = around.session.trace_id
    if context.beside is not None:
        context.beside.began(operation)


def current_operation() -> RunningOperation | None:
    """Return the tracked call that is running here, innermost first; `None` outside of any."""
    found = context.scope.get()
    if isinstance(found, Muted):
        found = found.outer
    found = still_open(found)
    if found is None or isinstance(found, RunningOperation):
        return found
    inside: RunningOperation | None = found.parent
    return inside


def _announce(operation: RunningOperation) -> None:
    try:
        operation.announce()
    except Exception as error:
        try:
            swallow(error)
        except Exception:  # a signal handler's: the call does not happen, and what began ends
            operation.raised(error)
            raise


def _running(parent: RunningOperation | None) -> RunningOperation | None:
    """Return the nearest that has not ended yet: those before it are linked to by id alone.

    From now on it may be left claims.
    """
    while parent is not None and parent.done:
        parent = parent.parent
    if parent is not None and parent.claims is None:
        claims: dict[Any, Any] = {}  # as for `metadata`
        with _sharing:
            if parent.claims is None:
                parent.claims = claims
    return parent


def _unlock_in_child() -> None:
    global _sharing
    _sharing = RLock()  # a thread that is gone may have had the old one


_sharing = RLock()
"""Held where threads change what they have in common: an operation that runs around them.

Nothing of the program's runs meanwhile: nothing is called, and nothing allocated.
"""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)
