"""The one form in which names and addresses of hosts are compared."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

__all__ = ["plain_host"]


def plain_host(name: str) -> str:
    """Return the one form of a host's name or address, or of a pattern; what is none, as it is.

    Names beyond ASCII become those of IDNA 2008 that HTTP clients ask for, by the package `idna`,
    which comes with them; without it, or where there is no such name, they stay as they are.
    """
    name = name.lower().rstrip(".")
    if ":" in name:
        name = name.removeprefix("[").removesuffix("]")
        with suppress(ValueError):
            return str(ip_address(name))
    return name if name.isascii() else _in_ascii(name)


def _in_ascii(name: str) -> str:
    try:
        import idna  # few programs have such names
    except ImportError:
        return name
    with suppress(idna.IDNAError):
        # label by label, for those of a pattern may be none
        labels = idna.uts46_remap(name, std3_rules=False).split(".")
        return ".".join(
            each if each.isascii() else idna.alabel(each).decode("ascii") for each in labels
        )
    return name
