"""The text that carries a session to another process or host: ids, headers, environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from urllib.parse import unquote

from msgspec import Struct

__all__ = [
    "BUDGETS",
    "HANDED_DOWN",
    "HEADERS",
    "Carried",
    "from_environment",
    "from_headers",
    "has_session",
    "inherited",
    "is_session_id",
    "names_trace",
    "outer_trace",
    "to_environment",
    "to_headers",
    "trace_id_of",
    "with_session",
]

BUDGETS = "INSTRUMENT_BUDGETS"
"""The variable that names the ledgers of the budgets that a child process shares."""

HANDED_DOWN = (
    "INSTRUMENT_SESSION_ID",
    "INSTRUMENT_PARENT_ID",
    "TRACEPARENT",
    "BAGGAGE",
    BUDGETS,
)
"""The variables that put a process inside of something."""

HEADERS = ("traceparent", "baggage")
"""The names of W3C's headers, in lower case."""

# compiled when first needed: most programs never are handed anything
_SESSION_ID = r"[A-Za-z0-9._~:-]{1,128}"
_OPERATION_ID = r"[0-9a-f]{16}"
_TRACEPARENT = r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}"
# of a later version, which may have more behind it
_LATER = r"(?!ff|00)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?"
_NO_TRACE, _NO_OPERATION = "0" * 32, "0" * 16
_SESSION_KEY = "session.id"
# W3C Baggage, 3.3.2, and what its first edition asked for
_BAGGAGE_BYTES = 8192
_BAGGAGE_MEMBERS = 180


class Carried(Struct, frozen=True, gc=False):
    """A session, and the operation in it that is the parent of what comes."""

    session_id: str
    parent_id: str | None = None
    trace_id: str | None = None


def is_session_id(value: object) -> bool:
    """Tell whether `value` may be a session id: 1 to 128 of `[A-Za-z0-9._~:-]`."""
    return isinstance(value, str) and _session_id().fullmatch(value) is not None


@lru_cache(maxsize=4096)
def trace_id_of(root: str) -> str:
    """Return the trace id (32 hex) of everything under `root`, an operation's or session's id."""
    import hashlib  # it loads OpenSSL, and few programs ask

    return hashlib.blake2b(root.encode(), digest_size=16).hexdigest()


def to_headers(carried: Carried) -> dict[str, str]:
    """Return W3C `traceparent` and `baggage: session.id=...`."""
    trace_id = carried.trace_id or trace_id_of(carried.session_id)
    # without an operation, a half of the trace's id that is no row of zeros, which would be none
    parent_id = carried.parent_id or max(trace_id[:16], trace_id[16:])
    return {
        "traceparent": f"00-{trace_id}-{parent_id}-01",
        "baggage": f"session.id={carried.session_id}",
    }


def from_headers(traceparent: str | None, baggage: str | None) -> Carried | None:
    """Return the session that W3C headers carry, with its parent operation, if there is one.

    What breaks the rules of W3C is as if it were not there: a session id that is none after
    percent-decoding, baggage that is too long or no visible ASCII, a trace of zeros.
    """
    if not baggage or len(baggage) > _BAGGAGE_BYTES or _SESSION_KEY not in baggage:
        return None
    session_id = _session_in(baggage)
    if session_id is None:
        return None
    trace = _trace_in(traceparent) if traceparent else None
    return Carried(session_id) if trace is None else Carried(session_id, trace[0], trace[1])


def has_session(baggage: str) -> bool:
    """Tell whether there is a session in the baggage."""
    return _SESSION_KEY in baggage and _session_in(baggage) is not None


def with_session(baggage: str | None, session_id: str) -> str | None:
    """Return the baggage with the session as a member of it, all others byte for byte as they were.

    `None` where that would break the limits of W3C, or the baggage already breaks its rules.
    """
    ours = f"{_SESSION_KEY}={session_id}"
    if not baggage:
        return ours
    if not _is_visible(baggage):
        return None
    if _SESSION_KEY in baggage:
        members = [each for each in baggage.split(",") if _key_of(each) != _SESSION_KEY]
        baggage = ",".join(members)
    joined = f"{baggage},{ours}" if baggage else ours
    fits = joined.count(",") < _BAGGAGE_MEMBERS and len(joined) <= _BAGGAGE_BYTES
    return joined if fits else None


