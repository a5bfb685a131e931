"""DashScope's native API (Qwen and others), as its SDK and REST give it."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from instrument.usage.families import read_document
from instrument.usage.fields import NOTHING, added, amounts, by_fields, fields_of, first, part, text
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "PLAIN", "STREAMS", "matches", "new_merge", "read", "streams"]

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "models",
    "characters",
    "image_count",
    "duration",
)
_ANOTHERS = ("choices", "data", "id", "object")
_KINDS = {
    "embeddings": "embeddings",
    "choices": "chat",
    "text": "chat",
    "results": "rerank",
}
_PLAIN = frozenset({"code", "headers", "message", "output", "request_id", "status_code", "usage"})
_COUNTED = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "output_tokens_details",
        "prompt_tokens_details",
        "total_tokens",
    }
)
_EMPTY: dict[str, Any] = {}
_HEAD_BYTES = 32
_OK = 200


def matches(fields: Fields) -> bool:
    """Tell whether this is a response with a request id and an output, or such an error."""
    if "request_id" not in fields or any(name in fields for name in _ANOTHERS):
        return False
    if text(fields.get("code")) is not None:
        return "message" in fields
    usage = part(fields, "usage")
    if usage is None or "output" not in fields or "prompt_tokens" in usage:
        return False
    return any(name in usage for name in _COUNTS)


def read(fields: Fields) -> Reading:
    """Read a whole response; input includes what was cached, and output the reasoning."""
    usage = _reported(part(fields, "usage") or NOTHING)
    return _reading(fields, usage, fields.get("usage") if usage else None)


read_object: Reader = by_fields(read)


def read_plain(fields: Any) -> Reading | None:
    """Read a dict, or an SDK's response, at once if it is complete and plain.

    What the SDK gives is a dict with a `__getattr__`, which makes looking up `get` dear.
    """
    try:
        usage, output, response_id = fields["usage"], fields["output"], fields["request_id"]
        if not isinstance(usage, dict) or not isinstance(output, dict) or "embeddings" in output:
            return _read_other(fields)
        if type(fields) is dict and not (
            type(usage) is type(output) is dict and _PLAIN.issuperset(fields)
        ):
            return _read_other(fields)
        if "code" in fields and fields["code"]:  # noqa: RUF019 - `get` is dear
            return _read_other(fields)
        if "status_code" in fields and fields["status_code"] != _OK:
            return _read_other(fields)
        new, answer, total = usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]
        get = usage.get
        before, after = get("prompt_tokens_details", _EMPTY), get("output_tokens_details", _EMPTY)
        if not type(before) is type(after) is dict or not new or not _COUNTED.issuperset(usage):
            return _read_other(fields)
        if type(response_id) is not str or not response_id:
            return _read_other(fields)
        if not (output["choices"] if "choices" in output else output["text"]):
            return _read_other(fields)
    except KeyError:
        return _read_other(fields)
    return Reading(
        new,
        answer,
        before.get("cached_tokens"),
        before.get("cache_creation_input_tokens"),
        after.get("reasoning_tokens"),
        total,
        None,
        None,
        response_id,
        "dashscope",
        "chat",
        source=usage,
    )


def _read_other(fields: Any) -> Reading | None:
    return read_document(fields) if type(fields) is dict else read_object(fields)


def streams(fields: Fields) -> bool:
    """Tell whether this is a chunk, which has the shape of a whole response."""
    return matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge in which each count replaces the one before: they are running totals."""
    return _Merge()


class _Merge:
    __slots__ = ("_response", "_source", "_usage")

    def __init__(self) -> None:
        self._response: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._source: Any = None

    def add(self, fields: Fields) -> bool:
        identity, known = fields.get("request_id"), self._response.get("request_id")
        if identity and known and identity != known:
            return False
        new = {name: fields.get(name) for name in ("request_id", "status_code", "code", "message")}
        output = _output(fields)
        if output:
            new["output"] = output
        self._response.update({name: value for name, value in new.items() if value})
        usage = _reported(part(fields, "usage") or NOTHING)
        if usage:
            self._usage.update({name: usage[name] for name in usage if usage[name] is not None})
            self._source = fields.get("usage")
        return True

    def reading(self) -> Reading | None:
        if not self._response and not self._usage:
            return None
        return _reading(self._response, self._usage, self._source)


