"""What the processes do until their end comes.

A process says on its pipe, a line each: `+<id> <operation> <outcome> <session>` after a tracked
call has returned, `-...` likewise if the library counted the record as lost, `><id>` from inside
of a call that never returns, `killed` after it killed a child of its own, `forked` for a child,
and `!<text>` for what must not be.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

from zygote import Plan

from instrument import (
    Operation,
    UsageLog,
    configure,
    current_operation,
    journal,
    session,
    track,
    tracked,
)
from instrument.errors import InstrumentError, ManifestError
from instrument.recorder import lost_count

Act = Callable[["Process", random.Random], None]


class Planned(Exception):  # noqa: N818 - the end that was planned, no error
    """The exception that nobody handles."""


class Failed(Exception):  # noqa: N818 - named after what a record's `error_type` shall be
    """What a tracked function raises."""


class Seen(NamedTuple):
    """An operation as its own body sees it."""

    id: str
    session_id: str


class Process:
    """The process that a program runs in, and its way to the zygote."""

    def __init__(self, plan: Plan, pipe: int) -> None:
        self.plan = plan
        self.options = plan.options
        self.random = random.Random(plan.seed)
        self.log = UsageLog(plan.log_dir)
        self.journal = Path(plan.log_dir, "journal")
        self._pipe = pipe
        self._number = itertools.count(1)
        self._last = max(1, plan.after) if plan.end in ("exit", "raise") else None

    def acknowledge(self, seen: Seen, operation: str, outcome: str = "ok", sign: str = "+") -> None:
        """Say that the call has returned; end the process if that was the planned moment."""
        self.say(f"{sign}{seen.id} {operation} {outcome} {seen.session_id}")
        if next(self._number) == self._last:
            if self.plan.end == "exit":
                os._exit(0)
            if threading.current_thread() is threading.main_thread():
                raise Planned
            signal.raise_signal(signal.SIGUSR1)

    def say(self, text: str) -> None:
        try:
            os.write(self._pipe, text.encode() + b"\n")
        except BrokenPipeError:
            os._exit(1)

    def fork(self) -> int:
        """Fork; the child has its own random numbers, and no planned end."""
        pid = os.fork()
        if pid == 0:
            self._last = None
            self.random.seed(f"{self.plan.seed} {self.random.random()}")
        else:
            self.say("forked")
        return pid


def warm_up() -> None:
    """Import what the processes would, each for itself."""
    import ctypes  # noqa: F401

    import duckdb  # noqa: F401

    from instrument import _recovery, _select, _sql, _summary  # noqa: F401


def perform(plan: Plan, pipe: int) -> None:
    process = Process(plan, pipe)
    random.seed(plan.seed)
    sys.excepthook = _silent_if_planned
    sys.unraisablehook = _raised_again
    signal.signal(signal.SIGUSR1, _raise_planned)
    if plan.options.get("handles_sigterm"):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    configure(log_dir=plan.log_dir)
    if "dies_at" in plan.options:
        _die_at(*plan.options["dies_at"])
    if (segment_bytes := plan.options.get("segment_bytes")) is not None:
        # in this process alone: with 64 MiB and a look a second, no short life would see a rotation
        journal.SEGMENT_BYTES = segment_bytes
        journal.LOOK_EVERY_NS = 20_000_000
    process.say("ready")
    PROGRAMS[plan.program](process)


def _raised_again(lost: Any) -> None:
    """Raise once more, a moment later, what a signal handler raised in a callback of Python's own.

    Python drops it there, in any program.
    """
    if getattr(lost.object, "__module__", None) != "_weakrefset":
        sys.__unraisablehook__(lost)
        return

    def again(number: int, frame: Any) -> None:
        raise lost.exc_value

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


def _die_at(pattern: str, number: int, later: int) -> None:
    """Kill this process right before something it does with files: `later` things after the
    so-and-so-manieth of which name and path match.

    So the moments between two system calls, which are short, come up as often as long ones.
    """
    matches, left = itertools.count(1), -1

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event == "os.kill" or not event.startswith(("open", "os.", "fcntl.")):
            return
        if left < 0 and re.search(pattern, f"{event} {arguments}") and next(matches) == number:
            left = later
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= left > 0

    sys.addaudithook(hook)


def _raise_planned(number: int, frame: object) -> NoReturn:
    raise Planned


def _silent_if_planned(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if kind is not Planned:
        sys.__excepthook__(kind, error, traceback)


# What is called. The tokens, and a large record's text, follow from the id, so that the content of
# a record can be checked without saying it on the pipe.


def tokens_of(operation_id: str) -> int:
    return int(operation_id, 16) % 1_000


def here() -> Seen:
    operation = current_operation()
    assert operation is not None
    operation.set_usage(total_tokens=tokens_of(operation.id))
    return Seen(operation.id, operation.session_id)


@tracked(service="crash")
def ask() -> Seen:
    return here()


@tracked(service="crash")
def fail() -> NoReturn:
    raise Failed(here())


@tracked(service="crash")
def outer(process: Process) -> Seen:
    process.acknowledge(ask(), "ask")
    return here()


@tracked(service="crash")
def stream() -> Iterator[Seen]:
    yield from [here()] * 3


@tracked(service="crash")
def stuck(process: Process) -> NoReturn:
    process.say(f">{here().id}")
    while True:
        time.sleep(60)


@tracked(service="crash")
async def ask_later() -> Seen:
    await asyncio.sleep(0)
    return here()


@tracked(service="crash")
async def stream_later() -> AsyncIterator[Seen]:
    for _ in range(3):
        yield here()
        await asyncio.sleep(0)


@tracked(service="crash")
async def wait(seen: list[Seen]) -> None:
    seen.append(here())
    await asyncio.sleep(60)


# What a thread does again and again.


def call(process: Process, rng: random.Random) -> None:
    process.acknowledge(ask(), "ask")


def call_that_fails(process: Process, rng: random.Random) -> None:
    try:
        fail()
    except Failed as error:
        process.acknowledge(error.args[0], "fail", "error")


def call_in_call(process: Process, rng: random.Random) -> None:
    process.acknowledge(outer(process), "outer")


def first_call(process: Process, rng: random.Random) -> None:
    """Leave a begin line too, as each call site does once."""
    process.acknowledge(tracked(service="crash", operation="first")(here)(), "first")


def block(process: Process, rng: random.Random) -> None:
    with track("block", service="crash"):
        seen = here()
    process.acknowledge(seen, "block")


def large(process: Process, rng: random.Random) -> None:
    """Leave a record of up to 100 kB, which takes several pages and so can be cut by a kill."""
    with track("large", service="crash") as operation:
        seen = here()
        operation.metadata["parts"] = [{"id": seen.id}] * rng.randrange(3_500)
    process.acknowledge(seen, "large")


def streamed(process: Process, rng: random.Random) -> None:
    seen = list(stream())
    process.acknowledge(seen[0], "stream")


def streamed_in_part(process: Process, rng: random.Random) -> None:
    chunks = stream()
    seen = next(chunks)
    chunks.close()
    process.acknowledge(seen, "stream", "partial")


def sessions(process: Process, rng: random.Random) -> None:
    with session("work"):
        call(process, rng)
        with session("part"):
            call(process, rng)
        call_in_call(process, rng)


def joined_session(process: Process, rng: random.Random) -> None:
    with session(id=f"joined-{rng.randrange(3)}"):
        call(process, rng)


def fork_and_kill(process: Process, rng: random.Random) -> None:
    child = process.fork()
    if child == 0:
        _until_the_end(process, random.Random(process.random.random()), ACTS)
    time.sleep(rng.uniform(0, 0.004))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    process.say("killed")


def fork_in_call(process: Process, rng: random.Random) -> None:
    with track("forks", service="crash"):
        seen = here()
        fork_and_kill(process, rng)
    process.acknowledge(seen, "forks")


ACTS: list[Act] = [
    call,
    call_that_fails,
    call_in_call,
    first_call,
    block,
    large,
    streamed,
    streamed_in_part,
    sessions,
    joined_session,
]
FORKS: list[Act] = [fork_and_kill, fork_in_call]


# The programs.


def calls(process: Process) -> None:
    """Make one call after the other, and nothing else."""
    _until_the_end(process, process.random, [call])


def threads(process: Process) -> None:
    """Work in one to four threads, the main one among them; perhaps with one that is stuck."""
    _start_others(process, ACTS)
    _until_the_end(process, process.random, ACTS)


def forks(process: Process) -> None:
    """Fork from any thread while the others work."""
    _start_others(process, ACTS + FORKS)
    _until_the_end(process, process.random, ACTS + FORKS)


def tasks(process: Process) -> None:
    """Work in tasks of an event loop."""
    asyncio.run(_tasks(process))


def full_disk(process: Process) -> None:
    """Be out of disk now and then, and see that what is lost is counted, and the fault over."""
    acts = [call, first_call, block]
    while True:
        _limit(_size(process.journal) + process.random.randrange(300))
        for _ in range(process.random.randrange(1, 6)):
            _counted(process, process.random.choice(acts))
        _limit(resource.RLIM_INFINITY)
        if _counted(process, call):
            process.say("!no recovery after the disk was full")


def delete(process: Process) -> None:
    """Delete a segment, or all; what was in them is kept elsewhere for the checks."""
    grave = Path(process.options["grave"])
    while True:
        time.sleep(process.random.uniform(0, 0.01))
        with suppress(FileNotFoundError):
            found = sorted(process.journal.iterdir())
            if found and process.random.random() < 0.8:
                found = [process.random.choice(found)]
            for path in found:
                _bury(path, grave)


def read(process: Process) -> None:
    """Read what was on record before this process began, over and over: all of it, once each."""
    known = set(Path(process.options["known"]).read_text().split()) - {NO_ID}
    grave = Path(process.options["grave"])
    while True:
        found = process.log.operations()
        # a segment is in the grave before it is deleted
        _check_reading(process, found, set() if any(grave.iterdir()) else known)
        sum(each.operation_count for each in process.log.sessions(limit=None))
        process.say("read")


def read_all(process: Process) -> None:
    """Ask all questions, over and over; exactly what was on record at the beginning is found."""
    known = Path(process.options["known"]).read_text().split()
    while True:
        for question, ask_it in COUNTS.items():
            if (count := ask_it(process.log)) != len(known):
                process.say(f"!{question} counts {count} operations of {len(known)}")


def compact(process: Process) -> None:
    """Compact, over and over, today's segments too; another process may be at it."""
    while True:
        with _unless_another_is_at_it(may_be_lost="beside_losses" in process.options):
            process.log.compact(all=process.random.random() < 0.8)
        time.sleep(0.002)


