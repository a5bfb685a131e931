"""Hugging Face's Inference client: objects that are dicts too, in OpenAI's shape or TGI's own."""

from __future__ import annotations

from typing import Any

from instrument.usage import openai
from instrument.usage.fields import fields_of, part
from instrument.usage.openai import OpenAIMerge
from instrument.usage.plain import ODD, read_chat_fields
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "matches", "new_merge", "read", "streams"]

_PROVIDER = "huggingface"


def matches(fields: Fields) -> bool:
    """Tell whether this is generated text with the details that were asked for."""
    details = part(fields, "details")
    return details is not None and "generated_tokens" in details


def read(fields: Fields) -> Reading:
    """Read a whole response.

    Generated text reports its output, and its input only at the end of a stream.
    """
    if not matches(fields):
        return openai.read({"object": "chat.completion", **fields}, _PROVIDER)
    details = part(fields, "details") or {}
    return Reading(
        details.get("input_length"),
        details.get("generated_tokens"),
        provider=_PROVIDER,
        kind="text_completion",
        source=fields["details"],
    )


def fields_in(output: Any) -> Fields | None:
    """Return an output's attributes: the dict that it is too lacks what its classes do not name."""
    fields = getattr(output, "__dict__", None)
    if type(fields) is not dict:
        return fields_of(output)
    usage = getattr(fields.get("usage"), "__dict__", None)
    return {**fields, "usage": usage} if usage else fields


def read_object(response: Any) -> Reading | None:
    """Read any of the client's outputs."""
    fields = fields_in(response)
    return None if fields is None else read(fields)


def read_chat(response: Any) -> Reading | None:
    """Read a `ChatCompletionOutput` at once if it is complete and plain, else as `read` does."""
    try:
        fields = response.__dict__
        usage = fields["usage"].__dict__
    except (AttributeError, KeyError):
        return read_object(response)
    if not ODD.isdisjoint(fields):
        return read_object(response)
    return read_chat_fields(fields, usage, usage, usage, _PROVIDER, read_object, response)


def read_text(response: Any) -> Reading | None:
    """Read generated text, if its details were asked for."""
    fields = fields_in(response)
    return None if fields is None or not matches(fields) else read(fields)


def streams(fields: Fields) -> bool:
    """Tell whether this is a chunk of a chat, or the end of generated text."""
    return matches(fields) or openai.streams(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that keeps the last value of each field that is not null."""
    return _Merge()


class _Merge:
    __slots__ = ("_chat", "_text")

    def __init__(self) -> None:
        self._chat = OpenAIMerge(_PROVIDER)
        self._text: Reading | None = None

    def add(self, fields: Fields) -> bool:
        if matches(fields):
            if self._text is not None:
                return False
            self._text = read(fields)
            return True
        if "choices" in fields or "error" in fields:
            return self._chat.add({"object": "chat.completion.chunk", **fields})
        return True

    def reading(self) -> Reading | None:
        return self._text or self._chat.reading()


CLASSES: dict[str, Reader] = {
    "ChatCompletionOutput": read_chat,
    "ChatCompletionStreamOutput": read_object,
    "TextGenerationOutput": read_text,
    "TextGenerationStreamOutput": read_text,
}

STREAMS: dict[tuple[str, str], StreamClass] = {}