def to_environment(
    carried: Carried, log_dir: str, around: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the variables with which a child process joins the session.

    All of them, always, so that none that this process was given itself shows through. What other
    members the baggage in `around`, this process's environment, has is kept; so is whether its
    trace, if it goes on, is sampled.
    """
    given = around or {}
    headers = to_headers(carried)
    traceparent, outer = headers["traceparent"], given.get("TRACEPARENT", "")
    if _traceparent().fullmatch(outer) and outer[:35] == traceparent[:35]:
        traceparent = traceparent[:-2] + outer[-2:]
    baggage = given.get("BAGGAGE", "")
    return {
        "INSTRUMENT_SESSION_ID": carried.session_id,
        "INSTRUMENT_PARENT_ID": carried.parent_id or "",
        "INSTRUMENT_DIR": log_dir,
        "TRACEPARENT": traceparent,
        "BAGGAGE": with_session(baggage, carried.session_id) or baggage,
    }


def outer_trace(environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the span and the trace of who traces and started this process, if anybody does.

    `TRACEPARENT` says it, where there is no session of ours.
    """
    traceparent = environment.get("TRACEPARENT")
    if not traceparent or inherited(environment) is not None:
        return None, None
    return _trace_in(traceparent) or (None, None)


def from_environment(environment: Mapping[str, str]) -> Carried | None:
    """Return what the parent process handed on, if anything.

    Raises `ValueError` where `INSTRUMENT_SESSION_ID` is no session id. A bare `TRACEPARENT` is
    somebody else's (`outer_trace`).
    """
    session_id = environment.get("INSTRUMENT_SESSION_ID")
    if not session_id:
        return None
    if not is_session_id(session_id):
        raise ValueError(session_id)
    parent_id = environment.get("INSTRUMENT_PARENT_ID", "")
    trace = _trace_in(environment.get("TRACEPARENT", ""))
    return Carried(
        session_id=session_id,
        parent_id=parent_id if re.fullmatch(_OPERATION_ID, parent_id) else None,
        trace_id=None if trace is None else trace[1],
    )


@lru_cache(maxsize=1024)
def _session_in(baggage: str) -> str | None:
    if not _is_visible(baggage):
        return None
    for member in baggage.split(","):
        if _key_of(member) == _SESSION_KEY:
            value = member.partition("=")[2].partition(";")[0].strip(" \t")
            value = unquote(value) if "%" in value else value
            return value if is_session_id(value) else None
    return None


def _key_of(member: str) -> str:
    return member.partition("=")[0].strip(" \t")


def _is_visible(value: str) -> bool:
    """Tell whether this can be a header at all: visible ASCII, spaces and tabs."""
    return value.isascii() and value.replace("\t", " ").isprintable()


@cache
def _session_id() -> re.Pattern[str]:
    return re.compile(_SESSION_ID)


@cache
def _traceparent() -> re.Pattern[str]:
    return re.compile(_TRACEPARENT)


def names_trace(traceparent: str) -> bool:
    """Tell whether this is a valid `traceparent`."""
    return _trace_in(traceparent) is not None


def _trace_in(traceparent: str) -> tuple[str, str] | None:
    """Return parent operation and trace (W3C Trace Context, 3.2)."""
    found = _traceparent().fullmatch(traceparent)
    if found is None:
        text = traceparent.strip(" \t")
        found = _traceparent().fullmatch(text) or re.fullmatch(_LATER, text)
    if found is None:
        return None
    trace_id, parent_id = found.groups()
    is_none = trace_id == _NO_TRACE or parent_id == _NO_OPERATION
    return None if is_none else (parent_id, trace_id)


def inherited(environment: Mapping[str, str]) -> Carried | None:
    """Return the same; `None` for an invalid id too, which the recorder warns of."""
    try:
        return from_environment(environment)
    except ValueError:
        return None