def prune(process: Process) -> None:
    """Remove what is old, over and over; another process may be at it."""
    while True:
        with _unless_another_is_at_it():
            process.log.prune(older_than=timedelta(days=process.options["older_than_days"]))
        time.sleep(0.002)


def lose_and_mend(process: Process) -> None:
    """Lose or damage the archive's manifest and have it made anew, over and over."""
    path = Path(process.plan.log_dir, "archive", "manifest.json")
    while True:
        with suppress(FileNotFoundError):
            if process.random.random() < 0.5:
                path.unlink()
            else:
                os.truncate(path, process.random.randrange(max(1, path.stat().st_size)))
        process.log.doctor(fix=True)
        time.sleep(0.002)


NO_ID = "-"
COUNTS: dict[str, Callable[[UsageLog], int]] = {
    "operations()": lambda log: len(log.operations()),
    "iterate()": lambda log: len(list(log.iterate())),
    "sessions()": lambda log: sum(each.operation_count for each in log.sessions(limit=None)),
    "stats()": lambda log: log.stats("old").operation_count,
    "summary()": lambda log: sum(each.operation_count for each in log.summary(by="day")),
    "sql()": lambda log: log.sql("select count(*) from operations").fetchall()[0][0],
}
PROGRAMS: dict[str, Callable[[Process], None]] = {
    "calls": calls,
    "threads": threads,
    "forks": forks,
    "tasks": tasks,
    "full_disk": full_disk,
    "delete": delete,
    "read": read,
    "read_all": read_all,
    "compact": compact,
    "prune": prune,
    "lose_and_mend": lose_and_mend,
}


