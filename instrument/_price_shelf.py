"""What the price list said of models, kept in the user's cache directory.

Loading the list takes a quarter of a second, which is longer than most questions to a log.
"""

from __future__ import annotations

import os
import stat
import time
from functools import cache
from pathlib import Path

import msgspec
import platformdirs

from instrument import _price_list, _rates
from instrument._guard import belongs_to_program
from instrument._rates import Key, KnownRates, Rates

__all__ = ["keep_no_more", "kept", "listed"]

_MOST_BYTES = 500_000
_LONGEST_BYTES = 8_000
_OLD_SECONDS = 30 * 86_400.0
_PREFIX = "prices-"
_keeps = True
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(KnownRates).decode


def kept(key: Key) -> tuple[Rates, ...] | None:
    """Return the rates of a model as this list had them before; `None` if it has to be asked.

    A list that somebody else has loaded is asked, for it may have been changed.
    """
    shelf = None if _price_list.is_loaded() else _shelf()
    return None if shelf is None else _books(shelf).get(key)


def listed(key: Key) -> tuple[Rates, ...]:
    """Return the rates of a model, of which one at most holds for any call, and keep them."""
    shelf = None if _is_theirs() or not _keeps else _shelf()
    rates = _price_list.listed(*key)
    if shelf is not None:
        try:
            _keep(shelf, KnownRates(*key, rates))
        except Exception as error:  # without a home, on a full disk, of a name that is no text
            if belongs_to_program(error):
                raise
    return rates


def keep_no_more() -> None:
    """Leave nothing behind from now on."""
    global _keeps
    _keeps = False


@cache
def _is_theirs() -> bool:
    """Tell whether the list had been loaded before we first asked it."""
    return _price_list.is_loaded()


@cache
def _shelf() -> Path | None:
    """Return the file for the list that is installed, and for our rules; `None` without one."""
    data = _price_list.data_file()
    if data is None:
        return None
    try:
        states = [os.stat(each) for each in (data, _price_list.__file__, _rates.__file__)]
        directory = Path(platformdirs.user_cache_dir("instrument", appauthor=False))
    except (OSError, RuntimeError) as error:  # in an archive, or nobody's home
        if belongs_to_program(error):
            raise
        return None
    if not directory.is_absolute():
        return None  # it would depend on where the program stands
    name = "-".join(f"{state.st_mtime_ns:x}.{state.st_size:x}" for state in states)
    return directory / f"{_PREFIX}{name}.jsonl"


@cache
def _books(shelf: Path) -> dict[Key, tuple[Rates, ...]]:
    try:
        is_ours = shelf.is_file() and shelf.stat().st_size <= 2 * _MOST_BYTES
        lines = shelf.read_bytes().splitlines() if is_ours else []
    except OSError as error:
        if belongs_to_program(error):
            raise
        return {}
    found = {}
    for line in lines:
        try:
            known = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # torn, by a disk that was full
        found[known.key] = known.rates
    return found


def _keep(shelf: Path, known: KnownRates) -> None:
    books = _books(shelf)
    line = _encode(known) + b"\n"
    if known.key in books or len(line) > _LONGEST_BYTES:
        return
    books[known.key] = known.rates
    shelf.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not shelf.exists():
        _clear(shelf.parent)
    # of a pipe, one that nobody reads would wait
    how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
    descriptor = os.open(shelf, how, 0o600)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_size < _MOST_BYTES:
            os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _clear(directory: Path) -> None:
    """Remove what lists said that are not asked any more."""
    for each in directory.glob(f"{_PREFIX}*.jsonl"):
        if each.stat().st_mtime < time.time() - _OLD_SECONDS:
            each.unlink(missing_ok=True)
