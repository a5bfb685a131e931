"""What a finished subprocess says of itself: how it exited, and what a tool printed as JSON."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from instrument.usage import texts
from instrument.usage.decoding import decoded
from instrument.usage.fields import NOTHING, part, text
from instrument.usage.reading import Reader, Reading, StreamClass
from instrument.usage.tool_endings import FINE, Verdict, of_result

__all__ = ["CLASSES", "STREAMS", "read"]

_TAIL_CHARACTERS = 65_536
_WORDS: dict[type, Any] = {str: ('"error"', '"is_error"'), bytes: (b'"error"', b'"is_error"')}
_TOLD_LITTLE = ("error", "failed", "turn.failed")


def read(process: Any) -> Reading | None:
    """Read a `subprocess.CompletedProcess`, or the `CalledProcessError` that `check=True` raises.

    What the output says of an error wins over the exit code, unless it names no code. The message
    is that error's, else the last line of what the process complained.
    """
    code = process.returncode
    found = _read_output(process.stdout)
    if found is None or found.outcome is None:
        failed = _told_failure(process.stdout)
        found = found if failed == FINE else _with_failure(found, *failed)
    if not code:
        return found
    if found is None or found.outcome is None:
        complaint = _read_complaint(process.stderr)
        if complaint is not None and complaint.outcome is not None:
            told = complaint.outcome, complaint.error_type, complaint.error_message
            found = complaint if found is None else _with_failure(found, *told)
    if found is not None and _says_more(found):
        return found
    message = None if found is None else found.error_message
    return _with_failure(found, "error", f"exit_{code}", message or _last_line(process.stderr))


def _says_more(found: Reading) -> bool:
    if found.outcome is None:
        return False
    return found.outcome != "error" or found.error_type not in _TOLD_LITTLE


def _with_failure(
    found: Reading | None, outcome: str | None, kind: str | None, message: str | None
) -> Reading:
    return replace(
        found or Reading(),
        outcome=outcome,
        error_type=kind,
        error_message=message,
        is_plain=False,
    )


def _read_output(output: Any) -> Reading | None:
    """Read JSON that may stand between lines of other text."""
    found = _read(output)
    if found is None and type(output) in (str, bytes):
        inner = texts.between_braces(output)
        found = None if inner is None else _read(inner)
        if found is not None:
            found = replace(found, source=output)
    return found


def _told_failure(output: Any) -> Verdict:
    """Return what the one object that a tool printed says of its failure, whosever it is."""
    if not any(word in output for word in _WORDS.get(type(output), ())):
        return FINE
    fields = decoded(output) or decoded(texts.between_braces(output) or b"") or NOTHING
    error = part(fields, "error") or NOTHING
    named = (text(error.get(name)) for name in ("code", "type", "message"))
    return of_result(fields) if fields.get("is_error") is True or any(named) else FINE


def _read_complaint(output: Any) -> Reading | None:
    return _read_output(output[-_TAIL_CHARACTERS:]) if type(output) in (str, bytes) else None


def _read(output: Any) -> Reading | None:
    if type(output) is str:
        return texts.read_text(output)
    return texts.read_bytes(output) if type(output) is bytes else None


def _last_line(stderr: Any) -> str | None:
    if not isinstance(stderr, (str, bytes)):
        return None
    end = stderr[-2000:]
    lines = (end.decode("utf-8", "replace") if isinstance(end, bytes) else end).split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), None)


CLASSES: dict[str, Reader] = {"CalledProcessError": read, "CompletedProcess": read}

STREAMS: dict[tuple[str, str], StreamClass] = {}
