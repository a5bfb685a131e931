"""The hosts to which a session goes: its id is not for third parties."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import ip_address

from instrument._config import settings

__all__ = ["is_trusted"]


def is_trusted(host: str | None) -> bool:
    """Tell whether requests to `host` carry the session.

    Those that `configure(propagate_to=[...])` names; without it `localhost` and addresses of this
    machine and of private networks. Names are not resolved.
    """
    if not host:
        return False
    return _is_trusted(host.lower().strip("[]").rstrip("."), settings().propagate_to)


@lru_cache(maxsize=1024)
def _is_trusted(host: str, patterns: tuple[str, ...] | None) -> bool:
    if patterns is not None:
        return any(fnmatchcase(host, pattern) for pattern in patterns)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or (address.is_private and not address.is_unspecified)
