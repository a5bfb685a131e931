"""Results that are text: JSON, or a whole stream of server-sent events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from instrument.usage.adding import combined
from instrument.usage.decoding import decoded, decoded_list, lines_that_say, may_say
from instrument.usage.families import provider, read_document
from instrument.usage.merging import new_merge
from instrument.usage.reading import Fields, Reading, Readings

__all__ = ["begins_run", "read_bytes", "read_run", "read_text"]

_SPACES = (" ", "\t", "\n", "\r")
_OBJECT, _ARRAY, _EVENTS = ("{",), ("[",), ("data:", "event:")
_OPENINGS = _OBJECT + _ARRAY + _EVENTS + _SPACES
_OPENINGS_BYTES = tuple(opening.encode() for opening in _OPENINGS)
_BEGINNINGS = frozenset({"assistant", "init", "system", "thread.started"})
_HEAD_CHARACTERS = 256
_TAIL_CHARACTERS = 2_048
_MOST_MESSAGES = 20_000
_PROBED = 64


def read_text(text: str) -> Reading | None:
    """Read JSON or server-sent events; text that cannot be either is not searched or copied."""
    if not text.startswith(_OPENINGS) or not _may_say(text):
        return None
    return _read(text, text[:_HEAD_CHARACTERS].lstrip())


def read_bytes(text: bytes) -> Reading | None:
    """Do the same for bytes."""
    if not text.startswith(_OPENINGS_BYTES) or not _may_say(text):
        return None
    return _read(text, text[:_HEAD_CHARACTERS].lstrip().decode("utf-8", "replace"))


def _read(text: str | bytes, head: str) -> Reading | None:
    if head.startswith(_OBJECT):
        whole = decoded(text)
        return _read_lines(text) if whole is None else _read_fields(whole, text)
    if head.startswith(_ARRAY):
        return _read_array(text)
    if head.startswith(_EVENTS):
        return _read_events(text)
    return None


def _read_object(json: str | bytes | Raw, text: str | bytes) -> Reading | None:
    """Read one object of the text, which is what the object is known by."""
    fields = decoded(json)
    return None if fields is None else _read_fields(fields, text)


def _read_fields(fields: Fields, text: str | bytes) -> Reading | None:
    reading = read_document(fields)
    return None if reading is None else replace(reading, source=text)


def _read_lines(text: str | bytes) -> Reading | None:
    """Read lines of JSON, as tools print and servers send them."""
    newline: Any = "\n" if isinstance(text, str) else b"\n"
    if newline not in text.strip():
        return None
    merge = new_merge()
    for line in lines_that_say(text if isinstance(text, str) else text.decode("utf-8", "replace")):
        merge.add(line.lstrip())
    return _known_by(text, merge.reading())


def _read_array(text: str | bytes) -> Reading | None:
    elements = decoded_list(text)
    first = decoded(elements[0]) if elements else None
    if first is None or not begins_run(first):
        return combined(_read_elements(elements, text))
    if len(elements) > _MOST_MESSAGES:
        elements = elements[:_MOST_MESSAGES] + elements[-1:]
    return _known_by(text, read_run(map(decoded, elements)))


def begins_run(fields: Fields) -> bool:
    """Tell whether this is the first message of what a command-line tool printed as a list."""
    kind = fields.get("type")
    return type(kind) is str and kind in _BEGINNINGS and provider("tools").streams(fields)


def read_run(messages: Iterable[Any]) -> Reading | None:
    """Read all messages of a run."""
    merge = new_merge()
    for message in messages:
        merge.add(message)
    return merge.reading()


def _known_by(text: str | bytes, reading: Reading | None) -> Reading | None:
    if reading is None or isinstance(reading, Readings):
        return reading
    return replace(reading, source=text)


def _may_say(text: str | bytes) -> bool:
    """Look at the end, too, where a tool says how its run ended."""
    return may_say(text) or may_say(text[-_TAIL_CHARACTERS:])


def _read_elements(elements: list[Any], text: str | bytes) -> Iterator[Reading]:
    found = False
    for place, element in enumerate(elements):
        if place == _PROBED and not found:
            return
        reading = _read_object(element, text)
        if reading is not None:
            found = True
            yield reading


def _read_events(text: str | bytes) -> Reading | None:
    merge = new_merge()
    merge.add(text)
    return merge.reading()
