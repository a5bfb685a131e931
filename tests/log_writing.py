"""Writes logs by hand, so that the tests of reading depend on the format alone."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
SEGMENT = "2026-11-20-host-0001.jsonl"


def at(seconds: float) -> str:
    """Return a timestamp that many seconds after the start of the tests' day."""
    return (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def operation(number: int = 0, **keys: Any) -> dict[str, Any]:
    """Return a finished operation; a key that is given as `None` is left out."""
    line = {
        "timestamp": at(number),
        "session_id": "work",
        "service": "gemini",
        "operation": "ask",
        "success": True,
        "duration_seconds": 1.0,
        "tokens": 10,
        "metadata": {},
        "operation_id": f"{number:016x}",
    }
    return {key: value for key, value in (line | keys).items() if value is not None}


def begin(number: int = 0, **keys: Any) -> dict[str, Any]:
    line = {
        "type": "begin",
        "timestamp": at(number),
        "session_id": "work",
        "service": "gemini",
        "operation": "ask",
        "operation_id": f"{number:016x}",
        "pid": 77,
        "run": "run1",
    }
    return line | keys


def entered(session_id: str, **keys: Any) -> dict[str, Any]:
    return {"type": "session", "timestamp": at(0), "session_id": session_id} | keys


def encoded(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


def exact(lines: bytes) -> bytes:
    """Return lines with timestamps as the recorder writes them, which are read in another way."""
    return re.sub(rb'(T\d\d:\d\d:\d\d)Z"', rb'\1.000000Z"', lines)


def write(log_dir: Path, *lines: dict[str, Any] | bytes, name: str = SEGMENT) -> Path:
    """Append lines to a segment; bytes go in as they are, without a newline."""
    path = log_dir / "journal" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for line in lines:
            file.write(line if isinstance(line, bytes) else encoded(line))
    return path


@contextmanager
def held(log_dir: Path, run: str = "run1") -> Iterator[Path]:
    """Hold a run lock, as the process that began the operations would."""
    path = log_dir / "run" / f"{run}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(descriptor)


@contextmanager
def open_by_writers(*paths: Path) -> Iterator[None]:
    """Hold the locks that processes hold which have these segments open."""
    descriptors = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        for each in descriptors:
            fcntl.flock(each, fcntl.LOCK_SH)
        yield
    finally:
        for each in descriptors:
            os.close(each)