@contextmanager
def _unless_another_is_at_it(*, may_be_lost: bool = False) -> Iterator[None]:
    try:
        yield
    except InstrumentError as error:
        is_lost = may_be_lost and isinstance(error, ManifestError)
        if "another process" not in str(error) and not is_lost:
            raise


def _start_others(process: Process, acts: list[Act]) -> None:
    if process.options.get("stuck"):
        threading.Thread(target=stuck, args=(process,), daemon=True).start()
    for number in range(1, process.options.get("strands", 1)):
        rng = random.Random(f"{process.plan.seed} {number}")
        # daemons, so that an exception in the main thread ends the process while they work
        threading.Thread(target=_until_the_end, args=(process, rng, acts), daemon=True).start()


def _until_the_end(process: Process, rng: random.Random, acts: list[Act]) -> NoReturn:
    pause_seconds = process.options.get("pause_seconds")
    while True:
        rng.choice(acts)(process, rng)
        if pause_seconds:
            time.sleep(rng.uniform(0, pause_seconds))


async def _tasks(process: Process) -> None:
    async def strand() -> NoReturn:
        while True:
            await process.random.choice(LATER_ACTS)(process)

    await asyncio.gather(*(strand() for _ in range(process.options.get("strands", 1))))


async def _call_later(process: Process) -> None:
    process.acknowledge(await ask_later(), "ask_later")


