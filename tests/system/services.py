"""A system of several programs, each with a log directory of its own, that one job goes through.

`python services.py ROLE` runs one of them; the environment says where the others are. The worker
is `celery -A services worker`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from celery import Celery

from instrument import session, tracked
from instrument.propagation.celery import connect

HERE = os.path.abspath(__file__)
PLACES = {name: os.environ.get(f"TEST_{name.upper()}", "") for name in ("asgi", "wsgi", "redis")}

connect()
queue = Celery("services", broker=PLACES["redis"], backend=PLACES["redis"])
queue.conf.broker_connection_retry_on_startup = False


@queue.task
def update(number: int) -> int:
    return write_index(number)


@tracked(service="index", operation="update")
def write_index(number: int) -> int:
    time.sleep(0.08)
    return number


def asgi(port: int) -> None:
    """The web service that summarises: Starlette under uvicorn."""
    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from instrument.propagation.asgi import SessionMiddleware
    from instrument.propagation.httpx import on_request_async

    @tracked(service="openai")
    async def chat() -> dict[str, Any]:
        await asyncio.sleep(0.12)
        usage = {"prompt_tokens": 1_200, "completion_tokens": 90, "total_tokens": 1_290}
        return {"object": "chat.completion", "model": "gpt-5", "choices": [], "usage": usage}

    @tracked(service="summaries")
    async def summarise(number: str) -> str:
        await chat()
        async with httpx.AsyncClient(event_hooks={"request": [on_request_async]}) as client:
            found = await client.get(f"{PLACES['wsgi']}/{number}", timeout=60)
        return found.raise_for_status().text

    async def handler(request: Any) -> PlainTextResponse:
        return PlainTextResponse(await summarise(request.path_params["number"]))

    app = Starlette(routes=[Route("/{number}", handler)])
    app.add_middleware(SessionMiddleware)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


def wsgi(port: int) -> None:
    """The web service that looks up, and has the worker update: WSGI in threads."""
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    from instrument.propagation.wsgi import SessionMiddleware

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    @tracked(service="search")
    def look_up(number: int) -> int:
        return int(update.delay(number).get(timeout=60))

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield str(look_up(int(environ["PATH_INFO"].strip("/")))).encode()

    with make_server("127.0.0.1", port, SessionMiddleware(app), Server, Quiet) as server:
        server.serve_forever()


@tracked(service="jobs")
def score(number: int) -> int:
    time.sleep(0.05)
    return number


@tracked(service="cli")
def publish() -> None:
    """The last step, a program of its own."""


@tracked(service="jobs")
def fetch(number: int) -> str:
    import requests

    from instrument.propagation.requests import SessionAdapter

    with requests.Session() as client:
        client.mount("http://", SessionAdapter())
        answer = client.get(f"{PLACES['asgi']}/{number}", timeout=60)
    answer.raise_for_status()
    return answer.text


@tracked(service="jobs")
def write_report(work: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(fetch, range(2))) == ["0", "1"]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(score, range(2))) == [0, 1]
    environment = os.environ | work.env() | {"INSTRUMENT_DIR": os.environ["TEST_PUBLISH_DIR"]}
    subprocess.run([sys.executable, HERE, "publish"], env=environment, check=True)


def job() -> None:
    """What starts it all, in a session; prints the session's id."""
    with session("nightly") as work:
        write_report(work)
    print(work.id)


if __name__ == "__main__":
    roles = {"asgi": asgi, "wsgi": wsgi, "job": job, "publish": publish}
    roles[sys.argv[1]](*map(int, sys.argv[2:]))
