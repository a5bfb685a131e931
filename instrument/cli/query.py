"""From what the user typed to a log and a session in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from instrument._config import settings
from instrument.log import UsageLog
from instrument.operation import Operation

__all__ = ["opened", "operations_of", "resolved"]

LAST = "@last"
LISTED = 5


def opened(directories: Sequence[str]) -> UsageLog:
    """Open the logs in `directories`, or the configured one; raises where there is none."""
    places = [Path(directory).expanduser() for directory in directories]
    places = places or [settings().log_dir]
    for place in places:
        if not place.is_dir():
            problem = "is no directory" if place.exists() else "there is no such directory"
            raise NoLogError(f"no log in {place}: {problem}; {CURE}")
    return UsageLog(*places)


def resolved(log: UsageLog, wanted: str) -> str:
    """Find the one session that `@last`, an id, or the unique beginning of an id means."""
    if wanted == LAST:
        latest = log.sessions(limit=1)
        if not latest:
            raise NoLogError(f"no sessions in the log yet; {CURE}")
        return latest[0].session_id
    if log.stats(wanted).first_at is not None:
        return wanted
    found = _beginning_with(log, wanted)
    if not found:
        raise UnknownSessionError(f"no session {wanted!r}; `instrument sessions` lists them")
    if len(found) > 1:
        names = ", ".join(found[:LISTED]) + (", ..." if len(found) > LISTED else "")
        raise UnknownSessionError(f"{wanted!r} is the beginning of several sessions: {names}")
    return found[0]


def operations_of(log: UsageLog, session_id: str) -> list[Operation]:
    """Read the operations of a session and of those within it, running ones last."""
    finished = log.operations(session_id, children=True)
    sessions = {session_id, *(one.session_id for one in finished)}
    return [*finished, *(one for one in log.running() if one.session_id in sessions)]


def _beginning_with(log: UsageLog, prefix: str) -> list[str]:
    query = """
        select distinct session_id from operations
        where substr(session_id, 1, length($prefix)) = $prefix
        order by session_id desc limit $most
    """
    rows = log.sql(query, {"prefix": prefix, "most": LISTED + 1}).fetchall()
    return [str(row[0]) for row in rows]


class NoLogError(click.ClickException):
    """There is nothing to read."""

    exit_code = 2


class UnknownSessionError(click.ClickException):
    """What was typed means no session, or several."""

    exit_code = 2


CURE = "`instrument demo` shows what one looks like, --dir DIR reads another"
