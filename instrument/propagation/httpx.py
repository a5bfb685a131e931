"""`httpx`: requests to trusted hosts carry the session.

For example:

    httpx.Client(event_hooks={"request": [on_request]})
    httpx.AsyncClient(event_hooks={"request": [on_request_async]})
"""

from __future__ import annotations

from httpx import Request

from instrument.propagation._outgoing import take_back, write

__all__ = ["on_request", "on_request_async"]

_WRITTEN = "instrument.written"


def on_request(request: Request) -> None:
    """Write the current session into the request; out of one that is redirected elsewhere."""
    # a redirected request has the headers of the one before, and its extensions
    take_back(request.headers, request.extensions.pop(_WRITTEN, []))
    written = write(request.headers, request.url.host)
    if written:
        request.extensions[_WRITTEN] = written


async def on_request_async(request: Request) -> None:
    """Do the same for an `AsyncClient`."""
    on_request(request)
