"""`with track(...)`: a block as an operation."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from responses import named, only, parents

from instrument import ConfigurationError, current_operation, current_session, session, track
from instrument.testing import CapturedOperations, capture


async def test_a_block_is_an_operation_sync_async_and_as_a_decorator(
    capture_operations: CapturedOperations,
) -> None:
    with track("sync", service="s", model="m", metadata={"a": [1]}) as op:
        assert current_operation() is op
    async with track("async", service="s") as op:
        assert current_operation() is op

    @track("decorator", service="s", metadata={"a": 1})
    async def work() -> str | None:
        return current_operation().id

    decorated = await work()
    assert current_operation() is None
    assert [each.operation for each in capture_operations] == ["sync", "async", "decorator"]
    assert named(capture_operations, "decorator").operation_id == decorated
    found = named(capture_operations, "sync")
    assert (found.model, found.metadata, found.outcome) == ("m", {"a": [1]}, "ok")


def test_a_block_that_raises_is_an_error_and_one_that_fails_too(
    capture_operations: CapturedOperations,
) -> None:
    with pytest.raises(KeyError), track("raises", service="s"):
        raise KeyError("key")
    with track("fails", service="s") as op:
        op.fail("nothing found")
    assert [(each.error_type, each.error_message) for each in capture_operations] == [
        ("KeyError", "'key'"),
        ("failed", "nothing found"),
    ]


def test_one_block_may_be_entered_again_inside_itself(
    capture_operations: CapturedOperations,
) -> None:
    block = track("work", service="s")
    with block as outer:
        with block as inner:
            assert current_operation() is inner
        assert current_operation() is outer
    assert current_operation() is None
    assert [each.parent_id for each in capture_operations] == [None, outer.id]


async def test_one_block_entered_by_several_tasks_at_once_tells_them_apart(
    capture_operations: CapturedOperations,
) -> None:
    block = track("work", service="s")

    async def work(number: int) -> None:
        async with block as op:
            op.metadata["number"] = number
            await asyncio.sleep(0.001 * number)
            assert current_operation() is op
            raise KeyError(number)

    await asyncio.gather(*map(work, range(4)), return_exceptions=True)
    found = [(each.metadata["number"], each.error_message) for each in capture_operations]
    assert found == [(0, "0"), (1, "1"), (2, "2"), (3, "3")]
    assert {each.parent_id for each in capture_operations} == {None}


def test_a_block_left_in_another_context_is_recorded_and_disturbs_nothing(
    capture_operations: CapturedOperations,
) -> None:
    block = track("work", service="s")
    block.__enter__()
    contextvars.Context().run(block.__exit__, None, None, None)
    with track("after", service="s"):
        pass
    assert current_operation() is None
    assert [each.operation for each in capture_operations] == ["work", "after"]


def test_blocks_nest_with_what_is_called_inside(capture_operations: CapturedOperations) -> None:
    @track("call", service="s")
    def call() -> Iterator[int]:
        with track("inside", service="s"):
            yield 1

    with track("block", service="s"):
        assert list(call()) == [1]
    assert parents(capture_operations) == {"block": None, "call": "block", "inside": "call"}


def test_op_is_usable_where_nothing_is_recorded() -> None:
    with capture(enabled=False) as operations, session() as work:
        with track("work", service="s") as op:
            op.set_usage(input_tokens=1)
            op.add_usage(cost_usd=1)
            op.fail("why")
            op.metadata["a"] = 1
            assert op.session_id == work.id == current_session().id
        assert re.fullmatch("[0-9a-f]{16}", op.id)
    assert list(operations) == []


def test_outside_of_a_session_op_names_the_ambient_one(
    capture_operations: CapturedOperations,
) -> None:
    with track("work", service="s") as op:
        pass
    assert op.session_id == only(capture_operations).session_id == current_session().id


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (("",), {"service": "s"}, "operation=''"),
        ((5,), {"service": "s"}, "operation=5"),
        (("work",), {"service": " "}, "service=' '"),
        (("work",), {"service": "s", "model": 5}, "model=5"),
        (("work",), {"service": "s", "metadata": [1]}, "metadata=.1."),
        (("work",), {"service": "s", "metadata": {1: 2}}, "key=1"),
        (("work",), {"service": "s", "tokens": 5}, "tokens=5: use service, model or metadata"),
    ],
)
def test_what_track_cannot_use_is_told_at_once(arguments: Any, more: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        track(*arguments, **more)


async def test_a_task_that_outlives_its_session_and_operation_stays_in_both(
    capture_operations: CapturedOperations,
) -> None:
    async def background() -> None:
        await asyncio.sleep(0.002)
        for name in ("first", "second", "third"):
            with track(name, service="s"):
                pass

    with session(id="work"), track("outer", service="s"):
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
    await task
    assert set(parents(capture_operations).values()) == {None, "outer"}
    assert {each.session_id for each in capture_operations} == {"work"}


async def test_a_chain_of_tasks_that_each_start_the_next_does_not_grow(
    capture_operations: CapturedOperations,
) -> None:
    async def tick(count: int) -> None:
        nonlocal task
        async with track("tick", service="s"), session():
            if count:
                task = asyncio.create_task(tick(count - 1))

    def living() -> int:
        gc.collect()
        return sum(
            type(each).__name__ in ("Scope", "RunningOperation") for each in gc.get_objects()
        )

    before = living()
    task = asyncio.create_task(tick(200))
    while not task.done():
        await asyncio.sleep(0)
    assert len(capture_operations) == 201
    assert living() - before < 20


def test_disabled_by_the_environment_nothing_is_created_on_disk(tmp_path: Path) -> None:
    program = """if True:
        from instrument import current_operation, session, track, tracked
        def bare(): assert current_operation() is None
        assert tracked(service="s")(bare) is bare
        with session("x") as work, track("y", service="s") as op:
            bare(), op.set_usage(input_tokens=1)
        print(work.stats().operation_count, work.env()["INSTRUMENT_SESSION_ID"] == work.id)
    """
    log_dir = tmp_path / "log"
    environment = {**os.environ, "INSTRUMENT_DISABLED": "1", "INSTRUMENT_DIR": str(log_dir)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True
    )
    assert (done.stdout.decode(), done.stderr.decode()) == ("0 True\n", "")
    assert not log_dir.exists()
