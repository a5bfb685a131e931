"""What days came to, made of the operations of the archive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from instrument._archived import days_in, files_of
from instrument._costs import MATTERS, make_rates, priced
from instrument._days import (
    DAY,
    FIRST_OF_ITS_RESPONSE,
    charged,
    marked,
    of_days,
    percentiles,
    sums,
)
from instrument._facts import facts_of
from instrument._filing import connected, copy, file
from instrument._rates import Key, KnownRates
from instrument.archive import FORMAT, Manifest, Part, present
from instrument.pricing import Pricing

__all__ = ["is_behind", "summed_up"]

AT_ONCE = 500_000  # operations, whose durations are sorted in memory
MOST_KEYS, MOST_CHARACTERS = 500, 300


def is_behind(manifest: Manifest, pricing: Pricing) -> bool:
    """Tell whether days have got operations since they were summed up, or prices have changed."""
    return bool(manifest.parts) and (bool(manifest.unsummed) or manifest.prices != pricing.version)


def summed_up(
    manifest: Manifest, directory: Path, scratch: Path, name: str, pricing: Pricing
) -> Manifest:
    """Return a manifest in which all days are summed up; what has been is not done again.

    Nor are days of which somebody has deleted all files.
    """
    there = present(directory, manifest.parts)
    changed = {each.day for each in there}
    is_same = manifest.prices == pricing.version
    if is_same:
        changed &= {*manifest.unsummed}
    known = {each.key for each in manifest.rates} if is_same else set()
    files: list[Path] = []
    rated: set[Key] = set()
    with connected(scratch) as connection:
        make_rates(connection, pricing, rated)  # which is asked though no day has a model
        for parts in _by_days(there, changed):
            table = files_of(directory / each.path for each in parts)
            query = f"select distinct provider, service, model from {table} where model is not null"
            keys: set[Key] = {*connection.execute(query).fetchall()}
            if not keys <= rated:
                rated |= keys
                make_rates(connection, pricing, rated)
            details = f"select 1 from {table} where {MATTERS} limit 1"
            is_detailed = bool(connection.execute(details).fetchall())
            rows = priced(f"select * from {table}", pricing, is_detailed=is_detailed)
            repeats = any(each.repeats for each in parts)
            billed = FIRST_OF_ITS_RESPONSE if repeats else "true"
            query = sums(charged(f"({rows})", "true", billed), DAY)
            files.append(scratch / f"days-{len(files)}.parquet")
            copy(connection, f"{query} union all by name {percentiles(table, DAY)}", files[-1])
        found = [f"select * from {files_of([each])}" for each in files]
        if manifest.days is not None:
            file_of_days = directory / manifest.days
            summed = {*facts_of(connection, file_of_days).summed}
            dates = {each.day for each in there if each.batch in summed}
            kept = marked(days_in([file_of_days]), dates)
            found.append(f"select * from {kept} where gone or day not in {of_days(changed)}")
        if not found:
            rates = manifest.rates if is_same else ()
            return replace(manifest, prices=pricing.version, rates=rates, unsummed=())
        target = f"days/{name}.parquet"
        query = f"{' union all by name '.join(found)} order by level, day"
        facts = {"v": FORMAT, "summed": manifest.batches()}
        file(connection, query, scratch, directory / target, facts=facts)
    rates = tuple(KnownRates(*key, pricing.rates_of(key)) for key in _few(known | rated))
    return replace(manifest, days=target, prices=pricing.version, rates=rates, unsummed=())


def _few(keys: Iterable[Key]) -> list[Key]:
    """Leave out what a hostile log may name without end."""
    short = (key for key in keys if sum(len(each or "") for each in key) <= MOST_CHARACTERS)
    return sorted(short, key=str)[:MOST_KEYS]


def _by_days(parts: Sequence[Part], days: set[str]) -> Iterator[list[Part]]:
    """Put the files of some days together, each day whole, up to what memory bears."""
    together: list[Part] = []
    for day in sorted(days):
        here = [each for each in parts if each.day == day]
        if together and sum(each.operations for each in together + here) > AT_ONCE:
            yield together
            together = []
        together = together + here
    if together:
        yield together
