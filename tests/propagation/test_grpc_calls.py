"""gRPC calls of all four kinds in the session of whoever makes them; servers on the loopback."""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from listening import in_loop

from instrument import ConfigurationError, current_session, session, track
from instrument.testing import CapturedOperations, capture

grpc: Any = pytest.importorskip("grpc")

from instrument.propagation.grpc import (  # noqa: E402 - after the skip
    AsyncSessionServerInterceptor,
    SessionClientInterceptor,
    SessionServerInterceptor,
    async_client_interceptors,
)

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def step(name: str) -> bytes:
    with track(name, service="server"):
        return current_session().id.encode()


def sync_handlers() -> dict[str, Callable[..., Any]]:
    def unary_unary(request: bytes, call: Any) -> bytes:
        return step("one")

    def unary_stream(request: bytes, call: Any) -> Iterator[bytes]:
        yield step("one")
        yield step("two")

    def stream_unary(requests: Iterator[bytes], call: Any) -> bytes:
        return [step(each.decode()) for each in requests][-1]

    def stream_stream(requests: Iterator[bytes], call: Any) -> Iterator[bytes]:
        return (step(each.decode()) for each in requests)  # an iterator that is no generator

    return {
        each.__name__: each for each in (unary_unary, unary_stream, stream_unary, stream_stream)
    }


def async_handlers() -> dict[str, Callable[..., Any]]:
    async def unary_unary(request: bytes, call: Any) -> bytes:
        return step("one")

    async def unary_stream(request: bytes, call: Any) -> AsyncIterator[bytes]:
        yield step("one")
        yield step("two")

    async def stream_unary(requests: AsyncIterator[bytes], call: Any) -> bytes:
        return [step(each.decode()) async for each in requests][-1]

    async def stream_stream(requests: AsyncIterator[bytes], call: Any) -> None:
        async for each in requests:
            await call.write(step(each.decode()))

    return {
        each.__name__: each for each in (unary_unary, unary_stream, stream_unary, stream_stream)
    }


def handler_of(handlers: dict[str, Callable[..., Any]]) -> Any:
    made = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(handlers[kind]) for kind in KINDS}
    return grpc.method_handlers_generic_handler("t", made)


@contextmanager
def sync_server() -> Iterator[str]:
    pool = ThreadPoolExecutor(4)
    server = grpc.server(pool, interceptors=[SessionServerInterceptor()])
    server.add_generic_rpc_handlers([handler_of(sync_handlers())])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
        assert set(pool.map(lambda _: current_session().id, range(8))) == {current_session().id}
    finally:
        server.stop(None).wait()
        pool.shutdown()


@contextmanager
def async_server(handlers: Callable[[], dict[str, Callable[..., Any]]]) -> Iterator[str]:
    async def start() -> tuple[Any, int]:
        server = grpc.aio.server(interceptors=[AsyncSessionServerInterceptor()])
        server.add_generic_rpc_handlers([handler_of(handlers())])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    with in_loop() as run:
        server, port = run(start())
        try:
            yield f"127.0.0.1:{port}"
        finally:
            run(server.stop(None))


SERVERS = {
    "sync": sync_server,
    "aio": lambda: async_server(async_handlers),
    "sync handlers in aio": lambda: async_server(sync_handlers),
}


@pytest.fixture(params=SERVERS)
def target(request: pytest.FixtureRequest, capture_operations: Any) -> Iterator[str]:
    with SERVERS[request.param]() as target:
        yield target


def answers(kind: str, answer: Any) -> list[bytes]:
    return list(answer) if kind.endswith("stream") else [answer]


def ask(channel: Any, kind: str, metadata: Any = None) -> list[bytes]:
    call = getattr(channel, kind)(f"/t/{kind}")
    request: Any = iter([b"one", b"two"]) if kind.startswith("stream") else b"?"
    return answers(kind, call(request, metadata=metadata, timeout=20))


async def ask_async(channel: Any, kind: str) -> list[bytes]:
    call = getattr(channel, kind)(f"/t/{kind}")
    request: Any = iter([b"one", b"two"]) if kind.startswith("stream") else b"?"
    answer = call(request, timeout=20)
    if kind.endswith("stream"):
        return [each async for each in answer]
    return [await answer]


def seen(operations: CapturedOperations) -> set[tuple[str, str | None, str]]:
    """Return each operation's name, its parent's and its session."""
    names = {each.operation_id: each.operation for each in operations}
    return {
        (each.operation, names.get(each.parent_id), each.session_id)
        for each in operations
        if each.service == "server"
    }


