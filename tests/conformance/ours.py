"""`@tracked` as a subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from instrument import Operation, current_operation, tracked

from .subject import Record

T = TypeVar("T")


class Ours:
    """Reads what it records from `operations`, which `instrument.testing.capture` gives."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = operations

    def decorate(self, target: T) -> T:
        decorated: Any = tracked(service="probe")(target)
        return decorated

    def current(self) -> object | None:
        return current_operation()

    def records(self) -> list[Record]:
        return [_record(operation) for operation in self.operations]


def _record(operation: Operation) -> Record:
    active = operation.active_seconds
    return Record(
        name=operation.operation,
        id=operation.operation_id or "",
        parent_id=operation.parent_id,
        outcome=operation.outcome,
        duration_seconds=operation.duration_seconds,
        charged_seconds=operation.duration_seconds if active is None else active,
    )
