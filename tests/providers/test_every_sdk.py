"""What every SDK has in common: an error, a stream that is left early, and one that breaks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable, Iterator
from contextlib import suppress
from inspect import isawaitable
from typing import Any

import every_sdk  # noqa: F401 - before what it looks for
import litellm
import pytest
from dashscope.api_entities.http_request import close_shared_sync_session
from responses import only
from sdk_calls import CALLS, KEPT, LITELLM, Call, drained, drained_async
from wire import as_json, cut_off, serving

from instrument import tracked
from instrument.testing import CapturedOperations

# what the SDKs leave to the garbage collector complains
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FAILED = {
    "error": {"message": "No such model.", "type": "invalid", "code": "no_model"},
    "message": "No such model.",
    "code": "no_model",
    "request_id": "req_9",
}
ONE_OF_LITELLMS = [each for each in LITELLM if "openai/gpt-5" in each.name]
EACH = [each for each in CALLS if each not in LITELLM] + ONE_OF_LITELLMS
STREAMS = [each for each in EACH if each.read in (drained, drained_async)]
SAY_AT_ONCE = ("anthropic", "google-genai stream", "dashscope")
"""Whose streams say what was used so far."""


def each_of(calls: Iterable[Call]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("call", calls, ids=[call.name for call in calls])


@pytest.fixture(autouse=True)
def tidied(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    yield
    KEPT.clear()
    close_shared_sync_session()  # DashScope's


def take(stream: Any) -> None:
    """Take one chunk and leave."""
    next(iter(stream))
    stream.close() if hasattr(stream, "close") else None


async def take_async(stream: Any) -> None:
    await anext(aiter(stream))
    close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
    closed = close() if close is not None else None
    if isawaitable(closed):
        await closed


def perform(call: Call, url: str, read: Any) -> None:
    if call.is_async:
        asyncio.run(_perform_async(call, url, read))
        return
    result = tracked(service="app")(lambda: call.ask(url))()
    if read is not None:
        read(result)


async def _perform_async(call: Call, url: str, read: Any) -> None:
    @tracked(service="app")
    async def ask() -> Any:
        made = call.ask(url)
        return await made if isawaitable(made) else made

    result = await ask()
    if read is not None:
        await read(result)


@each_of(EACH)
def test_an_error_of_the_provider_is_one_operation_with_its_status(
    call: Call, capture_operations: CapturedOperations
) -> None:
    with serving(as_json(FAILED, status=400)) as url, suppress(Exception):
        perform(call, url, call.read)
    found = only(capture_operations)
    assert (found.outcome, found.tokens, found.metadata["http_status"]) == ("error", None, 400)


@each_of(STREAMS)
def test_a_stream_left_early_is_partial(call: Call, capture_operations: CapturedOperations) -> None:
    with call.serving() as url:
        perform(call, url, take_async if call.is_async else take)
    gc.collect()
    found = only(capture_operations)
    assert (found.outcome, found.error_type, found.chunks) == ("partial", None, 1)
    assert (found.tokens is not None) == call.name.startswith(SAY_AT_ONCE)


@each_of(STREAMS)
def test_a_stream_that_breaks_is_an_error_with_what_was_used_so_far(
    call: Call, capture_operations: CapturedOperations
) -> None:
    with call.serving() as url, cut_off(url) as broken, suppress(Exception):
        perform(call, broken, call.read)
    found = only(capture_operations)
    assert found.outcome == "error"
    assert (found.tokens is not None) == call.name.startswith(SAY_AT_ONCE)
