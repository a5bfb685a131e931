"""Results that are text: JSON, or a whole stream of server-sent events."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Raw
from msgspec.structs import replace

from instrument.usage.adding import combined
from instrument.usage.decoding import decoded, decoded_list, may_say
from instrument.usage.families import read_fields
from instrument.usage.merging import new_merge
from instrument.usage.reading import Reading

__all__ = ["read_bytes", "read_text"]

_SPACES = (" ", "\t", "\n", "\r")
_OBJECT, _ARRAY, _EVENTS = ("{",), ("[",), ("data:", "event:")
_OPENINGS = _OBJECT + _ARRAY + _EVENTS + _SPACES
_OPENINGS_BYTES = tuple(opening.encode() for opening in _OPENINGS)
_HEAD_CHARACTERS = 256


def read_text(text: str) -> Reading | None:
    """Read JSON or server-sent events; text that cannot be either is not searched or copied."""
    if not text.startswith(_OPENINGS) or not may_say(text):
        return None
    return _read(text, text[:_HEAD_CHARACTERS].lstrip())


def read_bytes(text: bytes) -> Reading | None:
    """Do the same for bytes."""
    if not text.startswith(_OPENINGS_BYTES) or not may_say(text):
        return None
    return _read(text, text[:_HEAD_CHARACTERS].lstrip().decode("utf-8", "replace"))


def _read(text: str | bytes, head: str) -> Reading | None:
    if head.startswith(_OBJECT):
        return _read_object(text, text)
    if head.startswith(_ARRAY):
        return combined(_read_array(text))
    if head.startswith(_EVENTS):
        return _read_events(text)
    return None


def _read_object(json: str | bytes | Raw, text: str | bytes) -> Reading | None:
    """Read one object of the text, which is what the object is known by."""
    fields = decoded(json)
    reading = None if fields is None else read_fields(fields)
    return None if reading is None else replace(reading, source=text)


def _read_array(text: str | bytes) -> Iterator[Reading]:
    for element in decoded_list(text):
        reading = _read_object(element, text)
        if reading is not None:
            yield reading


def _read_events(text: str | bytes) -> Reading | None:
    merge = new_merge()
    merge.add(text)
    return merge.reading()
