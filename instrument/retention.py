"""Retention: old days leave the archive for good, with or without what they came to."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection
from msgspec import Struct
from msgspec.structs import replace

from instrument._archived import days_in, files_of
from instrument._costs import quoted
from instrument._days import marked, of_days
from instrument._filing import connected, file
from instrument.archive import FORMAT, Manifest, Part, archive_dir, read_manifest, write_manifest
from instrument.compaction import changing, scratch_in

__all__ = ["Pruned", "prune"]


class Pruned(Struct, frozen=True):
    """What was removed for good: how many operations, and the size of their files in bytes."""

    operations: int = 0
    bytes: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(self.operations + other.operations, self.bytes + other.bytes)


def prune(log_dir: Path, before: datetime, *, keep_summary: bool) -> Pruned:
    """Remove the archived days of which all happened before a moment, and their sessions.

    With `keep_summary` what the days came to stays. Raises `ArchiveError` as `compact` does.
    """
    if read_manifest(log_dir) == Manifest():
        return Pruned()
    with changing(log_dir):
        manifest = read_manifest(log_dir)
        young = {each.day for each in manifest.parts if each.last >= before}
        old = [each for each in manifest.parts if each.day not in young]
        directory, name = archive_dir(log_dir), secrets.token_hex(8)
        with scratch_in(directory) as scratch, connected(scratch) as database:
            filing = _Filing(database, scratch, directory, name)
            after = replace(
                manifest,
                parts=tuple(each for each in manifest.parts if each not in old),
                sessions=filing.sessions(manifest, _beginning(before, young), old),
                unsummed=tuple(each for each in manifest.unsummed if each in young),
                days=filing.days(manifest, young, "true" if keep_summary else _stays(before, old)),
            )
        write_manifest(log_dir, after)
        for each in {*manifest.files()} - {*after.files()}:
            (directory / each).unlink(missing_ok=True)
        for place in {(directory / each.path).parent for each in old}:
            with suppress(OSError):  # there are younger operations of that day, or other files
                place.rmdir()
    return Pruned(sum(each.operations for each in old), sum(each.size for each in old))


def _beginning(before: datetime, young: set[str]) -> datetime:
    """Return the moment since which sessions stay: a day that stays does so from its beginning."""
    begins = (datetime.fromisoformat(f"{day}T00:00:00+00:00") for day in young)
    return min([before, *begins])


def _stays(before: datetime, old: Iterable[Part]) -> str:
    """Return a condition for what was kept of days that are not over before a moment."""
    since = quoted(before.astimezone(UTC).date().isoformat())
    went = of_days({each.day for each in old})
    return f"(day >= date {since} and not coalesce(day in {went}, false))"


class _Filing:
    """Makes the files of what is left."""

    def __init__(
        self, database: DuckDBPyConnection, scratch: Path, directory: Path, name: str
    ) -> None:
        self._database = database
        self._scratch = scratch
        self._directory = directory
        self._name = name

    def sessions(
        self, manifest: Manifest, before: datetime, old: Iterable[Part]
    ) -> tuple[str, ...]:
        """Return the files of the sessions in which something happened later."""
        since = f"last_at >= timestamptz {quoted(before.isoformat())}"
        rows = f"from {self._files(manifest.sessions)} where {since}"
        if not manifest.sessions:
            return ()
        # should the manifest be lost, it is made anew from what the files say
        told = {"v": FORMAT, "gone": [each.path for each in old], "known": manifest.other}
        return (self._file(f"{rows} order by session_id", "sessions", told),)

    def days(self, manifest: Manifest, left: set[str], stays: str) -> str | None:
        """Return the file of what the days came to: those with operations left, and what stays."""
        if manifest.days is None:
            return None
        table = marked(days_in([self._directory / manifest.days]), left)
        rows = f"from {table} where day in {of_days(left)} or {stays}"
        if not self._database.execute(f"select 1 {rows} limit 1").fetchall():
            return None
        told = {"v": FORMAT, "summed": manifest.batches()}
        return self._file(f"{rows} order by level, day", "days", told)

    def _files(self, names: Iterable[str]) -> str:
        return files_of(self._directory / each for each in names)

    def _file(self, query: str, kind: str, facts: Mapping[str, Any]) -> str:
        target = f"{kind}/{self._name}.parquet"
        file(self._database, query, self._scratch, self._directory / target, facts=facts)
        return target
