"""LlamaIndex, which hands the provider's own response on in `raw`."""

from __future__ import annotations

from instrument.usage import openai
from instrument.usage.fields import NOTHING, by_fields, fields_of, part
from instrument.usage.merging import new_merge as new_stream_merge
from instrument.usage.readers import reader_for
from instrument.usage.reading import Fields, FieldsMerge, Merge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "matches", "new_merge", "read", "streams"]

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def matches(fields: Fields) -> bool:
    """Tell whether this holds a provider's response beside what was made of it."""
    return "raw" in fields and ("additional_kwargs" in fields or "parsed" in fields)


def read(fields: Fields) -> Reading | None:
    """Read the provider's response, or the token counts beside it if that says nothing."""
    raw = fields.get("raw")
    reader = None if raw is None else reader_for(type(raw))
    found = None if reader is None or matches(fields_of(raw) or NOTHING) else reader(raw)
    return found or _beside(fields)


read_object: Reader = by_fields(read)


def streams(fields: Fields) -> bool:
    """Tell whether this holds a chunk of a provider's response."""
    return matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge of the provider's chunks, whatever they are."""
    return _Merge()


class _Merge:
    __slots__ = ("_beside", "_chunks")

    def __init__(self) -> None:
        self._chunks: Merge = new_stream_merge()
        self._beside: Reading | None = None

    def add(self, fields: Fields) -> bool:
        raw = fields.get("raw")
        if raw is not None and not matches(fields_of(raw) or NOTHING):
            self._chunks.add(raw)
        self._beside = _beside(fields) or self._beside
        return True

    def reading(self) -> Reading | None:
        found = self._chunks.reading()
        if found is not None and (found.hint is None or self._beside is None):
            return found
        return self._beside


def _beside(fields: Fields) -> Reading | None:
    counts = part(fields, "additional_kwargs") or NOTHING
    if not any(name in counts for name in _COUNTS):
        return None
    usage = {name: counts.get(name) for name in _COUNTS}
    return openai.read({"usage": usage, "object": "chat.completion"})


CLASSES: dict[str, Reader] = {
    "ChatResponse": read_object,
    "CompletionResponse": read_object,
}

STREAMS: dict[tuple[str, str], StreamClass] = {}
