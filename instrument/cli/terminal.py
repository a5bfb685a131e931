"""Where output goes: how wide it is, which letters and colours it takes, and the writing itself."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from instrument.cli.layout import View

__all__ = ["view_of", "write_document", "write_json_lines", "write_lines"]

NARROWEST = 40
USUAL_WIDTH = 80


def view_of(*, utc: bool, everything: bool = False) -> View:
    """Describe standard output as it is now, by the conventions of the environment."""
    columns = shutil.get_terminal_size((USUAL_WIDTH, 24)).columns
    return View(
        width=max(NARROWEST, columns),
        ascii_only=_ascii_only(os.environ, getattr(sys.stdout, "encoding", None)),
        zone=UTC if utc else None,
        everything=everything,
    )


def _ascii_only(environment: Mapping[str, str], encoding: str | None) -> bool:
    # Python takes UTF-8 in the C locale; whoever sets LC_ALL=C means it, and reads with C tools
    chosen = (environment.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    if next(filter(None, chosen), "") in ("C", "POSIX"):
        return True
    try:
        "█▐▶…".encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return True
    return False


def write_lines(lines: Iterable[Text], *, colour: bool) -> None:
    """Print lines, with colours where standard output is a terminal that shows them."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not colour or console.no_color or console.color_system is None:
        sys.stdout.write("".join(f"{line.plain}\n" for line in lines))
        return
    for line in lines:
        console.print(line, soft_wrap=True)


def write_document(value: Any) -> None:
    """Print one JSON document."""
    _write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def write_json_lines(values: Iterable[Any]) -> None:
    """Print one JSON document a line."""
    _write_bytes(b"".join(msgspec.json.encode(value) + b"\n" for value in values))


def _write_bytes(data: bytes) -> None:
    # JSON is UTF-8 whatever the locale says
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
