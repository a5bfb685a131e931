"""Web applications in the session that a request carries: their handlers, streams and afterwork."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from listening import serving_asgi, serving_wsgi
from responses import named
from starlette.testclient import TestClient

from instrument import current_operation, current_session, inject, session, track, tracked
from instrument.propagation import asgi, wsgi
from instrument.testing import CapturedOperations


@tracked(service="s")
def step(name: str) -> str:
    current_operation().metadata["name"] = name
    return name


@contextmanager
def asking() -> Iterator[dict[str, str]]:
    """Give the headers of a request that is made inside of an operation of the session `work`."""
    with session(id="work"), track("ask", service="s"):
        headers = dict(inject())
    yield headers


def seen(operations: CapturedOperations) -> dict[str, tuple[str, bool]]:
    """Return of each step its session, and whether its parent is the operation that asked."""
    (ask,) = (each for each in operations if each.operation == "ask")
    return {
        each.metadata["name"]: (each.session_id, each.parent_id == ask.operation_id)
        for each in operations
        if each.operation == "step"
    }


INSIDE = ("work", True)


def fastapi_app() -> Any:
    app = FastAPI()
    app.add_middleware(asgi.SessionMiddleware)

    async def parts() -> AsyncIterator[str]:
        for each in "ab":
            yield step(f"stream-{each}")
            await asyncio.sleep(0)

    @app.get("/")
    async def handler(after: BackgroundTasks) -> StreamingResponse:
        step("handler")
        after.add_task(step, "afterwards")
        return StreamingResponse(parts(), background=after)

    @app.get("/thread")
    def thread() -> str:
        return step("thread")

    return app


def test_handlers_streams_and_background_tasks_of_fastapi_are_inside(
    capture_operations: CapturedOperations,
) -> None:
    with serving_asgi(fastapi_app()) as url, asking() as headers:
        assert httpx.get(url, headers=headers).text == "stream-astream-b"
        assert httpx.get(f"{url}/thread", headers=headers).json() == "thread"
    inside = ("handler", "stream-a", "stream-b", "afterwards", "thread")
    assert seen(capture_operations) == dict.fromkeys(inside, INSIDE)


def test_requests_on_one_connection_have_their_own_sessions(
    capture_operations: CapturedOperations,
) -> None:
    app = FastAPI()
    app.add_middleware(asgi.SessionMiddleware)
    app.get("/")(lambda: current_session().id)
    with serving_asgi(app) as url, httpx.Client() as client:
        ids = [f"work-{number}" for number in range(5)]
        for each in ids:
            assert client.get(url, headers=session(id=each).headers()).json() == each
        assert client.get(url).json() not in ids


def test_a_websocket_is_inside(capture_operations: CapturedOperations) -> None:
    app = FastAPI()
    app.add_middleware(asgi.SessionMiddleware)

    @app.websocket("/")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        while (text := await socket.receive_text()) != "end":
            await socket.send_text(step(text))

    with asking() as headers, TestClient(app).websocket_connect("/", headers=headers) as socket:
        for text in "ab":
            socket.send_text(text)
            assert socket.receive_text() == text
        socket.send_text("end")
    assert seen(capture_operations) == dict.fromkeys("ab", INSIDE)


def test_lifespan_passes(capture_operations: CapturedOperations) -> None:
    happened = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        happened.append(scope["type"])
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    with TestClient(asgi.SessionMiddleware(app)):
        pass
    assert happened == ["lifespan"]


@pytest.mark.parametrize("headers", [None, 5, [(b"baggage",)], [(None, None)], {"baggage": 5}])
async def test_headers_that_are_none_change_nothing(
    capture_operations: CapturedOperations, headers: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(current_session().id)

    found: list[str] = []
    served: Any = asgi.SessionMiddleware(app)
    with session(id="outer"):
        await served({"type": "http", "headers": headers}, None, None)
    assert found == ["outer"]


def flask_app() -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask("app")
    app.wsgi_app = wsgi.SessionMiddleware(app.wsgi_app)

    @app.get("/")
    def handler() -> Any:
        step("handler")
        response = flask.Response(step(f"stream-{each}") for each in "ab")
        response.call_on_close(lambda: step("close"))
        return response

    return app


def test_handler_stream_and_close_of_flask_are_inside(
    capture_operations: CapturedOperations,
) -> None:
    with serving_wsgi(flask_app()) as url, asking() as headers:
        assert httpx.get(url, headers=headers).text == "stream-astream-b"
    inside = ("handler", "stream-a", "stream-b", "close")
    assert seen(capture_operations) == dict.fromkeys(inside, INSIDE)


def started(*_: Any) -> Callable[[bytes], None]:
    return lambda _: None


def environ(**more: Any) -> dict[str, Any]:
    headers = {"baggage": "session.id=work"}
    return {f"HTTP_{name.upper()}": value for name, value in headers.items()} | more


def test_nothing_is_left_current_between_the_steps_of_a_body(
    capture_operations: CapturedOperations,
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        with session() as inner:  # left open from step to step
            for _ in range(2):
                yield current_session().id.encode()
                assert current_session() is inner

    with session(id="outer"):
        body = wsgi.SessionMiddleware(app)(environ(), started)
        with closing(body):  # type: ignore[type-var]
            for part in body:
                assert part not in (b"outer", b"work")
                assert current_session().id == "outer"
        assert current_session().id == "outer"


def test_a_body_may_be_closed_in_another_thread_and_its_failure_is_the_servers(
    capture_operations: CapturedOperations,
) -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield current_session().id.encode()
            raise error

        def close(self) -> None:
            closed.append(current_session().id)

    error, closed = KeyError("theirs"), []
    body: Any = wsgi.SessionMiddleware(lambda *_: Body())(environ(), started)
    assert next(body) == b"work"
    with pytest.raises(KeyError) as caught:
        next(body)
    assert caught.value is error
    asyncio.run(asyncio.to_thread(body.close))
    assert closed == ["work"]


def test_what_servers_look_at_more_closely_is_returned_as_it_is(
    capture_operations: CapturedOperations,
) -> None:
    class File(list[bytes]):
        """What a server gives an application to return files with."""

    parts, file = [b"a"], File()
    served = wsgi.SessionMiddleware(lambda environ, _: environ["returns"])
    assert served(environ(returns=parts), started) is parts
    given = environ(returns=file, **{"wsgi.file_wrapper": File})
    assert served(given, started) is file


def test_a_request_without_a_session_passes_as_it_is(
    capture_operations: CapturedOperations,
) -> None:
    body = iter([b"a"])
    assert wsgi.SessionMiddleware(lambda *_: body)({}, started) is body
    hostile = {"HTTP_BAGGAGE": "session.id=a b", "HTTP_TRACEPARENT": "x"}
    assert wsgi.SessionMiddleware(lambda *_: body)(hostile, started) is body


DJANGO = """
import asyncio, sys
import django
from django.conf import settings
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="-", MIDDLEWARE=[])
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

