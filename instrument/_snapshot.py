"""What one reading goes by: the files of the journal and of the archive that count."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from instrument import _config
from instrument._scan import SEGMENT_NAME, Source, sources_of
from instrument.archive import (
    NOTHING,
    Manifest,
    Part,
    Segment,
    archive_dir,
    cut_short,
    end_of_archived,
    read_manifest,
)
from instrument.errors import DamagedFileError

__all__ = ["Archived", "Snapshot", "closed_segments", "snapshot"]


class Archived(Struct, frozen=True):
    """A Parquet file of operations, of one of the log directories."""

    path: Path
    log_dir: Path
    part: Part


class Snapshot(Struct, frozen=True):
    """Which files hold the log: each operation is in one of `sources` or in one of `parts`.

    `listed` are the files of the journal whether they count or not, `manifests` the archives by
    their log directories, `gone` the files that a manifest names and somebody has deleted.
    """

    listed: list[Source]
    sources: list[Source]
    parts: list[Archived]
    manifests: dict[Path, Manifest]
    gone: list[Path]

    def check_archives(self) -> None:
        """Raise `FileNotFoundError` if a file of the archives has gone since they were listed.

        And `DamagedFileError` for one that is cut short.
        """
        for log_dir, manifest in self.manifests.items():
            for path in cut_short(archive_dir(log_dir), manifest):
                raise DamagedFileError(path)


def snapshot(log_dirs: Iterable[Path], *, may_vanish: bool = False) -> Snapshot:
    """List the files of one or several logs; each counts once by whatever paths it is reached.

    Raises `ArchiveError` and `FormatError` for an archive that cannot be read.
    """
    places = list(log_dirs)
    # in this order: what is compacted in between is then listed twice and not never
    listed = sources_of(places, may_vanish=may_vanish)
    found = {place: _present(place) for place in places}
    manifests = {place: manifest for place, (manifest, _) in found.items() if manifest != NOTHING}
    if not manifests:
        return Snapshot(listed, listed, [], {}, [])
    parts = {
        part.path: Archived(archive_dir(place) / part.path, place, part)
        for place, manifest in manifests.items()
        for part in manifest.parts
    }
    compacted: dict[str, list[Segment]] = {}
    for manifest in manifests.values():
        for each in manifest.segments:
            compacted.setdefault(each.name, []).append(each)
    left = (_left(each, compacted.get(each.path.name, ())) for each in listed)
    sources = [each for each in left if each is not None]
    gone = [path for _, paths in found.values() for path in paths]
    return Snapshot(listed, sources, [*parts.values()], manifests, gone)


def closed_segments(sources: Iterable[Source], *, all_segments: bool = False) -> list[Source]:
    """Return the segments of the journal that are complete, in the order of their names.

    With `all_segments` also those that their writers would go on with.
    """
    today = time.strftime("%Y-%m-%d", time.gmtime(_config.clock.time_ns() // 10**9))
    found = [
        (each, name[1], name[2], int(name[3]))
        for each in sources
        if (name := SEGMENT_NAME.fullmatch(each.path.name)) and each.path.parent.name == "journal"
    ]
    latest: dict[tuple[str, str], int] = defaultdict(int)
    for _, day, host, number in found:
        latest[day, host] = max(latest[day, host], number)
    closed = [
        each
        for each, day, host, number in found
        if all_segments or day < today or number < latest[day, host]
    ]
    return sorted(closed, key=lambda each: each.path.name)


def _present(log_dir: Path) -> tuple[Manifest, list[Path]]:
    """Return a manifest without the files that are gone, and these."""
    while True:
        manifest = read_manifest(log_dir)
        directory = archive_dir(log_dir)
        gone = {each for each in manifest.files() if not (directory / each).exists()}
        if not gone:
            return manifest, []
        if read_manifest(log_dir) == manifest:
            # by nobody of ours, who would have changed the manifest before
            kept = replace(
                manifest,
                parts=tuple(each for each in manifest.parts if each.path not in gone),
                sessions=tuple(each for each in manifest.sessions if each not in gone),
                days=None if manifest.days in gone else manifest.days,
            )
            return kept, [directory / each for each in gone]


def _left(source: Source, compacted: Iterable[Segment]) -> Source | None:
    """Return what of a segment is not in the archive; `None` where all of it is."""
    # the largest, for what was appended to a compacted segment may have been compacted too
    for segment in sorted(compacted, key=lambda each: each.size, reverse=True):
        try:
            end = end_of_archived(source.path, segment)
            if end is None:
                continue
            size = source.path.stat().st_size
        except FileNotFoundError:
            return source  # whoever opens it will find out
        return None if size == end else replace(source, begin=end)
    return source
