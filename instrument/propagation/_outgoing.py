"""The session in the headers of a request: written where it may go, taken back where it may not."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import NamedTuple

from instrument.carrier import HEADERS
from instrument.propagation._harmless import harmless
from instrument.propagation.headers import inject
from instrument.propagation.hosts import is_trusted

__all__ = ["Written", "take_back", "write"]


class Written(NamedTuple):
    """A header that carries the session, and what stood there before."""

    name: str
    before: str | None
    after: str


def write(headers: MutableMapping[str, str], host: str | None) -> list[Written]:
    """Write the session into the headers of a request to `host`, if that is trusted.

    Returns what was written, for `take_back`. Never raises.
    """
    written: list[Written] = []
    with harmless:
        if is_trusted(host):
            before = {name: headers.get(name) for name in HEADERS}
            inject(headers)
            after = {name: headers.get(name) for name in HEADERS}
            written += (
                Written(name, before[name], value)
                for name, value in after.items()
                if value is not None and value != before[name]
            )
    return written


def take_back(headers: MutableMapping[str, str], written: list[Written]) -> None:
    """Undo `write`, but for what somebody else wrote over it. Never raises."""
    with harmless:
        for name, before, after in written:
            if headers.get(name) != after:
                continue
            if before is None:
                del headers[name]
            else:
                headers[name] = before
