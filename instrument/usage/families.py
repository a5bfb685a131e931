"""Which module reads what: one row for each provider, loaded when it is first met."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from instrument._loading import importing
from instrument.usage.documents import document_failure
from instrument.usage.reading import Family, Fields, ProviderFamily, Reader, Reading, StreamClass

__all__ = [
    "BY_KEY",
    "BY_PACKAGE",
    "PLAIN",
    "class_reader",
    "load",
    "prepare",
    "provider",
    "read_document",
    "read_fields",
    "sdk_family",
    "stream_for",
    "streaming_family",
]

BY_PACKAGE: dict[str, str] = {
    "aiobotocore": "bedrock",
    "aiohttp": "http",
    "anthropic": "anthropic",
    "botocore": "bedrock",
    "cohere": "cohere",
    "dashscope": "dashscope",
    "google": "google",
    "groq": "groq",
    "http": "http",
    "httpx": "http",
    "httpx2": "http",
    "huggingface_hub": "huggingface",
    "langchain_core": "langchain",
    "litellm": "litellm",
    "llama_index": "llamaindex",
    "mistralai": "mistral",
    "niquests": "http",
    "ollama": "ollama",
    "openai": "openai",
    "pydantic_ai": "pydantic_ai",
    "requests": "http",
    "subprocess": "process",
    "urllib3": "http",
    "xai_sdk": "xai",
}
"""The top-level package of a result's class, and the family that knows its classes."""

BY_KEY: dict[str, tuple[str, ...]] = {
    "usage": (
        "tools",
        "anthropic",
        "dashscope",
        "mistral",
        "interactions",
        "openai",
        "cohere",
        "bedrock",
    ),
    "interaction": ("interactions",),
    "usage_metadata": ("google", "langchain"),
    "usageMetadata": ("google",),
    "error": ("tools", "anthropic", "google", "openai"),
    "is_error": ("tools",),
    "stats": ("tools",),
    "custom_id": ("batches",),
    "recordId": ("batches",),
    "response": ("batches", "openai"),
    "generated_text": ("huggingface",),
    "raw": ("llamaindex",),
    "meta": ("cohere",),
    "eval_count": ("ollama",),
    "prompt_eval_count": ("ollama",),
    "ResponseMetadata": ("bedrock",),
}
"""A key that a response without a known class must have, and who may know it: strictest first."""

_BY_SERVICE = {"gemini": "google", **{name: name for name in BY_PACKAGE.values()}}

# what says at once whose a response with usage is
_BY_MARK = {
    "chat.completion": "openai",
    "message": "anthropic",
    "response": "openai",
    "text_completion": "openai",
}
_STREAMING = (
    "batches",
    "tools",
    "anthropic",
    "google",
    "dashscope",
    "mistral",
    "interactions",
    "openai",
    "langchain",
    "cohere",
    "ollama",
    "bedrock",
    "huggingface",
)
_STREAMING_OBJECTS = frozenset({*_STREAMING, "groq", "litellm", "llamaindex", "xai"})

_NEEDED: dict[str, frozenset[str]] = {
    "batches": frozenset({"custom_id", "key", "recordId", "request"}),
    "bedrock": frozenset(
        {
            "ResponseMetadata",
            "amazon-bedrock-invocationMetrics",
            "chunk",
            "metadata",
            "metrics",
            "stopReason",
        }
    ),
    "cohere": frozenset({"event_type", "meta", "type", "usage"}),
    "dashscope": frozenset({"request_id"}),
    "huggingface": frozenset({"details"}),
    "interactions": frozenset({"interaction", "status"}),
    "mistral": frozenset({"data", "outputs"}),
    "ollama": frozenset({"done", "eval_count", "prompt_eval_count"}),
    "tools": frozenset(
        {"is_error", "parent_tool_use_id", "session_id", "stats", "total_cost_usd", "type"}
    ),
}
"""The keys of which a response or chunk of these has one: for others they are not even loaded."""

PLAIN: dict[str, Reader] = {}
"""What reads a plain dict at once, of the families met so far: by its `object` or `type`, or for
one that has neither by a key in it."""

_loaded: dict[str, Any] = {}


def load(name: str) -> Family:
    """Return a family's module."""
    family = _loaded.get(name)
    if family is None:
        with importing:
            family = _loaded[name] = import_module(f"instrument.usage.{name}")
        PLAIN.update(getattr(family, "PLAIN", {}))
    return cast(Family, family)


def prepare(service: str) -> None:
    """Load the family of a provider of that name, if it is one, before a call needs it."""
    name = _BY_SERVICE.get(service)
    if name is not None:
        load(name)


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
    return next((name for name in names if name in _STREAMING_OBJECTS), None)


def read_fields(fields: Fields) -> Reading | None:
    """Read a response by its shape, `None` if no family knows it."""
    if "usage" in fields:
        mark = fields.get("object") or fields.get("type")
        marked = _BY_MARK.get(mark) if type(mark) is str else None
        if marked is not None:
            known: ProviderFamily = _loaded.get(marked) or provider(marked)
            if known.matches(fields):
                return known.read(fields)
    for key, names in BY_KEY.items():
        if key in fields:
            for name in names:
                if not _may_know(name, fields):
                    continue
                family: ProviderFamily = _loaded.get(name) or provider(name)
                if family.matches(fields):
                    return family.read(fields)
    return None


def read_document(fields: Fields) -> Reading | None:
    """Read a dict or JSON object by its shape, and by what any such object says of its failure."""
    found = read_fields(fields)
    if ("status" in fields or "ResponseMetadata" in fields) and "object" not in fields:
        return document_failure(fields, found)
    return found


def streaming_family(fields: Fields) -> str | None:
    """Return the family that this chunk of a stream belongs to by its shape."""
    return next(
        (name for name in _STREAMING if _may_know(name, fields) and provider(name).streams(fields)),
        None,
    )


def _may_know(name: str, fields: Fields) -> bool:
    needed = _NEEDED.get(name)
    return needed is None or not fields.keys().isdisjoint(needed)


def _package_family(cls: type) -> str | None:
    module = cls.__module__
    return BY_PACKAGE.get(module.partition(".")[0]) if isinstance(module, str) else None
