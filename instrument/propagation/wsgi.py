"""WSGI applications (Flask, Django, Bottle, ...) go on in the session that arrives.

For example:

    app.wsgi_app = SessionMiddleware(app.wsgi_app)  # Flask
    application = SessionMiddleware(get_wsgi_application())  # Django, or any other
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from instrument.context import Scope
from instrument.propagation._arriving import Parts, Stepwise, inside

__all__ = ["SessionMiddleware"]

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class SessionMiddleware:
    """Runs each request of `app` in the session that its headers carry.

    The steps of the body that it returns and its `close` are inside; between them nothing is left
    current in the server's thread. Without a session in the headers nothing changes.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        scope = _session_in(environ)
        if scope is None:
            return self._app(environ, start_response)
        steps = Stepwise(scope)
        body: Iterable[bytes] = steps.run(self._app, environ, start_response)
        return body if _runs_no_code(body, environ) else Parts(body, steps)


def _session_in(environ: Environ) -> Scope | None:
    names = {"traceparent": "HTTP_TRACEPARENT", "baggage": "HTTP_BAGGAGE"}
    return inside({name: environ[key] for name, key in names.items() if key in environ})


def _runs_no_code(body: Iterable[bytes], environ: Environ) -> bool:
    """Tell what servers look at more closely than to iterate: its length, or the file in it."""
    wrapper = environ.get("wsgi.file_wrapper")
    return type(body) in (list, tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper))
