"""Responses of HTTP clients: their status, and what is in a body that has been read already.

JSON, lines of JSON and server-sent events alike. A body that was not read yet stays unread.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from instrument.usage import texts
from instrument.usage.failures import attempt_of_request, details_of_response
from instrument.usage.fields import NOTHING, fields_of, first, part, text
from instrument.usage.reading import Fields, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "is_unread", "read", "read_wrapped"]

_PROVIDERS = {
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai",
    "api.openai.com": "openai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "dashscope-intl.aliyuncs.com": "dashscope",
    "dashscope.aliyuncs.com": "dashscope",
    "openrouter.ai": "openrouter",
}
_OF_SDK = {"groq": "groq", "openai": "openai"}
"""Who is taken to answer an SDK at a host that nobody knows, as where its own objects are read."""

_AZURE = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")


def read(response: Any) -> Reading | None:
    """Read a response of httpx, requests or whatever looks like theirs; never performs I/O."""
    fields = fields_of(response) or NOTHING
    status = fields.get("status_code")
    if status is None:
        status = getattr(response, "status_code", None)
    return _read(response, fields, status, fields.get("_content"))


def read_with_status(response: Any) -> Reading | None:
    """Read a response of aiohttp, urllib3 or `http.client`, which calls its code `status`."""
    fields = fields_of(response) or NOTHING
    return _read(response, fields, fields.get("status"), fields.get("_body"))


def read_wrapped(response: Any) -> Reading | None:
    """Read an SDK's raw response by the HTTP response inside it."""
    inner = (fields_of(response) or NOTHING).get("http_response")
    found = None if inner is None else read(inner)
    if found is None:
        return None
    attempt = attempt_of_request((fields_of(inner) or NOTHING).get("_request"))
    provider = found.provider or _OF_SDK.get(type(response).__module__.partition(".")[0])
    return replace(found, provider=provider, attempt=first(attempt, found.attempt))


def is_unread(response: Any) -> bool:
    """Tell whether the body of an SDK's raw response can still be read, as a stream's."""
    inner = part(fields_of(response) or NOTHING, "http_response") or NOTHING
    return inner.get("is_closed") is False and "_content" not in inner


def _read(response: Any, fields: Fields, status: Any, content: Any) -> Reading | None:
    found = texts.read_bytes(content) if type(content) is bytes else None
    if found is not None and found.provider is None:
        found = replace(found, provider=_provider(_host(fields)))
    if isinstance(status, int) and not isinstance(status, bool) and status >= 400:
        return _failed(response, found or Reading(), int(status), fields)
    return found


def _failed(response: Any, found: Reading, status: int, fields: Fields) -> Reading:
    message = found.error_message or text(fields.get("reason"))
    details = details_of_response(response, status, found.error_type)
    return replace(
        found,
        outcome="error",
        error_type=f"http_{status}",
        error_message=message,
        details={**(found.details or NOTHING), **details},
    )


def _provider(host: str) -> str | None:
    return "azure.ai.openai" if host.endswith(_AZURE) else _PROVIDERS.get(host)


def _host(fields: Fields) -> str:
    url = getattr(fields.get("_request"), "url", None) or fields.get("url")
    try:
        return urlsplit(str(url)).hostname or ""
    except ValueError:
        return ""


CLASSES: dict[str, Reader] = {
    "ClientResponse": read_with_status,
    "HTTPResponse": read_with_status,
    "Response": read,
}

STREAMS: dict[tuple[str, str], StreamClass] = {}
