"""Which module reads what: one row for each provider, loaded when it is first met."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from instrument.usage.reading import Family, Fields, ProviderFamily, Reader, Reading, StreamClass

__all__ = [
    "BY_KEY",
    "BY_PACKAGE",
    "class_reader",
    "load",
    "provider",
    "read_fields",
    "sdk_family",
    "stream_for",
    "streaming_family",
]

BY_PACKAGE: dict[str, str] = {
    "anthropic": "anthropic",
    "google": "google",
    "httpx": "http",
    "httpx2": "http",
    "niquests": "http",
    "openai": "openai",
    "requests": "http",
    "subprocess": "process",
}
"""The top-level package of a result's class, and the family that knows its classes."""

BY_KEY: dict[str, tuple[str, ...]] = {
    "usage": ("anthropic", "openai"),
    "usage_metadata": ("google",),
    "usageMetadata": ("google",),
    "error": ("anthropic", "google", "openai"),
}
"""A key that a response without a known class must have, and who may know it: strictest first."""

_STREAMING = ("anthropic", "google", "openai")

_loaded: dict[str, Family] = {}


def load(name: str) -> Family:
    """Return a family's module."""
    family = _loaded.get(name)
    if family is None:
        family = cast(Family, import_module(f"instrument.usage.{name}"))
        _loaded[name] = family
    return family


def provider(name: str) -> ProviderFamily:
    """Return the module of a family that knows shapes and streams."""
    return cast(ProviderFamily, load(name))


def class_reader(cls: type) -> Reader | None:
    """Return the reader that a family has for this SDK class or the nearest of its bases."""
    for base in cls.__mro__:
        name = _package_family(base)
        reader = load(name).CLASSES.get(base.__name__) if name else None
        if reader is not None:
            return reader
    return None


def stream_for(cls: type) -> StreamClass | None:
    """Return how to follow a stream or stream manager of an SDK, `None` for any other class.

    Deterministic and cheap enough to be asked once for each type of result.
    """
    for base in cls.__mro__:
        name = _package_family(base)
        found = load(name).STREAMS.get((base.__module__, base.__name__)) if name else None
        if found is not None:
            return found
    return None


def sdk_family(cls: type) -> str | None:
    """Return the family with streams whose SDK defines this class or one of its bases."""
    names = (_package_family(base) for base in cls.__mro__)
    return next((name for name in names if name in _STREAMING), None)


def read_fields(fields: Fields) -> Reading | None:
    """Read a response by its shape, `None` if no family knows it."""
    for key, names in BY_KEY.items():
        if key in fields:
            for name in names:
                if provider(name).matches(fields):
                    return provider(name).read(fields)
    return None


def streaming_family(fields: Fields) -> str | None:
    """Return the family that this chunk of a stream belongs to by its shape."""
    return next((name for name in _STREAMING if provider(name).streams(fields)), None)


def _package_family(cls: type) -> str | None:
    module = cls.__module__
    return BY_PACKAGE.get(module.partition(".")[0]) if isinstance(module, str) else None
