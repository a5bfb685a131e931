"""A segment before it is compacted: whether DuckDB can read all its lines.

All others are read line by line, and written anew in the recorder's form.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import BinaryIO

import msgspec
from msgspec import Struct

from instrument._lines import Head, operation_of, record_of
from instrument._plain import PlainLine, plain_lines
from instrument._scan import ALWAYS, BLOCK_BYTES, Line, Skipped, Source, blocks, scan

__all__ = ["Ends", "Survey", "rewritten", "survey"]

MOST_PIDS = 10_000


class Survey(Struct):
    """What there is to know of a segment: its size, and the operations that it leaves open.

    `is_plain` says that DuckDB makes of all lines what we do, and then none has more bytes than
    `longest`. `pids` are those that it names; `None` means unknown.
    """

    size: int = 0
    is_plain: bool = True
    longest: int = 0
    begun: set[str] = msgspec.field(default_factory=set)
    pids: set[int | None] | None = msgspec.field(default_factory=set)

    def may_name(self, pids: Collection[int | None]) -> bool:
        return self.pids is None or not self.pids.isdisjoint(pids)


class Ends(Struct):
    """The operations that the segments so far leave open, and the hashes of all that they end.

    Of the former the latest timestamp of a beginning, as it stands there.
    """

    left: dict[str, str] = msgspec.field(default_factory=dict)
    ended: array[int] = msgspec.field(default_factory=lambda: array("q"))


def survey(source: Source, size: int, ends: Ends | None = None) -> Survey:
    """Look at the first `size` bytes of a segment, beyond what is in the archive already.

    What it ends is taken from what `ends` says that segments before it leave open, and what it
    leaves open is added.
    """
    found = Survey(size)
    ends = Ends() if ends is None else ends
    skipped = Skipped()
    for _, block in blocks(source, skipped, source.begin, size):
        lines = plain_lines(block)
        if lines is None:
            found.is_plain = False
            break
        found.longest = max(found.longest, len(block))
        _see_pids(found, chain(*lines))
        ended = [each.operation_id for each in lines.operations]
        _follow(found.begun, ends, ended, lines.others)
    if skipped.count:
        found.is_plain = False
    if not found.is_plain:
        found.begun, found.pids = set(), None
        for each in scan([source], Skipped(), end=size):
            ended = [each.head.operation_id] if each.head.is_operation else []
            _follow(found.begun, ends, ended, [] if ended else [each.head])
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


def _see_pids(found: Survey, lines: Iterable[PlainLine]) -> None:
    if found.pids is not None:
        found.pids.update([each.pid for each in lines])
        if len(found.pids) > MOST_PIDS:
            found.pids = None


def _follow(
    begun: set[str], ends: Ends, ended: Sequence[str | None], others: Sequence[Head | PlainLine]
) -> None:
    """Take in operations that ended, and lines that tell of beginnings and voids among others."""
    ends.ended.extend(map(hash, ended))
    left = ends.left
    for each in others:
        operation_id = each.operation_id
        if operation_id is None:
            continue
        if each.type == "begin":
            begun.add(operation_id)
            stamp = each.timestamp or ""
            left[operation_id] = max(stamp, left.get(operation_id, stamp))
        elif each.type == "void" and each.timestamp in (None, left.get(operation_id)):
            begun.discard(operation_id)
            left.pop(operation_id, None)
    if left:
        begun.difference_update(ended)
        for operation_id in left.keys() & {*ended}:
            del left[operation_id]


def _other(line: Line) -> dict[str, object]:
    record, head = record_of(line.data), line.head
    kept: dict[str, object] = {}
    if line.moment != ALWAYS:
        kept["timestamp"] = line.moment.isoformat()
    for name in ("type", "session_id", "service", "operation", "operation_id"):
        kept[name] = getattr(head, name)
    for name in ("session_name", "parent_session_id", "run", "parent_id"):
        kept[name] = value if isinstance(value := record.get(name), str) else None
    kept["metadata"] = value if isinstance(value := record.get("metadata"), dict) else {}
    kept["pid"] = value if type(value := record.get("pid")) is int and value >= 0 else None
    return kept
