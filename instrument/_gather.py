"""One reading of the journal: the lines that a query wants, and the operations they hold."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from instrument import _config
from instrument._begun import Begun, confirmed, interrupted, living, running
from instrument._lines import decode_head, moment_of, operation_of, record_of
from instrument._scan import Line, Skipped, Source, beginning, scan
from instrument._snapshot import snapshot
from instrument._stats import SessionFacts
from instrument._wanted import Wanted
from instrument._zones import joined, known_zones, zones
from instrument.operation import Operation
from instrument.pricing import Pricing

if TYPE_CHECKING:
    from instrument._archived import Archive

__all__ = ["Reading"]


class Reading:
    """Reads the logs in `log_dirs` as they are now, in as many passes as a query needs.

    Files are listed at the start; `FileNotFoundError` at any later point means to begin anew.
    """

    def __init__(
        self,
        log_dirs: Iterable[Path],
        pricing: Pricing | None = None,
        *,
        may_vanish: bool = False,
    ) -> None:
        self.snapshot = snapshot(log_dirs, may_vanish=may_vanish)
        manifests = self.snapshot.manifests.values()
        told = {each.prices: each.rates for each in manifests if each.prices is not None}
        self.pricing = (pricing or Pricing()).told(told)
        self.sources = self.snapshot.sources
        self.skipped = Skipped()
        self.facts: dict[str, SessionFacts] = {}
        self._begun = Begun()
        self._writers: Mapping[str, str] = {}

    @cached_property
    def archive(self) -> Archive | None:
        """What is in the archives; `None` where there are none."""
        if not self.snapshot.manifests:
            return None
        from instrument._archived import Archive  # duckdb takes longer to load than most queries

        return Archive(self.snapshot)

    def about_log(self) -> Iterator[Line]:
        """Yield the archived lines that are about the log itself, as what was dropped."""
        for log_dir, manifest in self.snapshot.manifests.items():
            for each in manifest.other:
                data = bytes(each)
                head = decode_head(data)
                moment = moment_of(head.timestamp)
                if moment is not None:
                    yield Line(Source(log_dir, log_dir, ""), head, moment, data)

    @property
    def newest_sources(self) -> list[Source]:
        return sorted(self.sources, key=lambda each: each.written_at, reverse=True)

    def operations(self, wanted: Wanted, limit: int | None = None) -> list[Operation]:
        """Return the newest `limit` finished and interrupted operations, in start order."""
        newest = _Newest(limit, self.pricing)
        self._writers = newest.writers
        self._pass(wanted, newest)
        return self._with_interrupted(newest.operations(), wanted, limit)

    def starts(self, wanted: Wanted) -> Iterator[tuple[Source, Iterator[tuple[datetime, int]]]]:
        """Yield each file that may hold what is wanted, with starts and sizes of what it has."""
        earliest = wanted.earliest()
        for source in self.sources:
            if source.reaches(earliest):
                yield source, self._starts_in(source, wanted)

    def finished(self, wanted: Wanted, sources: list[Source]) -> list[Operation]:
        """Return the finished operations that these files and the archive hold, each once."""
        found = _Newest(None, self.pricing)
        for line in scan(sources, Skipped(), wanted.needles()):
            if line.head.is_operation and wanted.takes(line.head, line.moment):
                found.add(line)
        for line in self._archived(wanted, found):
            found.add(line)
        return found.operations()

    def interrupted_among(self, wanted: Wanted) -> list[Operation]:
        """Return the interrupted operations among those that `starts` has met."""
        return self._with_interrupted([], wanted, None)

    def family(self, session_id: str, wanted: Wanted, limit: int | None) -> list[Operation]:
        """Do the same for a session and all that descend from it."""
        newest = _Newest(limit, self.pricing)
        self._writers = newest.writers
        known, generation = {session_id}, {session_id}
        while generation:
            born = self._pass(replace(wanted, sessions=frozenset(generation)), newest)
            if self.archive is not None:
                born |= self.archive.children(generation)
            generation = born - known
            known |= generation
        wanted = replace(wanted, sessions=frozenset(known))
        return self._with_interrupted(newest.operations(), wanted, limit)

    def hosts(self) -> dict[str, str]:
        """Return which host recorded what was last answered, by operation id, where it is known."""
        begun = {line.head.operation_id or "": line.source.writer for line in self._begun.left()}
        return {each: host for each, host in (begun | {**self._writers}).items() if host}

    def running(self) -> list[Operation]:
        """Return the operations that have begun and whose process lives, in start order."""
        found = scan(self.sources, self.skipped, [b'"begin"'])
        begun = (line for line in found if line.head.type == "begin")
        return self._running(begun)

    def running_among(self, wanted: Wanted) -> list[Operation]:
        """Return those among the operations that the passes so far have met."""
        return [
            each for each in self._running(self._begun.left()) if wanted.takes(each, each.timestamp)
        ]

    def _running(self, begun: Iterable[Line]) -> list[Operation]:
        alive = {line.head.operation_id or "": line for line in living(begun)}
        first = min((line.moment for line in alive.values()), default=None)
        since = [each for each in self.sources if each.reaches(first)]
        left = self.without_archived(confirmed(since, alive))
        return sorted(running(left, _config.now()), key=start_order)

    def latest_sessions(self, limit: int | None, wanted: Wanted) -> dict[str, list[Operation]]:
        """Return the operations of the sessions in which something began last, newest first."""
        ranked = self.session_ids("", limit, wanted)
        found: dict[str, list[Operation]] = {each: [] for each in ranked}
        if not found:
            return found
        skipped, self.skipped = self.skipped, Skipped()  # each line counts once
        for operation in self.operations(Wanted(sessions=frozenset(found))):
            found[operation.session_id].append(operation)
        self.skipped = skipped
        return found

    def session_ids(self, prefix: str, limit: int | None, wanted: Wanted) -> list[str]:
        """Return the ids of the sessions in which something wanted began last, newest first."""
        latest: dict[str, datetime] = {}
        needles = [beginning(prefix)] if prefix else None
        floor = _Floor(latest, limit)
        for source in self.newest_sources:
            if limit == 0 or not source.reaches(floor()) or not source.reaches(wanted.since):
                break
            for line in self._latest_of(source, needles, wanted, floor):
                session_id = line.head.session_id
                if not session_id or not session_id.startswith(prefix):
                    continue
                if wanted.takes(line.head, line.moment):
                    before = latest.get(session_id)
                    if before is None or line.moment > before:
                        latest[session_id] = line.moment
        if self.archive is not None and limit != 0:
            for session_id, moment in self.archive.latest(wanted, prefix, limit, floor()):
                latest[session_id] = max(moment, latest.get(session_id, moment))
        return sorted(latest, key=lambda each: (latest[each], each), reverse=True)[:limit]

    def _latest_of(
        self, source: Source, needles: list[bytes | None] | None, wanted: Wanted, floor: _Floor
    ) -> Iterator[Line]:
        """Yield the lines of a file, or where that is enough those from the floor on."""
        if needles is not None or floor.limit is None:
            yield from scan([source], self.skipped, needles)
            return
        found = zones(source)
        for each in sorted(found, key=lambda each: each.last or _UNKNOWN, reverse=True):
            if each.reaches(floor()) and each.reaches(wanted.since):
                yield from scan([source], self.skipped, begin=each.begin, end=each.end)

    def _starts_in(self, source: Source, wanted: Wanted) -> Iterator[tuple[datetime, int]]:
        for line in scan([source], self.skipped, wanted.needles()):
            self._begun.add(line)
            if line.head.is_operation and wanted.takes(line.head, line.moment):
                yield line.moment, len(line.data)

    def _pass(self, wanted: Wanted, newest: _Newest) -> set[str]:
        """Gather what is wanted; return the sessions met whose parent is among the wanted ones."""
        born = set()
        parents = wanted.sessions or ()
        begun, takes = self._begun, wanted.takes
        takes_begin = replace(wanted, outcome=None).takes
        for line in self._lines(wanted, newest):
            head, kind = line.head, line.head.type
            if kind != "begin" or takes_begin(head, line.moment):
                begun.add(line)
            if head.is_operation:
                if takes(head, line.moment):
                    newest.add(line)
            elif kind == "session":
                self._learn(line, parents)
            if head.parent_session_id in parents and head.session_id:
                born.add(head.session_id)
        for line in self._archived(wanted, newest):
            newest.add(line)
        if self.archive is not None:
            for session_id, *entry in self.archive.entries(parents):
                self.facts.setdefault(session_id, SessionFacts()).entered(*entry)
        return born

    def _archived(self, wanted: Wanted, newest: _Newest) -> Iterator[Line]:
        """Yield the archived operations that are wanted and could be among the newest."""
        if self.archive is None:
            return
        oldest = newest.oldest()
        if oldest is not None:
            wanted = replace(wanted, since=max(oldest, wanted.since or oldest))
        yield from self.archive.lines(wanted, newest.limit)

    def _lines(self, wanted: Wanted, newest: _Newest) -> Iterator[Line]:
        """Yield the lines that may be wanted, the newest file first, until no file can add any."""
        earliest, needles = wanted.earliest(), wanted.needles()
        for source in self.newest_sources:
            if source.reaches(earliest) and source.reaches(newest.oldest()):
                yield from self._lines_of(source, wanted, needles)

    def _lines_of(
        self, source: Source, wanted: Wanted, needles: list[bytes | None] | None
    ) -> Iterator[Line]:
        """Yield the lines of a file that may be wanted, passing over what is known to hold none."""
        if wanted.sessions is None:
            yield from scan([source], self.skipped, needles)
            return
        named = (each for each in known_zones(source) if each.may_name(wanted.sessions))
        for each in joined(named):
            yield from scan([source], self.skipped, needles, begin=each.begin, end=each.end)

    def _learn(self, line: Line, sessions: Iterable[str]) -> None:
        session_id = line.head.session_id
        if session_id is None or session_id not in sessions:
            return
        record = record_of(line.data)
        facts = self.facts.setdefault(session_id, SessionFacts())
        name, parent_id = record.get("session_name"), line.head.parent_session_id
        facts.entered(line.moment, name if isinstance(name, str) else None, parent_id)

    def _with_interrupted(
        self, finished: list[Operation], wanted: Wanted, limit: int | None
    ) -> list[Operation]:
        interrupted = []
        if wanted.outcome in (None, "interrupted"):
            interrupted = self.interrupted(self._begun.left_ids())
        both = finished + [each for each in interrupted if wanted.takes(each, each.timestamp)]
        both.sort(key=start_order)
        return both if limit is None else both[max(0, len(both) - limit) :]

    def interrupted(
        self,
        operation_ids: Collection[str],
        where: Mapping[str, Source] | None = None,
        silent: Collection[Source] = (),
    ) -> list[Operation]:
        """Return those of the operations that nothing ended and whose process has died.

        The whole log is asked about them, because a void line, for one, names no session; only
        the file `where` each began, if nothing else in the log is known to name it. Files that
        are `silent` are known to hold nothing of their processes.
        """
        if where is None:
            return interrupted(
                self.sources,
                self.without_archived(confirmed(self.sources, operation_ids)),
                self.archive,
            )
        begun_in = defaultdict(list)
        for each in operation_ids:
            begun_in[where[each]].append(each)
        lines = [line for source, ids in begun_in.items() for line in confirmed([source], ids)]
        audible = [each for each in self.sources if each not in silent]
        return interrupted(audible, self.without_archived(lines), self.archive)

    def without_archived(self, begun: list[Line]) -> list[Line]:
        """Leave out those of these begin lines whose operations are in the archive."""
        if self.archive is None:
            return begun
        ended = self.archive.ended(begun)
        return [line for line in begun if line.head.operation_id not in ended]


class _Floor:
    """Tells before which moment nothing can be among the `limit` latest; `None`: unknown."""

    def __init__(self, latest: dict[str, datetime], limit: int | None) -> None:
        self.limit = limit
        self._latest = latest

    def __call__(self) -> datetime | None:
        if self.limit and len(self._latest) >= self.limit:
            return heapq.nlargest(self.limit, self._latest.values())[-1]
        return None


_UNKNOWN = "~"  # which sorts behind every timestamp


def start_order(operation: Operation) -> tuple[datetime, str]:
    return operation.timestamp, operation.operation_id or ""


class _Newest:
    """Keeps the newest `limit` operations, each `operation_id` once.

    With a limit, lines wait undecoded, because most of them make place for newer ones. `writers`
    has the host that wrote each, by id.
    """

    def __init__(self, limit: int | None, pricing: Pricing) -> None:
        self.limit = limit
        self._pricing = pricing
        self._lines: list[Line] = []
        self._oldest = datetime.min.replace(tzinfo=UTC)
        self.writers: dict[str, str] = {}
        self._all: list[Operation] = []

    def add(self, line: Line) -> None:
        if self.limit is None:
            self._keep(line)
        elif line.moment >= self._oldest:
            self._lines.append(line)
            if len(self._lines) > 2 * self.limit + 1000:
                self._trim(self.limit)

    def oldest(self) -> datetime | None:
        """Return the start of the oldest that is kept; `None` while there is room for older."""
        if self.limit is None:
            return None
        self._trim(self.limit)
        return self._oldest if len(self._lines) == self.limit else None

    def operations(self) -> list[Operation]:
        if self.limit is not None:
            self._trim(self.limit)
        for line in self._lines:
            self._keep(line)
        return self._all

    def _trim(self, limit: int) -> None:
        once = {line.head.operation_id or id(line): line for line in reversed(self._lines)}
        self._lines = heapq.nlargest(limit, once.values(), key=_line_order)
        if len(self._lines) == limit and limit:
            self._oldest = self._lines[-1].moment

    def _keep(self, line: Line) -> None:
        operation_id = line.head.operation_id
        if operation_id in self.writers:
            return
        if operation_id is not None:
            self.writers[operation_id] = line.source.writer
        operation = operation_of(line.data)
        if operation is not None:
            self._all.append(self._pricing.apply(operation))


def _line_order(line: Line) -> tuple[datetime, str]:
    return line.moment, line.head.operation_id or ""
