"""OpenTelemetry beside us: its trace, its baggage, and programs that never load it."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest
from child import run
from responses import named, only

from instrument import current_session, extract, inject, session, track, tracked
from instrument.propagation.wsgi import SessionMiddleware
from instrument.testing import CapturedOperations

sdk: Any = pytest.importorskip("opentelemetry.sdk.trace")

from opentelemetry import baggage, context, trace  # noqa: E402 - after the skip
from opentelemetry.trace import Span  # noqa: E402 - as above


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that we do makes OpenTelemetry complain, or leaves anything in its context."""
    before = context.get_current()
    with caplog.at_level(logging.WARNING, "opentelemetry"):
        yield
    assert caplog.messages == []
    assert context.get_current() is before


@pytest.fixture
def tracer() -> Any:
    return sdk.TracerProvider().get_tracer("test")


def ids(span: Span) -> tuple[str, str]:
    found = span.get_span_context()
    return f"{found.trace_id:032x}", f"{found.span_id:016x}"


def session_in_baggage() -> object:
    return baggage.get_baggage("session.id")


@tracked(service="s")
def ask() -> str:
    return current_session().id


def test_an_operation_follows_the_current_span(
    capture_operations: CapturedOperations, tracer: Any
) -> None:
    with session(), tracer.start_as_current_span("outer") as span:
        ask()
    found = only(capture_operations)
    assert (found.trace_id, found.parent_id) == ids(span)


def test_an_operation_inside_another_keeps_it_as_its_parent(
    capture_operations: CapturedOperations, tracer: Any
) -> None:
    span, inner = tracer.start_span("outer"), tracer.start_span("inner")
    with trace.use_span(span), track("outer", service="s") as outer, trace.use_span(inner):
        ask()
    found = named(capture_operations, "ask")
    assert (found.trace_id, found.parent_id) == (ids(inner)[0], outer.id)
    assert named(capture_operations, "outer").parent_id == ids(span)[1]


def test_a_thread_without_the_span_stays_in_the_trace_of_the_operation_around(
    capture_operations: CapturedOperations, tracer: Any
) -> None:
    with tracer.start_as_current_span("outer") as span, track("outer", service="s") as outer:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    found = named(capture_operations, "ask")
    assert (found.trace_id, found.parent_id) == (ids(span)[0], outer.id)


def test_outside_of_every_span_nothing_is_different(
    capture_operations: CapturedOperations, tracer: Any
) -> None:
    with session():
        ask()
    found = only(capture_operations)
    assert (found.trace_id, found.parent_id) == (None, None)


def test_a_stream_follows_the_span_that_is_current_at_its_first_step(
    capture_operations: CapturedOperations, tracer: Any
) -> None:
    @tracked(service="s")
    def stream() -> Iterator[int]:
        yield 1

    with tracer.start_as_current_span("outer") as span:
        assert list(stream()) == [1]
    found = only(capture_operations)
    assert (found.trace_id, found.parent_id) == ids(span)


def test_inject_names_the_current_span_as_the_parent(
    capture_operations: CapturedOperations, tracer: Any
) -> None:
    span = tracer.start_span("outer")
    (trace_id, span_id), flags = ids(span), span.get_span_context().trace_flags
    expected = f"00-{trace_id}-{span_id}-{flags:02x}"
    with session(id="work") as work, track("ask", service="s"), trace.use_span(span):
        assert inject() == {"traceparent": expected, "baggage": "session.id=work"}
        assert inject({"a": "b"})["traceparent"] == expected
        assert work.headers()["traceparent"] == expected
        assert work.env()["TRACEPARENT"][3:35] == trace_id
        assert work.env()["INSTRUMENT_PARENT_ID"] != span_id


def test_a_span_that_is_not_sampled_stays_so(capture_operations: CapturedOperations) -> None:
    found = trace.SpanContext(5, 6, False, trace.TraceFlags(0))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(found)))
    with session():
        assert inject()["traceparent"] == f"00-{5:032x}-{6:016x}-00"
    context.detach(token)


