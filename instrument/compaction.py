"""Compaction: closed segments of the journal become Parquet, about eleven times smaller.

Only segments that nobody writes to are touched: those of closed days, and those that a later
number of their day has superseded. What counts in the archive, and from when on, is in `archive`.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import duckdb
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from instrument._ahead import Ahead
from instrument._batch import Batch
from instrument._begun import Begun, interrupted, living
from instrument._databases import interruptible
from instrument._facts import held_alone
from instrument._files import close, lock, make_private_directory, open_locked, open_regular
from instrument._gather import Reading
from instrument._scan import Line, Skipped, Source, needle, scan
from instrument._snapshot import closed_segments
from instrument._summing import is_behind, summed_up
from instrument._survey import Survey
from instrument.archive import (
    NOTHING,
    Manifest,
    Segment,
    archive_dir,
    manifest_path,
    mark_of,
    missing_sums,
    read_manifest,
    sync_directory,
    write_manifest,
)
from instrument.errors import ArchiveError, ManifestError, MissingFileError
from instrument.operation import Operation
from instrument.pricing import Pricing

__all__ = ["Compaction", "changing", "compact", "holding", "scratch_in", "sum_up", "tidy"]

BATCH_BYTES = 96 * 1024**2
_OUR_FILE = re.compile(r"\.?[0-9a-f]{16}\b.*")
_SCRATCH = "unfinished-"


class Compaction(Struct, frozen=True):
    """What a compaction did: how many segments and operations it moved, and their sizes in bytes.

    `left` says of each segment that it could not move why.
    """

    segments: int = 0
    operations: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    left: dict[str, str] = msgspec.field(default_factory=dict)

    def __add__(self, other: Compaction) -> Compaction:
        return Compaction(
            self.segments + other.segments,
            self.operations + other.operations,
            self.bytes_before + other.bytes_before,
            self.bytes_after + other.bytes_after,
            self.left | other.left,
        )


def compact(
    log_dir: Path,
    pricing: Pricing,
    *,
    all_segments: bool = False,
    advance: Callable[[float], None] = lambda size: None,
) -> Compaction:
    """Move what is closed into the archive.

    `advance` hears how many more bytes are done. Raises `ArchiveError` if another process is at
    it, or where the archive cannot be written; the log is whole in any case.
    """
    sources = Reading([log_dir]).snapshot.listed
    batches = list(_batches(closed_segments(sources, all_segments=all_segments)))
    result = Compaction()
    if not batches and not is_behind(read_manifest(log_dir), pricing):
        _clear_away(log_dir)
        return result
    with changing(log_dir):
        ahead = Ahead(Reading([log_dir]), {each.path for batch in batches for each in batch})
        for batch in batches:
            size = sum(map(_size, batch))
            result += _move(log_dir, batch, ahead)
            advance(size)
        sum_up(log_dir, pricing)
    return result


@contextmanager
def changing(log_dir: Path) -> Iterator[None]:
    """Hold the archive's lock, and leave nothing in it that does not count.

    Raises `ArchiveError` where another process holds it, and for a file system's faults,
    `ManifestError` where files hold operations that the manifest does not name, and
    `MissingFileError` where one that it names is gone that is made of others.
    """
    with holding(log_dir) as directory:
        manifest = read_manifest(log_dir)
        if held_alone(directory, manifest):
            raise ManifestError(manifest_path(log_dir), "is older than files beside it")
        for path in missing_sums(directory, manifest):
            raise MissingFileError(path)
        tidy(directory, manifest)
        if manifest == NOTHING:
            # before any file, so that files without a manifest tell that it was lost
            write_manifest(log_dir, manifest)
        yield


@contextmanager
def holding(log_dir: Path) -> Iterator[Path]:
    """Hold the archive's lock, whatever its manifest says; give the archive's directory.

    Raises `ArchiveError` where another process holds it, and for a file system's faults.
    """
    directory = archive_dir(log_dir)
    try:
        make_private_directory(directory)
        file = open_locked(directory / "archive.lock", exclusive=True)
    except BlockingIOError:
        raise ArchiveError(
            f"another process is changing the archive in {directory}: try again when it is done"
        ) from None
    except OSError as error:
        raise ArchiveError(f"{directory} cannot be written: {error.strerror}") from error
    try:
        if not _locks_work(file.path):
            raise ArchiveError(f"the file system of {directory} has no locks: move the log to one")
        with interruptible():
            yield directory
    except OSError as error:
        what = error.strerror or str(error)
        raise ArchiveError(f"{directory} cannot be written: {what}; the log is whole") from error
    except duckdb.Error as error:
        raise ArchiveError(f"{directory} cannot be changed: {error}") from error
    finally:
        close(file)


@contextmanager
def scratch_in(directory: Path) -> Iterator[Path]:
    """Give a directory for what is not finished, beside what it becomes."""
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=directory) as scratch:
        yield Path(scratch)


class _Held(Struct):
    """A segment that nobody else may write to, and what was found in it."""

    source: Source
    survey: Survey


def _move(log_dir: Path, sources: list[Source], ahead: Ahead) -> Compaction:
    """Move some segments at once: either all that can be moved is in the archive, or nothing."""
    left: dict[str, str] = {}
    with ExitStack() as stack:
        locked = [each for each in sources if _lock(each, stack, left)]
        reading = Reading([log_dir])
        counted = {each.path: each for each in reading.sources}
        # what was left over when a compaction was killed behind its last step
        done = [each.path for each in locked if each.path not in counted]
        found = [counted[each.path] for each in locked if each.path in counted]
        held = [_Held(each, ahead.survey(each)) for each in found]
        ended = _interrupted(held, reading, left, ahead) if held else {}
        moved = [each for each in held if each.source.path.name not in left]
        result = _write(log_dir, moved, ended) if moved else Compaction()
        for path, size in [(each, None) for each in done] + [_place(each) for each in moved]:
            # somebody who takes no lock may have appended to it: the rest is for the next time
            if size is None or path.stat().st_size == size:
                path.unlink()
        if done or moved:
            sync_directory(log_dir / "journal")
    return replace(result, left=left)


def _lock(source: Source, stack: ExitStack, left: dict[str, str]) -> bool:
    """Keep writers away from a segment until `stack` is left; tell whether that went well."""
    try:
        stack.callback(close, open_locked(source.path, exclusive=True))
    except BlockingIOError:
        left[source.path.name] = "a process has it open"
        return False
    except OSError as error:
        left[source.path.name] = error.strerror or str(error)
        return False
    return True


def _place(held: _Held) -> tuple[Path, int]:
    return held.source.path, held.survey.size


def _interrupted(
    held: list[_Held], reading: Reading, left: dict[str, str], ahead: Ahead
) -> dict[str, list[Operation]]:
    """Return the interrupted operations by host; leave segments alone where something runs."""
    open_ids = ahead.open_in((each.source, each.survey) for each in held)
    dead = ahead.dead(open_ids, reading.sources)
    begun = reading.without_archived(_unended(held, reading.sources, open_ids - dead.keys()))
    for line in living(begun):
        left[line.source.path.name] = "an operation that began in it is still running"
    settled = [line for line in begun if line.source.path.name not in left]
    hosts = {line.head.operation_id: line.source.writer for line in settled}
    found: dict[str, list[Operation]] = defaultdict(list)
    for each in interrupted(reading.sources, settled, reading.archive):
        found[hosts[each.operation_id]].append(each)
    for source, each in dead.values():
        if source.path.name not in left:
            found[source.writer].append(each)
    return found


def _unended(held: list[_Held], sources: list[Source], left: set[str]) -> list[Line]:
    """Return the begin lines of these operations that nothing in the journal ends.

    Most that their segment leaves open end in the next one, so that few files are looked at.
    """
    first = next((place for place, each in enumerate(sources) if each == held[0].source), 0)
    begun = Begun()
    for source in sources[first:] + sources[:first]:
        if not left:
            break
        for line in scan([source], Skipped(), [needle(each) for each in left]):
            if line.head.operation_id in left:
                begun.add(line)
        left = left - begun.ended(left)
    return begun.left()


def _write(log_dir: Path, moved: list[_Held], ended: dict[str, list[Operation]]) -> Compaction:
    before, directory = read_manifest(log_dir), archive_dir(log_dir)
    segments = [_segment(each) for each in moved]
    with (
        scratch_in(directory) as scratch,
        Batch(directory, scratch, secrets.token_hex(8), segments) as batch,
    ):
        batch.fill([(each.source, each.survey) for each in moved], ended, before)
        after = batch.write(before)
    write_manifest(log_dir, after)
    for each in set(before.sessions) - set(after.sessions):
        (directory / each).unlink(missing_ok=True)
    new = after.parts[len(before.parts) :]
    return Compaction(
        segments=len(moved),
        operations=sum(each.operations for each in new),
        bytes_before=sum(each.survey.size - each.source.begin for each in moved),
        bytes_after=sum(each.size for each in new),
    )


def sum_up(log_dir: Path, pricing: Pricing) -> None:
    """Bring what the days came to up to date, under the archive's lock."""
    manifest, directory = read_manifest(log_dir), archive_dir(log_dir)
    if not is_behind(manifest, pricing):
        return
    with scratch_in(directory) as scratch:
        name = secrets.token_hex(8)
        write_manifest(log_dir, summed_up(manifest, directory, scratch, name, pricing))
    if manifest.days is not None:
        (directory / manifest.days).unlink(missing_ok=True)


