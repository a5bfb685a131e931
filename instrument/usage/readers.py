"""The reader for results of a type."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from instrument.usage import http
from instrument.usage.adding import combined
from instrument.usage.documents import document_failure
from instrument.usage.families import (
    BY_KEY,
    BY_PACKAGE,
    PLAIN,
    class_reader,
    read_document,
    read_fields,
)
from instrument.usage.fields import fields_of
from instrument.usage.reading import Reader, Reading, Readings
from instrument.usage.texts import (
    MOST_MESSAGES,
    begins_run,
    begins_stream,
    read_bytearray,
    read_bytes,
    read_run,
    read_text,
)

__all__ = ["read_raised", "reader_for"]

_KEYS = frozenset(BY_KEY)
_HOOKS = frozenset({"__dict__", "__getattr__", "__getattribute__"})
_KEYS_OR_STATUS = _KEYS | {"status"}
_OBJECT_KEYS = _KEYS | {"status_code"}
_PLAIN_KEYS = ("stopReason", "request_id", "finish_reason")
_NUMBERS = frozenset({bool, complex, float, int})
_SCALARS = frozenset({type(None), bool, float, int, str})
_HOLDERS = {
    "error": frozenset({type(None)}),
    **dict.fromkeys(("meta", "raw", "response", "stats", "usage_metadata"), _SCALARS),
}
_RARER_KEYS = _KEYS - {"error", "response", "usage", "usageMetadata"}
_MARKS = frozenset({"event_type", "messageStart", "object", "type"})
_TELLING = _KEYS_OR_STATUS | _MARKS
_FEW = 16
_PROBED = 64
_MAX_TYPES = 1_024


def reader_for(cls: type) -> Reader | None:
    """Return the reader for results of that type, `None` if such results never say anything.

    It depends on the type alone, so the answer may be kept. A reader is a pure function from a
    result to its `Reading`, or `None` if this one says nothing; it gives `Readings` for a list
    or tuple (searched two levels deep, and only if its first or last element or one of the first
    64 says something; of more than 16, where both ends are results that say nothing, at once
    `None`).
    """
    if cls in _BUILTINS:
        return _BUILTINS[cls]
    found = class_reader(cls)
    return found if found or issubclass(cls, BaseException) else _shape_reader(cls)


def read_raised(error: BaseException) -> Reading | None:
    """Read an exception that carries what the failed call gave."""
    reader = reader_for(type(error))
    return None if reader is None else reader(error)


def read_dict(value: dict[str, Any]) -> Reading | None:
    """Read a dict: at once if it is plain, or holds nothing that anybody knows."""
    if "usage" in value:
        mark = value.get("object") or value.get("type")
        plain = PLAIN.get(mark if type(mark) is str else _key_of(value))
    elif "usageMetadata" in value:
        plain = PLAIN.get("usageMetadata")
    # most of all hold nothing, some of them with the two names that are most frequent
    elif (
        (
            "error" not in value
            or (value["error"] is None and "object" not in value and "type" not in value)
        )
        and ("response" not in value or type(value["response"]) in _SCALARS)
        and (
            value.keys().isdisjoint(_RARER_KEYS)
            or ("eval_count" not in value and _holds_scalars(value))
        )
    ):
        if "status" in value and "object" not in value and value["status"] == "failed":
            return document_failure(value, None)
        return None
    else:
        plain = PLAIN.get("eval_count" if "eval_count" in value else "")
    return read_document(value) if plain is None else plain(value)


def _key_of(value: dict[str, Any]) -> str:
    """Return which key tells whose response this is that does not say what it is itself."""
    for key in _PLAIN_KEYS:
        if key in value:
            return key
    return "created"


def _holds_scalars(value: dict[str, Any]) -> bool:
    """Tell whether what is known of a dict are the names alone, for a response is no text."""
    for key in _KEYS.intersection(value):
        if key not in _HOLDERS or type(value[key]) not in _HOLDERS[key]:
            return False
    return True


def read_any_dict(value: Any) -> Reading | None:
    """Read a dict of any class by its keys, without running any code of that class."""
    if dict.keys(value).isdisjoint(_KEYS_OR_STATUS):
        return None
    fields = fields_of(value) or {}
    if not fields.keys().isdisjoint(_KEYS):
        return read_document(fields)
    return None if "object" in fields else document_failure(fields, None)


def read_proxy(value: MappingProxyType[str, Any]) -> Reading | None:
    """Read what keeps a dict from being changed."""
    copy: Any = value.copy()
    return read_dict(copy) if type(copy) is dict else None


def read_user_dict(value: Any) -> Reading | None:
    """Do the same for a `UserDict`, which has its dict as an attribute."""
    data = vars(value).get("data")
    return read_dict(data) if type(data) is dict else None


def read_object(value: Any) -> Reading | None:
    """Read an object by its attributes, without running any code of its class."""
    fields = fields_of(value)
    if fields is None or fields.keys().isdisjoint(_OBJECT_KEYS):
        return None
    if isinstance(fields.get("status_code"), int):
        found = http.read(value)
        if found is not None:
            return found
    return read_fields(fields)


def read_plain_object(value: Any) -> Reading | None:
    """Read an object that has a dict; most hold nothing that anybody knows."""
    try:
        fields = value.__dict__
        if fields and type(fields) is dict and fields.keys().isdisjoint(_OBJECT_KEYS):
            return None
    except AttributeError:
        pass
    return read_object(value)


def read_plain_model(value: Any) -> Reading | None:
    """Do the same for one of pydantic's, which keeps apart what its class does not declare."""
    try:
        fields = value.__dict__
        if fields and fields.keys().isdisjoint(_OBJECT_KEYS) and not value.__pydantic_extra__:
            return None
    except AttributeError:
        pass
    return read_object(value)


