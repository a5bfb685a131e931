"""What the operations of a group come to: figures that can be added up, errors and durations."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from msgspec import Struct

from instrument._days import LAST_US
from instrument._stats import SessionFacts, session_stats, total_tokens
from instrument.operation import Operation
from instrument.pricing import Pricing

__all__ = ["Figures", "Group", "Key", "key_of"]

Key = tuple[date, str, str | None]
"""The day (UTC), the service and the model."""


class Figures(Struct):
    """What some operations came to, in the order of `ADDED`; each can be added up."""

    operation_count: int
    error_count: int
    cancelled_count: int
    partial_count: int
    interrupted_count: int
    retry_count: int | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    total_tokens: int
    operations_without_usage: int
    total_duration_seconds: float
    cost_usd: float | None
    cache_saved_usd: float | None
    ok_count: int
    bearing: int
    priced: int
    first: datetime
    ends: int
    services: Sequence[str]
    models: Sequence[str] | None

    def __add__(self, other: Figures) -> Figures:
        told = {name: getattr(self, name) + getattr(other, name) for name in _ADDED_UP}
        retries = None
        if self.retry_count is not None and other.retry_count is not None:
            retries = self.retry_count + other.retry_count
        return Figures(
            **told,
            retry_count=retries,
            cost_usd=_known_sum(self.cost_usd, other.cost_usd),
            cache_saved_usd=_known_sum(self.cache_saved_usd, other.cache_saved_usd),
            first=min(self.first, other.first),
            ends=max(self.ends, other.ends),
            services=[*{*self.services, *other.services}],
            models=[*{*(self.models or ()), *(other.models or ())}],
        )


class Group(Struct):
    """The figures of some operations, how often each type of error is, and all durations."""

    figures: Figures
    errors: Counter[str]
    seconds: array[float]

    @classmethod
    def of(cls, operations: Sequence[Operation], pricing: Pricing) -> Group:
        # what is reported twice is nobody's here, so that all are billed
        stats = session_stats("", operations, SessionFacts(), pricing.saved, operations)
        starts = [each.timestamp for each in operations]
        bearing = [each.cost_usd for each in operations if total_tokens(each) is not None]
        others = stats.error_count + stats.cancelled_count + stats.partial_count
        figures = Figures(
            **{name: getattr(stats, name) for name in _OF_STATS},
            ok_count=len(operations) - others - stats.interrupted_count,
            bearing=len(bearing),
            priced=len(bearing) - bearing.count(None),
            first=min(starts),
            ends=max(map(_ends_us, operations)),
        )
        seconds = array("d", sorted(each.duration_seconds for each in operations))
        return cls(figures, Counter(stats.errors), seconds)

    def __add__(self, other: Group) -> Group:
        seconds = array("d", sorted([*self.seconds, *other.seconds]))
        return Group(self.figures + other.figures, self.errors + other.errors, seconds)


def key_of(operation: Operation) -> Key:
    return operation.timestamp.date(), operation.service, operation.model


def _ends_us(operation: Operation) -> int:
    start = (operation.timestamp - _EPOCH) // _MICROSECOND
    end = start + round(operation.duration_seconds * 1e6)
    return end if end <= LAST_US else start


def _known_sum(*amounts: float | None) -> float | None:
    known = [each for each in amounts if each is not None]
    return sum(known) if known else None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_OF_STATS = (
    *Figures.__struct_fields__[: Figures.__struct_fields__.index("ok_count")],
    "services",
    "models",
)
_ADDED_UP = (
    *("operation_count", "error_count", "cancelled_count", "partial_count", "interrupted_count"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "total_tokens", "operations_without_usage", "total_duration_seconds"),
    *("ok_count", "bearing", "priced"),
)