def _reading(fields: Fields, usage: Fields, source: Any) -> Reading:
    input_tokens, output_tokens, model = _counts(usage)
    before = part(usage, "prompt_tokens_details") or part(usage, "input_tokens_details") or NOTHING
    after = part(usage, "output_tokens_details") or NOTHING
    failure = _failure(fields)
    return Reading(
        input_tokens,
        output_tokens,
        before.get("cached_tokens"),
        before.get("cache_creation_input_tokens"),
        after.get("reasoning_tokens"),
        usage.get("total_tokens"),
        None,
        model,
        text(fields.get("request_id")),
        "dashscope",
        _kind(fields),
        *failure,
        None,
        source,
        _others(usage) if failure[0] is None else _failure_details(fields),
    )


def _reported(usage: Fields) -> Fields:
    """Return the usage, nothing if it is but the zeros that the SDK puts where there is none.

    No real response used no token at all and has no total.
    """
    if any(value for value in usage.values()) or usage.get("total_tokens") is not None:
        return usage
    return NOTHING


def _counts(usage: Fields) -> tuple[Any, Any, str | None]:
    """Return input, output and model; an embedding reports a total only, which is all input.

    An application's usage is listed by the models that it ran.
    """
    models = usage.get("models")
    if isinstance(models, list) and models:
        parts = [fields_of(each) or NOTHING for each in models]
        names = {text(each.get("model_id")) for each in parts}
        return (
            added(*(each.get("input_tokens") for each in parts)),
            added(*(each.get("output_tokens") for each in parts)),
            names.pop() if len(names) == 1 else None,
        )
    input_tokens, output_tokens = usage.get("input_tokens"), usage.get("output_tokens")
    if not input_tokens and not output_tokens and usage.get("total_tokens"):
        return usage["total_tokens"], None, None
    return input_tokens, output_tokens, None


def _others(usage: Fields) -> dict[str, Any] | None:
    """Return the usage that is no tokens; characters are zero where the SDK put them."""
    seconds = None
    if "video_count" not in usage and not usage.get("input_tokens"):
        seconds = first(usage.get("seconds"), usage.get("duration"))
    return amounts(
        characters=usage.get("characters") or None,
        images=usage.get("image_count"),
        audio_seconds=seconds,
    )


def _failure(fields: Fields) -> tuple[str | None, str | None, str | None]:
    """Return outcome, code and message of an error, which the SDK returns and does not raise."""
    status, code = _status(fields), text(fields.get("code"))
    if status == _OK or (status is None and code is None):
        return None, None, None
    return "error", code or f"http_{status}", text(fields.get("message"))


def _failure_details(fields: Fields) -> dict[str, Any] | None:
    told = {
        "http_status": _status(fields),
        "error_code": text(fields.get("code")),
        "request_id": text(fields.get("request_id")),
    }
    return {name: value for name, value in told.items() if value is not None} or None


def _status(fields: Fields) -> int | None:
    """Return the status as a plain integer: a stream's chunks have an `HTTPStatus`."""
    status = fields.get("status_code")
    return int(status) if isinstance(status, int) and not isinstance(status, bool) else None


def _kind(fields: Fields) -> str | None:
    output = _output(fields)
    return next((kind for name, kind in _KINDS.items() if output.get(name)), None)


def _output(fields: Fields) -> Fields:
    """Return which of the names that tell the kind are in the output, decoded or not."""
    output = fields.get("output")
    if type(output) is Raw:
        head = memoryview(output)[:_HEAD_BYTES].tobytes()
        return {name: True for name in _KINDS if f'"{name}"'.encode() in head}
    found = fields_of(output) or NOTHING
    return {name: True for name in _KINDS if found.get(name)}


CLASSES: dict[str, Reader] = {"DashScopeAPIResponse": read_plain}

PLAIN: dict[str, Reader] = {"request_id": read_plain}

STREAMS: dict[tuple[str, str], StreamClass] = {}
