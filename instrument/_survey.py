"""A segment before it is compacted: whether all its lines are as the recorder writes them.

Of those DuckDB makes exactly what `operation_of` makes of them. All others are read line by line
and written anew, in that form.
"""

from __future__ import annotations

from datetime import datetime
from typing import BinaryIO, Literal, cast, get_type_hints

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from instrument._lines import Head, operation_of, record_of
from instrument._scan import BLOCK_BYTES, Line, Skipped, Source, blocks, scan
from instrument.operation import Operation

__all__ = ["Survey", "rewritten", "survey"]


class Survey(Struct):
    """What there is to know of a segment: its size, and the operations that it leaves open.

    `is_plain` says that all lines are as the recorder writes them.
    """

    size: int = 0
    is_plain: bool = True
    begun: set[str] = msgspec.field(default_factory=set)


def survey(source: Source, size: int) -> Survey:
    """Look at the first `size` bytes of a segment, beyond what is in the archive already."""
    found = Survey(size)
    skipped = Skipped()
    for _, block in blocks(source, skipped, source.begin, size):
        lines = _plain(block)
        if lines is None:
            found.is_plain = False
            break
        for line in lines:
            _follow(found.begun, line)
    if skipped.count:
        found.is_plain = False
    if not found.is_plain:
        found.begun = set()
        for each in scan([source], Skipped(), end=size):
            _follow(found.begun, each.head)
    return found


def rewritten(source: Source, size: int, target: BinaryIO, damaged: BinaryIO) -> list[bytes]:
    """Write the lines of a segment anew, each as the recorder would have written it.

    Lines of which nothing, or not all, can be made go to `damaged` as they are; those about the
    log itself are returned.
    """
    about_log = []
    skipped = _Damaged(damaged)
    for line in scan([source], skipped, end=size):
        if line.head.type == "dropped":
            about_log.append(line.data)
            continue
        operation = operation_of(line.data) if line.head.is_operation else None
        if operation is not None:
            target.write(msgspec.json.encode(operation) + b"\n")
        elif line.head.type in ("begin", "session", "void"):
            target.write(msgspec.json.encode(_other(line)) + b"\n")
        else:
            damaged.write(line.data + b"\n")
    return about_log


class _Damaged(Skipped):
    """Keeps the lines that could not be read as they are."""

    def __init__(self, target: BinaryIO) -> None:
        super().__init__()
        self._target = target

    def add(self, source: Source, offset: int, reason: str) -> None:
        super().add(source, offset, reason)
        with source.path.open("rb") as file:
            file.seek(offset)
            while chunk := file.readline(BLOCK_BYTES):
                self._target.write(chunk)
                if chunk.endswith(b"\n"):
                    return
            self._target.write(b"\n")


class _PlainLine(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """The keys of a line that are looked at; `_EveryKey` has them all, and no others are plain."""

    timestamp: str | None = None
    session_id: str | None = None
    service: str | None = None
    operation: str | None = None
    operation_id: str | None = None
    metadata: Raw | UnsetType = UNSET
    type: Literal["begin", "session", "void"] | None = None
    run: str | None = None


_EveryKey = cast(
    "type[_PlainLine]",
    msgspec.defstruct(
        "_EveryKey",
        [
            (name, kind | None, None)
            for name, kind in get_type_hints(Operation, include_extras=True).items()
            # the recorder writes none of these two
            if name not in (*_PlainLine.__struct_fields__, "v", "extra")
        ],
        bases=(_PlainLine,),
        forbid_unknown_fields=True,
        omit_defaults=True,
        gc=False,
    ),
)


def _plain(block: bytes) -> list[_PlainLine] | None:
    """Return the lines of a block; `None` if any of them is not as the recorder writes it.

    What is as long when it is encoded again has no key twice, no null, no other escapes.
    """
    try:
        lines: list[_PlainLine] = _decode(block)
    except (ValueError, RecursionError):
        return None
    if len(_encode(lines)) != len(block) or not all(map(_is_whole, lines)):
        return None
    return lines


def _is_whole(line: _PlainLine) -> bool:
    stamp = line.timestamp
    if line.type == "void":
        return line.operation_id is not None and stamp is None
    if stamp is None or len(stamp) != _STAMP or stamp[10] != "T" or stamp[26] != "Z":
        return False
    try:
        _fromisoformat(stamp)
    except ValueError:
        return False
    if line.type == "session":
        return bool(line.session_id)
    is_named = line.service is not None and line.operation is not None
    return is_named and (line.operation_id is not None if line.type == "begin" else not line.run)


def _follow(begun: set[str], line: Head | _PlainLine) -> None:
    operation_id = line.operation_id
    if operation_id is None:
        return
    if line.type == "begin":
        begun.add(operation_id)
    elif begun:
        begun.discard(operation_id)


def _other(line: Line) -> dict[str, object]:
    record, head = record_of(line.data), line.head
    kept: dict[str, object] = {}
    if head.type != "void":
        kept["timestamp"] = line.moment.isoformat()
    for name in ("type", "session_id", "service", "operation", "operation_id"):
        kept[name] = getattr(head, name)
    for name in ("session_name", "parent_session_id", "run", "parent_id"):
        kept[name] = value if isinstance(value := record.get(name), str) else None
    kept["metadata"] = value if isinstance(value := record.get("metadata"), dict) else {}
    kept["pid"] = value if type(value := record.get("pid")) is int and value >= 0 else None
    return kept


_STAMP = len("2026-11-21T10:00:00.000000Z")
_fromisoformat = datetime.fromisoformat
_decode = msgspec.json.Decoder(_EveryKey).decode_lines
_encode = msgspec.json.Encoder().encode_lines
