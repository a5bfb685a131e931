"""The readers of plain responses say what the general ones say, whatever becomes of a response."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_usage_any_input import KNOWN_NAMES, KNOWN_WORDS
from usage_samples import compatible, response
from usage_samples.objects import OBJECTS

from instrument._counts import are_plausible
from instrument.usage import Reading, reader_for
from instrument.usage.families import PLAIN, load
from instrument.usage.plain import ODD, ODD_COUNTS
from instrument.usage.readers import read_any_dict

MORE_NAMES = """
    is_error stats session_id num_turns total_cost_usd embeddings embedding results generations
    input_tokens_details output_tokens_details prompt_tokens_details cache_write_tokens
    cache_creation_tokens cache_creation_input_tokens thinking_tokens provider
    prompt_filter_results kv_transfer_params finish_reason model_version modelVersion
    prompt_token_count toolUsePromptTokenCount trafficType traffic_type HTTPStatusCode
    cacheWriteInputTokens totalTokens characters image_count input_token_count images
    prompt_cache_hit_tokens prompt_cache_miss_tokens cost x_groq created data choices
    prompt_audio_seconds model_provider custom_llm_provider response_cost stop_reason
"""
MORE_WORDS = """
    deepseek-chat deepseek-ai/V4 gen-1 grok-4 resp_bGl0ZWxsbTox run-1 COMPLETE completed
    chat.completion_ anthropic
