"""Makes anything at all fit into a line of JSON, so that no record is lost for what it holds."""

from __future__ import annotations

import math
import re
import reprlib
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from instrument._guard import belongs_to_program

__all__ = [
    "LINE_BYTES",
    "copied",
    "encode_lines",
    "encoded",
    "encoded_mended",
    "encoded_shortened",
    "jsonable",
    "plain_copy",
    "plain_text",
    "shown_error",
    "whole_text",
]

LINE_BYTES = 15 * 1024**2
"""Readers pass longer lines over."""

REPR_CHARACTERS = 200
_DEPTH = 32
_CONTAINERS = 10_000
_INT_BITS = 63
_SURROGATES = re.compile("[\ud800-\udfff]")
encode_lines = msgspec.json.Encoder().encode_lines


def encoded(line: Struct) -> bytes:
    """Return the line, with its newline, mended and cut if need be."""
    try:
        data = encode_lines([line])
    except Exception as error:
        data = encoded_mended(line, error)
    return data if len(data) <= LINE_BYTES else encoded_shortened(line)


def encoded_mended(line: Struct, error: Exception) -> bytes:
    """Return a line that JSON or UTF-8 cannot hold as it is, which `error` says, mended."""
    if belongs_to_program(error):
        raise error
    mended = {name: jsonable(value) for name, value in asdict(line).items()}
    return encode_lines([type(line)(**mended)])


def encoded_shortened(line: Struct) -> bytes:
    """Return a line of more than `LINE_BYTES` with its texts and its metadata cut."""
    cut = {name: _short(value) for name, value in asdict(line).items()}
    return encode_lines([type(line)(**cut)])


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return whole_text(value[:REPR_CHARACTERS])
    if isinstance(value, dict):
        few = list(value.items())[:REPR_CHARACTERS]
        return {_short(name): _short(shown(item)) for name, item in few}
    return value


def jsonable(value: Any) -> Any:
    """Return `value` if JSON can hold it, with what it cannot hold replaced by its `repr`.

    Text and keys get U+FFFD for lone surrogates. Shown instead of followed: what contains itself,
    what is nested deeper than 32 levels, and what comes after 10,000 dicts and lists.
    """
    return _Pass().mended(value, _DEPTH)


def plain_copy(value: Any) -> dict[str, Any] | None:
    """Return a copy of a dict that JSON holds as it is, if that is plain to see: as most are."""
    if type(value) is not dict:
        return None
    copy = value.copy()
    for key, item in copy.items():
        kind = type(item)
        if kind is str:
            is_plain = item.isascii()
        elif kind is int:
            is_plain = item.bit_length() <= _INT_BITS
        elif kind is float:
            is_plain = math.isfinite(item)
        else:
            is_plain = item is None or kind is bool
        if not is_plain or type(key) is not str or not key.isascii():
            return None
    return copy


class _Pass:
    """One pass over a value, which may be a graph with more paths than can ever be walked."""

    __slots__ = ("_inside", "_left")

    def __init__(self) -> None:
        self._inside: set[int] = set()
        self._left = _CONTAINERS

    def mended(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if issubclass(kind, str):
            return whole_text(value)
        if issubclass(kind, int) and int.bit_length(value) <= _INT_BITS:
            return int.__index__(value)
        if issubclass(kind, float) and math.isfinite(float.__float__(value)):
            return float.__float__(value)
        if issubclass(kind, (dict, list, tuple)) and depth and self._left:
            return self._container(value, depth)
        return shown(value)

    def _container(self, value: Any, depth: int) -> Any:
        if id(value) in self._inside:
            return shown(value)
        self._left -= 1
        self._inside.add(id(value))
        mended: Any
        if issubclass(type(value), dict):
            items = dict.copy(value).items()
            mended = {_key(key): self.mended(item, depth - 1) for key, item in items}
        else:
            copy = list.copy(value) if issubclass(type(value), list) else tuple.__iter__(value)
            mended = [self.mended(item, depth - 1) for item in copy]
        self._inside.discard(id(value))
        return mended


def copied(value: Any) -> Any:
    """Return `value` with its dicts and lists copied, so that nobody else's changes show in it."""
    return _copied(value, _DEPTH, {})


def _copied(value: Any, depth: int, made: dict[int, Any]) -> Any:
    kind = type(value)
    if (kind is not dict and kind is not list) or not depth:
        return value
    if id(value) in made:
        return made[id(value)]
    copy: Any = kind()
    made[id(value)] = copy
    if kind is dict:
        copy.update((key, _copied(item, depth - 1, made)) for key, item in value.copy().items())
    else:
        copy.extend(_copied(item, depth - 1, made) for item in value.copy())
    return copy


def shown(value: object) -> str:
    """Return `repr(value)`, cut at 200 characters, whatever the value does about it."""
    try:
        text = str.__str__(_SHORT.repr(value) if type(value) in _NESTED else repr(value))
    except Exception as error:  # a broken __repr__ is the value's, the record is ours
        if belongs_to_program(error, in_callback=True):
            raise
        text = f"<{type(value).__qualname__} whose repr fails>"
    return whole_text(text[:REPR_CHARACTERS])


def shown_error(error: BaseException) -> str:
    """Return what the exception says, whatever it does about it."""
    try:
        return str.__str__(str(error))
    except Exception as broken:  # as above
        if belongs_to_program(broken, in_callback=True):
            raise
        return f"<{type(error).__qualname__} whose str fails>"


def plain_text(value: object) -> str:
    """Return text as a `str` and no subclass of it, and anything else by its `repr`."""
    return str.__str__(value) if issubclass(type(value), str) else shown(value)


def whole_text(text: str) -> str:
    """Return `text` as a `str` and no subclass of it, with U+FFFD for lone surrogates."""
    text = str.__str__(text)
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _key(key: object) -> str:
    return whole_text(key) if isinstance(key, str) else shown(key)


# a list that holds one list twice, and that one another twice, has a repr without end
_NESTED = (dict, list, tuple)
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 4
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = 10
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = REPR_CHARACTERS