def test_a_session_stands_in_the_baggage_while_it_is_current(
    capture_operations: CapturedOperations,
) -> None:
    token = context.attach(baggage.set_baggage("a", "1"))
    with session(id="outer"):
        with session(id="inner"):
            assert baggage.get_all() == {"a": "1", "session.id": "inner"}
        assert session_in_baggage() == "outer"
        with extract({"baggage": "session.id=arrived"}):
            assert session_in_baggage() == "arrived"
    assert baggage.get_all() == {"a": "1"}
    context.detach(token)


async def test_decorated_functions_of_all_kinds_have_it_in_the_baggage(
    capture_operations: CapturedOperations,
) -> None:
    @session()
    def plain() -> bool:
        return session_in_baggage() == current_session().id

    @session()
    async def coroutine() -> bool:
        await asyncio.sleep(0)
        return session_in_baggage() == current_session().id

    @session()
    def generator() -> Iterator[bool]:
        yield session_in_baggage() == current_session().id
        yield session_in_baggage() == current_session().id

    assert plain()
    assert await coroutine()
    for inside in generator():
        assert inside
        assert session_in_baggage() is None


def test_a_session_in_a_generator_is_in_the_baggage_during_its_steps_alone(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s")
    def work() -> Iterator[object]:
        with session(id="outer"), session(id="inner"):
            yield session_in_baggage()
            yield session_in_baggage()
        yield session_in_baggage()

    steps = work()
    for expected in ("inner", "inner", None):
        assert next(steps) == expected
        assert session_in_baggage() is None
    with session(id="around"):
        assert [next(steps, "end"), session_in_baggage()] == ["end", "around"]


def test_a_server_leaves_nothing_in_the_baggage_between_the_steps_of_a_body(
    capture_operations: CapturedOperations,
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        for _ in range(2):
            with session(id="inner"):
                yield str(session_in_baggage()).encode()
            yield str(session_in_baggage()).encode()

    body = SessionMiddleware(app)({"HTTP_BAGGAGE": "session.id=work"}, lambda *_: print)
    for part in (b"inner", b"work") * 2:
        assert next(iter(body)) == part
        assert session_in_baggage() is None


def test_the_session_is_read_from_the_baggage_where_there_is_none_of_ours(
    capture_operations: CapturedOperations,
) -> None:
    token = context.attach(baggage.set_baggage("session.id", "theirs"))
    assert ask() == current_session().id == "theirs"
    with session() as ours:
        assert ask() == ours.id
    assert ask() == "theirs"
    context.detach(token)
    assert ask() not in ("theirs", ours.id)
    sessions = [each.session_id for each in capture_operations]
    assert sessions[:3] == ["theirs", ours.id, "theirs"]


@pytest.mark.parametrize("value", ["a b", "", 5, None, "a" * 129, b"work"])
def test_a_session_in_the_baggage_that_is_none_is_ignored(
    capture_operations: CapturedOperations, value: Any
) -> None:
    ambient = current_session().id
    token = context.attach(baggage.set_baggage("session.id", value))
    assert ask() == ambient
    context.detach(token)


async def test_sessions_of_tasks_do_not_mix_and_end_in_other_contexts(
    capture_operations: CapturedOperations,
) -> None:
    async def task(number: int) -> None:
        with session(id=f"work-{number}"):
            await asyncio.sleep(0.001 * (number % 3))
            assert session_in_baggage() == f"work-{number}" == ask()

    await asyncio.gather(*(task(number) for number in range(20)))
    left = session()
    left.__enter__()
    thread = threading.Thread(target=left.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    left.__exit__(None, None, None)


def test_sessions_left_out_of_order_leave_nothing_in_the_baggage(
    capture_operations: CapturedOperations,
) -> None:
    outer, middle, inner = session(id="outer"), session(id="middle"), session(id="inner")
    for each in (outer, middle, inner):
        each.__enter__()
    for each in (middle, outer):
        each.__exit__(None, None, None)
        assert session_in_baggage() == "inner"
    inner.__exit__(None, None, None)
    assert session_in_baggage() is None


def test_work_elsewhere_has_the_session_in_the_baggage_and_leaves_nothing_there(
    capture_operations: CapturedOperations,
) -> None:
    seen: list[object] = []

    def look(future: object = None) -> None:
        seen.append(session_in_baggage())

    with ThreadPoolExecutor(1) as pool, ThreadPool(1) as old_pool:
        for number in ("first", "second"):
            with session(id=number):
                pool.submit(look).result()
                old_pool.map(lambda _: look(), range(2), chunksize=1)
                thread = threading.Thread(target=look)
                thread.start()
                thread.join()
        pool.submit(look).result()
        old_pool.apply(look)
    assert seen == ["first"] * 4 + ["second"] * 4 + [None] * 2


def look_at_both() -> tuple[str, object]:
    from opentelemetry import baggage

    return current_session().id, baggage.get_baggage("session.id")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_processes_has_it_too_and_its_workers_keep_nothing(
    capture_operations: CapturedOperations, tracer: Any, method: str
) -> None:
    start = multiprocessing.get_context(method)
    with session(id="work"), tracer.start_as_current_span("span"):
        pool = ProcessPoolExecutor(1, mp_context=start)
        assert pool.submit(look_at_both).result() == ("work", "work")
    with pool:
        assert pool.submit(look_at_both).result() == (current_session().id, None)


def test_a_session_inside_one_in_the_baggage_knows_its_parent(tmp_path: Path) -> None:
    output, errors = run(
        """
        from opentelemetry import baggage, context
        context.attach(baggage.set_baggage("session.id", "ext-1"))
        print(session("child").parent_id)
        with session("child") as child:
            print(child.parent_id, baggage.get_baggage("session.id") == child.id)
        """,
        tmp_path,
    )
    assert (output, errors) == ("ext-1\next-1 True", "")


@pytest.mark.parametrize("module", ["baggage", "trace"])
def test_sessions_are_in_the_baggage_if_opentelemetry_is_loaded_inside_of_them(
    tmp_path: Path, module: str
) -> None:
    output, errors = run(
        f"""
        with session(id="outer"):
            with session(id="inner"), track("op", service="s"):
                from opentelemetry import {module}, baggage
                print(baggage.get_baggage("session.id"))
            print(baggage.get_baggage("session.id"))
        print(baggage.get_baggage("session.id"))
        """,
        tmp_path,
    )
    assert (output, errors) == ("inner\nouter\nNone", "")


def test_a_current_span_is_nearer_than_the_trace_around_the_process(
    capture_operations: CapturedOperations, tmp_path: Path
) -> None:
    output, errors = run(
        """
        from opentelemetry.sdk.trace import TracerProvider
        with session("work") as work:
            with TracerProvider().get_tracer("test").start_as_current_span("span") as span:
                ask()
                ids = span.get_span_context()
                print(work.env()["TRACEPARENT"][3:-3] == f"{ids.trace_id:032x}-{ids.span_id:016x}")
        print(UsageLog().operations()[0].parent_id == f"{ids.span_id:016x}")
        """,
        tmp_path,
        env={"TRACEPARENT": f"00-{'a' * 32}-{'b' * 16}-01"},
    )
    assert (output, errors) == ("True\nTrue", "")


class Hostile:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("theirs")


def test_a_span_that_fails_disturbs_nobody(
    capture_operations: CapturedOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session() as work:
        ask()
        monkeypatch.setattr(trace, "get_current_span", Hostile)
        monkeypatch.setattr(baggage, "set_baggage", Hostile())
        with session():
            ask()
            assert inject()["traceparent"].startswith("00-")
        monkeypatch.undo()
    assert work.stats().operation_count == 2


def test_opentelemetry_is_not_loaded_by_us_and_followed_once_the_program_loads_it(
    tmp_path: Path,
) -> None:
    output, _ = run(
        """
        with session():
            ask()
            before = any(name.startswith("opentelemetry") for name in sys.modules)
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
            with TracerProvider().get_tracer("test").start_as_current_span("span") as span:
                ask()
        first, second = UsageLog().operations()
        print(before, first.trace_id, second.trace_id == f"{span.get_span_context().trace_id:032x}")
        """,
        tmp_path,
    )
    assert output == "False None True"
    assert "opentelemetry.trace" in sys.modules