def plain(request):
    return HttpResponse(step("plain"))

def stream(request):
    return StreamingHttpResponse(step(f"stream-{each}") for each in "ab")

async def coroutine(request):
    return HttpResponse(step("coroutine"))

async def parts():
    for each in "cd":
        yield step(f"stream-{each}")

async def async_stream(request):
    return StreamingHttpResponse(parts())

urlpatterns = [
    path("plain", plain), path("stream", stream),
    path("coroutine", coroutine), path("async_stream", async_stream),
]
django.setup()
"""


def test_django_views_and_streams_are_inside(capture_operations: CapturedOperations) -> None:
    pytest.importorskip("django")
    module = sys.modules["django_urls"] = types.ModuleType("django_urls")
    module.__dict__.update(step=step)
    exec(DJANGO, module.__dict__)
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    with asking() as headers:
        with serving_wsgi(wsgi.SessionMiddleware(get_wsgi_application())) as url:
            for view in ("plain", "stream"):
                httpx.get(f"{url}/{view}", headers=headers).raise_for_status()
        assert seen(capture_operations) == dict.fromkeys(("plain", "stream-a", "stream-b"), INSIDE)
        with serving_asgi(asgi.SessionMiddleware(get_asgi_application())) as url:
            for view in ("plain", "coroutine", "async_stream"):
                httpx.get(f"{url}/{view}", headers=headers).raise_for_status()
    inside = ("plain", "stream-a", "stream-b", "coroutine", "stream-c", "stream-d")
    assert seen(capture_operations) == dict.fromkeys(inside, INSIDE)


def test_handlers_of_aiohttp_are_inside(capture_operations: CapturedOperations) -> None:
    web = pytest.importorskip("aiohttp.web")
    from aiohttp.test_utils import TestClient, TestServer

    from instrument.propagation.aiohttp import middleware

    async def handler(request: Any) -> Any:
        step("handler")
        response = web.StreamResponse()
        await response.prepare(request)
        for each in "ab":
            await response.write(step(f"stream-{each}").encode())
        return response

    async def ask(headers: dict[str, str]) -> str:
        app = web.Application(middlewares=[middleware])
        app.router.add_get("/", handler)
        async with TestClient(TestServer(app)) as client:
            return await (await client.get("/", headers=headers)).text()

    with asking() as headers:
        assert asyncio.run(ask(headers)) == "stream-astream-b"
    inside = ("handler", "stream-a", "stream-b")
    assert seen(capture_operations) == dict.fromkeys(inside, INSIDE)
    assert named(capture_operations, "ask").session_id == "work"
