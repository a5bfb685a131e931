"""A session's operations in the order of their calls: who called whom, and what to leave out."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from instrument._skew import Placed, placed
from instrument.operation import Operation

__all__ = ["Gap", "Node", "arrange", "shortened"]

SHORT_ENOUGH = 50
SHOWN_OF_EACH = 10
SHOWN_ANCESTORS = 4


class Node(NamedTuple):
    """An operation at its depth; `parent` is the index of its caller's node.

    `start`, `early_seconds` and `ahead_seconds` are those of `Placed`.
    """

    operation: Operation
    depth: int
    parent: int | None
    start: float
    early_seconds: float = 0.0
    ahead_seconds: float = 0.0


class Gap(NamedTuple):
    """So many operations stand here that are not shown."""

    hidden: int


def arrange(operations: Iterable[Operation], hosts: Mapping[str, str] | None = None) -> list[Node]:
    """Put every operation behind the one that called it, siblings in start order.

    Operations whose caller is not among them stand at the top level. Nothing is lost to a log
    whose parents form a circle. Starts are such that none is before its caller's; `hosts` are those
    of `placed`.
    """
    places = placed(operations, hosts)
    found = {id(each.operation): each for each in places}
    ordered = [each.operation for each in places]
    known = {one.operation_id for one in ordered if one.operation_id is not None}
    called: dict[str, list[Operation]] = defaultdict(list)
    for one in ordered:
        if one.parent_id is not None and one.parent_id in known:
            called[one.parent_id].append(one)
    roots = [one for one in ordered if one.parent_id is None or one.parent_id not in known]
    nodes: list[Node] = []
    seen: set[int] = set()
    for one in (*roots, *ordered):
        _descend(one, called, nodes, seen, found)
    return nodes


def _descend(
    root: Operation,
    called: dict[str, list[Operation]],
    nodes: list[Node],
    seen: set[int],
    places: Mapping[int, Placed],
) -> None:
    waiting: list[tuple[Operation, int, int | None]] = [(root, 0, None)]
    while waiting:
        one, depth, parent = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        here = len(nodes)
        place = places[id(one)]
        skew = place.early_seconds, place.ahead_seconds
        nodes.append(Node(one, depth, parent, place.start, *skew))
        children = called.get(one.operation_id, ()) if one.operation_id is not None else ()
        waiting.extend((child, depth + 1, here) for child in reversed(children))


def shortened(nodes: Sequence[Node]) -> list[Node | Gap]:
    """Keep of a long session the first, the last, the slowest and the first failed operations.

    The callers of what is kept are kept too, as far as they are near.
    """
    if len(nodes) <= SHORT_ENOUGH:
        return list(nodes)
    chosen = {*range(SHOWN_OF_EACH), *range(len(nodes) - SHOWN_OF_EACH, len(nodes))}
    chosen.update(
        heapq.nlargest(
            SHOWN_OF_EACH,
            range(len(nodes)),
            key=lambda index: nodes[index].operation.duration_seconds,
        )
    )
    failed = (index for index, node in enumerate(nodes) if not node.operation.success)
    chosen.update(index for index, _ in zip(failed, range(SHOWN_OF_EACH), strict=False))
    for index in tuple(chosen):
        chosen.update(_ancestors(nodes, index))
    return _with_gaps(nodes, sorted(chosen))


def _ancestors(nodes: Sequence[Node], index: int) -> list[int]:
    found: list[int] = []
    parent = nodes[index].parent
    while parent is not None and len(found) < SHOWN_ANCESTORS:
        found.append(parent)
        parent = nodes[parent].parent
    return found


def _with_gaps(nodes: Sequence[Node], chosen: Sequence[int]) -> list[Node | Gap]:
    result: list[Node | Gap] = []
    expected = 0
    for index in (*chosen, len(nodes)):
        if index > expected:
            result.append(Gap(index - expected))
        if index < len(nodes):
            result.append(nodes[index])
        expected = index + 1
    return result
