"""Amazon Bedrock: Converse's dicts, InvokeModel's headers, and the messages of both streams."""

from __future__ import annotations

from typing import Any

from msgspec import MsgspecError, Struct
from msgspec.json import Decoder

from instrument.usage.decoding import decoded
from instrument.usage.failures import attempt_of_metadata
from instrument.usage.families import read_document
from instrument.usage.fields import NOTHING, added, fields_of, first, part, text, usage_details
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass

__all__ = ["CLASSES", "PLAIN", "STREAMS", "matches", "new_merge", "read", "streams"]

_METRICS = "amazon-bedrock-invocationMetrics"
_METRICS_BYTES = b"invocationMetrics"
_NAMES = (
    "inputTokens",
    "outputTokens",
    "cacheReadInputTokens",
    "cacheWriteInputTokens",
    "totalTokens",
)
_NAMES_OF_NOVA = {
    "cacheReadInputTokens": "cacheReadInputTokenCount",
    "cacheWriteInputTokens": "cacheWriteInputTokenCount",
}
_METRIC_NAMES = (
    "inputTokenCount",
    "outputTokenCount",
    "cacheReadInputTokenCount",
    "cacheWriteInputTokenCount",
)
_HEADERS = (
    "x-amzn-bedrock-input-token-count",
    "x-amzn-bedrock-output-token-count",
    "x-amzn-bedrock-cache-read-input-token-count",
    "x-amzn-bedrock-cache-write-input-token-count",
)
_OF_CONVERSE = ("ResponseMetadata", "metrics", "stopReason")
_PLAIN = frozenset(
    {
        "ResponseMetadata",
        "additionalModelResponseFields",
        "metrics",
        "output",
        "performanceConfig",
        "serviceTier",
        "stopReason",
        "usage",
    }
)
_PLAIN_USAGE = frozenset({*_NAMES, "cacheDetails"})
_FAILED = ("error", "exception")
_AN_HOUR = "1h"
_MOST_DIGITS = 18


class _Payload(Struct, rename={"chunk": "bytes"}):
    """What a message of InvokeModelWithResponseStream carries: a chunk in base64."""

    chunk: bytes = b""


_payload_decoder = Decoder(_Payload)


def matches(fields: Fields) -> bool:
    """Tell whether this is what Converse returns, or what InvokeModel does with counts."""
    usage = part(fields, "usage") or NOTHING
    if "inputTokens" in usage or "outputTokens" in usage:
        return any(name in fields for name in _OF_CONVERSE)
    headers = _headers(fields)
    return _HEADERS[0] in headers or _HEADERS[1] in headers


def read(fields: Fields) -> Reading:
    """Read a whole response; input counts come without the cached tokens, which are added.

    InvokeModel's body is the program's to read, so that the counts are those of its headers.
    """
    return _reading(fields, *_counts(fields))


def read_plain(fields: dict[str, Any]) -> Reading | None:
    """Read what Converse returns at once if it is complete and plain, else as anybody's dict."""
    try:
        usage, metadata = fields["usage"], fields["ResponseMetadata"]
        if type(usage) is not dict or type(metadata) is not dict:
            return read_document(fields)
        if not _PLAIN.issuperset(fields) or not _PLAIN_USAGE.issuperset(usage):
            return read_document(fields)
        new, output, response_id = (
            usage["inputTokens"],
            usage["outputTokens"],
            metadata["RequestId"],
        )
        cached, written = usage.get("cacheReadInputTokens"), usage.get("cacheWriteInputTokens")
        if type(new) is type(cached) is type(written) is int and new | cached | written >= 0:
            whole = new + cached + written
        elif cached is None and written is None:
            whole = new
        else:
            return read_document(fields)
        status = metadata["HTTPStatusCode"]
        if type(status) is not int or status >= 400 or metadata.get("RetryAttempts"):
            return read_document(fields)
        lasting = usage.get("cacheDetails")
        if fields.get("serviceTier") or (
            lasting and (len(lasting) > 1 or lasting[0]["ttl"] == _AN_HOUR)
        ):
            return read_document(fields)
        if type(response_id) is not str or not response_id:
            return read_document(fields)
    except (IndexError, KeyError, TypeError):
        return read_document(fields)
    return Reading(
        whole,
        output,
        cached,
        written,
        None,
        usage.get("totalTokens"),
        None,
        None,
        response_id,
        "aws.bedrock",
        "chat",
        source=usage,
    )


