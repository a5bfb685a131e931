"""What a finished subprocess says of itself: how it exited, and what a tool printed as JSON."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from instrument.usage import texts
from instrument.usage.reading import Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "read"]

_TAIL_CHARACTERS = 65_536
_TOLD_LITTLE = ("error", "failed", "turn.failed")


def read(process: Any) -> Reading | None:
    """Read a `subprocess.CompletedProcess`, or the `CalledProcessError` that `check=True` raises.

    What the output says of an error wins over the exit code, unless it names no code. The message
    is that error's, else the last line of what the process complained.
    """
    code = process.returncode
    found = _read_output(process.stdout)
    if not code:
        return found
    if found is None or found.outcome is None:
        complaint = _read_complaint(process.stderr)
        if complaint is not None and complaint.outcome is not None:
            found = complaint if found is None else _with_failure(found, complaint)
    if found is not None and _says_more(found):
        return found
    message = None if found is None else found.error_message
    return replace(
        found or Reading(),
        outcome="error",
        error_type=f"exit_{code}",
        error_message=message or _last_line(process.stderr),
    )


def _says_more(found: Reading) -> bool:
    if found.outcome is None:
        return False
    return found.outcome != "error" or found.error_type not in _TOLD_LITTLE


def _with_failure(found: Reading, failed: Reading) -> Reading:
    return replace(
        found,
        outcome=failed.outcome,
        error_type=failed.error_type,
        error_message=failed.error_message,
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
