"""What an operation used, as its result, its decorator and `op.set_usage` say it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from responses import chat, chunks, counts, only

from instrument import (
    InstrumentWarning,
    Usage,
    current_operation,
    current_session,
    session,
    track,
    tracked,
)
from instrument.testing import CapturedOperations


@pytest.mark.parametrize(
    ("said", "recorded"),
    [
        (Usage(input_tokens=3, output_tokens=4), (7, 3, 4)),
        (Usage(total_tokens=9, input_tokens=3), (9, 3, None)),
        (7, (7, None, None)),
        (0, (0, None, None)),
        ({"output_tokens": 4}, (4, None, 4)),
        (None, (None, None, None)),
    ],
)
def test_what_usage_returns_stands_in_place_of_what_the_response_says(
    capture_operations: CapturedOperations, said: Any, recorded: tuple[Any, ...]
) -> None:
    tracked(service="s", usage=lambda result: said)(chat)()
    assert counts(only(capture_operations)) == recorded
    assert only(capture_operations).model == "gpt-5"


@pytest.mark.parametrize(
    ("said", "recorded"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, (7, 3, 4)),
        ({"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 2}, (9, 5, 4)),
        ({"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}, (7, 3, 4)),
    ],
)
def test_usage_may_hand_on_what_the_provider_calls_it(
    capture_operations: CapturedOperations, said: Any, recorded: tuple[Any, ...]
) -> None:
    tracked(service="s", usage=lambda result: result["told"])(lambda: {"told": said})()
    assert counts(only(capture_operations)) == recorded


@pytest.mark.parametrize("said", [True, -1, 10**12 + 1])
def test_an_impossible_number_from_usage_is_dropped_and_named(
    capture_operations: CapturedOperations, said: Any
) -> None:
    tracked(service="s", usage=lambda result: said)(chat)()
    found = only(capture_operations)
    assert (found.tokens, found.metadata) == (None, {"impossible_usage": {"total_tokens": said}})


@pytest.mark.parametrize("said", ["text", 1.5, [1], {"prompt": 1}, {1: 2}, object()])
def test_garbage_from_usage_is_warned_about_and_counts_as_no_tokens(
    capture_operations: CapturedOperations, said: Any, fresh_warnings: None
) -> None:
    function = tracked(service="s", usage=lambda result: said)(chat)
    with pytest.warns(InstrumentWarning, match="usage="):
        assert function() == chat()
    assert counts(only(capture_operations)) == (None, None, None)


def test_usage_and_success_that_raise_are_each_warned_about_once(
    capture_operations: CapturedOperations, fresh_warnings: None
) -> None:
    def broken(result: Any) -> Any:
        raise KeyError("broken")

    function = tracked(service="s", usage=broken, success=broken)(chat)
    with pytest.warns(InstrumentWarning) as warned:
        assert [function(), function()] == [chat(), chat()]
    assert sorted(str(each.message).split()[0] for each in warned) == ["success=", "usage="]
    assert [each.outcome for each in capture_operations] == ["ok", "ok"]


async def test_usage_is_given_the_plain_the_awaited_and_the_returned_result(
    capture_operations: CapturedOperations,
) -> None:
    given: list[Any] = []
    seen = tracked(service="s", usage=given.append)

    @seen
    def plain() -> str:
        return "plain"

    @seen
    async def awaited() -> str:
        return "awaited"

    @seen
    def generated() -> Iterator[int]:
        yield 1
        return "returned"

    plain(), await awaited(), list(generated())
    assert given == ["plain", "awaited", "returned"]


async def test_usage_is_given_the_merged_usage_of_an_async_generator_and_of_an_iterator(
    capture_operations: CapturedOperations,
) -> None:
    given: list[Usage] = []

    @tracked(service="s", usage=given.append)
    async def generated() -> AsyncIterator[Any]:
        for chunk in chunks():
            yield chunk

    @tracked(service="s", usage=given.append, stream=True)
    def iterated() -> Iterator[Any]:
        return iter(chunks())

    assert [chunk async for chunk in generated()] == list(iterated()) == chunks()
    assert [each.total_tokens for each in given] == [15, 15]


def test_a_stream_that_said_nothing_gives_usage_an_empty_usage(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s", stream=True, usage=lambda usage: usage.input_tokens or 3)
    def iterated() -> Iterator[int]:
        return iter([1, 2])

    assert list(iterated()) == [1, 2]
    assert only(capture_operations).tokens == 3


@pytest.mark.parametrize(
    ("success", "outcome", "error_type"),
    [(False, "error", "unsuccessful"), (True, "ok", None), ([], "error", "unsuccessful")],
)
def test_success_overrides_a_result_that_says_it_failed(
    capture_operations: CapturedOperations, success: Any, outcome: str, error_type: str | None
) -> None:
    failed = {"error": {"code": "rate_limited", "message": "slow down"}, "usage": None}
    tracked(service="s", operation="bare")(lambda: failed)()
    tracked(service="s", operation="judged", success=lambda result: success)(lambda: failed)()
    bare, judged = capture_operations
    assert (bare.outcome, bare.error_type) == ("error", "rate_limited")
    assert (judged.outcome, judged.error_type) == (outcome, error_type)
    assert judged.error_message is None


def set_usage(op: Any) -> None:
    op.set_usage(input_tokens=100)


def add_usage(op: Any) -> None:
    op.add_usage(output_tokens=1)


@pytest.mark.parametrize(
    ("steps", "recorded"),
    [
        ((set_usage,), (100, 100, None)),
        ((add_usage,), (16, 10, 6)),
        ((add_usage, add_usage), (17, 10, 7)),
        ((set_usage, add_usage), (101, 100, 1)),
        ((add_usage, set_usage), (100, 100, None)),
        ((set_usage, set_usage, add_usage), (101, 100, 1)),
    ],
)
def test_set_usage_replaces_and_add_usage_adds_to_what_is_known(
    capture_operations: CapturedOperations, steps: tuple[Any, ...], recorded: tuple[Any, ...]
) -> None:
    @tracked(service="s")
    def ask() -> Any:
        for step in steps:
            step(current_operation())
        return chat()

    ask()
    assert counts(only(capture_operations)) == recorded


def test_of_names_that_the_program_says_the_later_hold_and_a_responses_own_before_them(
    capture_operations: CapturedOperations,
) -> None:
    with track("added", service="s", model="given") as op:
        op.add_usage(input_tokens=5, model="a", response_id="r1")
    with track("set", service="s") as op:
        op.set_usage(input_tokens=5, model="a", response_id="r1")
        op.add_usage(Usage(output_tokens=1, model="b", response_id="r2"))

    @tracked(service="s", operation="returned")
    def ask() -> Any:
        current_operation().add_usage(output_tokens=1, model="b", response_id="r2")
        return chat()

    ask()
    assert [(each.tokens, each.model, each.response_id) for each in capture_operations] == [
        (5, "a", "r1"),
        (6, "b", "r2"),
        (16, "gpt-5", chat()["id"]),
    ]


def test_what_is_added_to_nothing_is_claimed_by_its_id(
    capture_operations: CapturedOperations,
) -> None:
    response = chat()

    def inner() -> Any:
        with track("inner", service="s") as op:
            op.add_usage(input_tokens=10, output_tokens=5, response_id=response["id"])
        return response

    tracked(service="s", operation="outer")(inner)()
    outer, inside = capture_operations
    assert (outer.tokens, outer.usage_operation_id) == (None, inside.operation_id)


def test_metadata_that_is_no_mapping_is_told_to_whoever_sets_it(
    capture_operations: CapturedOperations,
) -> None:
    with track("work", service="s") as op, pytest.raises(TypeError, match="metadata=5: use a map"):
        op.metadata = 5  # type: ignore[assignment]


def test_empty_names_are_none(capture_operations: CapturedOperations) -> None:
    with session("") as work, track("work", service="s", model="") as op:
        op.set_usage(input_tokens=1, model="", response_id="")
    assert work.name is None
    found = only(capture_operations)
    assert (found.session_name, found.model, found.response_id) == (None, None, None)


def test_a_name_that_is_no_text_is_recorded_as_text(
    capture_operations: CapturedOperations,
) -> None:
    with track("work", service="s") as op:
        op.set_usage(model=5, response_id=7)  # type: ignore[arg-type]
    assert (only(capture_operations).model, only(capture_operations).response_id) == ("5", "7")


def test_a_cost_that_is_added_leaves_the_responses_tokens_alone(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s")
    def ask() -> Any:
        current_operation().add_usage(cost_usd=0.25)
        current_operation().add_usage(output_tokens=1)
        return chat(usage={**chat()["usage"], "cost": 0.5})

    ask()
    found = only(capture_operations)
    assert (found.tokens, found.cost_usd, found.cost_source) == (16, 0.75, "caller")
    assert "impossible_usage" not in found.metadata


def test_a_cost_in_the_response_is_the_providers(capture_operations: CapturedOperations) -> None:
    charged = chat(usage={**chat()["usage"], "cost": 0.5})
    tracked(service="s")(lambda: charged)()
    tracked(service="s", usage=lambda result: Usage(cost_usd=0.1))(lambda: charged)()
    assert [(each.cost_usd, each.cost_source) for each in capture_operations] == [
        (0.5, "provider"),
        (0.1, "caller"),
    ]


IMPOSSIBLE = [-1, True, float("nan"), float("inf"), 1.0, "12", 10**12 + 1, [3]]


@pytest.mark.parametrize("count", IMPOSSIBLE, ids=repr)
def test_an_impossible_count_is_dropped_and_named_and_the_others_stay(
    capture_operations: CapturedOperations, count: Any
) -> None:
    with track("work", service="s") as op:
        op.set_usage(input_tokens=count, output_tokens=4)
    found = only(capture_operations)
    assert counts(found) == (4, None, 4)
    assert list(found.metadata["impossible_usage"]) == ["input_tokens"]


@pytest.mark.parametrize("cost", [-0.5, True, float("nan"), float("inf"), "1"], ids=repr)
def test_an_impossible_cost_is_dropped_and_named(
    capture_operations: CapturedOperations, cost: Any
) -> None:
    with track("work", service="s") as op:
        op.set_usage(cost_usd=cost, input_tokens=1)
    found = only(capture_operations)
    assert (found.cost_usd, found.cost_source, found.tokens) == (None, None, 1)
    assert list(found.metadata["impossible_usage"]) == ["cost_usd"]


def test_a_negative_count_is_not_hidden_by_adding_it(
    capture_operations: CapturedOperations,
) -> None:
    with track("work", service="s") as op:
        op.add_usage(input_tokens=10)
        op.add_usage(input_tokens=-3)
    assert only(capture_operations).metadata["impossible_usage"] == {"input_tokens": -3}


def test_large_counts_that_are_possible_add_nothing_to_the_metadata(
    capture_operations: CapturedOperations,
) -> None:
    with track("work", service="s") as op:
        op.set_usage(input_tokens=999_999_999_999, output_tokens=2**39, total_tokens=10**12)
    assert only(capture_operations).metadata == {}


@pytest.mark.parametrize("wrong", [{"tokens": 1}, {"prompt_tokens": 1}])
def test_an_unknown_field_is_told_to_whoever_gives_it(
    capture_operations: CapturedOperations, wrong: Any
) -> None:
    accepted = f"{next(iter(wrong))}.*as keywords: input_tokens, .*cost_usd, model, response_id"
    with track("work", service="s") as op, pytest.raises(TypeError, match=accepted):
        op.set_usage(**wrong)
    with track("work", service="s") as op, pytest.raises(TypeError, match=re.escape("[1]")):
        op.add_usage([1])


def test_a_models_name_is_the_responses_else_the_one_given(
    capture_operations: CapturedOperations,
) -> None:
    tracked(service="s", model="given")(chat)()
    tracked(service="s", model="given")(lambda: None)()
    assert [each.model for each in capture_operations] == ["gpt-5", "given"]


def test_metadata_is_each_calls_own(capture_operations: CapturedOperations) -> None:
    given = {"list": [1], "dict": {"key": [1]}}

    @tracked(service="s", metadata=given)
    def ask() -> None:
        current_operation().metadata["list"].append(2)
        current_operation().metadata["dict"]["key"].append(2)

    given["list"].append(99)
    ask(), ask()
    once = {"list": [1, 2], "dict": {"key": [1, 2]}}
    assert [each.metadata for each in capture_operations] == [once, once]
    assert given == {"list": [1, 99], "dict": {"key": [1]}}


def test_usage_of_a_failed_call_is_kept(capture_operations: CapturedOperations) -> None:
    @tracked(service="s")
    def ask() -> None:
        current_operation().set_usage(input_tokens=3)
        raise KeyError

    with pytest.raises(KeyError):
        ask()
    found = only(capture_operations)
    assert (found.outcome, found.tokens) == ("error", 3)


def test_fail_makes_an_error_of_a_call_that_returns(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s", success=lambda result: True)
    def ask() -> Any:
        current_operation().fail("nothing found")
        return chat()

    ask()
    found = only(capture_operations)
    assert (found.outcome, found.error_type, found.error_message) == (
        "error",
        "failed",
        "nothing found",
    )
    assert found.tokens == 15


def test_calls_made_by_usage_success_and_redact_are_not_recorded() -> None:
    from instrument.testing import capture

    @tracked(service="s")
    def other(*anything: Any) -> None:
        pass

    with capture(redact=other) as operations:
        tracked(service="s", operation="only", usage=other, success=other, metadata={"a": 1})(
            chat
        )()
    assert only(operations).operation == "only"


def test_callbacks_see_the_session_and_the_operation_they_are_asked_about(
    capture_operations: CapturedOperations,
) -> None:
    seen = []

    def usage(result: Any) -> None:
        seen.append((current_session().id, current_operation()))

    with session("work") as work, track("outer", service="s") as outer:
        tracked(service="s", usage=usage)(chat)()
    tracked(service="s", usage=usage)(chat)()
    (inside, operation), (outside, _) = seen
    assert (inside, operation.parent_id) == (work.id, outer.id)
    assert outside == current_session().id != work.id


def test_calls_made_by_showwarning_are_not_recorded(
    capture_operations: CapturedOperations, monkeypatch: Any, fresh_warnings: None
) -> None:
    import warnings

    other = tracked(service="s")(lambda *anything, **more: None)
    warnings.simplefilter("always")
    monkeypatch.setattr(warnings, "showwarning", other)
    tracked(service="s", operation="only", usage=lambda result: "garbage")(chat)()
    assert only(capture_operations).operation == "only"
