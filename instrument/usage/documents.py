"""What JSON objects of any origin say of their failure, beside or instead of a provider's shape."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from instrument.usage.failures import details_of_response
from instrument.usage.fields import NOTHING, failure, fields_of, part, text
from instrument.usage.reading import Fields, Reading

__all__ = ["document_failure"]


def document_failure(fields: Fields, found: Reading | None) -> Reading | None:
    """Return what was found, as an error if the object says that it failed.

    A plain `status: "failed"` is enough: a service that answers so says that what it was called
    for did not happen, whoever it is; who merely looks such an object up has `success=`. An
    OpenAI object with its own name for what it is (`fine_tuning.job`) is not the call's outcome.
    """
    if found is not None and found.outcome is not None:
        return found
    details: dict[str, Any] = {}
    if fields.get("status") == "failed":
        kind, message = _failure(fields)
    else:
        status = (part(fields, "ResponseMetadata") or NOTHING).get("HTTPStatusCode")
        if type(status) is not int or status < 400:
            return found
        code, message = _failure(fields)
        kind = f"http_{status}"
        details = details_of_response(fields, status, None if code == "failed" else code)
    found = found or Reading()
    return replace(
        found,
        outcome="error",
        error_type=kind,
        error_message=message,
        details={**(found.details or {}), **details} or None,
    )


def _failure(fields: Fields) -> tuple[str, str | None]:
    """Return the code and the message of the error object, or those beside the status."""
    error = fields.get("error") or fields.get("Error")
    if not fields_of(error):
        return "failed", text(error) or text(fields.get("message"))
    kind, message = failure(error, "code", "Code", "type", "status")
    message = message or text((fields_of(error) or NOTHING).get("Message"))
    return "failed" if kind == "error" else kind, message
