"""The archive: what closed segments were compacted into, and the manifest that says what counts.

    <log_dir>/archive/manifest.json                    what readers go by; replaced as a whole
    <log_dir>/archive/date=2026-11-21/<batch>.parquet  operations that began on that day (UTC)
    <log_dir>/archive/sessions/<batch>.parquet         a row for each session
    <log_dir>/archive/days/<batch>.parquet             sums by day, service and model
    <log_dir>/archive/damaged/<segment>                lines that nothing could be made of
    <log_dir>/archive/archive.lock                     held by who changes the archive

A file counts from the moment at which a manifest names it. Segments go after that, and until they
do the manifest tells that they are not to be read again; so neither a crash nor a reader at any
point loses or doubles anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from instrument._files import bytes_between, open_private, read_regular
from instrument._rates import KnownRates
from instrument.errors import ArchiveError, FormatError, ManifestError

__all__ = [
    "FORMAT",
    "NOTHING",
    "Manifest",
    "Part",
    "Segment",
    "archive_dir",
    "cut_short",
    "end_of_archived",
    "files_in",
    "manifest_path",
    "mark_of",
    "missing_sums",
    "present",
    "read_manifest",
    "sync_directory",
    "write_manifest",
]

FORMAT = 1
MARK_BYTES = 4096


class Segment(Struct, frozen=True):
    """A segment of the journal, up to `size` bytes of which are in the archive.

    `mark` tells it from another of the same name.
    """

    name: str
    size: int
    mark: str


class Part(Struct, frozen=True):
    """One Parquet file of operations, and what of it tells whether a query wants it.

    `path` is relative to the archive. `first` and `last` are the first and the last start;
    `first_session` and `last_session` the first and last session id in the order of their bytes.
    `repeats` says that a response is reported twice in one of its sessions.
    """

    path: str
    operations: int
    size: int
    first: datetime
    last: datetime
    first_session: str
    last_session: str
    repeats: bool = False

    def reaches(self, since: datetime | None, until: datetime | None) -> bool:
        return (since is None or self.last >= since) and (until is None or self.first < until)

    @property
    def batch(self) -> str:
        """The name of the batch that it was made of."""
        return self.path.split("/")[1].removesuffix(".parquet")

    @property
    def day(self) -> str:
        """The day (UTC) on which its operations began, as ISO 8601 has it."""
        return self.path.split("/")[0].removeprefix("date=")

    def overlaps(self, first: datetime, last: datetime) -> bool:
        return self.last >= first and self.first <= last

    def may_hold(self, session_id: str) -> bool:
        # where text is compared by bytes, UTF-8 keeps the order of code points
        return self.first_session <= session_id <= self.last_session


class Manifest(Struct, frozen=True):
    """Everything that counts in an archive. Paths are relative to it.

    `days` is the file of the sums by day, `prices` the price list that they were made with,
    `rates` what it knew of the operations' models, so that readers need not load it, and `unsummed`
    the days that have got operations since;
    `damaged` are files of lines that nothing could be made of, `other` the lines of the journal
    that are about the log itself.
    """

    v: int = FORMAT
    parts: tuple[Part, ...] = ()
    segments: tuple[Segment, ...] = ()
    sessions: tuple[str, ...] = ()
    days: str | None = None
    prices: str | None = None
    rates: tuple[KnownRates, ...] = ()
    unsummed: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    other: tuple[Raw, ...] = ()

    def batches(self) -> list[str]:
        """Return the names of the batches that its operations came in."""
        return sorted({each.batch for each in self.parts})

    def files(self) -> list[str]:
        """Return the files that readers need."""
        days = [] if self.days is None else [self.days]
        return [*(each.path for each in self.parts), *self.sessions, *days]


def archive_dir(log_dir: Path) -> Path:
    return log_dir / "archive"


def manifest_path(log_dir: Path) -> Path:
    return archive_dir(log_dir) / _MANIFEST


def files_in(directory: Path) -> list[Path]:
    """Return the files that changes of an archive have put there, whether they count or not."""
    found = (path for place in _PLACES for path in sorted(directory.glob(f"{place}/*")))
    return [path for path in found if _OUR_FILE.fullmatch(path.name)]


def missing_sums(directory: Path, manifest: Manifest) -> list[Path]:
    """Return the files of sessions and of days that somebody has deleted."""
    days = [] if manifest.days is None else [manifest.days]
    paths = [directory / each for each in (*manifest.sessions, *days)]
    return [each for each in paths if not each.exists()]


def cut_short(directory: Path, manifest: Manifest, *, may_be_gone: bool = False) -> Iterator[Path]:
    """Yield the files without the end that every Parquet file has.

    Raises `FileNotFoundError` for one that is gone, unless it may be.
    """
    for each in manifest.files():
        path = directory / each
        if path.suffix == ".parquet" and not (may_be_gone and not path.exists()):
            size = path.stat().st_size
            with path.open("rb") as file:
                file.seek(max(0, size - len(_PARQUET)))
                if file.read() != _PARQUET:
                    yield path


def present(directory: Path, parts: Iterable[Part]) -> list[Part]:
    """Return the files of operations that nobody has deleted."""
    return [each for each in parts if (directory / each.path).exists()]


def read_manifest(log_dir: Path) -> Manifest:
    """Return what counts in the archive of a log; nothing where there is none.

    Raises `ManifestError` where it is lost or damaged, `ArchiveError` where it cannot be read,
    and `FormatError` for a newer one.
    """
    path = manifest_path(log_dir)
    found = _read(path)
    if found is None and files_in(path.parent):
        # the first change of an archive may have begun in between, with its manifest
        found = _read(path)
        if found is None:
            raise ManifestError(path, "is gone")
    if found is not None and found.v > FORMAT:
        raise FormatError(
            f"{path} is of format {found.v}, and this version reads up to {FORMAT}:"
            " pip install -U instrument-kit"
        )
    return found or NOTHING


def _read(path: Path) -> Manifest | None:
    try:
        found = _decode(read_regular(path))
        if strange := [each for each in (*found.files(), *found.damaged) if not _is_ours(each)]:
            # whoever wrote that could have files elsewhere read, and removed by a prune
            raise ManifestError(path, f"names {strange[0]!r}, which is no file of an archive")
        return found
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ManifestError(path, f"is damaged: {error}") from None


def write_manifest(log_dir: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the one before, whole and for good before this returns."""
    directory = archive_dir(log_dir)
    unfinished = directory / f".{_MANIFEST}"
    descriptor = open_private(unfinished, os.O_WRONLY | os.O_TRUNC)
    with open(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(directory / _MANIFEST)
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """See to it that what was renamed or made in a directory is there after a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mark_of(path: Path, size: int) -> str:
    """Return what tells the file's first `size` bytes from those of another of its name."""
    import hashlib  # it loads OpenSSL

    begins = bytes_between(path, 0, min(size, MARK_BYTES))
    return hashlib.blake2b(begins, digest_size=8).hexdigest()


def end_of_archived(path: Path, segment: Segment) -> int | None:
    """Return how many bytes of a file are in the archive; `None` if it is not that segment.

    Raises `FileNotFoundError`.
    """
    end, size = segment.size, path.stat().st_size
    if size < end or mark_of(path, end) != segment.mark:
        return None
    # a torn line is closed before the next
    if end in (0, size) or b"\n" in bytes_between(path, end - 1, end + 1):
        return end
    # here it goes on: in a later copy, or in another file whose first line begins like it
    while end:
        begin = max(0, end - MARK_BYTES)
        newline = bytes_between(path, begin, end).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return None


def _is_ours(name: str) -> bool:
    place, _, file = name.partition("/")
    is_place = place in _PLACES or _DAY.fullmatch(place)
    return bool(is_place and _OUR_FILE.fullmatch(file) and "/" not in file)


_MANIFEST = "manifest.json"
_PARQUET = b"PAR1"  # which each file ends with
_PLACES = ("date=*", "sessions", "days", "damaged")
_DAY = re.compile(r"date=\d{4}-\d\d-\d\d")
_OUR_FILE = re.compile(r"[0-9a-f]{16}\b.*")
NOTHING = Manifest()
_decode = msgspec.json.Decoder(Manifest).decode
