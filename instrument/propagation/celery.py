"""Celery: tasks run in the session, and below the operation, in which they were published.

Where the application is made, for those who publish and for the workers:

    connect()
"""

from __future__ import annotations

from typing import Any

from celery import signals  # type: ignore[import-untyped]

from instrument.carrier import HEADERS
from instrument.propagation._arriving import inside
from instrument.propagation._harmless import harmless
from instrument.propagation.headers import inject
from instrument.wrappers import SessionSteps

__all__ = ["connect", "disconnect"]

_STEPS = "_instrument_steps"


def connect() -> None:
    """Have all applications of this process carry the session in the headers of their messages.

    Retries, chains, groups, chords and callbacks stay in it; eager tasks run where they are called.
    """
    for signal, receiver in _RECEIVERS:
        signal.connect(receiver, weak=False)


def disconnect() -> None:
    """Undo `connect`."""
    for signal, receiver in _RECEIVERS:
        signal.disconnect(receiver)


def _publishing(headers: dict[str, Any] | None = None, **_: object) -> None:
    with harmless:
        if headers is not None:
            inject(headers)


def _beginning(task: Any = None, **_: object) -> None:
    with harmless:
        request = task.request
        headers = {name: value for name in HEADERS if (value := request.get(name)) is not None}
        scope = None if request.is_eager else inside(headers)
        if scope is not None:
            steps = SessionSteps(scope)
            setattr(request, _STEPS, steps)
            steps.enter()


def _ended(task: Any = None, **_: object) -> None:
    with harmless:
        steps = task.request.get(_STEPS)
        if steps is not None:
            steps.leave()


_RECEIVERS = (
    (signals.before_task_publish, _publishing),
    (signals.task_prerun, _beginning),
    (signals.task_postrun, _ended),
)
