"""Retention: old days leave the archive for good, with or without what they came to."""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import duckdb
from msgspec import Struct
from msgspec.structs import replace

from instrument._archived import files_of
from instrument._costs import quoted
from instrument._days import of_days
from instrument._files import make_private_directory
from instrument._filing import copy
from instrument.archive import Manifest, archive_dir, read_manifest, write_manifest
from instrument.compaction import changing

__all__ = ["Pruned", "prune"]


class Pruned(Struct, frozen=True):
    """What was removed for good: how many operations, and the size of their files in bytes."""

    operations: int = 0
    bytes: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(self.operations + other.operations, self.bytes + other.bytes)


def prune(log_dir: Path, before: datetime, *, keep_summary: bool) -> Pruned:
    """Remove the archived days that ended before a moment, and their sessions.

    With `keep_summary` what the days came to stays. Raises `ArchiveError` as `compact` does.
    """
    if read_manifest(log_dir) == Manifest():
        return Pruned()
    with changing(log_dir):
        manifest = read_manifest(log_dir)
        old = [each for each in manifest.parts if each.last < before]
        directory, name = archive_dir(log_dir), secrets.token_hex(8)
        left = {each.day for each in manifest.parts if each not in old}
        after = replace(
            manifest,
            parts=tuple(each for each in manifest.parts if each not in old),
            sessions=_sessions(manifest, directory, name, before),
            unsummed=tuple(each for each in manifest.unsummed if each in left),
            days=manifest.days if keep_summary else _days(manifest, directory, name, before),
        )
        write_manifest(log_dir, after)
        gone = {*(each.path for each in old), *manifest.sessions, manifest.days or ""}
        for each in gone - {*after.sessions, after.days or ""}:
            (directory / each).unlink(missing_ok=True)
        for place in {(directory / each.path).parent for each in old}:
            with suppress(OSError):  # there are younger operations of that day, or other files
                place.rmdir()
    return Pruned(sum(each.operations for each in old), sum(each.size for each in old))


def _sessions(manifest: Manifest, directory: Path, name: str, before: datetime) -> tuple[str, ...]:
    """Return the files of the sessions in which something happened later."""
    if not manifest.sessions:
        return ()
    files = files_of(directory / each for each in manifest.sessions)
    where = f"last_at >= timestamptz {quoted(before.isoformat())}"
    target = f"sessions/{name}.parquet"
    return (
        (target,) if _copy(f"{files} where {where} order by session_id", directory / target) else ()
    )


def _days(manifest: Manifest, directory: Path, name: str, before: datetime) -> str | None:
    """Return the file of what the days came to that have operations left."""
    left = {each.day for each in manifest.parts if each.last >= before}
    if manifest.days is None or not left:
        return None
    files = files_of([directory / manifest.days])
    target = f"days/{name}.parquet"
    _copy(f"{files} where day in {of_days(left)} order by level, day", directory / target)
    return target


def _copy(rows: str, target: Path) -> int:
    """Write rows to a file of this user's alone; return how many there are."""
    make_private_directory(target.parent)
    with duckdb.connect() as connection:
        copy(connection, f"select * from {rows}", target)
        ((count,),) = connection.execute(f"select count(*) from {files_of([target])}").fetchall()
    return int(count)