"""
NAMES = st.sampled_from([*KNOWN_NAMES.split(), *MORE_NAMES.split()])
WORDS = st.sampled_from([*KNOWN_WORDS.split(), *MORE_WORDS.split()])
COUNTS = st.integers(-2, 3) | st.booleans() | st.sampled_from([0.0, 1.0, 2.5, 1e300, 256, 1500])
SCALARS = st.none() | COUNTS | st.floats() | WORDS | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
DICTS: dict[str, dict[str, Any]] = {
    **{
        name: response(name)
        for name in (
            "openai_chat",
            "openai_response",
            "anthropic_message",
            "google_generate",
            "dashscope_generation",
            "bedrock_converse",
            "cohere_chat",
            "ollama_chat",
        )
    },
    **compatible(),
}
GENERAL = {
    "OpenAI": "openai.read_object",
    "Anthropic": "anthropic.read_object",
    "Gemini": "google.read_object",
    "Groq": "groq.read_object",
    "LiteLLM": "litellm.read_object",
    "Mistral": "mistral.read_object",
    "Cohere": "cohere.read_object",
    "Ollama": "ollama.read_object",
    "DashScope": "dashscope.read_object",
    "LangChain": "langchain.read_any",
    "Hugging": "huggingface.read_object",
    "xAI": "xai.read_any",
}
QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def general_of(name: str) -> Callable[[Any], Reading | None]:
    module, _, function = GENERAL[name.split()[0]].partition(".")
    found: Any = getattr(importlib.import_module(f"instrument.usage.{module}"), function)
    return found


def sdk_object(name: str) -> Any:
    try:
        return OBJECTS[name]()
    except ImportError as missing:
        pytest.skip(str(missing))


def said(reading: Reading | None) -> Any:
    """Return all that a reading says, with types, `True` not being 1, and without its source."""
    if reading is None:
        return None
    names = [name for name in type(reading).__struct_fields__ if name not in _APART]
    return type(reading), [repr(getattr(reading, name)) for name in names]


_APART = ("source", "is_plain")


def source(reading: Reading | None) -> Any:
    return None if reading is None else reading.source


def assert_agree(fast: Any, general: Any, value: Any) -> None:
    found, expected = fast(value), general(value)
    assert said(found) == said(expected)
    if source(general(value)) is source(expected):  # else it is made anew by each reading
        assert source(found) is source(expected)
    assert found is None or not found.is_plain or is_plain(found)


def is_plain(reading: Reading) -> bool:
    """Tell whether a reading holds nothing but counts that can be, with a total."""
    beside = ("outcome", "error_type", "error_message", "details", "hint", "attempt")
    return (
        are_plausible(reading)
        and type(reading.total_tokens) is int
        and all(getattr(reading, name) is None for name in beside)
    )


def holders(value: Any, depth: int = 3) -> Iterator[Any]:
    """Yield the dicts and objects in a response of which the fields can be changed."""
    own = own_fields(value)
    if own is None or depth == 0:
        return
    yield value
    private = getattr(value, "__pydantic_private__", None) or {}
    more = getattr(value, "__pydantic_extra__", None) or {}
    for name, inner in [*own.items(), *private.items(), *more.items()]:
        if not name.startswith("__"):
            yield from holders(inner, depth - 1)


def own_fields(value: Any) -> dict[str, Any] | None:
    own = getattr(value, "__dict__", None)
    if type(own) is dict and own:
        return own
    return value if isinstance(value, dict) else None


def add_extra(holder: Any, name: str, value: Any) -> None:
    """Add a field as pydantic does: apart from those that the class declares, and not twice."""
    own = own_fields(holder)
    assert own is not None
    if name in own or not hasattr(type(holder), "__pydantic_extra__"):
        own[name] = value
    else:
        extra = {**(holder.__pydantic_extra__ or {}), name: value}
        object.__setattr__(holder, "__pydantic_extra__", extra)


def mutate(data: st.DataObject, value: Any) -> None:
    """Drop, replace or add a few fields anywhere in the response."""
    for _ in range(data.draw(st.integers(0, 3))):
        holder = data.draw(st.sampled_from(list(holders(value))))
        own = own_fields(holder)
        assert own is not None
        action = data.draw(st.sampled_from(["drop", "replace", "add"]))
        names = sorted(name for name in own if not name.startswith("__"))
        if action == "add" or not names:
            add_extra(holder, data.draw(NAMES), data.draw(VALUES))
        elif action == "drop":
            own.pop(data.draw(st.sampled_from(names)))
        else:
            own[data.draw(st.sampled_from(names))] = data.draw(VALUES)


@pytest.mark.parametrize("name", DICTS)
@settings(deadline=None)
@given(st.data())
def test_a_dict_reads_as_its_general_reader_says_whatever_is_changed(
    name: str, data: st.DataObject
) -> None:
    value = deepcopy(DICTS[name])
    mutate(data, value)
    assert_agree(reader_for(dict), read_any_dict, value)


@QUIET
@pytest.mark.parametrize("name", OBJECTS)
def test_an_sdk_object_reads_as_its_general_reader_says_whatever_is_changed(name: str) -> None:
    general, reader = general_of(name), reader_for(type(sdk_object(name)))

    @settings(deadline=None)
    @given(st.data())
    def agrees(data: st.DataObject) -> None:
        value = sdk_object(name)
        mutate(data, value)
        assert_agree(reader, general, value)

    agrees()


@pytest.mark.parametrize("name", DICTS)
def test_a_plain_dict_never_gets_to_its_general_reader(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = reader_for(dict)
    assert reader is not None
    expected = reader(DICTS[name])  # which loads the family
    for module in map(importlib.import_module, modules_of_plain()):
        monkeypatch.setattr(module, "read_document", refuse, raising=False)
    monkeypatch.setattr("instrument.usage.readers.read_document", refuse)
    assert reader(DICTS[name]) == expected


def test_a_response_that_does_not_name_its_usage_yet_is_one_all_the_same() -> None:
    reader, value = reader_for(dict), response("openai_response")
    del value["usage"]
    assert reader is not None
    assert_agree(reader, read_any_dict, value)
    assert reader(value) is not None


@QUIET
def test_openais_completion_is_known_to_be_plain() -> None:
    completion = sdk_object("OpenAI chat")
    reader = reader_for(type(completion))
    assert reader is not None
    assert is_plain(reader(completion))


def modules_of_plain() -> set[str]:
    return {reader.__module__ for reader in PLAIN.values()}


def refuse(value: Any) -> Reading | None:
    raise AssertionError("was not read at once")


@QUIET
@pytest.mark.parametrize("name", OBJECTS)
def test_a_plain_sdk_object_is_not_read_by_looking_for_fields(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = sdk_object(name)
    reader = reader_for(type(value))
    assert reader is not None
    expected = reader(value)
    for module in ("fields", "openai", "litellm", "huggingface", "mistral", "xai"):
        monkeypatch.setattr(f"instrument.usage.{module}.fields_of", refuse)
    assert reader(value) == expected


CHECKED = {"OpenAI response": {"error", "status", "tools"}, "Groq chat": {"x_groq"}}


@QUIET
@pytest.mark.parametrize(
    "name",
    ["OpenAI chat", "OpenAI embeddings", "OpenAI response", "Groq chat", "Mistral chat"],
)
def test_an_sdk_declares_no_field_that_only_what_pydantic_keeps_apart_is_searched_for(
    name: str,
) -> None:
    fields = own_fields(sdk_object(name)) or {}
    counts = own_fields(fields["usage"]) or {}
    assert ODD & fields.keys() == CHECKED.get(name, set())
    assert ODD_COUNTS & counts.keys() == set()


@pytest.mark.parametrize("value", [1, 1.5, True, None, "text", b"bytes", {}, object(), load])
def test_a_list_of_what_says_nothing_says_nothing(value: Any) -> None:
    reader = reader_for(list)
    assert reader is not None
    assert reader([value] * 3) is None


@QUIET
@pytest.mark.parametrize("extra", [{}, {"usage": response("openai_chat")["usage"]}])
def test_what_pydantic_keeps_apart_is_seen_in_a_model_of_the_programs_own(extra: Any) -> None:
    pydantic = pytest.importorskip("pydantic")

    class Answer(pydantic.BaseModel, extra="allow"):  # type: ignore[misc]
        text: str

    reader = reader_for(Answer)
    assert reader is not None
    assert (reader(Answer(text="Lisbon.", **extra)) is not None) == bool(extra)


class _Slots:
    __slots__ = ("count", "name")


class _UsageSlots:
    __slots__ = ("id", "usage")


class _Proxy:
    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return {"__dict__": response("openai_chat")}[name]


def test_objects_whose_class_leaves_no_room_for_usage_have_no_reader() -> None:
    assert reader_for(_Slots) is None
    assert reader_for(_UsageSlots) is not None
    assert reader_for(_Proxy) is not None
