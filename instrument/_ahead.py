"""What a compaction finds out about all segments at once, before it moves them batch by batch.

A segment holds what it held for as long as nobody has written to it. So each is looked at once,
and the journal is searched once for the operations that none of them ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from instrument._begun import confirmed, interrupted
from instrument._gather import Reading
from instrument._lines import record_of
from instrument._scan import MAX_NEEDLES, Skipped, Source, needle, scan
from instrument._survey import Ends, Survey, survey
from instrument.operation import Operation

__all__ = ["Ahead"]


class Ahead:
    """Looks at closed segments of a log, which others may still write to."""

    def __init__(self, reading: Reading, closed: Collection[Path]) -> None:
        self._surveys: dict[Path, Survey] = {}
        self._stamps = {each.path: _stamp_of(each) for each in reading.sources}
        self._dead: dict[str, tuple[Source, Operation]] = {}
        ends = Ends()
        for each in reading.sources:
            stamp = self._stamps[each.path]
            if each.path in closed and stamp is not None:
                with suppress(FileNotFoundError):
                    self._surveys[each.path] = survey(each, stamp.size, ends)
        self._open = ends.left
        if 0 < len(self._open) <= MAX_NEEDLES:
            self._find_dead(reading, ends)

    def _find_dead(self, reading: Reading, ends: Ends) -> None:
        ended = {hash(each) for each in self._open}.intersection(ends.ended)
        left = {each for each in self._open if hash(each) not in ended}
        sources = self._sources(reading, lambda found: not found.begun.isdisjoint(left))
        begun = reading.without_archived(confirmed(sources, left))
        where = {line.head.operation_id: line.source for line in begun}
        named = (record_of(line.data).get("pid") for line in begun)
        pids = {each for each in named if isinstance(each, int)}
        sources = self._sources(reading, lambda found: found.may_name(pids))
        for dead in interrupted(sources, begun, reading.archive):
            if dead.operation_id is not None:
                self._dead[dead.operation_id] = where[dead.operation_id], dead

    def _sources(self, reading: Reading, may_tell: Callable[[Survey], bool]) -> list[Source]:
        """Return the files that may tell something, which nothing is known of or `may_tell`."""
        found = ((each, self._surveys.get(each.path)) for each in reading.sources)
        return [each for each, survey in found if survey is None or may_tell(survey)]

    def survey(self, source: Source) -> Survey:
        """Return what there is to know of a segment that nobody writes to now."""
        stamp = _stamp_of(source)
        if source.path in self._surveys and stamp == self._stamps[source.path]:
            return self._surveys[source.path]
        return survey(source, source.path.stat().st_size)

    def open_in(self, held: Iterable[tuple[Source, Survey]]) -> set[str]:
        """Return what these segments leave open and no other is known to end."""
        return {
            each
            for source, found in held
            for each in found.begun
            if found is not self._surveys.get(source.path) or each in self._open
        }

    def dead(
        self, operation_ids: Iterable[str], sources: Sequence[Source]
    ) -> dict[str, tuple[Source, Operation]]:
        """Return those that are known to be interrupted, and where they began.

        The others have to be asked about, as what was written meanwhile may end them.
        """
        known = {each: self._dead[each] for each in operation_ids if each in self._dead}
        if known:
            changed = [each for each in sources if self._stamps.get(each.path) != _stamp_of(each)]
            for line in scan(changed, Skipped(), [needle(each) for each in known]):
                known.pop(line.head.operation_id or "", None)
        return known


class _Stamp(NamedTuple):
    """What tells that nobody has written to a file, of which what is before `begin` is archived."""

    inode: int
    size: int
    written_ns: int
    begin: int


def _stamp_of(source: Source) -> _Stamp | None:
    try:
        status = source.path.stat()
    except FileNotFoundError:
        return None
    return _Stamp(status.st_ino, status.st_size, status.st_mtime_ns, source.begin)
