"""What the tests run in other processes; imported there, so it imports little."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from instrument import configure, current_session, inject, track


def child(name: str, *more: Any) -> str:
    with track(name, service="s"):
        return current_session().id


def trace() -> tuple[str, ...]:
    """Return the ids of trace and parent that a service would be given."""
    return tuple(inject()["traceparent"].split("-")[1:3])


def trace_of_a_call() -> str:
    with track("traced", service="s"):
        return trace()[0]


def in_thread(name: str) -> str:
    """Have a thread of the process be the first that needs the session."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(child, name).result()


def nested(name: str) -> str:
    with track(f"outer of {name}", service="s"), ProcessPoolExecutor(1) as executor:
        return executor.submit(child, name).result()


def elsewhere(name: str, log_dir: str) -> None:
    configure(log_dir=log_dir)
    child(name)


def killed(name: str) -> None:
    with track(name, service="s"):
        os.kill(os.getpid(), signal.SIGKILL)


def failing(name: str) -> None:
    with suppress(ValueError), track(name, service="s"):
        raise ValueError("secret")


def starred(field: str, value: Any) -> str:
    return "***"


def withheld(field: str, value: Any) -> None:
    """Show nothing."""


def run(process: Any) -> None:
    process.start()
    process.join()


class Fork(multiprocessing.get_context("fork").Process):
    def run(self) -> None:
        child("overriding run")


class Spawn(multiprocessing.get_context("spawn").Process):  # type: ignore[name-defined,misc]
    def run(self) -> None:
        child("overriding run")


class Forkserver(multiprocessing.get_context("forkserver").Process):  # type: ignore[name-defined,misc]
    def run(self) -> None:
        child("overriding run")


OVERRIDING = {"fork": Fork, "spawn": Spawn, "forkserver": Forkserver}
