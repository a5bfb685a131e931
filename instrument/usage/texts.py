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

__all__ = [
    "MOST_MESSAGES",
    "begins_run",
    "begins_stream",
    "between_braces",
    "read_bytearray",
    "read_bytes",
    "read_run",
    "read_text",
]

_SPACES = (" ", "\t", "\n", "\r")
_OBJECT, _ARRAY, _EVENTS = ("{",), ("[",), ("data:", "event:")
_OPENINGS = _OBJECT + _ARRAY + _EVENTS + _SPACES
_OPENINGS_BYTES = tuple(opening.encode() for opening in _OPENINGS)
_LAST, _LAST_BYTES = "}\n", b"}\n"
_MARK, _MARK_BYTES = "\ufeff", b"\xef\xbb\xbf"
_NOISE_CHARACTERS = 8_192
_BEGINNINGS = frozenset({"assistant", "init", "system", "thread.started"})
_OPENINGS_OF_STREAMS = frozenset(
    {"AIMessageChunk", "message-start", "message_start", "stream-start"}
)
_HEAD_CHARACTERS = 256
_TAIL_CHARACTERS = 2_048
MOST_MESSAGES = 20_000
_OF_TOOLS = "invoke_agent"
_PROBED = 64


def read_text(text: str) -> Reading | None:
    """Read JSON or server-sent events; text that cannot be either is not searched or copied.

    What a tool prints may come after lines of other text.
    """
    if not text.startswith(_OPENINGS):
        return _read_unlikely(text) if text[-1:] in _LAST else None
    return _read(text, text[:_HEAD_CHARACTERS].lstrip()) if _may_say(text) else None


def read_bytes(text: bytes) -> Reading | None:
    """Do the same for bytes."""
    if not text.startswith(_OPENINGS_BYTES):
        return _read_unlikely(text) if text[-1:] in _LAST_BYTES else None
    if not _may_say(text):
        return None
    return _read(text, text[:_HEAD_CHARACTERS].lstrip().decode("utf-8", "replace"))


def read_bytearray(text: bytearray) -> Reading | None:
    """Do the same for bytes that may change, of which nothing is kept."""
    found = read_bytes(bytes(text)) if text.startswith(_OPENINGS_BYTES) else None
    return None if found is None else replace(found, source=None)


def between_braces(output: Any) -> Any:
    """Return what begins and ends with lines that do with a brace; `None` if it is not less."""
    newline: Any = "\n" if type(output) is str else b"\n"
    opening, closing = (
        newline + brace.encode() if type(output) is bytes else newline + brace for brace in "{}"
    )
    starts = output[:1] == opening[1:]
    start = -1 if starts else output.find(opening, 0, _NOISE_CHARACTERS)
    if start < 0 and not starts:
        return None
    if not starts:
        found = output[start + 1 :]
        if _plainly(found) is not None:
            return found
    end = output.rfind(closing)
    return output[start + 1 : end + 2] if end > start and end + 2 < len(output) else None


def _read_unlikely(text: Any) -> Reading | None:
    """Read JSON after a byte order mark, and what a tool printed after lines of other text."""
    mark: Any = _MARK if type(text) is str else _MARK_BYTES
    if text[-2:].rstrip()[-1:] not in ("}", b"}") or not _may_say(text):
        return None
    if text.startswith(mark):
        return _known_by(text, _plainly(text[len(mark) :]))
    inner = between_braces(text)
    found = None if inner is None else _plainly(inner)
    return _known_by(text, found) if found is not None and found.kind == _OF_TOOLS else None


def _plainly(text: Any) -> Reading | None:
    return read_text(text) if type(text) is str else read_bytes(text)


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
    if first is None or not (begins_run(first) or begins_stream(first)):
        return combined(_read_elements(elements, text))
    if len(elements) > MOST_MESSAGES:
        elements = elements[:MOST_MESSAGES] + elements[-1:]
    return _known_by(text, read_run(map(decoded, elements)))


def begins_run(fields: Fields) -> bool:
    """Tell whether this is the first message of what a command-line tool printed as a list."""
    kind = fields.get("type")
    return type(kind) is str and kind in _BEGINNINGS and provider("tools").streams(fields)


def begins_stream(fields: Fields) -> bool:
    """Tell whether this is the first chunk of a provider's stream, which somebody collected."""
    kind = fields.get("type") or fields.get("event_type")
    if type(kind) is str and kind in _OPENINGS_OF_STREAMS:
        return True
    return "messageStart" in fields or fields.get("object") == "chat.completion.chunk"


def read_run(messages: Iterable[Any]) -> Reading | None:
    """Read what belongs together: all messages of a run, or all chunks of a stream."""
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
