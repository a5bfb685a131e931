"""Hosts whose clocks differ: an operation cannot have begun before the one that called it.

By how much its clock is behind is not known, but the least that it must be is. By so much the
operation is moved, and what it called in the same clock along with it; what its process recorded
elsewhere stays where it is, and timestamps are never changed. A clock is ahead where what was
called back by way of it, in the clock that it was called from, began earlier. Of what merely
began after its caller's end nothing can be said: a queue does the same.

The processes of one host share its clock. Where it is not known which host recorded an operation,
a pid stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from msgspec.structs import replace

from instrument.operation import Operation, SessionStats

__all__ = ["Placed", "in_call_order", "on_one_axis", "placed"]

Hosts = Mapping[str, str]
_FARTHEST = 100
"""So many callers in other clocks are looked at for one in the same."""


class Placed(NamedTuple):
    """An operation on the time axis of those that called it.

    `start` is in seconds since the epoch; `early_seconds` says by how much the timestamp is before
    the caller's, and is 0 where it is not; `ahead_seconds` by how much it must be too late.
    """

    operation: Operation
    start: float
    depth: int = 0
    early_seconds: float = 0.0
    ahead_seconds: float = 0.0

    @property
    def shift(self) -> float:
        return self.start - self.operation.timestamp.timestamp()


def in_call_order(operations: Sequence[Operation], hosts: Callable[[], Hosts]) -> list[Operation]:
    """Return what is in start order so that no operation stands before the one that called it.

    `hosts` is asked only where one would.
    """
    known = {one.operation_id for one in operations}
    seen: set[str | None] = set()
    for one in operations:
        if one.parent_id is not None and one.parent_id in known and one.parent_id not in seen:
            return [each.operation for each in placed(operations, hosts())]
        seen.add(one.operation_id)
    return list(operations)


def on_one_axis(
    stats: SessionStats, operations: Sequence[Operation], hosts: Hosts | None = None
) -> SessionStats:
    """Return the stats of `operations` with their times as those that called see them."""
    known = {one.operation_id: one for one in operations if one.operation_id is not None}
    callers = ((one, known.get(one.parent_id or "")) for one in known.values())
    if all(above is None or above.timestamp <= one.timestamp for one, above in callers):
        return stats
    places = [each for each in placed(operations, hosts) if each.operation.outcome != "running"]
    if not places:
        return stats
    first = min(each.start for each in places)
    last = max(each.start + each.operation.duration_seconds for each in places)
    return replace(
        stats,
        elapsed_seconds=last - first,
        first_at=datetime.fromtimestamp(first, UTC),
        last_at=datetime.fromtimestamp(last, UTC),
    )


def placed(operations: Iterable[Operation], hosts: Hosts | None = None) -> list[Placed]:
    """Place every operation, and sort by their starts there; callers before what they called.

    `hosts` says by operation id which host recorded it, as far as that is known.
    """
    listed = sorted(operations, key=lambda one: (one.timestamp, one.operation_id or ""))
    by_id = {one.operation_id: one for one in listed if one.operation_id is not None}
    tree = Tree(by_id, hosts or {})
    for one in listed:
        tree.look_up(one)
    found: dict[int, Placed] = {}
    for one in listed:
        _place(one, tree, found)
    return sorted(found.values(), key=_order)


class Tree:
    """Who called whom, and what that says of their clocks.

    `homes` has the nearest caller in the same clock, and `back` the first that was called back to
    a clock by way of an operation in another.
    """

    def __init__(self, by_id: Mapping[str, Operation], hosts: Hosts) -> None:
        self._by_id = by_id
        self._hosts = hosts
        self.homes: dict[int, Operation] = {}
        self.back: dict[int, Operation] = {}

    def caller(self, one: Operation) -> Operation | None:
        return self._by_id.get(one.parent_id or "")

    def look_up(self, one: Operation) -> None:
        between: list[Operation] = []
        clock = self._clock(one)
        above = self.caller(one)
        while above is not None and self._clock(above) != clock and len(between) < _FARTHEST:
            between.append(above)
            above = self.caller(above)
        if above is None or self._clock(above) != clock:
            return
        self.homes[id(one)] = above
        for each in between:
            first = self.back.setdefault(id(each), one)
            if one.timestamp < first.timestamp:
                self.back[id(each)] = one

    def _clock(self, one: Operation) -> str | int | None:
        return self._hosts.get(one.operation_id or "", one.pid)


def _place(one: Operation, tree: Tree, found: dict[int, Placed]) -> None:
    """Place an operation, after those above it; the first of a circle is as if it had no caller."""
    waiting: dict[int, Operation] = {}
    above: Operation | None = one
    while above is not None and id(above) not in found and id(above) not in waiting:
        waiting[id(above)] = above
        above = tree.caller(above)
    if above is not None and id(above) in waiting:
        found[id(above)] = Placed(above, above.timestamp.timestamp())
        del waiting[id(above)]
    for each in reversed(waiting.values()):
        found[id(each)] = _below(each, tree, found)


def _below(one: Operation, tree: Tree, found: Mapping[int, Placed]) -> Placed:
    parent = found.get(id(tree.caller(one)))
    start = one.timestamp.timestamp()
    if parent is None:
        return Placed(one, start)
    home = found.get(id(tree.homes.get(id(one))))
    if home is not None:
        start += home.shift
        early = parent.start - start
    else:
        early = (parent.operation.timestamp - one.timestamp).total_seconds()
        if early <= 0 and start < parent.start:
            start += parent.shift
    if early > 0:
        return Placed(one, parent.start, parent.depth + 1, early)
    latest = max(_latest(one, tree, found), parent.start)
    return Placed(one, min(start, latest), parent.depth + 1, 0.0, max(start - latest, 0.0))


def _latest(one: Operation, tree: Tree, found: Mapping[int, Placed]) -> float:
    """Return when the operation has begun at the latest, for it called somebody back then."""
    back = tree.back.get(id(one))
    home = None if back is None else found.get(id(tree.homes.get(id(back))))
    if back is None or home is None:
        return math.inf
    return back.timestamp.timestamp() + home.shift


def _order(each: Placed) -> tuple[float, int, str]:
    return each.start, each.depth, each.operation.operation_id or ""