def expected(kind: str) -> set[tuple[str, str | None, str]]:
    steps = ("one",) if kind == "unary_unary" else ("one", "two")
    return {(each, "ask", "work") for each in steps}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_server_does_is_below_the_operation_that_called(
    capture_operations: CapturedOperations, target: str, kind: str
) -> None:
    with grpc.insecure_channel(target) as plain:
        channel = grpc.intercept_channel(plain, SessionClientInterceptor(target))
        with session(id="work"), track("ask", service="s"):
            assert set(ask(channel, kind)) == {b"work"}
        assert set(ask(channel, kind)) == {current_session().id.encode()}
    assert expected(kind) <= seen(capture_operations)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_for_an_asynchronous_client(
    capture_operations: CapturedOperations, target: str, kind: str
) -> None:
    interceptors = async_client_interceptors(target)
    async with grpc.aio.insecure_channel(target, interceptors=interceptors) as channel:
        with session(id="work"), track("ask", service="s"):
            assert set(await ask_async(channel, kind)) == {b"work"}
    assert expected(kind) <= seen(capture_operations)


@pytest.mark.parametrize("kind", KINDS)
def test_calls_without_a_session_pass_as_they_are(
    capture_operations: CapturedOperations, target: str, kind: str
) -> None:
    hostile = (("baggage", "session.id=a b"), ("traceparent", "x"), ("data-bin", b"\xff"))
    with grpc.insecure_channel(target) as channel:
        assert set(ask(channel, kind, hostile)) == {current_session().id.encode()}
    assert {parent for _, parent, _ in seen(capture_operations)} == {None}


def test_metadata_of_the_program_is_kept(capture_operations: CapturedOperations) -> None:
    received: list[Any] = []

    def unary_unary(request: bytes, call: Any) -> bytes:
        received.extend(call.invocation_metadata())
        return b""

    handlers = dict.fromkeys(KINDS, unary_unary)
    given = (("baggage", "a=1"), ("data-bin", b"\xff"), ("baggage", "b=2"), ("mine", "3"))
    with async_server(lambda: handlers) as target, grpc.insecure_channel(target) as plain:
        channel = grpc.intercept_channel(plain, SessionClientInterceptor(target))
        with session(id="work"):
            ask(channel, "unary_unary", given)
    found = [(key, value) for key, value in received if key in ("baggage", "data-bin", "mine")]
    ours = ("baggage", "a=1,b=2,session.id=work")
    assert sorted(found) == sorted([ours, ("data-bin", b"\xff"), ("mine", "3")])


def test_an_exception_of_a_handler_is_the_servers(capture_operations: CapturedOperations) -> None:
    async def unary_unary(request: bytes, call: Any) -> bytes:
        await call.abort(grpc.StatusCode.NOT_FOUND, "theirs")
        return b""

    handlers = dict.fromkeys(KINDS, unary_unary)
    with async_server(lambda: handlers) as target, grpc.insecure_channel(target) as plain:
        channel = grpc.intercept_channel(plain, SessionClientInterceptor(target))
        with session(), pytest.raises(grpc.RpcError, match="theirs") as caught:
            ask(channel, "unary_unary")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


TARGETS = [
    ("127.0.0.1:50051", True),
    ("[::1]:50051", True),
    ("unix:/tmp/socket", True),
    ("dns:///localhost:50051", True),
    ("dns://8.8.8.8/api.example.com:443", False),
    ("dns:localhost", True),
    ("ipv4:10.0.0.1:1,10.0.0.2:1", True),
    ("ipv4:10.0.0.1:1,8.8.8.8:1", False),
    ("ipv6:[::1]:1", True),
    ("xds:///payments", False),
    ("api.example.com:443", False),
    ("[", False),
]


@pytest.mark.parametrize(("target", "trusted"), TARGETS)
def test_the_session_goes_to_trusted_targets_alone(
    capture_operations: CapturedOperations, target: str, trusted: bool
) -> None:
    def seen(**settings: Any) -> bool:
        sent: list[Any] = []
        details = grpc.aio.ClientCallDetails("/t/m", None, None, None, None)
        interceptor = SessionClientInterceptor(target)
        with capture(**settings), session():
            interceptor.intercept_unary_unary(lambda found, _: sent.append(found), details, b"")
        return bool(sent[0].metadata)

    assert seen() is trusted
    assert not seen(propagate_to=[])


def test_a_target_that_is_none_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match="that of the channel, as text"):
        SessionClientInterceptor(5)  # type: ignore[arg-type]


def test_callbacks_run_in_the_session_in_which_they_were_added(
    capture_operations: CapturedOperations,
) -> None:
    seen: queue.Queue[str] = queue.Queue()
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        over.wait(20)
        yield current_session().id.encode()

    def called(future: Any) -> None:
        seen.put(current_session().id)

    with sync_server() as target, grpc.insecure_channel(target) as channel:
        call = channel.unary_unary("/t/unary_unary")
        with session(id="first"):
            # its thread serves the calls to come until no call is open
            open_call = channel.stream_unary("/t/stream_unary").future(requests())
        with session(id="second"):
            call.future(b"?").add_done_callback(called)
            assert seen.get(timeout=20) == "second"
        call.future(b"?").add_done_callback(called)
        assert seen.get(timeout=20) == current_session().id
        over.set()
        open_call.result(20)
    # the requests were made in the session of their call
    assert [each.operation for each in capture_operations].count("first") == 1
