"""Groq's own SDK, whose streams report in `x_groq.usage` of the last chunk only."""

from __future__ import annotations

from collections.abc import Callable

from instrument.usage import http, openai, plain
from instrument.usage.openai import OpenAIMerge, reader_of
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "matches", "new_merge", "read", "streams"]

matches: Callable[[Fields], bool] = openai.matches
streams: Callable[[Fields], bool] = openai.streams
read_object: Reader = reader_of("groq")


def read(fields: Fields) -> Reading:
    """Read a whole response."""
    return openai.read(fields, "groq")


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that keeps the last value of each field that is not null."""
    return OpenAIMerge("groq")


CLASSES: dict[str, Reader] = {
    "APIResponse": http.read_wrapped,
    "AsyncAPIResponse": http.read_wrapped,
    "ChatCompletion": plain.chat_object("groq", read_object),
    "ChatCompletionChunk": read_object,
    "CreateEmbeddingResponse": plain.embeddings_object("groq", read_object),
    "Transcription": read_object,
}

_STREAM = StreamClass("_iterator", is_async=False)
_ASYNC_STREAM = StreamClass("_iterator", is_async=True)
_MANAGER = StreamClass(None, is_async=False)
_ASYNC_MANAGER = StreamClass(None, is_async=True)

STREAMS: dict[tuple[str, str], StreamClass] = {
    ("groq", "Stream"): _STREAM,
    ("groq", "AsyncStream"): _ASYNC_STREAM,
    ("groq._streaming", "Stream"): _STREAM,
    ("groq._streaming", "AsyncStream"): _ASYNC_STREAM,
    ("groq._response", "ResponseContextManager"): _MANAGER,
    ("groq._response", "AsyncResponseContextManager"): _ASYNC_MANAGER,
}
