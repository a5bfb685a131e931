"""Numbers, times and names as a person reads them; pure text, safe to print."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, tzinfo

__all__ = ["clean", "count", "duration", "human", "human_bytes", "moment", "money", "percent"]

LONGEST = 2_000


def clean(text: str, *, ascii_only: bool = False) -> str:
    """Make one printable line of a text that somebody else wrote into the log.

    Control characters would otherwise move the cursor or recolour the reader's terminal. What no
    line has room for is cut off.
    """
    text = text[:LONGEST]
    if not text.isprintable():
        line = " ".join(text.split())
        text = "".join(
            letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line
        )
    if ascii_only and not text.isascii():
        text = text.encode("ascii", "backslashreplace").decode("ascii")
    return text


def duration(seconds: float | None) -> str:
    """Three figures and a unit: `0.4 ms`, `213 ms`, `1.82 s`, `2 m 05 s`, `1 h 02 m`."""
    if seconds is None:
        return ""
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} m"


def count(number: int | None) -> str:
    """The exact number with separators; nothing where nothing was reported."""
    return "" if number is None else f"{number:,}"


def human(number: int) -> str:
    """The exact number, from a million on with its size in words: `1,234,567 (1.2 million)`."""
    for size, word in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number:,} ({number / size:.1f} {word})"
    return f"{number:,}"


def human_bytes(size: int) -> str:
    """`812 bytes`, `4.5 kB`, `1.2 GB`: powers of a thousand."""
    for unit, word in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {word}"
    return f"{size} bytes"


def money(dollars: float | None) -> str:
    """US dollars, with enough decimals that a price never looks like nothing."""
    if dollars is None:
        return ""
    if dollars == 0 or abs(dollars) >= 1:
        return f"${dollars:,.2f}"
    return f"${dollars:.4f}" if abs(dollars) >= 0.001 else f"${dollars:.2g}"


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def moment(instant: datetime, zone: tzinfo | None, form: str = "%Y-%m-%d %H:%M:%S %Z") -> str:
    """`instant` in `zone`, or in local time when `zone` is `None`; where that has none, in UTC."""
    with suppress(OverflowError):
        instant = instant.astimezone(zone)
    return instant.strftime(form).strip()
