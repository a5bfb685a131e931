"""The text that carries a session to another process or host: ids, headers, environment."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

__all__ = [
    "Carried",
    "from_environment",
    "inherited",
    "is_session_id",
    "to_environment",
    "to_headers",
]

# compiled when first needed: most programs never are handed anything
_SESSION_ID = r"[A-Za-z0-9._~:-]{1,128}"
_OPERATION_ID = r"[0-9a-f]{16}"
_TRACEPARENT = r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}"


class Carried(Struct, frozen=True):
    """A session, and the operation in it that is the parent of what comes."""

    session_id: str
    parent_id: str | None = None
    trace_id: str | None = None


def is_session_id(value: object) -> bool:
    """Tell whether `value` may be a session id: 1 to 128 of `[A-Za-z0-9._~:-]`."""
    return isinstance(value, str) and re.fullmatch(_SESSION_ID, value) is not None


def trace_id_of(root: str) -> str:
    """Return the trace id (32 hex) of everything under `root`, an operation's or session's id."""
    import hashlib  # it loads OpenSSL, and few programs ask

    return hashlib.blake2b(root.encode(), digest_size=16).hexdigest()


def to_headers(carried: Carried) -> dict[str, str]:
    """Return W3C `traceparent` and `baggage: session.id=...`."""
    trace_id = carried.trace_id or trace_id_of(carried.session_id)
    parent_id = carried.parent_id or trace_id[:16]
    return {
        "traceparent": f"00-{trace_id}-{parent_id}-01",
        "baggage": f"session.id={carried.session_id}",
    }


def to_environment(carried: Carried, log_dir: str) -> dict[str, str]:
    """Return the variables with which a child process joins the session.

    All of them, always, so that none that this process was given itself shows through.
    """
    headers = to_headers(carried)
    return {
        "INSTRUMENT_SESSION_ID": carried.session_id,
        "INSTRUMENT_PARENT_ID": carried.parent_id or "",
        "INSTRUMENT_DIR": log_dir,
        "TRACEPARENT": headers["traceparent"],
        "BAGGAGE": headers["baggage"],
    }


def from_environment(environment: Mapping[str, str]) -> Carried | None:
    """Return what the parent process handed on, if anything.

    Raises `ValueError` where `INSTRUMENT_SESSION_ID` is no session id. A bare `TRACEPARENT` is
    somebody else's, and ignored.
    """
    session_id = environment.get("INSTRUMENT_SESSION_ID")
    if not session_id:
        return None
    if not is_session_id(session_id):
        raise ValueError(session_id)
    parent_id = environment.get("INSTRUMENT_PARENT_ID", "")
    trace = re.fullmatch(_TRACEPARENT, environment.get("TRACEPARENT", ""))
    return Carried(
        session_id=session_id,
        parent_id=parent_id if re.fullmatch(_OPERATION_ID, parent_id) else None,
        trace_id=trace.group(1) if trace and set(trace.group(1)) != {"0"} else None,
    )


def inherited(environment: Mapping[str, str]) -> Carried | None:
    """Return the same; `None` for an invalid id too, which the recorder warns of."""
    try:
        return from_environment(environment)
    except ValueError:
        return None
