"""Responses of HTTP clients: their status, and the JSON in a body that has been read already."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from instrument.usage import texts
from instrument.usage.fields import NOTHING, fields_of, text
from instrument.usage.reading import Fields, Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "read", "read_wrapped"]

_PROVIDERS = {
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai",
    "api.openai.com": "openai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}


def read(response: Any) -> Reading | None:
    """Read a response of httpx, requests or whatever looks like theirs; never performs I/O."""
    fields = fields_of(response) or NOTHING
    status = fields.get("status_code")
    if status is None:
        status = getattr(response, "status_code", None)
    content = fields.get("_content")
    found = texts.read_bytes(content) if type(content) is bytes else None
    if found is not None and found.provider is None:
        found = replace(found, provider=_PROVIDERS.get(_host(fields)))
    if type(status) is int and status >= 400:
        return _failed(found or Reading(), status, fields)
    return found


def read_wrapped(response: Any) -> Reading | None:
    """Read an SDK's raw response by the HTTP response inside it."""
    inner = (fields_of(response) or NOTHING).get("http_response")
    return None if inner is None else read(inner)


def _failed(found: Reading, status: int, fields: Fields) -> Reading:
    message = found.error_message or text(fields.get("reason"))
    return replace(found, outcome="error", error_type=f"http_{status}", error_message=message)


def _host(fields: Fields) -> str:
    url = getattr(fields.get("_request"), "url", None) or fields.get("url")
    try:
        return urlsplit(str(url)).hostname or ""
    except ValueError:
        return ""


CLASSES: dict[str, Reader] = {"Response": read}

STREAMS: dict[tuple[str, str], StreamClass] = {}
