"""What a Parquet file of the archive says of itself, and which files hold what is nowhere else."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import duckdb
import msgspec
from duckdb import DuckDBPyConnection
from msgspec import Raw, Struct

from instrument._costs import quoted
from instrument._databases import opened
from instrument.archive import FORMAT, Manifest, Segment, end_of_archived, files_in
from instrument.errors import FormatError

__all__ = ["Facts", "facts_of", "held_alone", "is_in_journal"]


class Facts(Struct):
    """What a file says of itself: its batch's segments and lines about the log, and of others.

    `known` are such lines of earlier batches, `gone` the files that its making did away with,
    `summed` the batches that what days came to was made of, and which counted therefore.
    """

    v: int = FORMAT
    batch: str = ""
    segments: tuple[Segment, ...] = ()
    other: tuple[Raw, ...] = ()
    known: tuple[Raw, ...] = ()
    gone: tuple[str, ...] = ()
    summed: tuple[str, ...] = ()


def facts_of(database: DuckDBPyConnection, path: Path) -> Facts:
    """Return what a file says; nothing where an older version wrote it.

    Raises `duckdb.Error` or `ValueError` for a damaged file, `FormatError` for a newer one.
    """
    query = f"select decode(value) from parquet_kv_metadata({quoted(str(path))}) where {_OURS}"
    rows = database.execute(query).fetchall()
    facts = _decode(rows[0][0]) if rows else Facts()
    if facts.v > FORMAT:
        raise FormatError(
            f"{path} is of format {facts.v}, and this version reads up to {FORMAT}:"
            " pip install -U instrument-kit"
        )
    return facts


def is_in_journal(log_dir: Path, segment: Segment) -> bool:
    """Tell whether the journal holds all of a segment that went into the archive."""
    try:
        return end_of_archived(log_dir / "journal" / segment.name, segment) is not None
    except FileNotFoundError:
        return False


def held_alone(directory: Path, manifest: Manifest) -> list[Path]:
    """Return files of operations that the manifest does not name and the journal does not hold.

    So it is where an older manifest was put back. What a killed change of the archive has left is
    not among them.
    """
    named = {each.path for each in manifest.parts}
    unnamed = {
        name: path
        for path in files_in(directory)
        if (name := path.relative_to(directory).as_posix()).startswith("date=")
        and name not in named
    }
    if not unnamed:
        return []
    with opened() as database:
        for each in manifest.sessions:
            with suppress(duckdb.Error, ValueError):  # it is missed, or damaged
                for name in facts_of(database, directory / each).gone:
                    unnamed.pop(name, None)
        known = manifest.batches()
        return [path for path in unnamed.values() if _is_alone(database, path, known)]


def _is_alone(database: DuckDBPyConnection, path: Path, known: list[str]) -> bool:
    try:
        facts = facts_of(database, path)
    except (duckdb.Error, ValueError):
        return False
    if facts.batch in known or facts.batch != path.stem:
        return False
    log_dir = path.parent.parent.parent
    return not all(is_in_journal(log_dir, each) for each in facts.segments)


_decode = msgspec.json.Decoder(Facts).decode
_OURS = "decode(key) = 'instrument'"
