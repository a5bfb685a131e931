"""The chunks of a stream, whatever they are, merged by the family that knows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from instrument.usage.adding import combined, folded
from instrument.usage.decoding import decoded, may_say
from instrument.usage.families import class_reader, load, provider, sdk_family, streaming_family
from instrument.usage.fields import fields_of
from instrument.usage.reading import Fields, FieldsMerge, Merge, Reading

__all__ = ["new_merge"]

_NAMES = ("data:", "event:", "id:")
_EVENT_LINES = (*_NAMES, ":")
_OPENINGS = ("{", "\n", "\r\n", *_EVENT_LINES)
_OPENINGS_BYTES = tuple(opening.encode() for opening in _OPENINGS)
_MAX_TAIL_CHARACTERS = 1_048_576
_MAX_NAME_CHARACTERS = 64
_MAX_PARTS = 1_000
_MAX_TOGETHER = 64
_MAX_TYPES = 1_024
# families whose SDK gives dicts and objects of its own for the same response
_MIXED = frozenset({"bedrock"})


def new_merge() -> Merge:
    """Return a merge for one stream.

    It takes SDK objects, dicts, objects with such attributes, JSON text, and server-sent events
    as lines or as pieces of any size, in text or bytes.
    """
    return StreamMerge()


class StreamMerge:
    """Holds the response that the chunks are about, and the readings of those before it.

    `_text` is the latest chunk of text, and `_source` that in which the response's usage ended.
    """

    __slots__ = (
        "_current",
        "_had_event",
        "_in_pieces",
        "_key",
        "_parts",
        "_source",
        "_tail",
        "_text",
    )

    def __init__(self) -> None:
        self._current: FieldsMerge | None = None
        self._key: tuple[str, bool] | None = None
        self._parts: list[Reading] = []
        self._tail = ""
        self._text: str | bytes | None = None
        self._source: str | bytes | None = None
        self._had_event = False
        self._in_pieces = False

    def add(self, chunk: Any) -> None:
        """Look at one chunk; one that says nothing is ignored."""
        cls = type(chunk)
        take = _takers.get(cls, _unknown)
        if take is _unknown:
            take = _remember(cls)
        if take is not None:
            take(self, chunk)

    def reading(self) -> Reading | None:
        """Return what was seen so far; `Readings`, if the chunks came from several responses."""
        if self._tail:
            self._merge_line(self._tail)
        current, parts = self._finished(), self._parts
        if not parts:
            return current
        if current is None and len(parts) == 1:
            return parts[0]
        return combined(parts if current is None else [*parts, current])

    def merge(self, fields: Fields, key: tuple[str, bool]) -> None:
        """Give the fields of one chunk to the merge of its family."""
        if key != self._key or self._current is None:
            self._begin(key)
        if self._current is not None and not self._current.add(fields):
            self._begin(key).add(fields)

    def merge_fields(self, fields: Fields) -> None:
        """Do the same for a chunk whose family only its shape tells."""
        if self._key is not None and provider(self._key[0]).streams(fields):
            self.merge(fields, self._key)
        elif (name := streaming_family(fields)) is not None:
            self.merge(fields, (name, False))

    def merge_elements(self, chunks: list[Any] | tuple[Any, ...]) -> None:
        """Look at each of a few chunks that come together."""
        for chunk in chunks[:_MAX_TOGETHER]:
            if not isinstance(chunk, (list, tuple)):
                self.add(chunk)

    def take_whole(self, reading: Reading | None) -> None:
        """Keep what a whole result says, which comes after all that came before it."""
        if reading is not None and self._current is not None:
            self._keep(self._finished())
            self._current = self._key = self._source = None
        self._keep(reading)

    def _keep(self, reading: Reading | None) -> None:
        if reading is not None:
            self._parts.append(reading)
        if len(self._parts) > _MAX_PARTS:
            self._parts = folded(self._parts)

    def merge_text(self, text: str) -> None:
        """Do the same for JSON text, or for server-sent events in lines or in any other pieces."""
        if self._in_pieces or self._tail or text.startswith(_OPENINGS):
            self._text = text
            self._merge_text(text)

    def merge_bytes(self, text: bytes) -> None:
        """Do the same for bytes."""
        if self._in_pieces or self._tail or text.startswith(_OPENINGS_BYTES):
            self._text = text
            self._merge_text(text.decode("utf-8", "replace"))

    def _merge_text(self, text: str) -> None:
        if self._in_pieces:
            self._merge_piece(text)
        elif self._tail or text.startswith(_OPENINGS):
            self._merge_opening(text)

    def _merge_opening(self, text: str) -> None:
        """Find out whether the chunks are lines, or pieces that begin and end anywhere."""
        if self._tail and not text.startswith(_NAMES):
            text = self._tail + text
        self._tail = ""
        if "\n" in text and (self._had_event or text.startswith(_EVENT_LINES)):
            self._in_pieces = True
            self._merge_piece(text)
        elif self._merge_line(text):
            return
        elif "\n" in text:
            for line in text.split("\n"):
                self._merge_line(line)
        elif _may_continue(text):
            self._tail = text

    def _merge_piece(self, text: str) -> None:
        if "\n" in text:
            *lines, text = (self._tail + text).split("\n")
            self._tail = ""
            for line in lines:
                self._merge_line(line)
        kept = self._tail + text
        self._tail = kept if len(kept) <= _MAX_TAIL_CHARACTERS else ""

    def _merge_line(self, line: str) -> bool:
        """Take in a line that is an event's data or JSON; tell whether it was that."""
        is_event = line.startswith("data:")
        body = (line[5:] if is_event else line).strip()
        if not (body.startswith("{") and body.endswith("}")):
            return False
        if not may_say(body) and (self._current is not None or not is_event):
            return False
        fields = decoded(body)
        if fields is not None:
            self._had_event = self._had_event or is_event
            self.merge_fields(fields)
            self._source = self._text if may_say(body) else self._source
        return fields is not None

    def _begin(self, key: tuple[str, bool]) -> FieldsMerge:
        self._keep(self._finished())
        self._source = None
        name, sdk = self._key = key
        self._current = provider(name).new_merge(sdk=sdk)
        return self._current

    def _finished(self) -> Reading | None:
        reading = None if self._current is None else self._current.reading()
        if reading is None or self._source is None:
            return reading
        return replace(reading, source=self._source)


