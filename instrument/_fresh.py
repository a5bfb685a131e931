"""What the journal's lines came to, as this process remembers of files it has read before.

Journals only grow, so that a question asked again reads what is new in them. Every line means
what `operation_of` makes of it.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from instrument import _config
from instrument._begun import is_withdrawn
from instrument._bulk import bulk, hashes
from instrument._figures import Group, Key, key_of
from instrument._files import bytes_between
from instrument._gather import Reading
from instrument._lines import operation_of
from instrument._scan import BLOCK_BYTES, Line, Skipped, Source, scan
from instrument._stats import total_tokens
from instrument._zones import identity_of
from instrument.operation import Operation
from instrument.pricing import Pricing

if TYPE_CHECKING:
    from instrument._archived import Archive

__all__ = ["Fresh", "Identity", "Place", "ends_of", "fresh"]

MOST_BYTES = 1024**3  # of which what is remembered takes 60 MB
MOST_LINE_BY_LINE = 64 * 1024**2  # of which it takes 20 MB
MOST_AT_FIRST = 4 * 1024**2  # beyond it DuckDB is faster once, and not if it is asked again
QUIET = timedelta(seconds=10)  # after which nobody is taken to go on with a file
MOST_LOGS = 2
OPERATIONS_AT_ONCE = 5_000

Identity = tuple[int, int, int]
Ends = dict[Identity, tuple[Source, int]]


class Place(Struct, frozen=True):
    """How far a file has been read, and the sum of the last bytes before that."""

    end: int
    sum: int

    @classmethod
    def of(cls, source: Source, end: int) -> Place:
        return cls(end, _sum(source, end))


class _Met:
    """Hashes that were met before: many, in their order, and a few more."""

    def __init__(self, many: array[int] | None = None) -> None:
        self._many = array("Q") if many is None else many
        self._few: set[int] = set()

    def __contains__(self, number: int) -> bool:
        place = bisect_left(self._many, number)
        return number in self._few or [number] == self._many[place : place + 1].tolist()

    def takes(self, numbers: Sequence[int]) -> bool:
        """Take hashes in; tell whether each was a new one."""
        news = {*numbers}
        are_new = len(news) == len(numbers) and not any(each in self for each in news)
        self._few |= news
        return are_new


class Fresh:
    """The operations of the journal in groups. Without `is_simple` they are not sums alone:

    an operation stands twice in the log, or a response is reported twice in a session.
    """

    def __init__(self) -> None:
        self.groups: dict[Key, Group] = {}
        self.is_simple = True
        self.skipped = Skipped()
        self._places: dict[Identity, Place] = {}
        self._hashes: Callable[[Sequence[tuple[str, ...]]], list[int]] = _hashes
        self._ids = _Met()
        self._responses = _Met()
        self._reporting: set[str] = set()
        self._archived: set[int] = set()
        self._begun: dict[str, tuple[datetime, Identity]] = {}
        self._void: set[tuple[str, datetime]] = set()

    def is_of(self, ends: Ends) -> bool:
        """Tell whether what was read still stands in these files."""
        return all(
            each in ends
            and place.end <= ends[each][1]
            and _sum(ends[each][0], place.end) == place.sum
            for each, place in self._places.items()
        )

    def left(self, ends: Ends) -> int:
        """Return how many bytes of these files were not read."""
        return sum(
            end - (self._places[each].end if each in self._places else source.begin)
            for each, (source, end) in ends.items()
        )

    def read_whole(self, reading: Reading, ends: Ends) -> None:
        """Read all at once the files that nobody goes on with, if nothing else was read before."""
        quiet = {
            each: (source, end)
            for each, (source, end) in ends.items()
            if not source.begin and _config.now() - source.written_at > QUIET
        }
        found = bulk(reading, [source for source, _ in quiet.values()]) if quiet else None
        if found is None or any(_size(source) != end for source, end in quiet.values()):
            return
        identities = {source.path.absolute(): each for each, (source, _) in quiet.items()}
        self.groups, self._hashes = found.groups, hashes
        self._ids, self._responses = _Met(found.ids), _Met(found.responses)
        self._begun = {
            each: (moment, identities[path]) for each, (moment, path) in found.begun.items()
        }
        self._void = found.void
        self._places = {each: Place.of(source, end) for each, (source, end) in quiet.items()}

    def give_up(self, ends: Ends) -> None:
        """Remember of these files that sums do not tell, or that they are too long."""
        self.is_simple = False
        self._places = {each: Place.of(source, end) for each, (source, end) in ends.items()}

    def read(self, reading: Reading, ends: Ends) -> None:
        """Read what is new in the files."""
        news = _News()
        for identity, (source, end) in ends.items():
            place = self._places.get(identity) or Place(source.begin, 0)
            if place.end < end:
                lines = scan([source], self.skipped, begin=place.end, end=end)
                self._read(lines, identity, reading.pricing, news)
                place = Place.of(source, end)
            self._places[identity] = place
        self._check(reading.archive, news)

    def interrupted(self, reading: Reading) -> list[Operation]:
        """Return the operations that began, and whose process has died."""
        begun = [
            each
            for each, (moment, _) in self._begun.items()
            if not is_withdrawn(self._void, each, moment)
        ]
        found = zip(begun, self._hashes([(each,) for each in begun]), strict=True)
        left = {each: self._begun[each] for each, number in found if number not in self._ids}
        if not left:
            return []
        sources = {identity_of(each): each for each in reading.sources}
        where = {each: sources[identity] for each, (_, identity) in left.items()}
        return [reading.pricing.apply(each) for each in reading.interrupted(left, where)]

    def _read(
        self,
        lines: Iterable[Line],
        identity: Identity,
        pricing: Pricing,
        news: _News,
    ) -> None:
        read = (self._operation_of(line, identity) for line in lines)
        operations = (each for each in read if each is not None)
        while found := list(islice(operations, OPERATIONS_AT_ONCE)):
            news.add(found)
            self._add(pricing, [pricing.apply(each) for each in found])

    def _operation_of(self, line: Line, identity: Identity) -> Operation | None:
        if line.head.is_operation:
            return operation_of(line.data)
        operation_id = line.head.operation_id
        if operation_id is not None and line.head.type == "begin":
            began = line.moment, identity
            self._begun[operation_id] = max(began, self._begun.get(operation_id, began))
        elif operation_id is not None and line.head.type == "void":
            self._void.add((operation_id, line.moment))
        return None

    def _add(self, pricing: Pricing, operations: list[Operation]) -> None:
        by_key: dict[Key, list[Operation]] = defaultdict(list)
        for each in operations:
            by_key[key_of(each)].append(each)
        for key, found in by_key.items():
            group, known = Group.of(found, pricing), self.groups.get(key)
            self.groups[key] = group if known is None else known + group

    def _check(self, archive: Archive | None, news: _News) -> None:
        """Find out whether an operation or a response of the news is in the log already."""
        reported = self._hashes(news.reported)
        ids = self._hashes([(each,) for each in news.ids])
        if not (self._ids.takes(ids) and self._responses.takes(reported)):
            self.is_simple = False
        if archive is None or not self.is_simple:
            return
        sessions = {session_id for session_id, _ in news.reported} - self._reporting
        self._reporting |= sessions
        self._archived.update(self._hashes(archive.responses(sessions)))
        if not self._archived.isdisjoint(reported) or archive.has_any_of(news.ids, news.span):
            self.is_simple = False


class _News(Struct):
    """What has to be asked about operations that were just read."""

    ids: list[str] = field(default_factory=list)
    reported: list[tuple[str, str]] = field(default_factory=list)
    span: tuple[datetime, datetime] | None = None

    def add(self, operations: Sequence[Operation]) -> None:
        self.ids += [each.operation_id for each in operations if each.operation_id is not None]
        self.reported += [
            (each.session_id, each.response_id)
            for each in operations
            if each.response_id is not None
            and (total_tokens(each) is not None or each.cost_usd is not None)
        ]
        starts = [each.timestamp for each in operations]
        self.span = min(*starts, *(self.span or starts)), max(*starts, *(self.span or starts))


@contextmanager
def fresh(reading: Reading) -> Iterator[Fresh | None]:
    """Give what the journal's lines came to; `None` where there are too many to read for once.

    Raises `FileNotFoundError` for a file that vanished.
    """
    found = ends_of(reading.sources)
    size = Fresh().left(found or {})
    if found is None or size > MOST_BYTES:
        yield None
        return
    parts = tuple(str(each.path) for each in reading.snapshot.parts)
    key = reading.pricing.version, parts, frozenset(each.log_dir for each in reading.sources)
    is_first = key not in _known
    # nobody else has it meanwhile, and nobody after a failure
    known = _known.pop(key, None)
    if known is not None and not (known.is_of(found) and known.left(found) <= MOST_LINE_BY_LINE):
        known = None
    if known is None and not (is_first and size > MOST_AT_FIRST):
        known = Fresh()
        if size > MOST_AT_FIRST:
            known.read_whole(reading, found)
        if known.left(found) > MOST_LINE_BY_LINE:
            known.give_up(found)
    if known is not None and known.is_simple:
        known.read(reading, found)
    yield known
    _known[key] = known
    for each in [*_known][:-MOST_LOGS]:
        _known.pop(each, None)


def ends_of(sources: Iterable[Source]) -> Ends | None:
    """Return how long each file is; `None` where the last line of any may go on."""
    found = {}
    for source in sources:
        identity = identity_of(source)
        if identity is None:
            if source.may_vanish:
                continue
            raise FileNotFoundError(source.path)
        end = _size(source)
        if end and bytes_between(source.path, end - 1, end) != b"\n":
            return None
        found[identity] = source, end
    return found


def _size(source: Source) -> int:
    return source.path.stat().st_size


def _sum(source: Source, end: int) -> int:
    """Return the sum of the last bytes before a place."""
    begin = max(source.begin, end - BLOCK_BYTES)
    return zlib.crc32(bytes_between(source.path, begin, end))


def _hashes(names: Sequence[tuple[str, ...]]) -> list[int]:
    return [*map(hash, names)]


_known: dict[tuple[Any, ...], Fresh | None] = {}  # `None`: asked once
