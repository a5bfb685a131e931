"""Files that users name for us to write."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["is_special", "put_whole"]


@contextmanager
def put_whole(target: Path) -> Iterator[Path]:
    """Give the path of a file that takes the place of another when it is whole.

    A link is followed, and the mode of the file that was there stays. Raises `FileNotFoundError`,
    with what was named, where no file can be.
    """
    target = target.resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such directory", str(target.parent))
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        with suppress(FileNotFoundError):
            unfinished.chmod(stat.S_IMODE(target.stat().st_mode))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def is_special(path: Path) -> bool:
    """Tell whether there is something that is no regular file, as a device or a pipe."""
    return path.exists() and not path.is_file()
