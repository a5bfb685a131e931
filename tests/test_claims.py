"""One response that several operations see is counted once."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from responses import chat, chunks, counts, embedding, named, only
from tool_output import gemini, printing
from usage_samples import response as sample

from instrument import current_operation, propagate, session, track, tracked
from instrument.testing import CapturedOperations


@tracked(service="s")
def inner(response: Any) -> Any:
    return response


def nothing_of_its_own(operation: Any) -> bool:
    return (*counts(operation), operation.cost_usd, operation.cost_source) == (None,) * 5


@pytest.mark.parametrize(
    "response",
    [
        chat("a"),
        chat(None),
        [chat(None), chat(None)],
        [chat("a"), chat("b")],
        chat("a", usage={"prompt_tokens": 1, "completion_tokens": 1, "cost": 2}),
    ],
    ids=["id", "identity", "list", "list of ids", "cost"],
)
def test_an_outer_operation_names_whose_usage_it_is_and_counts_nothing(
    capture_operations: CapturedOperations, response: Any
) -> None:
    tracked(service="s", operation="outer")(lambda: inner(response))()
    outer, within = named(capture_operations, "outer"), named(capture_operations, "inner")
    assert within.tokens
    assert outer.usage_operation_id == within.operation_id
    assert nothing_of_its_own(outer)


def test_three_levels_all_name_the_innermost(capture_operations: CapturedOperations) -> None:
    middle = tracked(service="s", operation="middle")(lambda: inner(chat()))
    tracked(service="s", operation="outer")(lambda: middle())()
    owner = named(capture_operations, "inner").operation_id
    assert named(capture_operations, "middle").usage_operation_id == owner
    assert named(capture_operations, "outer").usage_operation_id == owner


def test_a_different_response_is_the_outer_operations_own(
    capture_operations: CapturedOperations,
) -> None:
    def outer() -> Any:
        inner(chat("a"))
        return chat("b")

    tracked(service="s", operation="outer")(outer)()
    found = named(capture_operations, "outer")
    assert (found.usage_operation_id, found.tokens) == (None, 15)


def test_of_a_mixed_list_only_what_nobody_inside_counted_is_counted(
    capture_operations: CapturedOperations,
) -> None:
    def outer() -> Any:
        return [inner(chat("a")), chat("b"), chat("b"), chat("c")]

    tracked(service="s", operation="outer")(outer)()
    found = named(capture_operations, "outer")
    assert counts(found) == (30, 20, 10)
    assert found.usage_operation_id == named(capture_operations, "inner").operation_id


def test_the_same_response_twice_in_a_list_counts_once(
    capture_operations: CapturedOperations,
) -> None:
    inner([chat("a"), chat("a"), chat("b")])
    assert counts(capture_operations[0]) == (30, 20, 10)


async def test_what_gathered_tasks_counted_is_not_counted_again(
    capture_operations: CapturedOperations,
) -> None:
    async def ask(name: str) -> Any:
        await asyncio.sleep(0)
        return inner(chat(name))

    async def outer() -> Any:
        return await asyncio.gather(*map(ask, "abc"))

    await tracked(service="s", operation="outer")(outer)()
    assert nothing_of_its_own(named(capture_operations, "outer"))
    assert sum(each.tokens or 0 for each in capture_operations) == 45


def test_what_threads_counted_is_not_counted_again(
    capture_operations: CapturedOperations,
) -> None:
    def outer() -> Any:
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(propagate(inner), map(chat, "abc")))

    tracked(service="s", operation="outer")(outer)()
    assert nothing_of_its_own(named(capture_operations, "outer"))


def test_a_call_that_a_collection_makes_in_the_midst_of_another_is_not_counted_again(
    capture_operations: CapturedOperations,
) -> None:
    """Finalizers run wherever memory is asked for, and so do other threads while they wait."""
    steps = 30
    outer = tracked(service="s", operation="outer")(with_a_call_at)
    for step in range(steps):
        outer(step)
    found = [each for each in capture_operations if each.operation == "outer"]
    assert len(found) == steps
    assert all(map(nothing_of_its_own, found))
    assert sum(each.tokens or 0 for each in capture_operations) > 15 * steps


def with_a_call_at(step: int) -> list[Any]:
    """Call `inner`, and once more at its nth collection, of which each step makes one."""
    response, another = chat("a"), chat("b")
    results: list[Any] = []
    with collections_at_every_step(lambda: results.append(inner(another)), at=step):
        results.append(inner(response))
    return results


@contextmanager
def collections_at_every_step(call: Callable[[], object], at: int) -> Iterator[None]:
    """Collect wherever a dict or another container is made, and call `call` in one of them."""
    held: list[Any] = []
    seen = 0

    def collecting(phase: str, info: dict[str, Any]) -> None:
        nonlocal seen
        if phase == "start":
            seen += 1
            if seen == at:
                call()
        held.append(info)
        use_up(held)

    before = gc.get_threshold()
    gc.callbacks.append(collecting)
    use_up(held)
    gc.set_threshold(1)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(collecting)


def use_up(held: list[Any]) -> None:
    """Take the dicts that Python keeps at hand, so that the next one asks for memory."""
    held.extend({} for _ in range(100))


def test_what_a_collection_says_of_the_operation_around_is_not_lost(
    capture_operations: CapturedOperations,
) -> None:
    def say(operation: Any, name: str) -> None:
        operation.metadata[name] = True
        operation.add_usage(output_tokens=1)

    for step in range(1, 200):
        with track(str(step), service="s") as operation:
            operation.add_usage(output_tokens=1)
            with collections_at_every_step(partial(say, operation, "collection"), at=step):
                say(operation, "itself")
    found = [(len(each.metadata), each.output_tokens) for each in capture_operations]
    assert found == sorted(found, reverse=True)  # at the last steps it was over
    assert (found[0], found[-1]) == ((3, 3), (2, 2))  # usage_details are there, too


def test_threads_that_add_usage_to_one_operation_lose_none(
    capture_operations: CapturedOperations,
) -> None:
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with track("op", service="s") as operation, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: operation.add_usage(output_tokens=1), range(2_000)))
    finally:
        sys.setswitchinterval(switching)
    assert only(capture_operations).output_tokens == 2_000


@pytest.mark.parametrize("response_id", ["a", None])
def test_chunks_that_an_outer_generator_hands_on_are_counted_once(
    capture_operations: CapturedOperations, response_id: str | None
) -> None:
    @tracked(service="s", operation="generator")
    def generator() -> Iterator[Any]:
        yield from chunks(response_id)

    @tracked(service="s", operation="outer")
    def outer() -> Iterator[Any]:
        for chunk in generator():  # noqa: UP028 - a loop of its own is what is tested
            yield chunk

    assert list(outer()) == chunks(response_id)
    assert named(capture_operations, "generator").tokens == 15
    assert nothing_of_its_own(named(capture_operations, "outer"))


async def test_a_task_that_outlives_the_call_that_started_it_still_claims_further_out(
    capture_operations: CapturedOperations,
) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def background() -> Any:
        await asyncio.sleep(0.001)
        return inner(chat())

    @tracked(service="s")
    async def start() -> None:
        tasks.append(asyncio.create_task(background()))

    @tracked(service="s", operation="outer")
    async def outer() -> Any:
        await start()
        return await tasks[0]

    await outer()
    assert nothing_of_its_own(named(capture_operations, "outer"))


def test_what_is_added_to_a_response_that_is_counted_inside_is_kept(
    capture_operations: CapturedOperations,
) -> None:
    def outer() -> Any:
        current_operation().add_usage(output_tokens=2)
        return inner(chat())

    tracked(service="s", operation="outer")(outer)()
    found = named(capture_operations, "outer")
    assert counts(found) == (2, None, 2)
    assert found.usage_operation_id == named(capture_operations, "inner").operation_id


def test_a_total_alone_does_not_tell_that_two_results_are_one(
    capture_operations: CapturedOperations,
) -> None:
    look_up = tracked(service="search", usage=lambda result: 10)(lambda: "hit")
    tracked(service="llm", usage=lambda result: 10)(lambda: look_up() + "s")()
    assert [each.tokens for each in capture_operations] == [10, 10]


class Embedding:
    """A response without an id that can be watched."""

    def __init__(self) -> None:
        self.usage = {"prompt_tokens": 8, "total_tokens": 8}


def sdk_embedding() -> Any:
    types = pytest.importorskip("openai.types")
    return types.CreateEmbeddingResponse.model_validate(embedding())


def google() -> Any:
    return {"embeddings": [], "usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8}}


def anthropic() -> Any:
    return {"type": "message", "usage": {"input_tokens": 8, "output_tokens": 0}}


def json_text() -> str:
    return json.dumps(embedding())


def json_bytes() -> bytes:
    return json_text().encode()


def event_text() -> str:
    return f"data: {json_text()}\n\n"


@pytest.mark.parametrize(
    "make",
    [
        embedding,
        lambda: Embedding(),  # not the class, whose methods would be tracked
        sdk_embedding,
        google,
        anthropic,
        json_text,
        json_bytes,
        event_text,
        lambda: f"[{json_text()}, {json_text()}]",
    ],
    ids=["dict", "object", "sdk", "google", "anthropic", "json", "bytes", "events", "array"],
)
@pytest.mark.parametrize(
    "taken",
    [
        lambda a, b, c: a,
        lambda a, b, c: [a, b, c],
        lambda a, b, c: (a, c),
        lambda a, b, c: [[a], (b, c)],
    ],
    ids=["first", "list", "tuple", "nested"],
)
def test_responses_without_an_id_are_counted_by_the_innermost_alone(
    capture_operations: CapturedOperations, make: Callable[[], Any], taken: Callable[..., Any]
) -> None:
    inmost = tracked(service="s", operation="inmost")(make)
    middle = tracked(service="s", operation="middle")(lambda: [inmost(), inmost()])
    tracked(service="s", operation="outer")(lambda: taken(*middle(), inmost()))()
    outer, within, *innermost = capture_operations
    assert [each.operation for each in innermost] == ["inmost"] * 3
    assert all(each.tokens for each in innermost)
    assert nothing_of_its_own(outer)
    assert nothing_of_its_own(within)
    assert outer.usage_operation_id == within.usage_operation_id == innermost[0].operation_id


@pytest.mark.parametrize("make", [embedding, sdk_embedding, json_text])
def test_responses_without_an_id_that_a_generator_yields_are_counted_once(
    capture_operations: CapturedOperations, make: Callable[[], Any]
) -> None:
    inmost = tracked(service="s", operation="inmost")(make)

    @tracked(service="s", operation="outer")
    def outer() -> Iterator[Any]:
        for _ in range(3):
            yield inmost()

    with session() as work:
        list(outer())
    assert nothing_of_its_own(named(capture_operations, "outer"))
    assert work.stats().total_tokens == 24


def test_a_stream_without_an_id_that_is_collected_into_a_list_is_counted_once(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s", operation="stream")
    def stream() -> Iterator[Any]:
        yield from chunks(None)

    tracked(service="s", operation="outer")(lambda: list(stream()))()
    assert named(capture_operations, "stream").tokens == 15
    assert nothing_of_its_own(named(capture_operations, "outer"))


@pytest.mark.parametrize("read", [json.loads, lambda text: text.encode(), lambda text: f"{text}\n"])
def test_what_a_tool_printed_is_counted_once_in_whatever_form_it_is_handed_on(
    capture_operations: CapturedOperations, read: Callable[[str], Any]
) -> None:
    printed = tracked(service="s", operation="tool")(lambda: json.dumps(gemini()))
    tracked(service="s", operation="outer")(lambda: read(printed()))()
    assert named(capture_operations, "tool").tokens
    assert nothing_of_its_own(named(capture_operations, "outer"))


def test_what_a_tool_had_used_when_it_failed_is_read_from_the_exception_once(
    capture_operations: CapturedOperations,
) -> None:
    tool = tracked(service="s", operation="tool")(
        lambda: printing(json.dumps(gemini()), code=3).check_returncode()
    )
    with pytest.raises(subprocess.CalledProcessError):
        tracked(service="s", operation="outer")(lambda: tool())()
    failed, outer = named(capture_operations, "tool"), named(capture_operations, "outer")
    assert (failed.error_type, failed.tokens) == ("CalledProcessError", 34161)
    assert nothing_of_its_own(outer)


def test_another_conversation_of_a_tool_is_the_outer_operations_own(
    capture_operations: CapturedOperations,
) -> None:
    printed = tracked(service="s", operation="tool")(lambda: json.dumps(gemini()))
    tracked(service="s", operation="outer")(lambda: printed() and gemini(session_id="2"))()
    assert [each.tokens for each in capture_operations] == [34161, 34161]


def test_an_added_field_does_not_make_it_another_response(
    capture_operations: CapturedOperations,
) -> None:
    tracked(service="s", operation="outer")(lambda: {**inner(embedding()), "seconds": 1})()
    assert nothing_of_its_own(named(capture_operations, "outer"))


def test_of_responses_without_an_id_the_same_counts_once_and_an_equal_one_again(
    capture_operations: CapturedOperations,
) -> None:
    first, equal = embedding(), embedding()
    inner([first, equal, first, [equal, [first]]])
    assert only(capture_operations).tokens == 16


def test_an_equal_response_without_an_id_is_the_outer_operations_own(
    capture_operations: CapturedOperations,
) -> None:
    def outer() -> Any:
        return [inner(embedding()), embedding()]

    tracked(service="s", operation="outer")(outer)()
    assert named(capture_operations, "outer").tokens == 8


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, json.dumps, lambda one: {"answer": "x", "usage": {**one["usage"]}}],
)
def test_a_copy_of_a_response_without_an_id_is_not_counted_again(
    capture_operations: CapturedOperations, copied: Callable[[Any], Any]
) -> None:
    def outer() -> Any:
        return [copied(inner(embedding())), copied(inner(embedding()))]

    tracked(service="s", operation="outer")(outer)()
    assert sum(each.tokens or 0 for each in capture_operations) == 16


def test_of_more_equal_responses_than_were_counted_the_rest_is_the_outer_operations_own(
    capture_operations: CapturedOperations,
) -> None:
    def outer() -> Any:
        return [copy.deepcopy(inner(embedding())), embedding(), embedding()]

    tracked(service="s", operation="outer")(outer)()
    assert named(capture_operations, "outer").tokens == 16


def test_counts_that_are_none_are_no_copy_of_any(capture_operations: CapturedOperations) -> None:
    odd = {**embedding(), "usage": {"prompt_tokens": [], "total_tokens": {}}}
    tracked(service="s", operation="outer")(lambda: [inner(odd), copy.deepcopy(odd)])()
    assert [each.tokens for each in capture_operations] == [None, None]


def test_counted_responses_are_not_kept_and_their_addresses_are_not_trusted(
    capture_operations: CapturedOperations,
) -> None:
    with track("block", service="s"):
        watched = weakref.ref(inner(Embedding()))
        for _ in range(100):
            inner(embedding())
        gc.collect()
        assert watched() is None
        tracked(service="s", operation="outer")(lambda: [embedding() for _ in range(100)])()
    assert named(capture_operations, "outer").tokens == 800


def test_a_sessions_total_counts_a_response_once(capture_operations: CapturedOperations) -> None:
    with session() as work:
        tracked(service="s", operation="outer")(lambda: inner(chat()))()
        inner(chat("other"))
    assert work.stats().total_tokens == 30


def test_usage_said_in_blocks_is_each_blocks_own(capture_operations: CapturedOperations) -> None:
    with track("outer", service="s") as outer:
        with track("inner", service="s") as within:
            within.set_usage(input_tokens=1)
        outer.set_usage(input_tokens=2)
    assert [each.tokens for each in capture_operations] == [2, 1]
    assert {each.usage_operation_id for each in capture_operations} == {None}


def rebuilt(response: Any) -> Any:
    return {"answer": "x", "model": response["model"], "usage": response["usage"]}


def sdk_chat() -> Any:
    types = pytest.importorskip("openai.types.chat")
    return types.ChatCompletion.model_validate(sample("openai_chat"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: rebuilt(inner(sample("openai_chat"))),
        lambda: {"usage": inner(sdk_chat()).usage, "answer": "x"},
        lambda: {"usage": inner(sdk_chat()).usage.model_dump(), "model": sdk_chat().model},
        lambda: json.dumps({"usage": inner(sdk_chat()).usage.model_dump()}),
        lambda: {"usage": {"prompt_tokens": 1200, "completion_tokens": inner(sdk_chat()) and 300}},
    ],
    ids=["dict", "object", "dump", "json", "counts"],
)
def test_a_result_made_of_a_counted_responses_usage_is_not_counted_again(
    capture_operations: CapturedOperations, make: Callable[[], Any]
) -> None:
    tracked(service="s", operation="outer")(make)()
    outer = named(capture_operations, "outer")
    assert outer.usage_operation_id == named(capture_operations, "inner").operation_id
    assert nothing_of_its_own(outer)


def test_usage_taken_out_of_an_earlier_response_is_not_counted_again(
    capture_operations: CapturedOperations,
) -> None:
    def outer() -> Any:
        first = inner(sdk_chat())
        inner(chat("later"))
        return {"usage": first.usage, "answer": "x"}

    tracked(service="s", operation="outer")(outer)()
    assert nothing_of_its_own(named(capture_operations, "outer"))


@pytest.mark.parametrize("changed", [{"prompt_tokens": 11}, {"total_tokens": 16}])
def test_other_counts_without_an_id_are_the_outer_operations_own(
    capture_operations: CapturedOperations, changed: dict[str, int]
) -> None:
    def outer() -> Any:
        response = inner(chat("a"))
        return {**rebuilt(response), "usage": {**response["usage"], **changed}}

    tracked(service="s", operation="outer")(outer)()
    assert named(capture_operations, "outer").tokens


def test_two_equal_calls_count_twice_also_within_a_third(
    capture_operations: CapturedOperations,
) -> None:
    tracked(service="s", operation="outer")(lambda: [inner(chat("a")), inner(chat("b"))])()
    assert sum(each.tokens or 0 for each in capture_operations) == 30