def read_object(message: Any) -> Reading | None:
    """Read botocore's `EventStreamMessage`."""
    merge = _Merge()
    merge.add(fields_of(message) or NOTHING)
    return merge.reading()


def is_failure(message: Any) -> bool:
    """Tell whether botocore raises an exception for this message."""
    headers = part(fields_of(message) or NOTHING, "headers") or NOTHING
    return headers.get(":message-type") in _FAILED


def streams(fields: Fields) -> bool:
    """Tell whether this is an event with usage, what holds a stream, or a whole response."""
    if _METRICS in fields or _event_usage(fields) is not None:
        return True
    if "ResponseMetadata" in fields and ("stream" in fields or "body" in fields):
        return True
    return type((part(fields, "chunk") or NOTHING).get("bytes")) is bytes or matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge that takes the usage from the event at the end."""
    return _Merge()


class _Merge:
    __slots__ = ("_counts", "_failure", "_kind", "_response", "_source")

    def __init__(self) -> None:
        self._response: dict[str, Any] = {}
        self._counts: tuple[Any, ...] = ()
        self._failure: tuple[str | None, str | None, str | None] = (None, None, None)
        self._kind: str | None = None
        self._source: Any = None

    def add(self, fields: Fields) -> bool:
        headers = part(fields, "headers")
        if headers is not None and "payload" in fields:
            self._message(headers, fields["payload"])
        elif "ResponseMetadata" in fields or "usage" in fields:
            return self._begin(fields)
        elif "chunk" in fields:
            self._chunk((part(fields, "chunk") or NOTHING).get("bytes"))
        elif _METRICS in fields:
            self._measure(fields)
        elif _event_usage(fields) is not None:
            self._converse(part(fields, "metadata") or NOTHING)
        return True

    def reading(self) -> Reading | None:
        if not self._response and not self._counts and self._failure[0] is None:
            return None
        return _reading(self._response, self._counts, self._source, self._kind, self._failure)

    def _begin(self, fields: Fields) -> bool:
        if self._response or self._counts:
            return False
        if "ResponseMetadata" in fields:
            self._response["ResponseMetadata"] = fields["ResponseMetadata"]
        if "stream" in fields:
            self._kind = "chat"
        if matches(fields):
            self._note(fields)
            self._counts, self._source, self._kind = _counts(fields)
        return True

    def _message(self, headers: Fields, payload: Any) -> None:
        """Take in a message as it comes off the wire, before botocore parses it."""
        if headers.get(":message-type") in _FAILED:
            self._fail(headers, payload)
        elif headers.get(":event-type") == "metadata":
            self._converse(_json(payload))
        elif headers.get(":event-type") == "chunk":
            try:
                self._chunk(_payload_decoder.decode(payload).chunk)
            except (MsgspecError, TypeError, ValueError):
                return

    def _fail(self, headers: Fields, payload: Any) -> None:
        code = text(headers.get(":exception-type")) or text(headers.get(":error-code"))
        message = text(_json(payload).get("message")) or text(headers.get(":error-message"))
        self._failure = ("error", code or "error", message)

    def _chunk(self, chunk: Any) -> None:
        if type(chunk) is bytes and _METRICS_BYTES in chunk:
            self._measure(_json(chunk))

    def _measure(self, fields: Fields) -> None:
        metrics = part(fields, _METRICS)
        if metrics is not None:
            self._counts = tuple(map(metrics.get, _METRIC_NAMES))
            self._source = metrics

    def _converse(self, metadata: Fields) -> None:
        usage = part(metadata, "usage")
        if usage is not None:
            self._counts, self._source = _in_usage(usage), metadata["usage"]
            self._note(metadata)
            self._kind = "chat"

    def _note(self, fields: Fields) -> None:
        self._response.update(
            {name: fields.get(name) for name in ("serviceTier", "trace", "usage")}
        )


def _reading(
    fields: Fields,
    counts: tuple[Any, ...],
    source: Any,
    kind: str | None,
    failure: tuple[str | None, str | None, str | None] = (None, None, None),
) -> Reading:
    new, output, cache_read, cache_write, total = (*counts, *(None,) * 5)[:5]
    metadata = part(fields, "ResponseMetadata") or NOTHING
    return Reading(
        None if new is None else added(new, cache_read, cache_write),
        output,
        cache_read,
        cache_write,
        None,
        total,
        None,
        _routed_model(fields),
        text(metadata.get("RequestId")),
        "aws.bedrock",
        kind,
        *failure,
        None,
        source,
        _details(fields),
        attempt=attempt_of_metadata(metadata),
        is_envelope=kind is None,
    )


def _details(fields: Fields) -> dict[str, Any] | None:
    """Return what was written to a cache that lives for an hour, and an unusual service tier."""
    written = (part(fields, "usage") or NOTHING).get("cacheDetails")
    entries = [fields_of(each) or NOTHING for each in written] if type(written) is list else []
    lasting = [each.get("inputTokens") for each in entries if each.get("ttl") == _AN_HOUR]
    tier = (part(fields, "serviceTier") or NOTHING).get("type")
    return usage_details(tier, cache_write_1h_tokens=added(*lasting))


def _counts(fields: Fields) -> tuple[tuple[Any, ...], Any, str | None]:
    """Return the counts of a whole response, where they stand, and the kind of operation."""
    usage = part(fields, "usage")
    if usage is not None:
        return _in_usage(usage), fields["usage"], "chat"
    headers = _headers(fields)
    return tuple(_count(headers.get(name)) for name in _HEADERS), headers, None


def _in_usage(usage: Fields) -> tuple[Any, ...]:
    """Return the counts in a usage, of which some have other names in the body of Amazon's Nova."""
    return tuple(
        first(usage.get(name), usage.get(_NAMES_OF_NOVA.get(name, name))) for name in _NAMES
    )


