"""JSON in text or bytes: decoded only if it may say something, and only as far as it matters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import MsgspecError, Raw
from msgspec.json import Decoder

from instrument.usage.reading import Fields

__all__ = ["count_of", "decoded", "decoded_list", "lines_that_say", "may_say"]

_HEAVY = frozenset(
    {"candidates", "choices", "content", "data", "embedding", "embeddings", "output", "text"}
)
_ERROR_CHARACTERS = 65_536
_TAIL_CHARACTERS = 1_024
_MAX_LINES = 100_000  # as many as there are in the largest batch

_ALWAYS = ('"usage', '"stats"')
_IF_SHORT = ('"error"', '"failed"', '"generated_tokens"', '"init"', '"is_error"', '"thread_id"')
_AT_THE_END = ('eval_count"', '"billed_units"')
_WORDS = (*_ALWAYS, *_IF_SHORT, *_AT_THE_END)

_object = Decoder(dict[str, Raw])
_array = Decoder(list[Raw])
_anything = Decoder()


def may_say(text: str | bytes) -> bool:
    """Tell in a fast search whether the text names usage, or is short and names an error.

    Short texts may also be how a command-line tool begins or ends. Of those who do not call it
    usage, Ollama and Cohere have it at the end.
    """
    if isinstance(text, bytes):
        if b'"usage' in text or b'"stats"' in text:
            return True
        end = text[-_TAIL_CHARACTERS:]
        if b'eval_count"' in end or b'"billed_units"' in end:
            return True
        return len(text) < _ERROR_CHARACTERS and _short_bytes_may_say(text)
    if '"usage' in text or '"stats"' in text:
        return True
    tail = text[-_TAIL_CHARACTERS:]
    if 'eval_count"' in tail or '"billed_units"' in tail:
        return True
    return len(text) < _ERROR_CHARACTERS and _short_may_say(text)


# written out, because a loop takes longer than the searches in a chunk of a stream


def _short_may_say(text: str) -> bool:
    return (
        '"error"' in text
        or '"failed"' in text
        or '"generated_tokens"' in text
        or '"init"' in text
        or '"is_error"' in text
        or '"thread_id"' in text
    )


def _short_bytes_may_say(text: bytes) -> bool:
    return (
        b'"error"' in text
        or b'"failed"' in text
        or b'"generated_tokens"' in text
        or b'"init"' in text
        or b'"is_error"' in text
        or b'"thread_id"' in text
    )


def lines_that_say(text: str) -> Iterator[str]:
    """Yield the lines that name usage or an error, in order; the rest is passed over unread.

    Of very many, the first and the last one.
    """
    places = {word: text.find(word) for word in _WORDS}
    for _ in range(_MAX_LINES):
        found = [place for place in places.values() if place >= 0]
        if not found:
            return
        start, end = _line_at(text, min(found))
        yield text[start:end]
        for word, place in places.items():
            if 0 <= place < end:
                places[word] = text.find(word, end)
    if max(places.values()) >= 0:
        start, end = _line_at(text, max(map(text.rfind, _WORDS)))
        yield text[start:end]


def _line_at(text: str, place: int) -> tuple[int, int]:
    end = text.find("\n", place)
    return text.rfind("\n", 0, place) + 1, len(text) if end < 0 else end


def decoded(text: str | bytes | Raw) -> Fields | None:
    """Return the object that the text is, `None` if it is none.

    What the model produced, its prompt's echo and vectors stay undecoded: nothing is read there.
    """
    try:
        top = _object.decode(text)
        return {
            name: value if name in _HEAVY else _anything.decode(value)
            for name, value in top.items()
        }
    except (ValueError, RecursionError, MsgspecError):
        return None


def decoded_list(text: str | bytes | Raw) -> list[Any]:
    """Return the elements of the array that the text is, undecoded; none if it is no array."""
    try:
        return _array.decode(text)
    except (ValueError, RecursionError, MsgspecError):
        return []


def count_of(elements: Any) -> int:
    """Return how many elements a list has, decoded or not; 0 for anything else."""
    if type(elements) is Raw:
        return len(decoded_list(elements))
    return len(elements) if isinstance(elements, (list, tuple)) else 0
