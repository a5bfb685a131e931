"""Ollama's chat, generate and embed: the counts stand in the response itself."""

from __future__ import annotations

from typing import Any

from instrument.usage.families import read_document
from instrument.usage.fields import by_fields, text
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "PLAIN", "STREAMS", "matches", "new_merge", "read", "streams"]

_KINDS = {"message": "chat", "response": "text_completion", "embeddings": "embeddings"}
_PLAIN = frozenset(
    {
        "context",
        "created_at",
        "done",
        "done_reason",
        "eval_count",
        "eval_duration",
        "load_duration",
        "message",
        "model",
        "prompt_eval_count",
        "prompt_eval_duration",
        "total_duration",
    }
)
_MERGED = ("model", "prompt_eval_count", "eval_count")


def matches(fields: Fields) -> bool:
    """Tell whether a model's evaluations are counted."""
    return _is_counted(fields) and text(fields.get("model")) is not None


def read(fields: Fields) -> Reading:
    """Read a whole response, which is its own usage; a prompt may go uncounted."""
    return _reading(fields, fields if _is_counted(fields) else None)


def _reading(fields: Fields, source: Any) -> Reading:
    return Reading(
        fields.get("prompt_eval_count"),
        fields.get("eval_count"),
        model=text(fields.get("model")),
        provider="ollama",
        kind=_kind(fields),
        source=source,
    )


read_object: Reader = by_fields(read)


def read_response(response: Any) -> Reading | None:
    """Read an SDK's response at once if it is complete and plain, else as `read` does."""
    try:
        fields = response.__dict__
        model, new, output = fields["model"], fields["prompt_eval_count"], fields["eval_count"]
        if response.__pydantic_extra__ or type(model) is not str or not model or new is None:
            return read_object(response)
    except (AttributeError, KeyError):
        return read_object(response)
    return Reading(
        new,
        output,
        model=model,
        provider="ollama",
        kind="chat" if "message" in fields else _kind(fields),
        source=fields,
    )


def read_plain(fields: dict[str, Any]) -> Reading | None:
    """Do the same for a dict."""
    try:
        model, new, output = fields["model"], fields["prompt_eval_count"], fields["eval_count"]
        if not _PLAIN.issuperset(fields) or type(model) is not str or not model or new is None:
            return read_document(fields)
    except KeyError:
        return read_document(fields)
    return Reading(
        new,
        output,
        None,
        None,
        None,
        None,
        None,
        model,
        None,
        "ollama",
        "chat" if "message" in fields else _kind(fields),
        source=fields,
    )


def _kind(fields: Fields) -> str | None:
    return next((kind for name, kind in _KINDS.items() if name in fields), None)


def streams(fields: Fields) -> bool:
    """Tell whether this is a chunk, which has the shape of a whole response."""
    if "done" in fields and "created_at" in fields and text(fields.get("model")):
        return True
    return matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that takes the counts from the chunk that says `done`."""
    return _Merge()


class _Merge:
    __slots__ = ("_last", "_source")

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}
        self._source: Any = None

    def add(self, fields: Fields) -> bool:
        if _is_counted(self._last) and "model" in fields:
            return False
        if _is_counted(fields):
            self._source = fields
        new = {name: fields.get(name) for name in _MERGED}
        new.update({name: True for name in _KINDS if name in fields})
        self._last.update({name: value for name, value in new.items() if value is not None})
        return True

    def reading(self) -> Reading | None:
        return _reading(self._last, self._source) if self._last else None


def _is_counted(fields: Fields) -> bool:
    return fields.get("eval_count") is not None or fields.get("prompt_eval_count") is not None


CLASSES: dict[str, Reader] = {
    "ChatResponse": read_response,
    "EmbedResponse": read_object,
    "GenerateResponse": read_response,
}

PLAIN: dict[str, Reader] = {"eval_count": read_plain}

STREAMS: dict[tuple[str, str], StreamClass] = {}
