"""`with session(...)`: entered, left, nested, joined and carried to other processes."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from responses import chat, named, only, parents

from instrument import (
    ConfigurationError,
    current_operation,
    current_session,
    extract,
    inject,
    session,
    track,
    tracked,
)
from instrument.testing import CapturedOperations


@tracked(service="s")
def call(name: str = "call") -> str:
    current_operation().metadata["name"] = name
    return current_operation().session_id


def lines(operations: CapturedOperations, kind: str) -> list[dict[str, Any]]:
    (segment,) = (operations.log_dir / "journal").iterdir()
    decoded = map(json.loads, segment.read_text().splitlines())
    return [each for each in decoded if each.get("type") == kind]


def test_a_session_knows_what_it_is(capture_operations: CapturedOperations) -> None:
    with session("report", metadata={"a": [1]}) as work:
        assert current_session() is work
    assert re.fullmatch(r"session_\d{10}_[0-9a-f]{8}", work.id)
    assert (work.name, work.parent_id, work.metadata) == ("report", None, {"a": [1]})
    assert work.started_at.tzinfo is UTC
    assert datetime.now(UTC) - work.started_at < timedelta(seconds=5)


def test_a_session_line_is_written_when_it_is_entered(
    capture_operations: CapturedOperations,
) -> None:
    with session("outer", id="outer"), session("inner", id="inner", metadata={"a": 1}) as inner:
        pass
    first, second = lines(capture_operations, "session")
    assert (first["session_id"], first["session_name"]) == ("outer", "outer")
    assert "parent_session_id" not in first
    assert second["parent_session_id"] == inner.parent_id == "outer"
    assert (second["metadata"], second["pid"]) == ({"a": 1}, os.getpid())


def test_nested_sessions_roll_up_on_request(capture_operations: CapturedOperations) -> None:
    with session() as outer:
        call()
        with session() as inner:
            tracked(service="s")(chat)()
    assert inner.parent_id == outer.id
    assert [each.stats(children=True).operation_count for each in (outer, inner)] == [2, 1]
    assert [each.stats(children=False).operation_count for each in (outer, inner)] == [1, 1]
    assert [each.operation for each in outer.operations(children=True)] == ["call", "chat"]
    assert [each.operation for each in outer.operations(children=False)] == ["call"]
    assert outer.stats().total_tokens == 15


def test_a_session_made_outside_of_any_is_inside_of_the_one_where_it_is_entered_first(
    capture_operations: CapturedOperations,
) -> None:
    outer, inner, other = session(), session(), session()
    with outer, inner:
        call()
    with other, inner:
        call()
    with inner, outer, outer:
        pass
    assert (inner.parent_id, outer.parent_id) == (outer.id, None)
    assert outer.stats().operation_count == 2


def test_id_joins_a_session(capture_operations: CapturedOperations) -> None:
    with session(id="work") as work:
        call()
    with session(id="work") as again:
        call()
    assert again is not work
    assert work.stats().operation_count == 2
    with session(id="work"), session(id="work") as within:
        assert within.parent_id is None


@pytest.mark.parametrize(
    "wrong", ["", "a b", "a/b", "ü", "a" * 129, "a\n", "😀"], ids=lambda text: ascii(text)[:9]
)
def test_an_invalid_id_is_a_value_error_that_names_it(wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(wrong)[:100])) as caught:
        session(id=wrong)
    assert "1 to 128 characters of [A-Za-z0-9._~:-]" in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": 5}, "session name=5: use text or None"),
        ({"id": 5}, "session id=5"),
        ({"metadata": 5}, "session metadata=5: use a mapping"),
        ({"metadata": {1: 2}}, "session metadata key=1: use text"),
        ({"name": len}, "use text or None; to decorate with it, write @session()"),
        ({"tags": 5}, "unknown argument tags=5: use name, id, budget or metadata"),
    ],
)
def test_what_session_cannot_use_is_told_at_once(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        session(**wrong)
    assert isinstance(caught.value, TypeError)


def test_a_session_may_be_entered_again_inside_itself(
    capture_operations: CapturedOperations,
) -> None:
    with session() as work:
        with session() as other, work:
            assert current_session() is work
            with work:
                assert call() == work.id
            assert current_session() is work
        assert current_session() is work
        assert other.parent_id == work.id
    assert current_session().id != work.id
    assert len(lines(capture_operations, "session")) == 2


async def test_a_session_may_be_entered_by_tasks_and_threads_at_once(
    capture_operations: CapturedOperations,
) -> None:
    work = session()

    async def task(seconds: float) -> str:
        async with work:
            await asyncio.sleep(seconds)
            return call()

    def thread() -> None:
        with work:
            found.append(call())

    found = await asyncio.gather(task(0.003), task(0.001))
    threads = [threading.Thread(target=thread) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [work.id] * 4
    assert current_session().id != work.id


def test_leaving_in_another_context_or_thread_never_raises(
    capture_operations: CapturedOperations,
) -> None:
    work = session()
    work.__enter__()
    contextvars.Context().run(work.__exit__, None, None, None)
    thread = threading.Thread(target=work.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    work.__exit__(None, None, None)
    work.__exit__(None, None, None)
    assert current_session().id != work.id


def test_sessions_left_out_of_order_leave_nothing_behind(
    capture_operations: CapturedOperations,
) -> None:
    outer, middle, inner = session(), session(), session()
    stack = ExitStack()
    for each in (outer, middle, inner):
        stack.enter_context(each)
    outer.__exit__(None, None, None)
    assert call() == inner.id
    middle.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    assert current_session().id not in (outer.id, middle.id, inner.id)
    stack.close()


def test_a_session_in_a_generator_that_yields_inside_is_left_with_it(
    capture_operations: CapturedOperations,
) -> None:
    def work() -> Iterator[str]:
        with session():
            yield call()

    tracked_work = tracked(service="s")(work)
    with session() as outer:
        first = next(iter(generator := tracked_work()))
        assert first != outer.id
        assert call() == outer.id
        generator.close()
        assert call() == outer.id


@session("fresh")
def plain() -> list[str]:
    return [call()]


@session("fresh")
async def coroutine() -> list[str]:
    return [call()]


@session("fresh")
def generator() -> Iterator[str]:
    yield call()
    yield call()


@session("fresh")
async def async_generator() -> AsyncIterator[str]:
    yield call()
    yield call()


async def consumed(result: Any) -> list[str]:
    if inspect.isasyncgen(result):
        return [each async for each in result]
    return list(await result if inspect.isawaitable(result) else result)


@pytest.mark.parametrize("function", [plain, coroutine, generator, async_generator])
async def test_a_decorated_function_of_any_kind_runs_in_a_fresh_session(
    capture_operations: CapturedOperations, function: Any
) -> None:
    with session() as outer:
        first, second = await consumed(function()), await consumed(function())
    assert (len({*first}), len({*second}), len({*first, *second, outer.id})) == (1, 1, 3)
    assert {each.session_name for each in capture_operations} == {"fresh"}
    assert {each.parent_session_id for each in capture_operations} == {outer.id}
    for ask in ("iscoroutinefunction", "isgeneratorfunction", "isasyncgenfunction"):
        assert getattr(inspect, ask)(function) == getattr(inspect, ask)(function.__wrapped__)


def test_a_generators_session_is_current_in_its_own_code_alone(
    capture_operations: CapturedOperations,
) -> None:
    with session() as outer:
        for inside in generator():
            assert call() == outer.id != inside


def test_a_decorator_with_an_id_joins(capture_operations: CapturedOperations) -> None:
    joined = session(id="work")(call)
    assert {joined(), joined()} == {"work"}


def test_headers_are_valid_w3c_and_name_the_operation(
    capture_operations: CapturedOperations,
) -> None:
    with session() as work, track("outer", service="s") as op:
        headers = work.headers()
    version, trace, parent, flags = headers["traceparent"].split("-")
    assert (version, parent, flags) == ("00", op.id, "01")
    assert re.fullmatch("[0-9a-f]{32}", trace)
    assert headers["baggage"] == f"session.id={work.id}"
    outside = work.headers()["traceparent"]
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", outside)


CHILD = """if True:
    from instrument import current_session, session, track, tracked
    with track("child", service="s"):
        pass
    with session("nested") as nested, track("grandchild", service="s"):
        pass
    print(current_session().id, nested.parent_id, nested.env()["INSTRUMENT_PARENT_ID"])
