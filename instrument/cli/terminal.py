"""Where output goes: how wide it is, which letters and colours it takes, and the writing itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from instrument.cli.layout import View
from instrument.cli.moments import LocalZone
from instrument.cli.progress import Waiting

__all__ = ["Output", "view_of", "write_lines"]

NARROWEST = 40
USUAL_SIZE = (80, 24)
PAGER_FAILED = range(1, 128)  # what is above says which signal ended it


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What the user asked of the output."""

    view: View
    colour: bool = True
    pager: bool = True
    as_json: bool = False
    waiting: Waiting | None = None

    @classmethod
    def of(cls, *, utc: bool, colour: bool, pager: bool, as_json: bool) -> Output:
        return cls(view=view_of(utc=utc), colour=colour, pager=pager, as_json=as_json)

    def begin(self) -> None:
        """Take away the sign that something is being read; called before anything is printed."""
        if self.waiting is not None:
            self.waiting.stop()

    def lines(self, lines: Iterable[Text]) -> None:
        """Print lines; more of them than the terminal is high go through the pager."""
        shown = list(lines)
        self.begin()
        if self.pager and _is_watched() and len(shown) >= shutil.get_terminal_size().lines:
            _page(_as_text(shown, colour=self.colour))
        else:
            write_lines(shown, colour=self.colour)

    @property
    def zone(self) -> tzinfo:
        """The zone in which days begin."""
        return self.view.zone or LocalZone()

    def at_once(self, line: Text) -> None:
        """Print one line, which somebody may be waiting for."""
        self.begin()
        write_lines([line], colour=self.colour)

    def nothing(self, message: str) -> None:
        """Say on standard error that there is nothing to show."""
        self.begin()
        sys.stderr.write(f"{message}\n")

    def document(self, value: Any) -> None:
        """Print one JSON document."""
        document = msgspec.json.format(msgspec.json.encode(value), indent=2)
        self.begin()
        _write_bytes([document + b"\n"])

    def json_lines(self, values: Iterable[Any]) -> None:
        """Print one JSON document a line."""
        self.begin()
        _write_bytes(_encode(value) + b"\n" for value in values)


def view_of(*, utc: bool, everything: bool = False) -> View:
    """Describe standard output as it is now, by the conventions of the environment."""
    columns = shutil.get_terminal_size(USUAL_SIZE).columns
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
    sys.stdout.write(_as_text(lines, colour=colour))
    sys.stdout.flush()


def _page(text: str) -> None:
    """Show a text in the user's pager, or at once where there is none that works."""
    pager = os.environ.get("PAGER", "less" if shutil.which("less") else "").strip()
    if not pager or _paged(pager, text) in PAGER_FAILED:
        sys.stdout.write(text)
        sys.stdout.flush()


def _paged(pager: str, text: str) -> int:
    """Run the pager, which is a line for the shell, until the user leaves it."""
    environment = {"LESS": "FRX", **os.environ}
    with subprocess.Popen(pager, shell=True, stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # left before the end
            process.stdin.write(text.encode())
        with suppress(BrokenPipeError):
            process.stdin.close()
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # a pager has a use for Ctrl-C
                continue


def _is_watched() -> bool:
    return sys.stdout.isatty() and sys.stdin.isatty() and os.environ.get("TERM") != "dumb"


def _as_text(lines: Iterable[Text], *, colour: bool) -> str:
    console = Console(markup=False, emoji=False, highlight=False)
    if not colour or console.no_color or console.color_system is None:
        return "".join(f"{line.plain}\n" for line in lines)
    with console.capture() as capture:
        for line in lines:
            console.print(line, soft_wrap=True)
    return capture.get()


def _write_bytes(documents: Iterable[bytes]) -> None:
    # JSON is UTF-8 whatever the locale says
    sys.stdout.flush()
    for data in documents:
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


# what SQL computes with decimals are numbers
_encode = msgspec.json.Encoder(decimal_format="number").encode
