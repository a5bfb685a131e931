"""The hosts to which a session goes: its id is not for third parties."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from instrument._config import settings
from instrument._hostnames import plain_host

__all__ = ["is_trusted"]

# Those of Python's `is_private` differ from version to version. Not link-local IPv4: that is where
# clouds have services of their own (169.254.169.254).
_NEAR = tuple(
    ip_network(each)
    for each in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


def is_trusted(host: str | None) -> bool:
    """Tell whether requests to `host` carry the session.

    Those that `configure(propagate_to=[...])` names; without it `localhost` and addresses of this
    machine and of private networks. Names are not resolved.
    """
    if not host:
        return False
    return _is_trusted(host, settings().propagate_to)


@lru_cache(maxsize=1024)
def _is_trusted(host: str, patterns: tuple[str, ...] | None) -> bool:
    name = plain_host(host)
    if patterns is not None:
        return any(fnmatchcase(name, pattern) for pattern in patterns)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in _NEAR)
