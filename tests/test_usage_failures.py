"""What is recorded of failures beside their message: by exceptions, and by responses."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import anthropic
import httpx
import openai
import pytest
import requests
from google import genai
from google.genai.types import HttpOptions
from hypothesis import given
from hypothesis import strategies as st
from refusing import BODIES, refusing
from responses import only
from usage_samples import response

from instrument import Operation, tracked
from instrument.testing import capture
from instrument.usage.failures import attempt_of, details_of

ASK: list[Any] = [{"role": "user", "content": "?"}]
LIMITS = {
    "ratelimit_remaining_requests": 59,
    "ratelimit_remaining_tokens": 149984,
    "ratelimit_reset_requests": "1s",
    "ratelimit_reset_tokens": "6m0s",
}
HEADED = {"http_status": 429, "request_id": "req-1", "retry_after_seconds": 7.0, **LIMITS}


def recorded(call: Any, *arguments: Any) -> Operation:
    with capture() as operations:
        with suppress(Exception):
            tracked(service="s", operation="call")(call)(*arguments)
        return only(operations)


def ask_openai(url: str, retries: int = 0) -> Any:
    with openai.OpenAI(base_url=url, api_key="x", max_retries=retries) as client:
        return client.chat.completions.create(model="gpt-5", messages=ASK)


def ask_anthropic(url: str, retries: int = 0) -> Any:
    with anthropic.Anthropic(base_url=url, api_key="x", max_retries=retries) as client:
        return client.messages.create(model="claude-sonnet-5", messages=ASK, max_tokens=9)


def ask_google(url: str) -> Any:
    options = HttpOptions(base_url=url)
    with genai.Client(api_key="x", http_options=options) as client:
        return client.models.generate_content(model="gemini-2.5-pro", contents="?")


def ask_mistral(url: str) -> Any:
    client = pytest.importorskip("mistralai.client")
    with client.Mistral(api_key="x", server_url=url) as mistral:
        return mistral.chat.complete(model="m", messages=ASK)


def ask_groq(url: str) -> Any:
    groq = pytest.importorskip("groq")
    with groq.Groq(base_url=url, api_key="x", max_retries=0) as client:
        return client.chat.completions.create(model="m", messages=ASK)


def ask_cohere(url: str) -> Any:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key="x", base_url=url)
    return client.chat(model="m", messages=ASK, request_options={"max_retries": 0})


def ask_requests(url: str) -> Any:
    return requests.post(url, timeout=9).raise_for_status()


def ask_httpx(url: str) -> Any:
    return httpx.post(url).raise_for_status()


@pytest.mark.parametrize(
    ("ask", "body", "code"),
    [
        (ask_openai, "openai", "rate_limit_exceeded"),
        (ask_anthropic, "anthropic", "rate_limit_error"),
        (ask_google, "google", "RESOURCE_EXHAUSTED"),
        (ask_groq, "openai", "rate_limit_exceeded"),
        (ask_mistral, "mistral", "1300"),
        (ask_cohere, "cohere", None),
        (ask_requests, "openai", "rate_limit_exceeded"),
        (ask_httpx, "google", "RESOURCE_EXHAUSTED"),
    ],
)
def test_an_sdks_exception_tells_status_code_request_and_limits(
    ask: Any, body: str, code: str | None
) -> None:
    with refusing(BODIES[body]) as url:
        found = recorded(ask, url)
    assert found.outcome == "error"
    assert found.metadata == {**HEADED, **({} if code is None else {"error_code": code})}


async def test_aiohttps_exception_and_its_response_tell_the_same() -> None:
    aiohttp = pytest.importorskip("aiohttp")
    with refusing(BODIES["openai"]) as url:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            unread = recorded(lambda: answer)
            await answer.read()
            found = recorded(lambda: answer)
            with pytest.raises(aiohttp.ClientResponseError) as raised:
                answer.raise_for_status()
    assert details_of(raised.value) == HEADED
    assert found.metadata == {**HEADED, "error_code": "rate_limit_exceeded"}
    assert (found.error_type, found.error_message) == ("http_429", "Slow down.")
    assert (unread.error_type, unread.metadata) == ("http_429", HEADED)


async def test_a_body_that_aiohttp_has_read_is_read_and_no_other() -> None:
    aiohttp = pytest.importorskip("aiohttp")
    with refusing(None, times=0, then=response("openai_chat")) as url:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert recorded(lambda: answer).tokens is None
            await answer.json()
            assert recorded(lambda: answer).tokens == 1500


@pytest.mark.parametrize("preload", [True, False])
def test_urllib3_tells_status_and_what_it_has_loaded(preload: bool) -> None:
    urllib3 = pytest.importorskip("urllib3")
    with refusing(BODIES["openai"]) as url, urllib3.PoolManager() as pool:
        answer = pool.request("GET", url, preload_content=preload, retries=False)
        found = recorded(lambda: answer)
        answer.release_conn()
    code = {"error_code": "rate_limit_exceeded"} if preload else {}
    assert (found.error_type, found.metadata) == ("http_429", {**HEADED, **code})


def test_the_standard_librarys_response_and_error_tell_their_status() -> None:
    with refusing(BODIES["openai"]) as url:
        host = url.removeprefix("http://")
        connection = http.client.HTTPConnection(host)
        connection.request("GET", "/")
        answer = connection.getresponse()
        found = recorded(lambda: answer)
        assert answer.read()
        connection.close()
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(url)
    raised.value.close()
    assert (found.error_type, found.metadata) == ("http_429", HEADED)
    assert details_of(raised.value) == HEADED


def test_botocores_exception_tells_code_and_request() -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    headers = {"x-amzn-requestid": "req-1", "retry-after": "7"}
    metadata = {"HTTPStatusCode": 429, "RequestId": "req-1", "HTTPHeaders": headers}
    answer = {
        "Error": {"Code": "ThrottlingException", "Message": "m"},
        "ResponseMetadata": metadata,
    }
    assert details_of(exceptions.ClientError(answer, "Converse")) == {
        "http_status": 429,
        "error_code": "ThrottlingException",
        "request_id": "req-1",
        "retry_after_seconds": 7.0,
    }


def test_grpcs_exceptions_tell_the_name_of_their_status() -> None:
    grpc = pytest.importorskip("grpc")
    aio = pytest.importorskip("grpc.aio")
    trailing = aio.Metadata(("x-request-id", "req-1"))
    error = aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, aio.Metadata(), trailing)
    assert details_of(error) == {"error_code": "RESOURCE_EXHAUSTED", "request_id": "req-1"}
    state = SimpleNamespace(code=grpc.StatusCode.UNAVAILABLE, trailing_metadata=())
    ended = type("_InactiveRpcError", (grpc.RpcError,), {})()
    ended._state = state
    assert details_of(ended) == {"error_code": "UNAVAILABLE"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2.5"}, 2.5),
        ({"Retry-After": "0"}, 0.0),
        ({"retry-after": "9", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
@pytest.mark.parametrize("form", [dict, httpx.Headers, requests.structures.CaseInsensitiveDict])
def test_the_time_to_wait_is_known_in_seconds(headers: Any, seconds: Any, form: Any) -> None:
    error = OSError()
    error.headers = form(headers)  # type: ignore[attr-defined]
    found = details_of(error)
    assert found == (None if seconds is None else {"retry_after_seconds": seconds})


def test_a_date_to_wait_for_becomes_seconds_from_now() -> None:
    error = OSError()
    error.headers = {"retry-after": formatdate(time.time() + 60, usegmt=True)}  # type: ignore[attr-defined]
    found = details_of(error)
    assert found is not None
    assert 55 < found["retry_after_seconds"] <= 60


def test_google_names_the_time_to_wait_in_its_details() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    body = {"error": {**BODIES["google"]["error"], "details": details}}
    with refusing(body, headers={}) as url:
        found = recorded(ask_google, url)
    assert found.metadata["retry_after_seconds"] == 34.5


def test_anthropics_own_names_for_limits_are_known() -> None:
    headers = {
        "request-id": "req_011",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "2026-11-24T19:30:00Z",
    }
    with refusing(BODIES["anthropic"], headers=headers) as url:
        found = recorded(ask_anthropic, url)
    assert found.metadata == {
        "http_status": 429,
        "error_code": "rate_limit_error",
        "request_id": "req_011",
        "ratelimit_remaining_requests": 0,
        "ratelimit_reset_tokens": "2026-11-24T19:30:00Z",
    }


@pytest.mark.parametrize(("ask", "body"), [(ask_openai, "openai"), (ask_anthropic, "anthropic")])
@pytest.mark.parametrize(("retries", "attempt"), [(0, None), (2, 3)])
def test_a_later_attempt_is_known_where_the_sdk_says_it_and_a_first_one_never(
    ask: Any, body: str, retries: int, attempt: int | None
) -> None:
    with refusing(BODIES[body], headers={"retry-after-ms": "1"}) as url:
        found = recorded(ask, url, retries)
    assert found.attempt == attempt


def test_a_raw_response_knows_its_attempt_too() -> None:
    def ask(url: str) -> Any:
        with openai.OpenAI(base_url=url, api_key="x", max_retries=3) as client:
            return client.chat.completions.with_raw_response.create(model="m", messages=ASK)

    wire = response("openai_chat")
    with refusing(BODIES["openai"], headers={"retry-after-ms": "1"}, times=2, then=wire) as url:
        found = recorded(ask, url)
    assert (found.attempt, found.tokens, found.outcome) == (3, 1500, "ok")


def test_what_tenacity_gave_up_on_tells_its_details_and_how_often() -> None:
    tenacity = pytest.importorskip("tenacity")
    again = tenacity.retry(stop=tenacity.stop_after_attempt(3))
    with refusing(BODIES["openai"]) as url:
        found = recorded(again(ask_openai), url)
    assert (found.error_type, found.attempt) == ("RetryError", 3)
    assert found.metadata == {**HEADED, "error_code": "rate_limit_exceeded"}


def test_a_response_that_failed_tells_as_much_as_an_exception() -> None:
    for get in (httpx.get, requests.get):
        with refusing(BODIES["openai"]) as url:
            found = recorded(get, url)
        assert found.metadata == {**HEADED, "error_code": "rate_limit_exceeded"}


class NotFound:
    """As Django's, which has its status in the class."""

    status_code = 404

    def __init__(self) -> None:
        self.headers = {"x-request-id": "r"}


