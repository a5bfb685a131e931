"""`requests`: requests to trusted hosts carry the session.

For example:

    client = requests.Session()
    client.mount("http://", SessionAdapter())
    client.mount("https://", SessionAdapter())
"""

from __future__ import annotations

import copy
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, RequestException, Response
from requests.adapters import HTTPAdapter

from instrument.propagation._harmless import harmless
from instrument.propagation._outgoing import write

__all__ = ["SessionAdapter"]


class SessionAdapter(HTTPAdapter):
    """An `HTTPAdapter` that sends the current session along.

    It goes into a copy of the request, so that a redirected one is made without it.
    """

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        try:
            response = super().send(_with_session(request), *args, **kwargs)
        except RequestException as error:
            error.request = request
            raise
        response.request = request
        return response


def _with_session(request: PreparedRequest) -> PreparedRequest:
    with harmless:
        sent = copy.copy(request)
        sent.headers = request.headers.copy()
        headers: Any = sent.headers  # of text or bytes
        write(headers, urlsplit(request.url or "").hostname)
        return sent
    return request
