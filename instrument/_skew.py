"""Hosts whose clocks differ: an operation cannot have begun before the one that called it.

By how much its clock is behind is not known, but the least that it must be is. By so much the
operation is moved, and what it called in the same clock along with it; what its process recorded
elsewhere stays where it is, and timestamps are never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from instrument.operation import Operation

__all__ = ["Placed", "in_call_order", "placed"]


class Placed(NamedTuple):
    """An operation on the time axis of those that called it.

    `start` is in seconds since the epoch; `early_seconds` says by how much the timestamp is before
    the caller's, and is 0 where it is not.
    """

    operation: Operation
    start: float
    depth: int = 0
    early_seconds: float = 0.0

    @property
    def shift(self) -> float:
        return self.start - self.operation.timestamp.timestamp()


def in_call_order(operations: Sequence[Operation]) -> list[Operation]:
    """Return what is in start order so that no operation stands before the one that called it."""
    known = {one.operation_id for one in operations}
    seen: set[str | None] = set()
    for one in operations:
        if one.parent_id is not None and one.parent_id in known and one.parent_id not in seen:
            return [each.operation for each in placed(operations)]
        seen.add(one.operation_id)
    return list(operations)


def placed(operations: Iterable[Operation]) -> list[Placed]:
    """Place every operation, and sort by their starts there; callers before what they called."""
    listed = sorted(operations, key=lambda one: (one.timestamp, one.operation_id or ""))
    by_id = {one.operation_id: one for one in listed if one.operation_id is not None}
    found: dict[int, Placed] = {}
    for one in listed:
        _place(one, by_id, found)
    return sorted(found.values(), key=_order)


def _place(one: Operation, by_id: Mapping[str, Operation], found: dict[int, Placed]) -> None:
    """Place an operation, after those above it; the first of a circle is as if it had no caller."""
    waiting: dict[int, Operation] = {}
    above: Operation | None = one
    while above is not None and id(above) not in found and id(above) not in waiting:
        waiting[id(above)] = above
        above = by_id.get(above.parent_id or "")
    if above is not None and id(above) in waiting:
        found[id(above)] = _below(None, above)
        del waiting[id(above)]
    for each in reversed(waiting.values()):
        found[id(each)] = _below(found.get(id(by_id.get(each.parent_id or ""))), each)


def _below(parent: Placed | None, one: Operation) -> Placed:
    start = one.timestamp.timestamp()
    if parent is None:
        return Placed(one, start)
    early = (parent.operation.timestamp - one.timestamp).total_seconds()
    if early > 0:
        return Placed(one, parent.start, parent.depth + 1, early)
    shares_clock = one.pid == parent.operation.pid or start < parent.start
    return Placed(one, start + parent.shift if shares_clock else start, parent.depth + 1)


def _order(each: Placed) -> tuple[float, int, str]:
    return each.start, each.depth, each.operation.operation_id or ""
