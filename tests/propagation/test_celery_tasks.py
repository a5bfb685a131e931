"""Celery tasks in the session in which they were published, in workers of all pools."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from responses import parents

from instrument import UsageLog, current_session, session, track
from instrument.testing import CapturedOperations

pytest.importorskip("redis")
from celery import chain, chord

from instrument.propagation.celery import connect, disconnect

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def jobs(redis_port: int) -> Any:
    os.environ["TEST_REDIS_PORT"] = str(redis_port)
    import celery_jobs

    return celery_jobs


@contextmanager
def worker(log_dir: Path, *options: str) -> Iterator[UsageLog]:
    """Run a worker that records into a log of its own."""
    command = [sys.executable, "-m", "celery", "-q", "-A", "celery_jobs", "worker", *options]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR"]
    environment = os.environ | {"INSTRUMENT_DIR": str(log_dir), "C_FORCE_ROOT": "1"}
    process = subprocess.Popen([*command, *quiet], cwd=HERE, env=environment)
    try:
        yield UsageLog(log_dir)
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module", params=["solo", "threads", "prefork"])
def log(request: pytest.FixtureRequest, jobs: Any, tmp_path_factory: Any) -> Iterator[UsageLog]:
    log_dir = tmp_path_factory.mktemp(request.param)
    with worker(log_dir, "-P", request.param, "-c", "2") as log:
        yield log


def published(log: UsageLog, session_id: str, parent: Any) -> list[str]:
    """Return what the worker did in a session, all of it below the operation that published it."""
    found = log.operations(session=session_id)
    assert {each.parent_id for each in found} == {parent.id}
    return sorted(each.operation for each in found)


def test_a_task_is_below_the_operation_that_published_it(
    capture_operations: CapturedOperations, jobs: Any, log: UsageLog
) -> None:
    with session() as work, track("ask", service="s") as ask:
        assert jobs.work.delay("task").get(timeout=30) == "task"
    assert published(log, work.id, ask) == ["task"]


def test_nothing_is_left_current_in_a_worker(
    capture_operations: CapturedOperations, jobs: Any, log: UsageLog
) -> None:
    with session() as work:
        with pytest.raises(KeyError):
            jobs.fail.delay().get(timeout=30)
        inside = {jobs.where.delay().get(timeout=30) for _ in range(4)}
    outside = {jobs.where.delay().get(timeout=30) for _ in range(4)}
    assert inside == {work.id}
    assert outside == {current_session().id}


def test_retries_stay_below_the_operation_that_published_the_task(
    capture_operations: CapturedOperations, jobs: Any, log: UsageLog
) -> None:
    with session() as work, track("ask", service="s") as ask:
        assert jobs.flaky.delay().get(timeout=30) == "done"
    assert published(log, work.id, ask) == ["try-0", "try-1", "try-2"]


def test_chains_and_chords_stay_in_the_session(
    capture_operations: CapturedOperations, jobs: Any, log: UsageLog
) -> None:
    with session() as work, track("ask", service="s") as ask:
        chained = chain(jobs.work.si("first"), jobs.work.si("second"), jobs.work.si("third"))
        assert chained.apply_async().get(timeout=30) == "third"
        joined = chord([jobs.work.si("left"), jobs.work.si("right")], jobs.gather.s())
        assert joined.apply_async().get(timeout=30) == "left+right"
    names = ["first", "gather", "left", "right", "second", "third"]
    assert published(log, work.id, ask) == names


def test_a_task_that_a_task_publishes_is_below_the_operation_there(
    capture_operations: CapturedOperations, jobs: Any, log: UsageLog
) -> None:
    with session() as work, track("ask", service="s") as ask:
        inner = jobs.publish.delay().get(timeout=30)
        jobs.app.AsyncResult(inner).get(timeout=30)
    first, second = log.operations(session=work.id)
    assert (first.operation, first.parent_id) == ("publish", ask.id)
    assert (second.operation, second.parent_id) == ("published", first.operation_id)


def test_headers_of_the_program_are_kept(
    capture_operations: CapturedOperations, jobs: Any, log: UsageLog
) -> None:
    with session() as work, track("ask", service="s") as ask:
        sent = jobs.work.apply_async(("task",), headers={"baggage": "a=1", "mine": "2"})
        assert sent.get(timeout=30) == "task"
    assert published(log, work.id, ask) == ["task"]


def test_an_eager_task_runs_where_it_is_called(
    capture_operations: CapturedOperations, jobs: Any
) -> None:
    jobs.app.conf.task_always_eager = True
    try:
        with session() as work, track("ask", service="s"):
            assert jobs.where.delay().get() == work.id
            jobs.work.delay("task").get()
            assert current_session() is work
    finally:
        jobs.app.conf.task_always_eager = False
    assert parents(capture_operations) == {"ask": None, "task": "ask"}


def test_disconnect_takes_everything_back(
    capture_operations: CapturedOperations, jobs: Any
) -> None:
    from celery.signals import before_task_publish, task_postrun, task_prerun

    signals = (before_task_publish, task_prerun, task_postrun)
    with_ours = [len(signal.receivers) for signal in signals]
    disconnect()
    disconnect()
    try:
        assert [len(signal.receivers) for signal in signals] == [each - 1 for each in with_ours]
    finally:
        connect()
        connect()
    assert [len(signal.receivers) for signal in signals] == with_ours
