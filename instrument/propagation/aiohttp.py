"""`aiohttp`: clients send the session to trusted hosts, servers go on in the one that arrives.

For example:

    aiohttp.ClientSession(trace_configs=[trace_config()])
    web.Application(middlewares=[middleware])
"""

from __future__ import annotations

from types import SimpleNamespace

from aiohttp import (
    ClientSession,
    TraceConfig,
    TraceRequestRedirectParams,
    TraceRequestStartParams,
    web,
)
from aiohttp.typedefs import Handler
from multidict import CIMultiDict
from yarl import URL

from instrument.propagation._arriving import arriving
from instrument.propagation._harmless import harmless
from instrument.propagation._outgoing import take_back, write

__all__ = ["middleware", "trace_config"]


def trace_config() -> TraceConfig:
    """Return what makes a `ClientSession` send the current session along."""
    config = TraceConfig()
    config.on_request_start.append(_starting)
    config.on_request_redirect.append(_redirected)
    return config


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Run the handler in the session that arrives with the request.

    What the handler writes to a `StreamResponse` is inside; a body that is an asynchronous
    iterator is written after the handler has returned, and outside.
    """
    with arriving(request.headers):
        return await handler(request)


async def _starting(
    client: ClientSession, trace: SimpleNamespace, request: TraceRequestStartParams
) -> None:
    _write(trace, request.headers, request.url)


async def _redirected(
    client: ClientSession, trace: SimpleNamespace, request: TraceRequestRedirectParams
) -> None:
    # the next request is made of the headers of this one
    take_back(request.headers, trace.instrument_written)
    with harmless:
        headers = request.response.headers
        place = headers.get("Location") or headers.get("URI") or ""
        _write(trace, request.headers, request.url.join(URL(place)))


def _write(trace: SimpleNamespace, headers: CIMultiDict[str], url: URL) -> None:
    with harmless:
        if len(lines := headers.getall("baggage", [])) > 1:
            headers["baggage"] = ",".join(lines)  # which is the same
    trace.instrument_written = write(headers, url.host)
