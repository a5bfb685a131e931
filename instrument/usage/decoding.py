"""JSON in text or bytes: decoded only if it may say something, and only as far as it matters."""

from __future__ import annotations

from typing import Any

from msgspec import MsgspecError, Raw
from msgspec.json import Decoder

from instrument.usage.reading import Fields

__all__ = ["decoded", "decoded_list", "may_say"]

_HEAVY = frozenset(
    {"candidates", "choices", "content", "data", "embedding", "embeddings", "output", "text"}
)
_ERROR_CHARACTERS = 65_536

_object = Decoder(dict[str, Raw])
_array = Decoder(list[Raw])
_anything = Decoder()


def may_say(text: str | bytes) -> bool:
    """Tell in a fast search whether the text names usage, or is short and names an error."""
    if isinstance(text, bytes):
        return b'"usage' in text or (len(text) < _ERROR_CHARACTERS and b'"error"' in text)
    return '"usage' in text or (len(text) < _ERROR_CHARACTERS and '"error"' in text)


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


def decoded_list(text: str | bytes) -> list[Any]:
    """Return the elements of the array that the text is, undecoded; none if it is no array."""
    try:
        return _array.decode(text)
    except (ValueError, RecursionError, MsgspecError):
        return []
