"""Lines of which DuckDB, told the types, makes exactly what `operation_of` makes of them.

The recorder writes no others. Of large numbers in metadata `_typed` takes care.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NamedTuple, cast, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from instrument._lines import DEEPEST, has_deep_lines
from instrument.operation import MAX_COUNT, Operation

__all__ = ["PlainLine", "PlainLines", "plain_lines"]


class PlainLine(Struct, forbid_unknown_fields=True, gc=False):
    """The keys of a line that are looked at; `_EveryKey` has them all, and no others are plain."""

    timestamp: str | None = None
    session_id: str | None = None
    service: str | None = None
    operation: str | None = None
    operation_id: str | None = None
    metadata: Raw | UnsetType = UNSET
    pid: Annotated[int, Meta(ge=0, le=MAX_COUNT)] | None = None
    # not null, which the recorder does not write
    type: Literal["begin", "session", "void"] | UnsetType = UNSET
    run: str | UnsetType = UNSET


_EveryKey = cast(
    "type[PlainLine]",
    msgspec.defstruct(
        "_EveryKey",
        [
            (name, kind | None, None)
            for name, kind in get_type_hints(Operation, include_extras=True).items()
            # the recorder writes none of these two
            if name not in (*PlainLine.__struct_fields__, "v", "extra")
        ],
        bases=(PlainLine,),
        forbid_unknown_fields=True,
        gc=False,
    ),
)


class PlainLines(NamedTuple):
    """The lines of a block: operations, and those that tell of beginnings, sessions and voids."""

    operations: list[PlainLine]
    others: list[PlainLine]


def plain_lines(block: bytes) -> PlainLines | None:
    """Return the lines of a block; `None` if DuckDB may read any of them in another way.

    Of what it cannot read either, as a key that stands twice, it says so.
    """
    marks = block.translate(None, _NO_MARKS)
    count = marks.count(b"\n")
    if len(marks) - count > DEEPEST and has_deep_lines(block):
        return None
    try:
        lines: list[PlainLine] = _decode(block)
    except (ValueError, RecursionError):
        return None
    if block[-1:] != b"\n" or len(lines) != count:
        return None
    operations = [each for each in lines if each.type is UNSET]
    others = [each for each in lines if each.type is not UNSET]
    dated = [each.timestamp for each in others if each.timestamp or each.type != "void"]
    if not (_are_whole(operations) and _are_stamps(dated) and all(map(_is_whole, others))):
        return None
    return PlainLines(operations, others)


def _are_whole(operations: list[PlainLine]) -> bool:
    return (
        _are_stamps([each.timestamp for each in operations])
        and None not in [each.service for each in operations]
        and None not in [each.operation for each in operations]
        and {each.run for each in operations} <= {UNSET}
    )


def _is_whole(line: PlainLine) -> bool:
    if line.type == "void":
        return line.operation_id is not None
    if line.type == "session":
        return bool(line.session_id)
    return None not in (line.service, line.operation, line.operation_id)


def _are_stamps(texts: list[str | None]) -> bool:
    """Tell whether all are moments as the recorder writes them; all at once takes a third."""
    if not texts:
        return True
    if None in texts or {*map(len, cast("list[str]", texts))} != {_STAMP}:
        return False
    run = "".join(cast("list[str]", texts))
    if {*run[10::_STAMP]} != {"T"} or {*run[26::_STAMP]} != {"Z"}:
        return False
    try:
        msgspec.convert(texts, list[datetime])
    except ValueError:
        return False
    return True


# a newline, and what opens an object or array
_NO_MARKS = bytes(set(range(256)) - set(b"\n{["))
_STAMP = len("2026-11-21T10:00:00.000000Z")
_decode = msgspec.json.Decoder(_EveryKey).decode_lines