def _headers(fields: Fields) -> Fields:
    return part(part(fields, "ResponseMetadata") or NOTHING, "HTTPHeaders") or NOTHING


def _event_usage(fields: Fields) -> Fields | None:
    """Return the usage in an event of ConverseStream."""
    usage = part(part(fields, "metadata") or NOTHING, "usage")
    return usage if usage is not None and "inputTokens" in usage else None


def _routed_model(fields: Fields) -> str | None:
    """Return the model that a prompt router chose; no other response names one."""
    router = part(part(fields, "trace") or NOTHING, "promptRouter") or NOTHING
    return text(router.get("invokedModelId"))


def _count(header: Any) -> Any:
    if type(header) is not str or len(header) > _MOST_DIGITS:
        return header
    return int(header) if header.isascii() and header.isdigit() else header


def _json(payload: Any) -> Fields:
    found = decoded(payload) if type(payload) is bytes else None
    return NOTHING if found is None else found


CLASSES: dict[str, Reader] = {"EventStreamMessage": read_object}

PLAIN: dict[str, Reader] = {"stopReason": read_plain}

_RAW = "_event_generator"

STREAMS: dict[tuple[str, str], StreamClass] = {
    ("aiobotocore.eventstream", "AioEventStream"): StreamClass(_RAW, True, is_failure),
    ("botocore.eventstream", "EventStream"): StreamClass(_RAW, False, is_failure),
}
