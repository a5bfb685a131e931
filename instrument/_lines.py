"""One line of the log, whatever wrote it: what it is, when it was, and the operation it holds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from instrument.operation import MAX_COUNT, Operation

__all__ = [
    "DEEPEST",
    "OUTCOMES",
    "Head",
    "brackets_in",
    "decode_head",
    "decode_heads",
    "end_of",
    "has_deep_lines",
    "is_deep",
    "moment_of",
    "operation_of",
    "outcome_of",
    "record_of",
    "salvage",
]

OUTCOMES = ("ok", "error", "cancelled", "partial", "interrupted")
DEEPEST = 500
"""Levels of objects and arrays; a block of ordinary lines has fewer in all."""

OTHER_TYPES = ("begin", "dropped", "session", "void")
SUCCESSES = ("ok", "partial")
FAILURES = ("error", "cancelled", "interrupted")


class Head(Struct, gc=False):
    """The keys of a line that tell what it is and whether a query wants it."""

    timestamp: str | None = None
    session_id: str | None = None
    service: str | None = None
    operation: str | None = None
    success: bool | None = None
    operation_id: str | None = None
    parent_session_id: str | None = None
    outcome: str | None = None
    error_type: str | None = None
    model: str | None = None
    type: str | None = None

    @property
    def is_operation(self) -> bool:
        return self.type is None or self.type not in OTHER_TYPES

    def is_whole(self) -> bool:
        """Tell whether the line has what its type cannot do without, besides the timestamp."""
        if self.service is not None and self.operation is not None and self.type != "begin":
            return True
        if self.type == "session":
            return bool(self.session_id)
        if self.type == "dropped":
            return True
        if self.type == "begin" and (self.service is None or self.operation is None):
            return False
        return self.type in OTHER_TYPES and bool(self.operation_id)


def decode_head(line: bytes) -> Head:
    """Read the head of a line; wrong types are converted as `operation_of` converts them.

    Raises `ValueError` or `RecursionError` for what is no JSON object, or nested too deep.
    """
    if is_deep(line):
        raise ValueError(f"nested in more than {DEEPEST} levels")
    try:
        return _decode_head(line)
    except msgspec.ValidationError:
        return _lenient_head(_decode_object(line))


def is_deep(line: bytes) -> bool:
    """Tell whether a line is nested deeper than any record.

    How deep a decoder can go depends on Python's version, and on who calls it from where.
    """
    if len(line) <= 2 * DEEPEST or brackets_in(line) <= DEEPEST:
        return False
    depth = 0
    for found in _BRACKETS.finditer(line):
        if found["opening"]:
            depth += 1
            if depth > DEEPEST:
                return True
        elif found["closing"]:
            depth -= 1
    return False


def brackets_in(data: bytes) -> int:
    """Count what opens an object or array, or looks like it in a text."""
    return len(data.translate(None, _NO_BRACKETS))


def has_deep_lines(block: bytes) -> bool:
    """Tell the same of any line in a block."""
    if brackets_in(block) <= DEEPEST:
        return False
    return any(map(is_deep, block.split(b"\n")))


def decode_heads(block: bytes) -> list[Head] | None:
    """Read the heads of all lines that are not blank; `None` where any of them is odd."""
    if has_deep_lines(block):
        return None
    try:
        return _decode_heads(block)
    except (ValueError, RecursionError):
        return None


def moment_of(timestamp: str | None) -> datetime | None:
    """Return a timestamp in UTC, naive ones taken as UTC; `None` for what is no timestamp."""
    try:
        moment = _fromisoformat(timestamp or "")
        if moment.tzinfo is UTC:
            return moment
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def outcome_of(head: Head | Operation) -> str:
    """Return the outcome, derived from `success` where the line names none that is known."""
    if head.outcome in OUTCOMES:
        return head.outcome
    success = head.error_type is None if head.success is None else head.success
    return "ok" if success else "error"


def record_of(line: bytes) -> dict[str, Any]:
    """Decode a line that `decode_head` accepted; what is not UTF-8 in the rest becomes U+FFFD.

    Raises `ValueError` or `RecursionError` where the rest is damaged otherwise.
    """
    try:
        return _decode_object(line)
    except ValueError:
        records, _ = salvage(line)
        if not records:
            raise
        return _decode_object(records[0])


def operation_of(line: bytes) -> Operation | None:
    """Read a whole operation; `None` for a line that does not hold one."""
    return _plain_operation(line) or _odd_operation(line)


def _plain_operation(line: bytes) -> Operation | None:
    """Read a line that is as the recorder writes it, at once; `None` for any other."""
    try:
        operation = _decode_operation(line)
    except (ValueError, RecursionError):
        return None
    if operation.timestamp.tzinfo is not UTC or operation.extra or operation.v == 0:
        return None
    if operation.success:
        told = operation.error_type is None and operation.outcome in SUCCESSES
        return operation if told else None
    if operation.outcome == "ok" and b'"outcome"' not in line:
        force_setattr(operation, "outcome", "error")
    return operation if operation.outcome in FAILURES else None


def _odd_operation(line: bytes) -> Operation | None:
    try:
        record = record_of(line)
    except (ValueError, RecursionError):
        return None
    head = _lenient_head(record)
    moment = moment_of(head.timestamp)
    if moment is None or not head.is_operation or not head.is_whole():
        return None
    return _operation(record, head, moment)


def end_of(operation: Operation) -> datetime:
    """Return when an operation ended; its start where the sum is no date."""
    try:
        return operation.timestamp + timedelta(seconds=operation.duration_seconds)
    except OverflowError:
        return operation.timestamp


def salvage(line: bytes) -> tuple[list[bytes], bool]:
    """Cut the whole records out of a damaged line; the flag tells whether anything was left over.

    Heals what other writers leave: a torn prefix, two records on one line, bytes that are not
    UTF-8 (read as U+FFFD), commas with nothing behind them, and numbers that JSON does not have,
    as the `NaN` of Python's `json`, which are read as text.
    """
    text = line.decode("utf-8", "replace")
    loose = None if is_deep(line) else _loose_record(text)
    if loose is not None:
        return [msgspec.json.encode(loose)], False
    found, end = [], 0
    for record, start, stop in _records_in(text):
        lost = text[end:start].strip(" \t\r\0\ufeff")
        found.append((record, bool(lost)))
        end = stop
    lost_any = not found or bool(text[end:].strip(" \t\r\0")) or any(lost for _, lost in found)
    return [msgspec.json.encode(record) for record, _ in found], lost_any


def _loose_record(text: str) -> dict[str, Any] | None:
    """Read a line that is one record in the looser JSON that DuckDB accepts."""
    if not text.lstrip(_BLANKS).startswith("{"):
        return None
    strict = _LOOSE.sub(_strict, text)
    if strict == text:
        return None
    try:
        record = _encodable(_lenient.decode(strict))
    except (ValueError, RecursionError):
        return None
    return record if _lenient_head(record).is_whole() else None


def _strict(found: re.Match[str]) -> str:
    return f'"{constant}"' if (constant := found["constant"]) else found["text"] or ""


def _records_in(text: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    end = 0
    for start in _starts_in(text):
        if start < end:
            continue
        try:
            record, stop = _lenient.raw_decode(text, start)
            record = _encodable(record)
        except (ValueError, RecursionError):
            continue
        if _lenient_head(record).is_whole() and not is_deep(text[start:stop].encode()):
            yield record, start, stop
            end = stop


def _starts_in(text: str) -> list[int]:
    """Return where a record may begin: at the first objects, and wherever one looks like ours."""
    found: set[int] = set()
    for pattern in (_STARTS, _OUR_STARTS):
        matches = zip(range(_SALVAGE_TRIES), pattern.finditer(text), strict=False)
        found |= {match.start() for _, match in matches}
    return sorted(found)


def _encodable(record: dict[str, Any]) -> dict[str, Any]:
    """Return what `msgspec` will read again: lone surrogates become U+FFFD."""
    text = json.dumps(record, ensure_ascii=False).encode("utf-16", "surrogatepass")
    again: dict[str, Any] = json.loads(text.decode("utf-16", "replace"))
    msgspec.json.encode(again)
    return again


def _float(text: str) -> float | str:
    return number if math.isfinite(number := float(text)) else text


_fromisoformat = datetime.fromisoformat
_SALVAGE_TRIES = 32
_NO_BRACKETS = bytes(each for each in range(256) if each not in b"[{")
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"|(?P<opening>[\[{])|(?P<closing>[\]}])', re.DOTALL)
_STARTS = re.compile(r'\{\s*"')
_OUR_STARTS = re.compile(r'\{"(?:timestamp|type)":"')
_lenient = json.JSONDecoder(strict=False, parse_constant=str, parse_float=_float)
_BLANKS = " \t\r"
# without possessive repeats, a line of backslashes and quotes would take forever
_LOOSE = re.compile(
    r'(?P<text>"(?:[^"\\]++|\\.)*+"?)'
    r"|(?P<constant>-?\b(?:nan|inf(?:inity)?)\b)"
    r"|,(?=[ \t\r]*+[}\]])",
    re.IGNORECASE | re.DOTALL,
)
_decode_head = msgspec.json.Decoder(Head).decode
_decode_heads = msgspec.json.Decoder(Head).decode_lines
_decode_operation = msgspec.json.Decoder(Operation).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def _lenient_head(record: dict[str, Any]) -> Head:
    return Head(
        timestamp=_text(record.get("timestamp")),
        session_id=_text(record.get("session_id")),
        service=_text(record.get("service")),
        operation=_text(record.get("operation")),
        success=_boolean(record.get("success")),
        operation_id=_text(record.get("operation_id")),
        parent_session_id=_text(record.get("parent_session_id")),
        outcome=_text(record.get("outcome")),
        error_type=_text(record.get("error_type")),
        model=_text(record.get("model")),
        type=_text(record.get("type")),
    )


def _operation(record: dict[str, Any], head: Head, moment: datetime) -> Operation:
    values = {name: _READERS[name](record.pop(name)) for name in record.keys() & _READERS.keys()}
    outcome = outcome_of(head)
    # the log's own keys, which operations do not have
    record.pop("type", None)
    record.pop("run", None)
    values |= {
        "timestamp": moment,
        "session_id": head.session_id or "",
        "success": outcome in SUCCESSES,
        "outcome": outcome,
        "duration_seconds": values.get("duration_seconds") or 0.0,
        "metadata": values.get("metadata") or {},
        "v": values.get("v") or 1,
    }
    return Operation(**values, extra=record)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _boolean(value: Any) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get((_text(value) or "").lower())


def _count(value: Any) -> int | None:
    number = _number(value)
    return None if number is None or number != int(number) else int(number)


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and not value.isascii():
        return None  # SQL knows no other digits and spaces
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not (math.isfinite(number) and 0 <= number <= MAX_COUNT):
        return None
    return value if isinstance(value, int) else number


def _seconds(value: Any) -> float | None:
    number = _number(value)
    return None if number is None else float(number)


def _object(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


COUNTS = (
    "tokens",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "attempt",
    "chunks",
    "pid",
    "v",
)
AMOUNTS = ("duration_seconds", "first_chunk_seconds", "active_seconds", "cost_usd")
_READERS: dict[str, Callable[[Any], Any]] = {
    name: _text for name in Operation.__struct_fields__ if name != "extra"
}
_READERS |= dict.fromkeys(COUNTS, _count)
_READERS |= dict.fromkeys(AMOUNTS, _seconds)
_READERS |= {"metadata": _object}
