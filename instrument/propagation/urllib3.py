"""`urllib3`: requests to trusted hosts carry the session, with `SessionPoolManager()`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager

from instrument.propagation._harmless import harmless
from instrument.propagation._outgoing import write

__all__ = ["SessionPoolManager"]


class SessionPoolManager(PoolManager):
    """A `PoolManager` that sends the current session along.

    Each host's pool writes it into a copy of the headers, so that a redirected request is made
    without it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pool_classes_by_scheme = _CLASSES


class _Pool(HTTPConnectionPool):
    def urlopen(
        self, method: str, url: str, body: Any = None, headers: Any = None, *args: Any, **kw: Any
    ) -> BaseHTTPResponse:
        headers = _with_session(self.headers if headers is None else headers, self.host)
        return super().urlopen(method, url, body, headers, *args, **kw)


class _SecurePool(HTTPSConnectionPool, _Pool):
    """The same over TLS."""


_CLASSES: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _SecurePool}


def _with_session(headers: Mapping[str, str], host: str) -> Mapping[str, str]:
    with harmless:
        sent: Any = headers.copy() if hasattr(headers, "copy") else dict(headers)
        write(sent, host)
        return sent  # type: ignore[no-any-return]  # a copy of the headers, of their type
    return headers
