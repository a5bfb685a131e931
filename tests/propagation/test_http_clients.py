"""The session in the requests of HTTP clients: sent to trusted hosts, and to no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from types import MappingProxyType

import httpx
import pytest
import requests
from listening import Listening, listening

from instrument import InstrumentWarning, session, track
from instrument.propagation.httpx import on_request, on_request_async
from instrument.propagation.requests import SessionAdapter
from instrument.propagation.urllib3 import SessionPoolManager
from instrument.testing import CapturedOperations, capture

Get = Callable[..., None]


def by_httpx(url: str, headers: dict[str, str] | None = None) -> None:
    with httpx.Client(event_hooks={"request": [on_request]}, follow_redirects=True) as client:
        client.get(url, headers=headers).raise_for_status()


def by_async_httpx(url: str, headers: dict[str, str] | None = None) -> None:
    async def get() -> None:
        hooks = {"request": [on_request_async]}
        async with httpx.AsyncClient(event_hooks=hooks, follow_redirects=True) as client:
            (await client.get(url, headers=headers)).raise_for_status()

    asyncio.run(get())


def by_requests(url: str, headers: dict[str, str] | None = None) -> None:
    with requests.Session() as client:
        client.mount("http://", SessionAdapter())
        client.get(url, headers=headers).raise_for_status()


def by_urllib3(url: str, headers: dict[str, str] | None = None) -> None:
    with SessionPoolManager() as client:
        assert client.request("GET", url, headers=headers).status == 200


def by_aiohttp(url: str, headers: dict[str, str] | None = None) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    from instrument.propagation.aiohttp import trace_config

    async def get() -> None:
        async with aiohttp.ClientSession(trace_configs=[trace_config()]) as client:
            (await client.get(url, headers=headers)).raise_for_status()

    asyncio.run(get())


@pytest.fixture(params=[by_httpx, by_async_httpx, by_requests, by_urllib3, by_aiohttp])
def get(request: pytest.FixtureRequest) -> Get:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def server() -> Iterator[Listening]:
    with listening() as server, capture(propagate_to=["127.0.0.1"]):
        yield server


def carried(server: Listening) -> list[tuple[str | None, str | None]]:
    """Return the parent operation and the baggage of each request."""
    found = [{name.lower(): value for name, value in each.items()} for _, each in server.requests]
    return [(each.get("traceparent", "")[36:52] or None, each.get("baggage")) for each in found]


def test_session_and_operation_travel_with_a_request(server: Listening, get: Get) -> None:
    with session(id="work"), track("ask", service="s") as operation:
        get(server.url())
    assert carried(server) == [(operation.id, "session.id=work")]


def test_other_members_of_the_baggage_are_kept(server: Listening, get: Get) -> None:
    with session(id="work"), track("ask", service="s") as operation:
        get(server.url(), {"Baggage": "a=1;p=2,b=%20"})
    assert carried(server) == [(operation.id, "a=1;p=2,b=%20,session.id=work")]


def test_a_host_that_is_not_trusted_gets_nothing(server: Listening, get: Get) -> None:
    with session(id="work"), track("ask", service="s"):
        get(server.url(host="localhost"), {"baggage": "a=1"})
    assert carried(server) == [(None, "a=1")]


def test_a_redirect_to_a_host_that_is_not_trusted_carries_nothing(
    server: Listening, get: Get
) -> None:
    elsewhere = server.url(host="localhost")
    with session(id="work"), track("ask", service="s") as operation:
        get(server.url(f"/?to={elsewhere}"), {"baggage": "a=1"})
    assert carried(server) == [(operation.id, "a=1,session.id=work"), (None, "a=1")]


def test_a_redirect_back_carries_the_session_again(server: Listening, get: Get) -> None:
    with session(id="work"), track("ask", service="s") as operation:
        get(server.url(f"/?to={server.url()}", host="localhost"))
    assert carried(server) == [(None, None), (operation.id, "session.id=work")]


def test_a_relative_redirect_carries_the_session(server: Listening, get: Get) -> None:
    with session(id="work"), track("ask", service="s") as operation:
        get(server.url("/?to=/there"))
    assert carried(server) == [(operation.id, "session.id=work")] * 2


def test_a_traceparent_of_somebody_else_stays(server: Listening, get: Get) -> None:
    theirs = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    with session(id="work"), track("ask", service="s"):
        get(server.url(f"/?to={server.url(host='localhost')}"), {"traceparent": theirs})
    assert carried(server) == [("b" * 16, "session.id=work"), ("b" * 16, None)]


def test_a_request_that_is_sent_again_carries_what_is_current_then(server: Listening) -> None:
    with httpx.Client(event_hooks={"request": [on_request]}) as client:
        request = client.build_request("GET", server.url())
        prepared = requests.Request("GET", server.url()).prepare()
        for number in range(2):
            with session(id=f"work-{number}"), track("ask", service="s") as operation:
                client.send(request)
                with closing(SessionAdapter()) as adapter:
                    adapter.send(prepared)
            assert carried(server)[-2:] == [(operation.id, f"session.id=work-{number}")] * 2


def test_the_requests_and_headers_of_the_program_are_left_as_they_are(server: Listening) -> None:
    headers = {"baggage": "a=1"}
    with session(id="work"), requests.Session() as client, SessionPoolManager() as pool:
        client.mount("http://", SessionAdapter())
        prepared = client.prepare_request(requests.Request("GET", server.url(), headers))
        response = client.send(prepared)
        assert response.request is prepared
        assert prepared.headers["baggage"] == "a=1"
        pool.request("GET", server.url(), headers=MappingProxyType(headers))
    assert headers == {"baggage": "a=1"}
    assert [baggage for _, baggage in carried(server)] == ["a=1,session.id=work"] * 2


def test_an_error_names_the_request_of_the_program(server: Listening) -> None:
    prepared = requests.Request("GET", "http://127.0.0.1:1/").prepare()
    told = pytest.raises(requests.ConnectionError)
    with session(), closing(SessionAdapter()) as adapter, told as caught:
        adapter.send(prepared)
    assert caught.value.request is prepared


class Unwritable(dict[str, str]):
    def copy(self) -> Unwritable:
        return self

    def __setitem__(self, name: str, value: str) -> None:
        raise RuntimeError("these headers are mine")


def test_headers_that_cannot_be_written_to_are_sent_as_they_are(
    server: Listening, fresh_warnings: None
) -> None:
    told = pytest.warns(InstrumentWarning, match="not carried along: .*these headers are mine")
    with session(id="work"), SessionPoolManager() as client, told:
        assert client.request("GET", server.url(), headers=Unwritable(a="1")).status == 200
    assert server.headers["a"] == "1"
    assert carried(server) == [(None, None)]


def test_an_adapter_for_one_host_leaves_nothing_for_that_of_the_next(server: Listening) -> None:
    with session(id="work"), requests.Session() as client:
        client.mount("http://127.0.0.1", SessionAdapter())
        client.get(server.url(f"/?to={server.url(host='localhost')}"))
    assert [baggage for _, baggage in carried(server)] == ["session.id=work", None]


def test_many_lines_of_baggage_are_one_list(server: Listening) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    from instrument.propagation.aiohttp import trace_config

    async def get() -> None:
        lines = [("baggage", "a=1"), ("baggage", "b=2")]
        async with aiohttp.ClientSession(trace_configs=[trace_config()]) as client:
            await client.get(server.url(), headers=lines)

    with session(id="work"):
        asyncio.run(get())
    assert carried(server)[0][1] == "a=1,b=2,session.id=work"


def test_outside_of_every_session_the_ambient_one_travels(
    capture_operations: CapturedOperations, get: Get
) -> None:
    with listening() as server:
        get(server.url())
        with track("ask", service="s") as operation:
            pass
        assert carried(server)[0][1] == f"session.id={operation.session_id}"
