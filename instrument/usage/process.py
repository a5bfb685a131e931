"""What a finished subprocess says of itself."""

from __future__ import annotations

from typing import Any

from instrument.usage.reading import Reader, Reading, StreamClass

__all__ = ["CLASSES", "STREAMS", "read"]


def read(process: Any) -> Reading | None:
    """Read a `subprocess.CompletedProcess`; the message is the last line of what it complained."""
    code = process.returncode
    if not code:
        return None
    return Reading(
        outcome="error", error_type=f"exit_{code}", error_message=_last_line(process.stderr)
    )


def _last_line(stderr: Any) -> str | None:
    if not isinstance(stderr, (str, bytes)):
        return None
    end = stderr[-2000:]
    lines = (end.decode("utf-8", "replace") if isinstance(end, bytes) else end).split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), None)


CLASSES: dict[str, Reader] = {"CompletedProcess": read}

STREAMS: dict[tuple[str, str], StreamClass] = {}
