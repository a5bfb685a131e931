"""Lines of what batches give: OpenAI's and Mistral's, Anthropic's, Gemini's and Bedrock's.

Each line holds one response, in the provider's usual shape, which was served at the batch's price.
"""

from __future__ import annotations

from msgspec.structs import replace

from instrument.usage.families import read_document
from instrument.usage.fields import NOTHING, USAGE_DETAILS, by_fields, part
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = [
    "CLASSES",
    "STREAMS",
    "matches",
    "new_merge",
    "read",
    "read_inlined",
    "read_object",
    "streams",
]

_OF_GEMINI = ("usageMetadata", "usage_metadata")


def matches(fields: Fields) -> bool:
    """Tell whether this is a line with a response in it, or with an error in its place."""
    return _answer(fields) is not None


def read(fields: Fields) -> Reading | None:
    """Read the response in a line."""
    found = _at_their_price(read_document(_answer(fields) or NOTHING))
    if found is None or "recordId" not in fields:
        return found
    return replace(found, provider="aws.bedrock")


def _at_their_price(found: Reading | None) -> Reading | None:
    if found is None or found.outcome is not None:
        return found
    details = found.details or {}
    usage = {"service_tier": "batch", **details.get(USAGE_DETAILS, {})}
    return replace(found, details={**details, USAGE_DETAILS: usage})


def _read_inlined(fields: Fields) -> Reading | None:
    return _at_their_price(read_document(part(fields, "response") or _error(fields) or NOTHING))


read_object: Reader = by_fields(read)
read_inlined: Reader = by_fields(_read_inlined)
"""The reader of Gemini's responses that come in the batch itself: they are known by their class."""


def streams(fields: Fields) -> bool:
    """Tell whether this is such a line: a stream of them is as many responses."""
    return matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that takes one line."""
    return _Merge()


class _Merge:
    __slots__ = ("_line",)

    def __init__(self) -> None:
        self._line: Fields | None = None

    def add(self, fields: Fields) -> bool:
        if self._line is not None:
            return False
        self._line = fields
        return True

    def reading(self) -> Reading | None:
        return None if self._line is None else read(self._line)


def _answer(fields: Fields) -> Fields | None:
    """Return the provider's answer in a line, or an object with its error."""
    if "custom_id" in fields and "result" in fields:
        result = part(fields, "result") or NOTHING
        return part(result, "message") or _error(part(result, "error"))
    if "custom_id" in fields:
        answer = part(part(fields, "response") or NOTHING, "body")
        is_known = answer is not None and ("usage" in answer or "error" in answer)
        return answer if is_known else _error(fields)
    if "recordId" in fields:
        return part(fields, "modelOutput") or _error(fields)
    inner = part(fields, "response") if "key" in fields or "request" in fields else None
    return inner if inner is not None and any(name in inner for name in _OF_GEMINI) else None


def _error(fields: Fields | None) -> Fields | None:
    error = None if fields is None else part(fields, "error")
    return None if error is None else {"error": error}


CLASSES: dict[str, Reader] = {}

STREAMS: dict[tuple[str, str], StreamClass] = {}
