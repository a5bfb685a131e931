"""What goes from process to process, pickled or in the environment, and stays what it is."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from child import run
from responses import named, parents

from instrument import (
    ConfigurationError,
    InstrumentError,
    current_operation,
    session,
    track,
    tracked,
)
from instrument.errors import (
    ConfigurationTypeError,
    DamagedFileError,
    ManifestError,
    MissingDependencyError,
    MissingFileError,
)
from instrument.testing import CapturedOperations, capture

ask = tracked(service="s", operation="ask")(lambda: 1)
ERRORS: list[InstrumentError] = [
    ConfigurationError("id", "a b", "letters"),
    ConfigurationTypeError("id", 5, "text"),
    ManifestError(Path("/log/manifest"), "is lost"),
    DamagedFileError(Path("/log/a.parquet")),
    MissingFileError(Path("/log/b.parquet")),
    MissingDependencyError("duckdb", "sql()"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_exception_stays_what_it_is(error: Any, again: Any) -> None:
    other = again(error)
    assert type(other) is type(error)
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))
    assert getattr(other, "name", None) == getattr(error, "name", None)


def test_a_value_that_cannot_be_taken_along_is_shown_in_its_place() -> None:
    error = ConfigurationError("redact", threading.Lock(), "a callable")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.value == repr(error.value)
    assert copy.copy(error).value is error.value


def refused() -> None:
    session(id="a b")


def where(work: Any) -> tuple[str, str | None, dict[str, Any]]:
    with work as joined:
        ask()
        return joined.id, joined.name, joined.metadata


def test_a_pool_outlives_a_refusal_and_takes_a_session_that_is_entered(
    capture_operations: CapturedOperations,
) -> None:
    with ProcessPoolExecutor(1) as pool:
        with pytest.raises(ConfigurationError, match="session id='a b'"):
            pool.submit(refused).result()
        with session("job", metadata={"team": "a"}) as work:
            told = pool.submit(where, work).result()
    assert told == (work.id, "job", {"team": "a"})
    assert named(capture_operations, "ask").session_id == work.id
    assert copy.deepcopy(work).started_at == work.started_at


def test_what_the_program_puts_into_its_environment_is_for_its_children(tmp_path: Path) -> None:
    program = """
from instrument import current_session
with session("job") as job:
    os.environ.update(job.env())
    ask()
with session("other") as other:
    ask()
print(other.parent_id, job.stats().operation_count, current_session().id != job.id)
"""
    assert run(program, tmp_path) == ("None 1 True", "")


def test_nothing_that_the_environment_hands_down_is_around_what_is_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with capture(), session("outer") as work, track("outer", service="s"):
        for name, value in work.env().items():
            monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with capture() as operations:
        ask()
        with session("inner") as inner:
            ask()
    assert [each.parent_id for each in operations] == [None, None]
    assert [each.trace_id for each in operations] == [None, None]
    assert inner.parent_id is None
    assert dict(os.environ) == before


async def test_a_block_that_another_task_leaves_leaves_what_is_around_it(
    capture_operations: CapturedOperations,
) -> None:
    async def chunks() -> AsyncIterator[int]:
        with track("block", service="s"):
            yield 1
            yield 2

    with session("around") as work:
        async for _ in chunks():
            break  # and the event loop closes it in a task of its own
        await asyncio.sleep(0.01)
        ask()
        assert current_operation() is None
        with session("inner") as inner:
            ask()
    assert inner.parent_id == work.id
    assert [each.session_id for each in capture_operations] == [work.id, work.id, inner.id]
    assert [each.parent_id for each in capture_operations] == [None] * 3


async def test_a_block_that_another_task_leaves_is_left(
    capture_operations: CapturedOperations,
) -> None:
    stack = AsyncExitStack()
    await stack.enter_async_context(track("block", service="s"))
    await asyncio.create_task(stack.aclose())
    assert current_operation() is None
    ask()
    assert parents(capture_operations) == {"block": None, "ask": None}