NotFound.__name__ = "HttpResponseNotFound"


def of_starlette() -> Any:
    responses = pytest.importorskip("starlette.responses")
    answer = responses.JSONResponse({}, status_code=404, headers={"X-Request-Id": "r"})
    assert answer.headers["x-request-id"] == "r"  # which makes them
    return answer


def of_werkzeug() -> Any:
    werkzeug = pytest.importorskip("werkzeug")
    return werkzeug.Response("", status=404, headers={"X-Request-Id": "r"})


@pytest.mark.parametrize(
    "make",
    [
        of_starlette,
        of_werkzeug,
        NotFound,
        lambda: httpx.Response(HTTPStatus.NOT_FOUND, headers={"x-request-id": "r"}),
        lambda: SimpleNamespace(status_code=HTTPStatus.NOT_FOUND, headers={"x-request-id": "r"}),
    ],
    ids=["Starlette", "Werkzeug", "Django", "httpx and an enumeration", "any object"],
)
def test_a_response_of_any_framework_that_failed_says_so(make: Any) -> None:
    answer = make()
    found = recorded(lambda _: answer, "")
    assert (found.outcome, found.error_type) == ("error", "http_404")
    assert found.metadata == {"http_status": 404, "request_id": "r"}


def test_metadata_of_the_program_stands() -> None:
    with refusing(BODIES["openai"]) as url, capture() as operations:
        ask = tracked(service="s", metadata={"request_id": "mine"})(ask_openai)
        with pytest.raises(openai.RateLimitError):
            ask(url)
        assert only(operations).metadata["request_id"] == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_failure_of_the_call_carries_nothing(error: type[BaseException]) -> None:
    def call() -> None:
        raised = error()
        raised.status_code = 500  # type: ignore[union-attr]
        raise raised

    with capture() as operations:
        with pytest.raises(error):
            tracked(service="s")(call)()
        assert only(operations).metadata == {}


