"""Google's interactions: their counts by any form, and what is no new work."""

from __future__ import annotations

from importlib import import_module
from operator import attrgetter
from typing import Any

import pytest
from google import genai
from wire import as_json, as_sse, serving

from instrument import install, uninstall
from instrument.clients.targets import SDKS
from instrument.testing import CapturedOperations
from instrument.usage import Reading, reader_for

USAGE = {
    "total_input_tokens": 900,
    "total_tool_use_tokens": 100,
    "total_cached_tokens": 512,
    "total_output_tokens": 40,
    "total_thought_tokens": 160,
    "total_tokens": 1200,
}
INTERACTION = {
    "id": "int-1",
    "status": "completed",
    "model": "gemini-2.5-pro",
    "created": "2026-09-14T12:30:01Z",
    "updated": "2026-09-14T12:30:02Z",
    "role": "model",
    "steps": [{"type": "model_output", "content": [{"type": "text", "text": "Lisbon."}]}],
    "usage": USAGE,
}
ASK: dict[str, Any] = {"model": "gemini-2.5-pro", "input": "?"}


def events(interaction: dict[str, Any]) -> list[dict[str, Any]]:
    begun = {name: interaction[name] for name in ("id", "model")} | {"status": "in_progress"}
    return [
        {"event_type": "interaction.created", "interaction": begun},
        {"event_type": "interaction.completed", "interaction": interaction},
    ]


EVENTS = events(INTERACTION)
COUNTS = (1000, 200, 512, None, 160, 1200, "gemini-2.5-pro", "int-1", "gcp.gemini")


def facts(found: Reading | None) -> tuple[Any, ...]:
    assert found is not None
    return (
        found.input_tokens,
        found.output_tokens,
        found.cache_read_tokens,
        found.cache_write_tokens,
        found.reasoning_tokens,
        found.total_tokens,
        found.model,
        found.response_id,
        found.provider,
    )


def client(url: str) -> Any:
    return genai.Client(api_key="none", http_options={"base_url": url})


def test_an_interaction_counts_what_tools_were_given_and_what_was_thought() -> None:
    with serving(as_json(INTERACTION)) as url:
        google = client(url)
        found = google.interactions.create(**ASK)
    for value in (found, INTERACTION, {"interaction": INTERACTION}):
        reader = reader_for(type(value))
        assert reader is not None
        assert facts(reader(value)) == COUNTS


def test_a_failed_interaction_is_an_error_with_its_code() -> None:
    reader = reader_for(dict)
    told = {"errors": [{"code": "quota", "message": "none left"}]}
    assert reader is not None
    found = reader({**INTERACTION, **told, "status": "failed"})
    assert found is not None
    assert (found.outcome, found.error_type, found.error_message) == ("error", "quota", "none left")


@pytest.fixture
def installed() -> Any:
    install("google-genai")
    yield
    uninstall("google-genai")


def test_interactions_that_go_on_with_one_another_are_summed(
    installed: Any, capture_operations: CapturedOperations
) -> None:
    several = [*EVENTS, *events({**INTERACTION, "id": "int-2"})]
    with serving(as_sse(several)) as url:
        google = client(url)
        for _ in google.interactions.create(**ASK, stream=True):
            pass
    (found,) = capture_operations
    assert (found.operation, found.tokens, found.reasoning_tokens) == (
        "interactions.create",
        2400,
        320,
    )


def test_a_stream_left_before_its_end_is_partial_and_of_unknown_usage(
    installed: Any, capture_operations: CapturedOperations
) -> None:
    with serving(as_sse(EVENTS)) as url:
        google = client(url)
        stream = google.interactions.create(**ASK, stream=True)
        next(iter(stream))
        stream.close()
        del stream
    (found,) = capture_operations
    assert (found.outcome, found.tokens) == ("partial", None)


def test_to_look_up_a_finished_interaction_is_no_new_work(
    installed: Any, capture_operations: CapturedOperations
) -> None:
    with serving(as_json(INTERACTION)) as url:
        google = client(url)
        made = google.interactions.create(**ASK)
        again = google.interactions.get(made.id)
    assert again.usage.total_tokens == made.usage.total_tokens
    assert [each.operation for each in capture_operations] == ["interactions.create"]


@pytest.mark.parametrize("name", ["google-genai", "openai"])
def test_every_method_that_is_tracked_is_there(name: str) -> None:
    for target in SDKS[name].targets:
        assert callable(attrgetter(target.path)(import_module(target.module)))
