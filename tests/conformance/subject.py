"""What a probe is, what it is given, and how it is run."""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import inspect
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """One finished call, as a subject recorded it.

    `outcome` is `ok`, `error` or whatever else the subject can say. `charged_seconds` is the
    time that the subject attributes to the producer; for one that does not tell producer and
    consumer apart it is the duration.
    """

    name: str
    id: str
    parent_id: str | None
    outcome: str
    duration_seconds: float
    charged_seconds: float


class Subject(Protocol):
    """A decorator under test."""

    def decorate(self, target: T) -> T:
        """Return `target` decorated."""

    def current(self) -> object | None:
        """Return what is running here according to the subject; `None` outside every call."""

    def records(self) -> list[Record]:
        """Return what has been recorded since the probe began."""


class Bare:
    """No decorator at all: what every other subject is held against."""

    def decorate(self, target: T) -> T:
        return target

    def current(self) -> object | None:
        return None

    def records(self) -> list[Record]:
        return []


@dataclass(frozen=True)
class Probe:
    """One claim about a decorated callable; `run` raises if it does not hold.

    A probe that `reads_records` says nothing about code that records nothing. `needs` names
    the packages without which the probe cannot be run.
    """

    run: Callable[[Subject], Awaitable[None] | None]
    reads_records: bool
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.run.__name__

    @property
    def group(self) -> str:
        """Return what it is about: the name of its module, in words."""
        return self.run.__module__.rpartition(".")[2].replace("_", " ")

    def missing(self) -> list[str]:
        """Return the packages it needs that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


registered: list[Probe] = []  # in the order of imports; `probes.PROBES` has the order of reading

ProbeFunction = TypeVar("ProbeFunction", bound=Callable[[Subject], Awaitable[None] | None])


def behaviour(*needs: str) -> Callable[[ProbeFunction], ProbeFunction]:
    """Register a probe that bare code passes."""
    return _registered(reads_records=False, needs=needs)


def recording(*needs: str) -> Callable[[ProbeFunction], ProbeFunction]:
    """Register a probe on what is recorded."""
    return _registered(reads_records=True, needs=needs)


def _registered(
    *, reads_records: bool, needs: tuple[str, ...]
) -> Callable[[ProbeFunction], ProbeFunction]:
    def register(function: ProbeFunction) -> ProbeFunction:
        registered.append(Probe(function, reads_records, needs))
        return function

    return register


class OutOfTime(BaseException):
    """A probe hung. Not an `Exception`, so that no code under test catches it."""


def perform(probe: Probe, subject: Subject, timeout_seconds: float = 20) -> None:
    """Run the probe in the main thread; raise what it raises, or `OutOfTime`.

    It gets a context of its own, so that what one probe leaks does not fail the next.
    """

    def run() -> None:
        pending = probe.run(subject)
        if inspect.iscoroutine(pending):
            asyncio.run(pending)

    with _deadline(timeout_seconds):
        contextvars.copy_context().run(run)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    def give_up(*_: Any) -> None:
        raise OutOfTime(f"no answer within {seconds} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
