"""The databases in memory that answer for this process, which no fork may take along.

A forked child has none of the threads that its parent's databases work with, so that it must
neither ask one nor close it: it would wait for ever, or crash at its end.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import ref

import duckdb
from duckdb import DuckDBPyConnection
from msgspec import Struct

from instrument._costs import quoted
from instrument._files import scratch_prefix

__all__ = ["cursor", "interruptible", "lasting", "opened", "scratch_directory", "shared"]


def opened() -> DuckDBPyConnection:
    """Open a database in memory whose cursors all have times in UTC, and which prints nothing."""
    connection = duckdb.connect()
    # without callbacks, in which Python would drop what a signal handler raises
    _opened.append(ref(connection))
    for each in [one for one in _opened if one() is None]:
        with suppress(ValueError):  # another thread was first
            _opened.remove(each)
    # without `global` a cursor has the machine's zone again
    connection.execute("set global timezone = 'UTC'")
    # which goes to the program's own output where that has no file, as in a notebook
    connection.execute("set enable_progress_bar = false")
    return connection


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `KeyboardInterrupt` for what DuckDB makes of a Ctrl-C that comes while it works."""
    try:
        yield
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except (duckdb.Error, RuntimeError) as error:
        if str(error) == "Query interrupted" or "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from error
        raise


def scratch_directory() -> tempfile.TemporaryDirectory[str]:
    """Return a directory for what stands in files meanwhile; its name tells whose it is."""
    return tempfile.TemporaryDirectory(prefix=scratch_prefix())


@contextmanager
def shared() -> Iterator[DuckDBPyConnection]:
    """Give a cursor of the one database in memory that answers for this process.

    Its temporary tables are its own; what the database has no room for goes into files meanwhile.
    """
    found, pid = cursor(), os.getpid()
    with _spilling:
        _place.mkdir(mode=0o700, exist_ok=True)
        _users.append(found)
    try:
        yield found
    finally:
        if os.getpid() == pid:
            found.close()
            with _spilling:
                _users.remove(found)
                if not _users:
                    shutil.rmtree(_place, ignore_errors=True)


def cursor() -> DuckDBPyConnection:
    """Return a cursor of the database that this process shares."""
    global _shared, _place
    if _shared is None:
        _place = Path(tempfile.gettempdir(), scratch_prefix() + secrets.token_hex(8))
        database = opened()
        database.execute("set parquet_metadata_cache = true")
        database.execute(f"set temp_directory = {quoted(str(_place))}")
        _shared = database
    return _shared.cursor()


def lasting() -> DuckDBPyConnection:
    """Return a cursor of another one, whose tables stay in memory, and are never many."""
    if not _lasting:
        database = opened()
        database.execute("set temp_directory = ''")
        # where several threads come at once, one of theirs counts
        _lasting.setdefault("", database)
    return _lasting[""].cursor()


class _Kept(Struct, gc=False):
    """Something that is never freed: the collector does not see that it refers to itself."""

    what: Any
    itself: Any = None


def _leave_to_parent() -> None:
    global _shared, _lasting, _opened, _spilling, _users
    for each in _opened:
        kept = _Kept(each())
        kept.itself = kept
    _shared, _lasting, _opened, _spilling, _users = None, {}, [], Lock(), []


_shared: DuckDBPyConnection | None = None
_lasting: dict[str, DuckDBPyConnection] = {}
_place = Path()
_spilling = Lock()
_users: list[DuckDBPyConnection] = []
_opened: list[ref[DuckDBPyConnection]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