class HostileError(Exception):
    """Runs code of its own, which never ends or fails, for everything that is asked of it."""

    status_code = property(lambda self: 1 / 0)
    headers = property(lambda self: [None for _ in iter(int, 1)])

    def __getattr__(self, name: str) -> Any:
        return getattr(self, f"{name}_")

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "args"):
            return object.__getattribute__(self, name)
        raise RecursionError(name)


class Loop:
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield "x-request-id", "y" * 10

    def __getattr__(self, name: str) -> Any:
        return Loop()

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


HUGE = "x" * 50_000_000


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response": Loop(), "headers": Loop(), "code": Loop(), "status_code": Loop()},
        {"headers": [("retry-after",), None, Loop(), ("retry-after", Loop())]},
        {"headers": {"retry-after": HUGE, 3: 4}, "code": HUGE, "body": HUGE, "request_id": HUGE},
        {
            "response": {"ResponseMetadata": 3, "Error": Loop()},
            "details": {"error": {"details": 1}},
        },
        {"last_attempt": SimpleNamespace(attempt_number=-1, _exception=Loop())},
        {"_state": Loop(), "_code": Loop(), "_trailing_metadata": [Loop()]},
        {"request": SimpleNamespace(headers={"x-stainless-retry-count": "9" * 1000})},
    ],
)
def test_a_hostile_exception_never_costs_the_record(fields: dict[str, Any]) -> None:
    error = HostileError("x")
    BaseException.__dict__["__dict__"].__get__(error).update(fields)

    def call() -> None:
        raise error

    started = time.process_time()
    with capture() as operations:
        with pytest.raises(HostileError):
            tracked(service="s")(call)()
        found = only(operations)
    assert (found.error_type, found.attempt) == ("HostileError", None)
    assert all(len(str(value)) <= 200 for value in found.metadata.values())
    assert time.process_time() - started < 2


KNOWN_NAMES = """
    response headers code status status_code body type error details ResponseMetadata
    last_attempt attempt_number _state request HTTPStatusCode HTTPHeaders Error Code
    retry-after retry-after-ms x-request-id x-stainless-retry-count _list _store
"""
NAMES = st.sampled_from(KNOWN_NAMES.split())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(st.text(max_size=3), inner)
        | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_attributes_at_all_are_survived(fields: dict[str, Any]) -> None:
    error = Exception()
    error.__dict__.update(fields)
    found, attempt = details_of(error), attempt_of(error)
    assert found is None or found
    assert attempt is None or attempt >= 1


@pytest.mark.parametrize("error", [ValueError("x"), KeyError(1), OSError(2, "x"), TimeoutError()])
def test_plain_exceptions_know_nothing(error: Exception) -> None:
    assert details_of(error) is None
