"""Moments as people type them: `2h`, `3d`, `2026-11-01`, `yesterday`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import NamedTuple

from instrument import _config

__all__ = ["CURE", "LocalZone", "Midnight", "aware", "moment_or_ago"]

CURE = "30m, 2h, 3d, 1w, today, yesterday, 2026-11-01 or 2026-11-01T09:30"
_AGO = re.compile(r"(\d{1,9}(?:\.\d+)?)\s*(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Midnight(NamedTuple):
    """When a day began, so many days ago: which day it is depends on the zone."""

    days_ago: int


def moment_or_ago(text: str) -> datetime | timedelta | Midnight | None:
    """Read a time ago, or a moment, naive where no zone is given; `None` for anything else."""
    text = text.strip()
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return timedelta(**{_UNITS[ago[2]]: float(ago[1])})
    if text in ("today", "yesterday"):
        return Midnight(int(text == "yesterday"))
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def aware(
    moment: datetime | timedelta | Midnight | None, *, utc: bool
) -> datetime | timedelta | None:
    """Put a moment without a zone into UTC, or into local time."""
    if isinstance(moment, Midnight):
        now = _config.now() if utc else _config.now().astimezone()
        moment = datetime.combine(now, time.min) - timedelta(days=moment.days_ago)
    if not isinstance(moment, datetime) or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC) if utc else moment.astimezone()


class LocalZone(tzinfo):
    """The zone of this machine with all of its past and future offsets, as the C library has it."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        if moment is None:
            return None
        return moment.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, moment: datetime | None) -> timedelta | None:
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        return None if moment is None else moment.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, moment: datetime) -> datetime:
        return moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=self)
