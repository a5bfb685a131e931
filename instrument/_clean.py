"""Makes anything at all fit into a line of JSON, so that no record is lost for what it holds."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from instrument._guard import belongs_to_program

__all__ = ["copied", "encode_anyway", "encode_lines", "jsonable", "shown_error", "whole_text"]

REPR_CHARACTERS = 200
_DEPTH = 32
_INT_BITS = 63
_SURROGATES = re.compile("[\ud800-\udfff]")
encode_lines = msgspec.json.Encoder().encode_lines


def encode_anyway(line: Struct) -> bytes:
    """Return a line that JSON or UTF-8 cannot hold as it is, mended, with its newline."""
    mended = {name: jsonable(value) for name, value in asdict(line).items()}
    return encode_lines((type(line)(**mended),))


def jsonable(value: Any, depth: int = _DEPTH) -> Any:
    """Return `value` if JSON can hold it, with what it cannot hold replaced by its `repr`.

    Text and keys get U+FFFD for lone surrogates; what is nested deeper than 32 levels is shown.
    """
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str:
        return whole_text(value)
    if kind is int and value.bit_length() <= _INT_BITS:
        return value
    if kind is float and math.isfinite(value):
        return value
    if depth and kind is dict:
        return {_key(key): jsonable(item, depth - 1) for key, item in value.copy().items()}
    if depth and kind in (list, tuple):
        return [jsonable(item, depth - 1) for item in tuple(value)]
    return shown(value)


def copied(value: Any, depth: int = _DEPTH) -> Any:
    """Return `value` with its dicts and lists copied, so that nobody else's changes show in it."""
    if depth and type(value) is dict:
        return {key: copied(item, depth - 1) for key, item in value.items()}
    if depth and type(value) is list:
        return [copied(item, depth - 1) for item in value]
    return value


def shown(value: object) -> str:
    """Return `repr(value)`, cut at 200 characters, whatever the value does about it."""
    try:
        text = repr(value)
    except Exception as error:  # a broken __repr__ is the value's, the record is ours
        if belongs_to_program(error, in_callback=True):
            raise
        text = f"<{type(value).__qualname__} whose repr fails>"
    return whole_text(text[:REPR_CHARACTERS])


def shown_error(error: BaseException) -> str:
    """Return what the exception says, whatever it does about it."""
    try:
        return whole_text(str(error))
    except Exception as broken:  # as above
        if belongs_to_program(broken, in_callback=True):
            raise
        return f"<{type(error).__qualname__} whose str fails>"


def whole_text(text: str) -> str:
    """Return `text` with U+FFFD for lone surrogates."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", str(text))


def _key(key: object) -> str:
    return whole_text(key) if type(key) is str else shown(key)