def _segment(held: _Held) -> Segment:
    path, size = _place(held)
    return Segment(path.name, size, mark_of(path, size))


def _batches(closed: list[Source]) -> Iterator[list[Source]]:
    """Put segments together, up to what memory bears."""
    batch: list[Source] = []
    size = 0
    for each in closed:
        bytes_here = _size(each)
        if batch and size + bytes_here > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += bytes_here
    if batch:
        yield batch


def _size(source: Source) -> int:
    with suppress(FileNotFoundError):
        return source.path.stat().st_size
    return 0


def _locks_work(path: Path) -> bool:
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        lock(descriptor, exclusive=True)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _clear_away(log_dir: Path) -> None:
    """Remove what a change that was killed at its very end has left, if nobody is at another."""
    directory = archive_dir(log_dir)
    if any(directory.glob(f"{_SCRATCH}*")) or _left_over(directory, read_manifest(log_dir)):
        with suppress(ArchiveError), changing(log_dir):
            pass


def tidy(directory: Path, manifest: Manifest) -> None:
    """Remove what a change of the archive that was killed has left, under its lock."""
    for path in _left_over(directory, manifest):
        path.unlink(missing_ok=True)
    for path in [*directory.glob(f"{_SCRATCH}*"), *directory.glob("date=*")]:
        with suppress(OSError):  # there is something in it
            path.rmdir()


def _left_over(directory: Path, manifest: Manifest) -> list[Path]:
    """Return the files of ours that the manifest does not name."""
    named = {*manifest.files(), *manifest.damaged}
    return [
        path
        for path in directory.glob("*/*")
        if path.parent.name.startswith(_SCRATCH)
        or (_OUR_FILE.fullmatch(path.name) and _name(path, directory) not in named)
    ]


def _name(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix()
