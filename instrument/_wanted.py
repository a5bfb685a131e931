"""What a query asks for: its filters checked, and said in Python, in bytes and in SQL."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from msgspec import Struct

from instrument import _config
from instrument._lines import OUTCOMES, Head, outcome_of
from instrument._scan import needle
from instrument.errors import ConfigurationError, reject_type, reject_unknown
from instrument.operation import Operation

__all__ = [
    "KEYS",
    "Filters",
    "Wanted",
    "check_limit",
    "check_text",
    "condition",
    "grouping",
    "moment_of_filter",
    "wanted",
]

KEYS = ("service", "model", "day", "week", "month", "session", "operation", "outcome")


class Filters(TypedDict, total=False):
    """Which operations are wanted; `None` asks nothing.

    `since` (included) and `until` (not) bound the start: an aware datetime, or a timedelta that
    means ago.
    """

    service: str | None
    operation: str | None
    model: str | None
    outcome: str | None
    since: datetime | timedelta | None
    until: datetime | timedelta | None


class Wanted(Struct, frozen=True, kw_only=True):
    """What a query asks of an operation; `None` asks nothing. `until` itself is left out."""

    sessions: frozenset[str] | None = None
    service: str | None = None
    operation: str | None = None
    model: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def takes(self, each: Head | Operation, moment: datetime) -> bool:
        return (
            (self.since is None or moment >= self.since)
            and (self.until is None or moment < self.until)
            and (self.sessions is None or (each.session_id or "") in self.sessions)
            and (self.service is None or each.service == self.service)
            and (self.operation is None or each.operation == self.operation)
            and (self.model is None or each.model == self.model)
            and (self.outcome is None or outcome_of(each) == self.outcome)
        )

    def needles(self) -> list[bytes | None] | None:
        return None if self.sessions is None else [needle(each) for each in self.sessions]

    def earliest(self) -> datetime | None:
        """Return a moment before which nothing that is wanted was written; `None`: unknown."""
        born = _born(self.sessions or ())
        return max(filter(None, (self.since, born)), default=None)


def wanted(
    session: str | None = None,
    *,
    service: str | None = None,
    operation: str | None = None,
    model: str | None = None,
    outcome: str | None = None,
    since: datetime | timedelta | None = None,
    until: datetime | timedelta | None = None,
    **unknown: object,
) -> Wanted:
    """Check filters; raises `ConfigurationError` for a naive datetime or an unknown outcome."""
    reject_unknown("UsageLog", unknown, ", ".join(Filters.__annotations__))
    texts = {"session": session, "service": service, "operation": operation, "model": model}
    for name, value in (*texts.items(), ("outcome", outcome)):
        check_text(name, value)
    if outcome is not None and outcome not in OUTCOMES:
        raise ConfigurationError("outcome", outcome, f"one of {', '.join(OUTCOMES)}")
    now = _config.now()
    return Wanted(
        sessions=None if session is None else frozenset([session]),
        service=service,
        operation=operation,
        model=model,
        outcome=outcome,
        since=moment_of_filter("since", since, now),
        until=moment_of_filter("until", until, now),
    )


def grouping(by: str | Iterable[str]) -> tuple[str, ...]:
    """Check the keys to group by; raises `ConfigurationError`."""
    accepted = f"each at most once, of {', '.join(KEYS)}"
    if not isinstance(by, Iterable):
        reject_type("by", by, accepted)
    keys = (by,) if isinstance(by, str) else tuple(by)
    for key in keys:
        if key not in KEYS or keys.count(key) > 1:
            raise ConfigurationError("by", by, accepted)
    return keys


def condition(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """Return what is wanted as a condition of SQL, and its parameters."""
    params = {
        "service": wanted.service,
        "operation": wanted.operation,
        "model": wanted.model,
        "outcome": wanted.outcome,
        "since": wanted.since,
        "until": wanted.until,
        "sessions": None if wanted.sessions is None else sorted(wanted.sessions),
    }
    given = {name: value for name, value in params.items() if value is not None}
    forms = {
        "since": "timestamp >= $since",
        "until": "timestamp < $until",
        "sessions": "session_id in (select unnest($sessions))",
    }
    return " and ".join(["true", *(forms.get(name, f"{name} = ${name}") for name in given)]), given


def check_text(name: str, value: object) -> None:
    """Raise `ConfigurationError` for what is neither text nor `None`."""
    if value is not None and not isinstance(value, str):
        reject_type(name, value, "text")


def check_limit(limit: object) -> None:
    """Raise `ConfigurationError` for what is no number of things to list."""
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int):
        reject_type("limit", limit, "a whole number, or None for all")
    if limit < 0:
        raise ConfigurationError("limit", limit, "a whole number from 0, or None for all")


def moment_of_filter(
    name: str, value: datetime | timedelta | None, now: datetime | None = None
) -> datetime | None:
    """Return the moment that a filter names; raises `ConfigurationError`."""
    now = now or _config.now()
    if isinstance(value, timedelta):
        try:
            return now - value
        except OverflowError:
            edge = datetime.min if value > timedelta() else datetime.max
            return edge.replace(tzinfo=UTC)
    if value is None:
        return None
    if not isinstance(value, datetime):
        reject_type(name, value, "an aware datetime, or a timedelta meaning ago")
    if value.utcoffset() is None:
        cure = "an aware datetime, such as datetime.now(UTC) or value.astimezone()"
        raise ConfigurationError(name, value, cure)
    return value


def _born(session_ids: Collection[str]) -> datetime | None:
    """Return when the first of these sessions was made, which ids that we made tell."""
    made = [_MADE.fullmatch(each) for each in session_ids]
    seconds = [int(each[1]) for each in made if each is not None]
    if not seconds or len(seconds) < len(made) or min(seconds) > _config.clock.time_ns() / 1e9:
        return None
    return datetime.fromtimestamp(min(seconds), UTC)


_MADE = re.compile(r"session_(\d{1,12})_[0-9a-f]{8}")
