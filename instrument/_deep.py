"""Files with lines that are nested deeper than any record; DuckDB would read them."""

from __future__ import annotations

from io import BufferedReader, RawIOBase
from pathlib import Path

from instrument._lines import DEEPEST, brackets_in, is_deep
from instrument._scan import BLOCK_BYTES

__all__ = ["nests_too_deep"]

LONGEST = 4 * 1024**2  # far longer than what DuckDB is allowed to read


def nests_too_deep(path: Path) -> bool:
    """Tell whether any line of a file is nested too deep to be read; `False` if it has vanished.

    Only where a block has more brackets than one line may have are its lines looked at.
    """
    try:
        with path.open("rb", buffering=0) as file, path.open("rb") as again:
            return _nests_too_deep(file, again)
    except FileNotFoundError:
        return False


def _nests_too_deep(file: RawIOBase, again: BufferedReader) -> bool:
    position = begin = before = 0
    while block := file.read(BLOCK_BYTES):
        position += len(block)
        # those of the line that began before, too
        if before + brackets_in(block) > DEEPEST and _is_any_deep(again, begin, position):
            return True
        cut = block.rfind(b"\n") + 1
        if cut:
            begin, before = position - len(block) + cut, 0
        before += brackets_in(block[cut:])
    return False


def _is_any_deep(file: BufferedReader, begin: int, end: int) -> bool:
    """Look at the lines that begin between two places."""
    file.seek(begin)
    while begin < end and (line := file.readline(LONGEST)):
        if is_deep(line):
            return True
        begin += len(line)
    return False