async def _stream_later(process: Process) -> None:
    seen = [each async for each in stream_later()]
    process.acknowledge(seen[0], "stream_later")


async def _cancelled(process: Process) -> None:
    seen: list[Seen] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(0.000_1):
            await wait(seen)
    if seen:
        process.acknowledge(seen[0], "wait", "cancelled")


async def _session_later(process: Process) -> None:
    async with session("later"):
        await _call_later(process)


LATER_ACTS: list[Any] = [_call_later, _stream_later, _cancelled, _session_later]


def _counted(process: Process, act: Act) -> bool:
    """Act; say whether the library counted a line of it as lost."""
    before = lost_count()
    kept: list[tuple[Seen, str]] = []
    quiet = _Keeping(process, kept)
    act(quiet, process.random)
    is_lost = lost_count() > before
    for seen, operation in kept:
        process.acknowledge(seen, operation, sign="-" if is_lost else "+")
    return is_lost


class _Keeping(Process):
    """Keeps what is acknowledged, until it is known whether it was lost."""

    def __init__(self, process: Process, kept: list[tuple[Seen, str]]) -> None:
        self._kept = kept

    def acknowledge(self, seen: Seen, operation: str, outcome: str = "ok", sign: str = "+") -> None:
        self._kept.append((seen, operation))


def _limit(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def _size(directory: Path) -> int:
    with suppress(FileNotFoundError):
        return max((each.stat().st_size for each in directory.iterdir()), default=0)
    return 0


def _bury(path: Path, grave: Path) -> None:
    with suppress(FileExistsError):  # by a deleter that was killed after this
        os.link(path, grave / f"{path.name}.{path.stat().st_ino}")
    path.unlink()


def _check_reading(process: Process, operations: list[Operation], known: set[str]) -> None:
    ids = [each.operation_id for each in operations if each.operation_id]
    starts = [(each.timestamp, each.operation_id or "") for each in operations]
    if missing := known.difference(ids):
        process.say(f"!a reader missed {len(missing)} operations, {min(missing)} for one")
    if len(ids) != len(set(ids)):
        process.say("!a reader saw an operation twice")
    if starts != sorted(starts):
        process.say("!a reader saw operations out of order")
