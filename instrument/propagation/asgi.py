"""ASGI applications (Starlette, FastAPI, Django, Litestar, ...) go on in the session that arrives.

For example:

    app.add_middleware(SessionMiddleware)  # Starlette, FastAPI
    application = SessionMiddleware(get_asgi_application())  # Django, or any other
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from instrument.propagation._arriving import arriving

__all__ = ["SessionMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class SessionMiddleware:
    """Runs each HTTP request and WebSocket of `app` in the session that its headers carry.

    Streamed bodies and background tasks are inside. Without a session in the headers nothing
    changes.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        with arriving(scope.get("headers", ())):
            return await self._app(scope, receive, send)