def read_elements(values: Any) -> Reading | None:
    """Read a list or tuple of responses, or of the chunks of one."""
    if not values:
        return None
    first, last, few = values[0], values[-1], len(values) <= _FEW
    if not (_may_tell(first) or _may_tell(last) or (few and any(map(_may_tell, values)))):
        return None
    if len(values) > 1 and _begins(first):
        return _read_together(values)
    if not few and _is_silent(first) and _is_silent(last):
        return None
    met: dict[int, Any] = {}

    def read_nested(each: Any) -> Reading | None:
        if len(each) > 1 and _begins(each[0]):
            return _read_together(each)
        return combined(_readings(each, met, None))

    return combined(_readings(values, met, read_nested))


def _read_together(values: Any) -> Reading | None:
    """Read the messages of a run, or the chunks of a stream: each object once."""
    if len(values) > MOST_MESSAGES:
        values = [*values[:MOST_MESSAGES], values[-1]]
    return read_run({id(each): each for each in values}.values())


def _may_tell(value: Any) -> bool:
    """Tell whether this is more than a number, or a dict with no key that anybody knows."""
    cls = type(value)
    if cls is not dict:
        return cls not in _NUMBERS
    if len(value) > _PROBED:
        return not value.keys().isdisjoint(_TELLING)  # which goes through the shorter, and is dear
    return not _TELLING.isdisjoint(value)


def _begins(value: Any) -> bool:
    """Tell whether this is the first of several that are one response together."""
    cls = type(value)
    if cls is dict:
        return not value.keys().isdisjoint(_MARKS) and (begins_stream(value) or begins_run(value))
    if str(cls.__module__).partition(".")[0] not in BY_PACKAGE:
        return False
    fields = fields_of(value) or {}
    # Mistral's events are around their chunks
    return begins_stream(fields) or begins_stream(fields_of(fields.get("data")) or {})


def _is_silent(value: Any) -> bool:
    """Tell whether this is a result that says nothing; what failed leaves that open."""
    cls = type(value)
    if value is None or cls is list or cls is tuple or isinstance(value, BaseException):
        return False
    reader = _kept_reader(cls)
    if reader is None or reader(value) is not None:
        return reader is None
    return cls is not dict or not begins_run(value)


def _readings(values: Any, met: dict[int, Any], nested: Reader | None) -> Iterator[Reading]:
    """Yield what each says; `met` holds those that said something, by address: they count once."""
    found = False
    if len(values) > _FEW and type(values[0]) in _NUMBERS and type(values[-1]) in _NUMBERS:
        return
    for place, value in enumerate(values):
        if place == _PROBED and not found:
            return
        cls = type(value)
        reader = nested if cls is list or cls is tuple else _kept_reader(cls)
        reading = None if reader is None or id(value) in met else reader(value)
        if reading is not None:
            found = True
            met[id(value)] = value
            yield from reading.parts if isinstance(reading, Readings) else (reading,)


def _read_list_of_another_class(value: list[Any]) -> Reading | None:
    length = list.__len__(value)
    if length > _FEW and all(_is_silent(list.__getitem__(value, place)) for place in (0, -1)):
        return None
    return read_elements(list.__getitem__(value, slice(None)))


def _read_tuple_of_another_class(value: tuple[Any, ...]) -> Reading | None:
    elements, names = tuple.__getitem__(value, slice(None)), getattr(type(value), "_fields", None)
    if type(names) is tuple:
        named = read_dict(dict(zip(names, elements, strict=False)))
        if named is not None:
            return named
    return read_elements(elements)


def _shape_reader(cls: type) -> Reader | None:
    if issubclass(cls, dict):
        return read_any_dict
    if issubclass(cls, UserDict):
        return read_user_dict
    if issubclass(cls, tuple):
        return _read_tuple_of_another_class
    if issubclass(cls, list):
        return _read_list_of_another_class
    if issubclass(cls, Mapping):
        return None  # looking something up may make it, or ask for it from far away
    if cls.__module__ == "builtins" or issubclass(cls, (str, bytes, int, float, type)):
        return None
    status = getattr(cls, "status_code", None)
    if isinstance(status, (int, property)) and "Response" in cls.__name__:
        return http.read
    if hasattr(cls, "__pydantic_extra__"):
        return read_plain_model
    return None if _holds_nothing(cls) else read_plain_object


def _holds_nothing(cls: type) -> bool:
    """Tell whether objects of this class have no dict, and no slot that anybody knows."""
    if cls.__dictoffset__ or any(not _HOOKS.isdisjoint(vars(base)) for base in cls.__mro__[:-1]):
        return False
    names = getattr(cls, "__struct_fields__", None) or getattr(cls, "__slots__", None)
    return type(names) is not tuple or _OBJECT_KEYS.isdisjoint(names)


_BUILTINS: dict[type, Reader | None] = {
    bytearray: read_bytearray,
    bytes: read_bytes,
    dict: read_dict,
    list: read_elements,
    MappingProxyType: read_proxy,
    str: read_text,
    tuple: read_elements,
}


_kept: dict[type, Reader | None] = {}


def _kept_reader(cls: type) -> Reader | None:
    reader = _kept.get(cls, _unknown)
    if reader is _unknown:
        if len(_kept) >= _MAX_TYPES:
            _kept.clear()
        reader = _kept[cls] = reader_for(cls)
    return reader


def _unknown(value: Any) -> Reading | None:
    raise AssertionError("only marks a type that was not met yet")