"""


def run(program: str, environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True
    )
    assert done.stderr == b""
    return done.stdout.decode().split()


def test_a_child_process_joins_the_session_and_the_operation(
    capture_operations: CapturedOperations,
) -> None:
    with session() as work, track("parent", service="s") as op:
        trace_id = work.headers()["traceparent"].split("-")[1]
        assert run(CHILD, work.env()) == [work.id, work.id, op.id]
    assert parents(capture_operations) == {
        "parent": None,
        "child": "parent",
        "grandchild": "parent",
    }
    assert work.stats(children=True).operation_count == 3
    assert work.stats(children=False).operation_count == 2
    traces = [named(capture_operations, name).trace_id for name in ("child", "grandchild")]
    assert traces == [trace_id, trace_id]


async def test_a_session_that_another_task_left_is_not_current_any_more(
    capture_operations: CapturedOperations,
) -> None:
    async def leave(entered: Any) -> None:
        entered.__exit__(None, None, None)
        assert call() in ("outer", ambient)

    ambient = current_session().id
    arriving = extract({"baggage": "session.id=arrived"})
    for around in (nullcontext(), session(id="outer"), track("around", service="s")):
        with around:
            before = current_session().id
            for entered in (session(id="inner"), arriving):
                entered.__enter__()
                assert call() in ("inner", "arrived")
                await asyncio.create_task(leave(entered))
                assert call() == current_session().id == before
                entered.__exit__(None, None, None)
                assert call() == before
        assert call() == ambient


async def test_a_task_that_outlives_a_session_stays_in_it(
    capture_operations: CapturedOperations,
) -> None:
    async def late() -> str:
        await over.wait()
        return call()

    over = asyncio.Event()
    with session(id="work"):
        task = asyncio.create_task(late())
        await asyncio.sleep(0)
    over.set()
    assert await task == "work"


def test_an_outer_trace_goes_on_and_baggage_of_others_is_kept(
    capture_operations: CapturedOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_id, span_id = "a" * 32, "b" * 16
    monkeypatch.setenv("TRACEPARENT", f"00-{trace_id}-{span_id}-01")
    monkeypatch.setenv("BAGGAGE", "userId=alice")
    assert current_session().env()["TRACEPARENT"] == f"00-{trace_id}-{span_id}-01"
    with session(id="work") as work:
        assert work.env()["TRACEPARENT"] == f"00-{trace_id}-{span_id}-01"
        assert work.env()["BAGGAGE"] == "userId=alice,session.id=work"
        with track("parent", service="s") as op:
            assert work.env()["TRACEPARENT"] == f"00-{trace_id}-{op.id}-01"
            with session() as inner:
                assert inner.headers()["traceparent"] == f"00-{trace_id}-{op.id}-01"
    found = only(capture_operations)
    assert (found.trace_id, found.parent_id) == (trace_id, span_id)


def test_the_ambient_session_goes_on_with_an_outer_trace(
    capture_operations: CapturedOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_id, span_id = "a" * 32, "b" * 16
    monkeypatch.setenv("TRACEPARENT", f"00-{trace_id}-{span_id}-01")
    with track("parent", service="s") as op:
        assert inject()["traceparent"] == f"00-{trace_id}-{op.id}-01"
        call()
    found = {each.operation: (each.trace_id, each.parent_id) for each in capture_operations}
    assert found == {"parent": (trace_id, span_id), "call": (trace_id, op.id)}


def test_an_invalid_inherited_id_is_ignored_with_a_warning(
    capture_operations: CapturedOperations,
) -> None:
    program = """if True:
        import warnings
        from instrument import current_session, session, track
        with warnings.catch_warnings(record=True) as warned:
            with session("x") as work, track("child", service="s"):
                pass
            print(work.parent_id, current_session().id == "a/b", len(warned))
    """
    assert run(program, {"INSTRUMENT_SESSION_ID": "a/b"}) == ["None", "False", "1"]
    assert only(capture_operations).operation == "child"


def test_the_ambient_session_is_current_outside_of_all_others(
    capture_operations: CapturedOperations,
) -> None:
    ambient = current_session()
    with session() as work:
        assert work.parent_id is None
        assert call() == work.id
    assert call() == ambient.id == current_session().id


def test_current_session_is_known_inside_of_callbacks(
    capture_operations: CapturedOperations,
) -> None:
    seen = []
    ask = tracked(service="s", usage=lambda result: seen.append(current_session()))(chat)
    ask()
    assert seen[0].id == only(capture_operations).session_id


async def test_a_returned_coroutine_belongs_to_where_it_is_awaited(
    capture_operations: CapturedOperations,
) -> None:
    async def bare() -> str:
        return current_operation().session_id

    native, returned = tracked(service="s")(bare), tracked(service="s")(lambda: bare())
    with session(id="called"):
        made = [native(), returned()]
    with session(id="awaited"), track("around", service="s") as around:
        assert [await each for each in made] == ["awaited", "awaited"]
    within = [each for each in capture_operations if each.operation != "around"]
    assert {(each.session_id, each.parent_id) for each in within} == {("awaited", around.id)}
