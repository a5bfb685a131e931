"""Groups of operations out of sums: what archived days came to, and what is in the journal."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import chain
from typing import Any, TypeVar

from msgspec.structs import astuple, replace

from instrument._archived import Archive, days_in, table_of
from instrument._costs import quoted
from instrument._days import (
    ADDED,
    DAY,
    OF_DAY,
    SHARES,
    added_up,
    errors_added_up,
    gone_of,
    in_part,
    keyed,
    level_of,
    marked,
    once_each,
)
from instrument._figures import Figures, Group, Key, key_of
from instrument._fresh import Fresh, fresh
from instrument._gather import Reading
from instrument._grouped import PERIODS, period_of
from instrument._snapshot import Archived
from instrument._stats import percentile
from instrument._wanted import Wanted, condition

__all__ = ["asked_of_days", "begin_of", "is_usual", "of_whole_days", "only_sums", "out_of_sums"]

MOST_SORTED = 500_000  # durations, which are remembered in 4 MB
MOST_REMEMBERED = 8
SHARES_ASKED = (0.50, 0.95, 0.99)

Row = tuple[Any, ...]


def only_sums(reading: Reading, by: Sequence[str], wanted: Wanted) -> bool:
    """Tell whether all that is asked is something that days are summed up by."""
    others = replace(wanted, since=None, until=None, service=None, model=None)
    keys = {"service", "model", *PERIODS}
    return not reading.pricing.replaces and others == Wanted() and keys.issuperset(by)


def of_whole_days(wanted: Wanted, zone: tzinfo, dates: Collection[date]) -> bool:
    """Tell whether days of UTC are those that are asked for."""
    bounds = (wanted.since, wanted.until)
    return all(each is None or _is_midnight(each) for each in bounds) and _is_utc(zone, dates)


def asked_of_days(wanted: Wanted) -> str:
    """Return what is wanted as a condition on days that are summed up."""
    asked = [
        *(["day >= cast($since as date)"] if wanted.since is not None else []),
        *(["day < cast($until as date)"] if wanted.until is not None else []),
        *(["service = $service"] if wanted.service is not None else []),
        *(["model = $model"] if wanted.model is not None else []),
    ]
    return " and ".join(["true", *asked])


def out_of_sums(
    reading: Reading, groupings: Sequence[Sequence[str]], wanted: Wanted, zone: tzinfo
) -> list[list[Row]] | None:
    """Return keys, figures, errors and percentiles of groups, for each of the lists of keys.

    `None` where sums do not tell.
    """
    archive = reading.archive
    if archive is not None and not reading.snapshot.parts and not archive.days():
        archive = None
    if not all(only_sums(reading, by, wanted) for by in groupings):
        return None
    if not of_whole_days(wanted, zone, archive.dates() if archive else ()):
        return None
    repeats = any(each.part.repeats for each in reading.snapshot.parts)
    if repeats or (archive is not None and not archive.days(reading.pricing.version)):
        return None
    with fresh(reading) as found:
        if found is None or not found.is_simple:
            return None
        groups = _of_journal(reading, found, wanted)
    if not of_whole_days(wanted, zone, {day for (day, _, _), _ in groups}):
        return None
    reading.skipped.merge(found.skipped)
    return [_rows(reading, archive, groups, by, wanted) for by in groupings]


def _rows(
    reading: Reading,
    archive: Archive | None,
    groups: Sequence[tuple[Key, Group]],
    by: Sequence[str],
    wanted: Wanted,
) -> list[Row]:
    durations = _by(by, ((key, each.seconds) for key, each in groups))
    figures = {
        key: sum(each[1:], each[0])
        for key, each in _by(by, ((key, each.figures) for key, each in groups)).items()
    }
    errors: dict[Row, Counter[str]] = defaultdict(Counter)
    for key, each in _by(by, ((key, each.errors) for key, each in groups)).items():
        for failed in each:
            errors[key].update(failed)
    if archive is None:
        shares = {key: _shares_of(_sorted(each), _NONE) for key, each in durations.items()}
    else:
        archived = _Archived(archive, reading, by, wanted)
        archived.add_to(figures, errors)
        shares = archived.shares({day for (day, _, _), _ in groups}, durations)
    return [
        (*key, *astuple(each), errors[key], shares.get(key, _UNKNOWN))
        for key, each in figures.items()
    ]


def begin_of(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time.min, zone).astimezone(UTC)


def is_usual(day: date) -> bool:
    """Leave out the ends of the calendar, where zones have no days."""
    return date.min + timedelta(days=7) < day < date.max - timedelta(days=7)


def _is_midnight(moment: datetime) -> bool:
    try:
        return moment.astimezone(UTC).time() == time.min
    except OverflowError:  # at the ends of the calendar
        return False


def _is_utc(zone: tzinfo, dates: Collection[date]) -> bool:
    """Tell whether days in a zone are those of UTC for as long as there are any."""
    if zone is UTC or not dates:
        return zone is UTC
    first, last = min(dates), max(*dates, datetime.now(UTC).date())
    days = ((last - first).days + 2) if is_usual(first) and is_usual(last) else 0
    moments = (begin_of(first + timedelta(days=each), UTC) for each in range(days))
    return days > 0 and not any(each.astimezone(zone).utcoffset() for each in moments)


def _of_journal(reading: Reading, known: Fresh, wanted: Wanted) -> list[tuple[Key, Group]]:
    """Return the groups that are wanted, interrupted operations included."""
    found = [*known.groups.items()]
    found += [
        (key_of(each), Group.of([each], reading.pricing)) for each in known.interrupted(reading)
    ]
    since, until = (each and each.astimezone(UTC).date() for each in (wanted.since, wanted.until))
    return [
        ((day, service, model), each)
        for (day, service, model), each in found
        if (since is None or day >= since)
        and (until is None or day < until)
        and wanted.service in (None, service)
        and wanted.model in (None, model)
    ]


def _by(by: Sequence[str], groups: Iterable[tuple[Key, _Each]]) -> dict[Row, list[_Each]]:
    """Put what belongs to the same group together."""
    found: dict[Row, list[_Each]] = defaultdict(list)
    for (day, service, model), each in groups:
        values = {"service": service, "model": model}
        key = tuple(values[name] if name in values else period_of(name, day) for name in by)
        found[key].append(each)
    return found


class _Archived:
    """What the archive has of the groups that are asked for."""

    def __init__(
        self, archive: Archive, reading: Reading, by: Sequence[str], wanted: Wanted
    ) -> None:
        self.files = archive.days(reading.pricing.version)
        self._archive = archive
        self._parts = archive.parts(wanted)
        self._by = by
        self._where, self._params = condition(wanted)
        rows = marked(days_in(self.files), archive.dates())
        self._rows = f"(select * from {rows} where {asked_of_days(wanted)})"

    def add_to(self, figures: dict[Row, Figures], errors: dict[Row, Counter[str]]) -> None:
        """Add what days came to."""
        sums = f"select * from {self._rows} where level = ''"
        for row in self._remembered(added_up(sums, self._by, OF_DAY, ADDED)):
            group, found = row[: len(self._by)], Figures(*row[len(self._by) :])
            figures[group] = figures[group] + found if group in figures else found
        for *key, error_type, count in self._remembered(errors_added_up(sums, self._by)):
            errors[tuple(key)][error_type] += count

    def shares(
        self, days: Collection[date], durations: Mapping[Row, Sequence[array[float]]]
    ) -> dict[Row, Any]:
        """Return the percentiles of each group, with durations that are not in the archive.

        Where some durations of a group are gone, nobody knows them.
        """
        gone = self._remembered(gone_of(self._rows, self._by))
        unknown = in_part(gone, self._by, durations)
        found = self._shares(days, durations)
        return {key: shares for key, shares in found.items() if key not in unknown}

    def _shares(
        self, days: Collection[date], durations: Mapping[Row, Sequence[array[float]]]
    ) -> dict[Row, Any]:
        if "day" not in self._by:
            return self._asked(self._parts, durations)
        keys = ", ".join(map(keyed, self._by))
        level = quoted(level_of([*self._by, *self._params]))
        query = f"select {keys}, shares from {self._rows} where level = {level}"
        kept, several = once_each(self._remembered(query))
        names = {str(each) for each in days}
        names |= {str(key[self._by.index("day")]) for key in several}
        parts = [each for each in self._parts if each.part.day in names]
        if sum(each.part.operations for each in parts) > MOST_SORTED:
            return kept | self._asked(parts, durations)
        archived = self._sorted_of(parts)
        return kept | {
            key: _shares_of(archived.get(key, _NONE), _sorted(durations.get(key, ())))
            for key in archived.keys() | durations.keys()
        }

    def _sorted_of(self, parts: Sequence[Archived]) -> dict[Row, array[float]]:
        """Return the durations of groups in these files, which are remembered."""
        paths = tuple(str(each.path) for each in parts)
        key = (paths, self._where, *sorted(self._params.items()), *self._by)
        found = _durations.get(key)
        if found is None:
            found = {}
            if parts:
                keys = "".join(f"key_{each}, " for each in self._by)
                query = f"select {keys} list_sort(list(duration_seconds)) from {self._of(parts)}"
                rows = self._archive.rows(f"{query} group by all", self._params)
                found = {row[:-1]: array("d", row[-1]) for row in rows}
            _durations[key] = found
            for each in [*_durations][:-MOST_REMEMBERED]:
                _durations.pop(each, None)
        return found

    def _asked(
        self, parts: Sequence[Archived], durations: Mapping[Row, Sequence[array[float]]]
    ) -> dict[Row, Any]:
        """Return the percentiles of files and of durations, as DuckDB has them."""
        if not parts:
            return {key: _shares_of(_sorted(each), _NONE) for key, each in durations.items()}
        keys = [f"key_{each}" for each in self._by]
        columns = zip(*durations, strict=True) if durations else [()] * len(keys)
        params = {f"of_{key}": [*each] for key, each in zip(keys, columns, strict=True)}
        params["seconds"] = [_sorted(each).tolist() for each in durations.values()]
        kinds = [f"${f'of_{key}'}::{_KIND.get(key, 'varchar')}[]" for key in keys]
        named = [f"unnest({kind}) as {key}" for key, kind in zip(keys, kinds, strict=True)]
        lists = ", ".join([*named, "unnest($seconds::double[][]) as seconds"])
        given = ", ".join([*keys, "unnest(seconds) as duration_seconds"])
        of_files = ", ".join([*keys, "duration_seconds"])
        rows = (
            f"select {of_files} from {self._of(parts)}"
            f" union all select {given} from (select {lists})"
        )
        query = f"select {', '.join([*keys, SHARES])} from ({rows})"
        grouped = f"group by {', '.join(keys)}" if keys else "having count(*) > 0"
        found = self._archive.rows(f"{query} {grouped}", self._params | params)
        return {row[:-1]: row[-1] for row in found}

    def _of(self, parts: Sequence[Archived]) -> str:
        """Return the table of the operations in these files with the keys that are asked for."""
        keys = "".join(f"{keyed(each)}, " for each in self._by)
        rows = f"select *, {DAY} as day from {table_of(parts)} where {self._where}"
        return f"(select {keys} duration_seconds from ({rows}))"

    def _remembered(self, query: str) -> list[Row]:
        return self._archive.remembered_rows(query, self._params, self.files)


def _sorted(runs: Sequence[array[float]]) -> array[float]:
    if len(runs) == 1:
        return runs[0]
    return array("d", sorted(chain.from_iterable(runs)))


class _Both(Sequence[float]):
    """Two ascending sequences as one, of which few places are looked at."""

    def __init__(self, one: array[float], other: array[float]) -> None:
        self._one, self._other = one, other

    def __len__(self) -> int:
        return len(self._one) + len(self._other)

    def __getitem__(self, place: Any) -> Any:
        one, other = self._one, self._other
        low, high = max(0, place - len(other)), min(place, len(one))
        while low < high:
            middle = (low + high) // 2
            if one[middle] < other[place - middle - 1]:
                low = middle + 1
            else:
                high = middle
        nearest = (*one[low : low + 1], *other[place - low : place - low + 1])
        return min(nearest)


def _shares_of(one: array[float], other: array[float]) -> list[float | None]:
    both = _Both(one, other)
    return [percentile(both, each) for each in SHARES_ASKED]


_Each = TypeVar("_Each")
_NONE: array[float] = array("d")
_UNKNOWN = (None, None, None)
_KIND = {f"key_{each}": "date" for each in PERIODS}
_durations: dict[Row, dict[Row, array[float]]] = {}
