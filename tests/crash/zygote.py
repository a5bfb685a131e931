"""Makes short processes by the hundred and ends them, as forks of one that has all imported.

`Zygote` belongs to the tests. Run as a program, this file is the process that forks: one without
threads, in which nothing was recorded yet, so that each fork is as a fresh interpreter, in 3 ms.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from msgspec import Struct, field

DEADLINE_SECONDS = 30.0
# above the descriptors of the library, so that it is the last one that a dying process closes
PIPE = 9_000
ENDS = ("SIGKILL", "SIGTERM", "exit", "raise")


class Plan(Struct, frozen=True):
    """One process: what it does, and when and how its end comes.

    The end comes `delay_seconds` after `after` operations were acknowledged; 0 counts from the
    program's beginning. `exit` and `raise`
    come from within, at once. `SIGTERM` kills, unless the program handles it.
    """

    program: str
    log_dir: str
    seed: str
    after: int = 0
    delay_seconds: float = 0.0
    end: str = "SIGKILL"
    options: dict[str, Any] = field(default_factory=dict)


class Life(Struct, frozen=True):
    """What became of a process. `kills` includes those among its own children."""

    plan: Plan
    pid: int
    status: int
    said: list[str]
    kills: int
    errors: str
    hung: bool


class Zygote:
    """The process that forks; a context manager, for one thread."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=DEADLINE_SECONDS)

    def run(self, plans: list[Plan]) -> list[Life]:
        """Start all of these processes at once, end each as planned, and wait for all."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(plans) + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=list[Life])


class Child:
    """One forked process, seen from the zygote; in the process itself `pid` is 0."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pipe, ours = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _leave_home(plan, ours)
            return
        os.close(ours)
        with suppress(PermissionError):  # it has done so itself
            os.setpgid(self.pid, self.pid)
        self.started = time.monotonic()
        self.data = bytearray()
        self.acknowledged = 0
        self.end_at: float | None = None
        self.status: int | None = None
        self.hung = False
        self.is_quiet = False

    def hear(self, data: bytes) -> None:
        """Take in what it said; the end is due a while after the last thing it had to do."""
        self.data += data
        self.acknowledged += data.count(b"+")
        is_ready = self.data.startswith(b"ready")
        if self.end_at is None and is_ready and self.acknowledged >= self.plan.after:
            self.end_at = time.monotonic() + self.plan.delay_seconds

    def tend(self) -> None:
        """End it when it is time, and its children with it."""
        now = time.monotonic()
        if self.status is None and self._is_due(now):
            os.kill(self.pid, signal.SIGTERM if self.plan.end == "SIGTERM" else signal.SIGKILL)
            self.end_at = now + DEADLINE_SECONDS
        if self.status is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.status = status
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)

    def _is_due(self, now: float) -> bool:
        if now - self.started > DEADLINE_SECONDS:
            self.hung = True
            os.kill(self.pid, signal.SIGKILL)
        from_outside = self.plan.end.startswith("SIG")
        return from_outside and self.end_at is not None and now >= self.end_at

    def life(self) -> Life:
        said = self.data.decode().splitlines()
        kills = 1 + said.count("killed")
        errors = _errors_of(self.plan, self.pid)
        assert self.status is not None
        return Life(self.plan, self.pid, self.status, said, kills, errors, self.hung)


def serve() -> Child | None:
    """Do what comes in line by line. Returns in the children alone, and at the end."""
    for line in sys.stdin.buffer:
        children = []
        for plan in msgspec.json.decode(line, type=list[Plan]):
            child = Child(plan)
            if child.pid == 0:
                return child
            children.append(child)
        _watch(children)
        sys.stdout.buffer.write(msgspec.json.encode([each.life() for each in children]) + b"\n")
        sys.stdout.buffer.flush()
    return None


def _watch(children: list[Child]) -> None:
    while living := [each for each in children if each.status is None or not each.is_quiet]:
        listened = {each.pipe: each for each in living if not each.is_quiet}
        ready, _, _ = select.select(list(listened), [], [], _next_end(living))
        for pipe in ready:
            data = os.read(pipe, 65_536)
            listened[pipe].hear(data)
            if not data:
                listened[pipe].is_quiet = True
                os.close(pipe)
        for each in living:
            each.tend()


def _next_end(living: list[Child]) -> float:
    due = [each.end_at - time.monotonic() for each in living if each.end_at is not None]
    return min(0.002, max(0.0, min(due, default=0.002)))


def _leave_home(plan: Plan, ours: int) -> None:
    """Have no descriptor of the zygote's but the pipe."""
    os.setpgid(0, 0)
    # should the zygote die, nobody else will end this
    signal.alarm(int(2 * DEADLINE_SECONDS))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, min(PIPE, soft - 2))
    os.closerange(3, min(PIPE, soft - 2))
    null = os.open(os.devnull, os.O_RDWR)
    path = _errors_path(plan, os.getpid())
    errors = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in enumerate((null, null, errors)):
        os.dup2(source, target)


def _errors_path(plan: Plan, pid: int) -> Path:
    return Path(f"{plan.log_dir}.{pid}.errors")


def _errors_of(plan: Plan, pid: int) -> str:
    path = _errors_path(plan, pid)
    text = path.read_text(errors="replace")
    path.unlink()
    return text


if __name__ == "__main__":
    # under this name too, so that there is one `Plan`
    sys.modules["zygote"] = sys.modules["__main__"]
    import programs

    programs.warm_up()
    if (child := serve()) is not None:
        # at the top, so that an exception that nobody handles ends the interpreter as usual
        programs.perform(child.plan, min(PIPE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 2))
