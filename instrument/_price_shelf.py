"""What the price list said of models, kept in the user's cache directory by our commands.

Loading the list takes a quarter of a second, longer than most questions to a log. Other programs
leave nothing there and look at nothing: they may change the list, and load it once for many calls.
"""

from __future__ import annotations

import os
import time
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec
import platformdirs

from instrument import _price_list, _rates
from instrument._config import user_directory
from instrument._files import bytes_between, make_private_directory, open_private
from instrument._rates import Key, KnownRates, Rates

__all__ = ["kept", "listed", "use"]

_MOST_BYTES = 500_000
_OLD_SECONDS = 30 * 86_400.0
_PREFIX = "prices-"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(KnownRates).decode
_in_use = False


def use() -> None:
    """Keep what the list says from now on: this process is one of our commands."""
    global _in_use
    _in_use = True


def kept(key: Key) -> tuple[Rates, ...] | None:
    """Return the rates of a model as this list had them before; `None`: it has to be asked."""
    shelf = _shelf() if _in_use and not _price_list.is_loaded() else None
    return None if shelf is None else _books(shelf).get(key)


def listed(key: Key) -> tuple[Rates, ...]:
    """Return the rates of a model, of which one at most holds for any call, and keep them."""
    shelf = _shelf() if _in_use and not _is_theirs() else None
    rates = _price_list.listed(*key)
    if shelf is not None and _price_list.is_available():
        with suppress(OSError, ValueError):  # a full disk, a name that is no text
            _keep(shelf, KnownRates(*key, rates))
    return rates


@cache
def _is_theirs() -> bool:
    """Tell whether the list had been loaded, and perhaps changed, before we first asked it."""
    return _price_list.is_loaded()


@cache
def _shelf() -> Path | None:
    """Return the file for the list that is installed, and for our rules; `None` without one.

    Files have the same times and sizes in different lists where images are made reproducible.
    """
    directory = user_directory(platformdirs.user_cache_dir)
    if directory is None:
        return None
    try:
        sources = [*_price_list.sources(), Path(_price_list.__file__), Path(_rates.__file__)]
        checksum = size = 0
        for each in sources:
            content = each.read_bytes()
            checksum, size = zlib.crc32(content, checksum), size + len(content)
    except (ImportError, OSError, ValueError):  # not installed, in an archive, or a stub
        return None
    return directory / f"{_PREFIX}{checksum:08x}{size:x}"


@cache
def _books(shelf: Path) -> dict[Key, tuple[Rates, ...]]:
    found: dict[Key, tuple[Rates, ...]] = {}
    try:
        data = bytes_between(shelf, 0, 2 * _MOST_BYTES + 1)
    except OSError:
        return found
    if len(data) > 2 * _MOST_BYTES:
        return found  # none of ours
    for line in data.split(b"\n"):
        checksum, _, content = line.partition(b" ")
        if checksum == _checksum(content):  # or it is torn
            known = _decode(content)
            found[known.key] = known.rates
    return found


def _checksum(content: bytes) -> bytes:
    return b"%08x" % zlib.crc32(content)


def _keep(shelf: Path, known: KnownRates) -> None:
    content = _encode(known)
    if len(content) > _MOST_BYTES:
        return
    make_private_directory(shelf.parent)
    if not shelf.exists():
        _clear(shelf.parent)
    descriptor = open_private(shelf, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_size > _MOST_BYTES:  # of names that some log once had
            os.ftruncate(descriptor, 0)
        # after a newline, for another line may be torn
        os.write(descriptor, b"\n" + _checksum(content) + b" " + content)
    finally:
        os.close(descriptor)


def _clear(directory: Path) -> None:
    """Remove what lists said that are not asked any more."""
    for each in directory.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if each.stat().st_mtime < time.time() - _OLD_SECONDS:
                each.unlink()