def _may_continue(line: str) -> bool:
    """Tell whether this may be the beginning of an event, whose rest comes with the next chunk."""
    if line.startswith("data:"):
        return len(line) <= _MAX_TAIL_CHARACTERS and line[5:].lstrip()[:1] in ("", "{")
    return line.startswith("event:") and len(line) < _MAX_NAME_CHARACTERS


Taker = Callable[[StreamMerge, Any], None]


def _unknown(merge: StreamMerge, chunk: Any) -> None:
    raise AssertionError("only marks a type that was not met yet")


def _remember(cls: type) -> Taker | None:
    if len(_takers) >= _MAX_TYPES:
        _takers.clear()
        _takers.update(_BUILTINS)
    taker = _takers[cls] = _taker(cls)
    return taker


def _taker(cls: type) -> Taker | None:
    name = sdk_family(cls)
    if name is not None and cls.__name__ not in getattr(load(name), "WHOLE", ()):
        key = (name, name not in _MIXED)
        return _object_taker(key, getattr(load(name), "fields_in", fields_of))
    if issubclass(cls, dict):
        return _merge_object
    reader = class_reader(cls)
    if reader is not None:
        return lambda merge, chunk: merge.take_whole(reader(chunk))
    if issubclass(cls, (list, tuple)):
        return StreamMerge.merge_elements
    return None if cls.__module__ == "builtins" else _merge_object


def _object_taker(key: tuple[str, bool], fields_in: Callable[[Any], Fields | None]) -> Taker:
    def merge_sdk_object(merge: StreamMerge, chunk: Any) -> None:
        fields = fields_in(chunk)
        if fields is not None:
            merge.merge(fields, key)

    return merge_sdk_object


def _merge_object(merge: StreamMerge, chunk: Any) -> None:
    fields = fields_of(chunk)
    if fields is not None:
        merge.merge_fields(fields)


_BUILTINS: dict[type, Taker | None] = {
    str: StreamMerge.merge_text,
    bytes: StreamMerge.merge_bytes,
    dict: StreamMerge.merge_fields,
    list: StreamMerge.merge_elements,
    tuple: StreamMerge.merge_elements,
}
_takers: dict[type, Taker | None] = dict(_BUILTINS)
