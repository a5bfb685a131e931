"""How runs of command-line tools ended, each tool's by its own rule."""

from __future__ import annotations

import re
from typing import Any

from instrument.usage.decoding import decoded
from instrument.usage.fields import NOTHING, fields_of, part, text
from instrument.usage.reading import Fields

__all__ = ["FINE", "Verdict", "code_in", "of_gemini", "of_result", "turn_failure"]

Verdict = tuple[str | None, str | None, str | None]
"""Outcome, error type and message."""

FINE: Verdict = (None, None, None)

_CANCELLED_EXIT = 130
_LEAST_STATUS = 200
_STATUS = re.compile(r"\bstatus:? (\d{3})\b")


def of_result(result: Fields) -> Verdict:
    """Tell how a run of Claude or Qwen ended; `is_error` may be true with subtype `success`."""
    reason = text(result.get("terminal_reason"))
    if reason is not None and reason.startswith("aborted"):
        return "cancelled", reason, None
    error = part(result, "error")
    if not (result.get("is_error") is True or error or result.get("status") == "failed"):
        return FINE
    error = error or NOTHING
    subtype, status = text(result.get("subtype")), result.get("api_error_status")
    kind = (
        text(error.get("code"))
        or text(error.get("type"))
        or (None if subtype == "success" else subtype)
        or (f"http_{status}" if type(status) is int else None)
        or (None if reason == "completed" else reason)
        or "error"
    )
    return "error", kind, _message(result, error)


def _message(result: Fields, error: Fields) -> str | None:
    errors = result.get("errors")
    listed = errors if isinstance(errors, list) else ()
    told = (text(error.get("message")), *map(text, listed), text(result.get("result")))
    return next((message for message in told if message), None)


def of_gemini(error: Any) -> Verdict:
    """Tell what Gemini's error object says.

    Its code is a provider's, or the exit code, which says less than the type does.
    """
    fields = fields_of(error)
    if not fields:
        return ("error", "error", error) if text(error) else FINE
    code, kind = fields.get("code"), text(fields.get("type"))
    number = _number(code)
    if number is None and type(code) is not str:
        number = _number(kind)
    if number == _CANCELLED_EXIT or kind == "FatalCancellationError":
        return "cancelled", kind, text(fields.get("message"))
    if number is None:
        name = text(code) or kind or "error"
    elif number >= _LEAST_STATUS:
        name = str(number)
    else:
        name = kind if kind and kind != "Error" and _number(kind) is None else f"exit_{number}"
    return "error", name, text(fields.get("message"))


def _number(code: Any) -> int | None:
    if type(code) is str and code.isdecimal() and len(code) < 6:
        return int(code)
    return code if type(code) is int else None


def turn_failure(error: Any) -> tuple[str, str | None]:
    fields = fields_of(error) or NOTHING
    message = text(fields.get("message")) or text(error)
    named = text(fields.get("code")) or text(fields.get("type"))
    return named or code_in(message or "") or "turn.failed", message


def code_in(message: str) -> str | None:
    """Return the provider's code from a message that repeats the provider's answer."""
    body = decoded(message) if message.startswith("{") else None
    error = part(body or NOTHING, "error") or NOTHING
    code = text(error.get("code")) or text(error.get("type"))
    if code is not None:
        return code
    status = _STATUS.search(message[:500])
    return None if status is None else f"http_{status[1]}"
