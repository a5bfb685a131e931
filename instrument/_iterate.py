"""All operations in start order, in memory that does not grow with the log.

Lines stand in the order in which operations ended. A first pass weighs the starts; then stretches
of time with so many bytes each are read one after the other, each from the files that have
operations in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from instrument._gather import Reading, start_order
from instrument._scan import Source
from instrument._wanted import Wanted
from instrument.operation import Operation

__all__ = ["iterate"]

BYTES_AT_ONCE = 32 * 1024**2
_SLOT = timedelta(minutes=10)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Stretch(Struct):
    """The operations that start from `begin` on and before `end`."""

    begin: datetime
    end: datetime | None


def iterate(read: Callable[[bool], Reading], asked: Wanted, retries: int) -> Iterator[Operation]:
    """Yield what is asked for; `read` lists the files, for the last time if told so.

    Where a file has vanished meanwhile, the rest is read from another listing, `retries` times.
    """
    for again in reversed(range(retries)):
        try:
            for stretch, operations in _stretches(read(not again), asked):
                yield from operations
                asked = replace(asked, since=stretch.end or asked.since)
                if stretch.end is None:
                    return
            return
        except FileNotFoundError:
            if not again:
                raise


def _stretches(reading: Reading, asked: Wanted) -> Iterator[tuple[_Stretch, list[Operation]]]:
    slots: Counter[int] = Counter()
    spans: list[tuple[Source, datetime, datetime]] = []
    for source, starts in reading.starts(asked):
        first = last = None
        for moment, size in starts:
            slots[(moment - _EPOCH) // _SLOT] += size
            first = moment if first is None or moment < first else first
            last = moment if last is None or moment > last else last
        if first is not None and last is not None:
            spans.append((source, first, last))
    if reading.archive is not None:
        slots.update(reading.archive.weights(asked, _SLOT))
    interrupted = reading.interrupted_among(asked)
    for each in interrupted:
        slots[(each.timestamp - _EPOCH) // _SLOT] += 1
    for stretch in _divided(slots):
        ends = [each for each in (asked.until, stretch.end) if each is not None]
        since = max(asked.since or stretch.begin, stretch.begin)
        within = replace(asked, since=since, until=min(ends, default=None))
        sources = [
            source
            for source, first, last in spans
            if last >= stretch.begin and (stretch.end is None or first < stretch.end)
        ]
        found = reading.finished(within, sources)
        found += [each for each in interrupted if within.takes(each, each.timestamp)]
        yield stretch, sorted(found, key=start_order)


def _divided(slots: Counter[int]) -> Iterator[_Stretch]:
    """Put neighbouring slots together until they hold enough; the last stretch is open."""
    begin: int | None = None
    size = 0
    ordered = sorted(slots)
    for place, slot in enumerate(ordered):
        begin = slot if begin is None else begin
        size += slots[slot]
        is_last = place == len(ordered) - 1
        if is_last or size >= BYTES_AT_ONCE:
            yield _Stretch(_EPOCH + begin * _SLOT, None if is_last else _EPOCH + (slot + 1) * _SLOT)
            begin, size = None, 0
