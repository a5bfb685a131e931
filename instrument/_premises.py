"""The place where a log is kept, looked over: who may read and write it, and how full it is."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct

__all__ = ["EXAMPLES", "Finding", "not_there", "premises"]

EXAMPLES = 20
LEAST_FREE_BYTES = 1024**3
_OPEN = 0o077
_NAMES = ("session.json", "session.lock", "journal", "run", "archive", "budgets")
_ELSEWHERE = "choose another directory with configure(log_dir=...) or INSTRUMENT_DIR"


class Finding(Struct, frozen=True, kw_only=True):
    """What one check of `UsageLog.doctor()` found in one log directory.

    `level` is `ok`, `note`, or `problem` where a person has to do something; `cure` says what.
    `details` has the figures, and up to 20 `examples` where there are any.
    """

    check: str
    level: str = "ok"
    message: str
    cure: str | None = None
    log_dir: str
    details: dict[str, Any] = {}


class Fault(NamedTuple):
    """A file that is not as it should be; `kind` is `open`, `owner` or `outside`."""

    path: str
    kind: str
    said: str


def not_there(log_dir: Path) -> Finding:
    """Tell of a directory that does not exist, or that something else stands in the place of."""
    existing = next(each for each in (log_dir, *log_dir.parents) if each.exists())
    can_be_made = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return Finding(
        check="writable",
        level="note" if can_be_made else "problem",
        message=f"{log_dir} does not exist: nothing has been recorded there yet"
        if can_be_made
        else f"{log_dir} cannot be made: {existing} is in the way, or cannot be written to",
        cure=None if can_be_made else _ELSEWHERE,
        log_dir=str(log_dir),
    )


def premises(
    log_dir: Path,
    max_bytes: int,
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
) -> list[Finding]:
    """Return what there is to say about a log directory without reading its lines."""
    journal = _sizes([*log_dir.glob("*.jsonl"), *log_dir.glob("journal/*.jsonl")])
    archive = _sizes(log_dir.glob("archive/**/*"))
    return [
        _writable(log_dir),
        _permissions(log_dir),
        _size(log_dir, journal, archive, max_bytes),
        _disk(log_dir, free_bytes(log_dir), sum(journal) + sum(archive)),
    ]


def _writable(log_dir: Path) -> Finding:
    places = [log_dir, *(log_dir / name for name in ("journal", "run", "archive"))]
    shut = [
        str(each) for each in places if each.is_dir() and not os.access(each, os.W_OK | os.X_OK)
    ]
    shut += [str(each) for each in log_dir.glob("journal/*.jsonl") if not os.access(each, os.W_OK)]
    return Finding(
        check="writable",
        level="problem" if shut else "ok",
        message=f"this user cannot write to {shut[0]}" if shut else "it can be written to",
        cure=f"chmod or chown it, or {_ELSEWHERE}" if shut else None,
        log_dir=str(log_dir),
        details={"count": len(shut), "examples": shut[:EXAMPLES]},
    )


def _permissions(log_dir: Path) -> Finding:
    count, kinds = 0, set()
    examples: list[dict[str, str]] = []
    owner = log_dir.stat().st_uid
    for fault in _faults(log_dir, owner):
        count += 1
        kinds.add(fault.kind)
        if len(examples) < EXAMPLES:
            examples.append({"path": fault.path, "fault": fault.said})
    cures = {
        "open": f"chmod -R go= {log_dir}",
        "owner": f"chown -R {owner} {log_dir}",
        "outside": "replace the links by what they lead to, unless you made them",
    }
    return Finding(
        check="permissions",
        level="problem" if kinds - {"outside"} else "note" if kinds else "ok",
        message=f"{count:,} {'file is' if count == 1 else 'files are'} not this user's alone"
        if count
        else "all files are this user's alone",
        cure="; ".join(cures[kind] for kind in cures if kind in kinds) or None,
        log_dir=str(log_dir),
        details={"count": count, "examples": examples},
    )


def _faults(log_dir: Path, owner: int) -> Iterator[Fault]:
    """Yield what others can read or write, own, or have led elsewhere; others' files are theirs."""
    inside = os.path.realpath(log_dir)
    for path in _paths(log_dir):
        with suppress(FileNotFoundError):
            if path.is_symlink() and not _is_within(path, inside):
                yield Fault(str(path), "outside", f"leads to {os.path.realpath(path)}")
                continue
            try:
                found = path.stat()
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                yield Fault(str(path), "outside", "leads to itself")
                continue
            if found.st_uid != owner:
                yield Fault(str(path), "owner", f"belongs to user {found.st_uid}, not {owner}")
            if found.st_mode & _OPEN:
                yield Fault(str(path), "open", f"open to others ({stat.filemode(found.st_mode)})")


def _paths(log_dir: Path) -> Iterator[Path]:
    yield log_dir
    yield from log_dir.glob("*.jsonl")
    for name in _NAMES:
        path = log_dir / name
        if path.exists() or path.is_symlink():
            yield path
        if not path.is_symlink():
            yield from path.rglob("*")


def _is_within(path: Path, place: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(place)


def _size(log_dir: Path, journal: list[int], archive: list[int], max_bytes: int) -> Finding:
    total = sum(journal) + sum(archive)
    is_beyond = total > max_bytes
    return Finding(
        check="size",
        level="problem" if is_beyond else "ok",
        message=f"journal {_in_files(journal)}, archive {_in_files(archive)};"
        f" {'more than the' if is_beyond else 'of'} {_shown(max_bytes)} that it may have",
        cure="move old segments away, or allow more with configure(max_bytes=...)"
        if is_beyond
        else None,
        log_dir=str(log_dir),
        details={
            "journal_bytes": sum(journal),
            "journal_files": len(journal),
            "archive_bytes": sum(archive),
            "archive_files": len(archive),
            "max_bytes": max_bytes,
        },
    )


def _disk(log_dir: Path, free: int, size: int) -> Finding:
    is_scarce = free < max(LEAST_FREE_BYTES, size)
    return Finding(
        check="disk",
        level="problem" if is_scarce else "ok",
        message=f"{'only ' if is_scarce else ''}{_shown(free)} are free on its disk",
        cure=f"make room, or {_ELSEWHERE}" if is_scarce else None,
        log_dir=str(log_dir),
        details={"free_bytes": free},
    )


def _sizes(paths: Iterator[Path] | list[Path]) -> list[int]:
    sizes = []
    for path in paths:
        with suppress(OSError):
            found = path.stat()
            if stat.S_ISREG(found.st_mode):
                sizes.append(found.st_size)
    return sizes


def _in_files(sizes: list[int]) -> str:
    noun = "file" if len(sizes) == 1 else "files"
    return f"{_shown(sum(sizes))} in {len(sizes):,} {noun}"


def _shown(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size:,} bytes"
