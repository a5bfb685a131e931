"""From what the user typed to a log and a session in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import click

from instrument import _price_shelf
from instrument._config import settings
from instrument._gather import Reading
from instrument._scan import Skipped, scan, sources_of
from instrument._wanted import Wanted
from instrument.log import UsageLog

__all__ = [
    "ALL",
    "LAST",
    "NoOperationsError",
    "opened",
    "recent_values",
    "resolved",
    "size_of",
    "skipped_lines",
]

LAST = "@last"
ALL = "@all"
LISTED = 5
LOOKED_AT = 50_000


def opened(directories: Sequence[str]) -> UsageLog:
    """Open the logs in `directories`, or the configured one.

    Raises where there is none, or one that a newer version has written.
    """
    places = [Path(directory).expanduser() for directory in directories]
    places = places or [settings().log_dir]
    for place in places:
        if not place.is_dir():
            problem = "is no directory" if place.exists() else "there is no such directory"
            raise NoLogError(f"no log in {place}: {problem}; {CURE}")
    _price_shelf.use()
    log = UsageLog(*places)
    log.check_format()
    return log


def resolved(log: UsageLog, wanted: str) -> str:
    """Find the one session that `@last`, an id, or the unique beginning of an id means."""
    if wanted == LAST:
        latest = log.find_sessions(limit=1)
        if not latest:
            raise NoLogError(f"no sessions in the log yet; {CURE}")
        return latest[0]
    found: list[str] = []
    # one that is long may have been shown cut
    for begins in dict.fromkeys((wanted, wanted.removesuffix("…"), wanted.removesuffix("..."))):
        found = found or (log.find_sessions(begins) if begins else [])
    if wanted in found:
        return wanted
    if not found:
        raise UnknownSessionError(f"no session {wanted!r}; `instrument sessions` lists them")
    if len(found) > 1:
        names = ", ".join(found[:LISTED]) + (", ..." if len(found) > LISTED else "")
        raise UnknownSessionError(f"{wanted!r} is the beginning of several sessions: {names}")
    return found[0]


def recent_values(log: UsageLog, name: str) -> list[str]:
    """List the services or models in some of the newest lines, the most frequent first."""
    reading = Reading(log.paths, may_vanish=True)
    lines = scan(reading.newest_sources, Skipped())
    if reading.archive is not None:
        lines = chain(lines, reading.archive.lines(Wanted(), LOOKED_AT))
    found = Counter(getattr(line.head, name) for line in islice(lines, LOOKED_AT))
    return [value for value, _ in found.most_common() if value]


def size_of(log: UsageLog) -> int:
    """Return how many bytes the log's files hold."""
    size = 0
    for source in sources_of(log.paths, may_vanish=True):
        with suppress(OSError):
            size += source.path.stat().st_size
    return size


def skipped_lines(log: UsageLog, *, everything: bool) -> Iterator[str]:
    """Say how many lines could not be read, and if `everything`, which."""
    count = log.skipped_count
    if not count:
        return
    hint = "" if everything else "; -v names them"
    yield f"instrument: skipped {count:,} damaged line{'s' if count > 1 else ''}{hint}"
    for each in log.skipped if everything else ():
        yield f"  {each.path}, byte {each.offset}: {each.reason}"
    if everything and count > len(log.skipped):
        yield f"  and {count - len(log.skipped):,} more"


class NoLogError(click.ClickException):
    """There is nothing to read."""

    exit_code = 2


class NoOperationsError(click.ClickException):
    """Nothing in the log fits what was asked for."""

    exit_code = 2


class UnknownSessionError(click.ClickException):
    """What was typed means no session, or several."""

    exit_code = 2


CURE = "`instrument demo` shows what one looks like, --dir DIR reads another"
