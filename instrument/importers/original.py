"""The logs of the original usage logger: its lines as operations, appended once each.

Two formats, one JSON object a line: `usage_logger.py` writes `service`, `operation`, `tokens`; the
older one for the Gemini command line writes `command`, `actual_tokens`, `error` and no service.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from time import perf_counter_ns
from typing import Any, BinaryIO, NamedTuple

from msgspec import Struct
from msgspec.structs import asdict, replace

from instrument._clean import encode_lines
from instrument._config import as_path, settings
from instrument._gather import Reading
from instrument._lines import decode_head, moment_of, operation_of, record_of, salvage
from instrument._scan import Skipped, scan, sources_of
from instrument.errors import InstrumentError
from instrument.journal import Journal
from instrument.operation import MAX_COUNT, Operation, OperationLine
from instrument.recorder import Recorder, recorder

__all__ = ["Damaged", "Imported", "import_original", "read_original"]

OLDER_SERVICE = "gemini"
# what is written must stay short enough to be read again
MAX_LINE_BYTES = 15 * 1024**2
_PROMPT_MARKS = ("-", '"', "'", "@")
_DERIVED = ("extra", "v", "timestamp", "outcome", "metadata", "operation_id")


class Damaged(NamedTuple):
    """A line that holds no operation, in whole or in part; `offset` in bytes."""

    offset: int
    reason: str


class Imported(Struct):
    """How many operations were appended and were there before, and how many lines are damaged."""

    imported: int = 0
    already_there: int = 0
    skipped: int = 0


class ContentIds:
    """Gives each line of one file an id, by its content and how many equal ones came before."""

    def __init__(self) -> None:
        self._met: dict[int, int] = {}

    def of(self, line: bytes) -> str:
        """Return 16 hex digits."""
        digest = blake2b(line.strip(), digest_size=8)
        number = int.from_bytes(digest.digest())
        times = self._met.get(number, 0)
        self._met[number] = times + 1
        if times:
            digest.update(b"\n%d" % times)
        return digest.hexdigest()


def read_original(
    lines: Iterable[bytes], *, service: str = OLDER_SERVICE
) -> Iterator[OperationLine | Damaged]:
    """Yield the operations that the lines of one file hold, and what is damaged, in order.

    Times, sessions, tokens and metadata are as they were (the original's `timestamp` is the end
    of an operation). `service` is for lines of the older format; of its `command`, what comes
    before the first option or quote becomes the operation, because prompts are not recorded. The
    same lines always give the same ids. A line over 15 MiB may come in pieces, and is damaged.
    """
    ids = ContentIds()
    offset, continues = 0, False
    for line in lines:
        if not continues and not line.isspace():
            yield from _read(line.strip(), offset, ids, service)
        continues = len(line) >= MAX_LINE_BYTES and not line.endswith(b"\n")
        offset += len(line)


def import_original(
    paths: Sequence[str | os.PathLike[str]],
    log_dir: str | os.PathLike[str] | None = None,
    *,
    service: str = OLDER_SERVICE,
    damaged: Callable[[Path, Damaged], None] = lambda path, line: None,
    advance: Callable[[int], None] = lambda size: None,
) -> Imported:
    """Append to the log in `log_dir` (`None`: the configured one) what it does not hold yet.

    `service` is for lines of the older format. `damaged` hears of each line that is skipped,
    `advance` how many bytes have been read.

    Raises `OSError` for a file that cannot be read, before anything is written, and for a log
    that cannot be written; `InstrumentError` for a file that the log holds already.
    """
    target = _Target(log_dir)
    files = [Path(path) for path in paths]
    for path in files:
        _check(path, target.log_dir)
    done = Imported()
    known = _ids_in(target.log_dir)
    for path in files:
        with path.open("rb") as file:
            for found in read_original(_lines(file, advance), service=service):
                if isinstance(found, Damaged):
                    done.skipped += 1
                    damaged(path, found)
                elif found.operation_id in known:
                    done.already_there += 1
                else:
                    target.append(found)
                    known.add(found.operation_id)
                    done.imported += 1
    return done


class _Target:
    """The log that is written to; what goes wrong there is raised."""

    def __init__(self, log_dir: str | os.PathLike[str] | None) -> None:
        active = recorder() if log_dir is None else _recorder_of(as_path("log_dir", log_dir))
        if not active.enabled:
            raise InstrumentError("nothing can be imported where recording is switched off")
        self.log_dir: Path = active.settings.log_dir
        self._active = active
        self._failure: OSError | None = None
        self._journal = Journal(
            self.log_dir,
            fsync=active.settings.durability == "fsync",
            max_bytes=active.settings.max_bytes,
            report=self._failed,
            grown=lambda size: None,
        )

    def append(self, line: OperationLine) -> None:
        """Hand one line to the kernel."""
        line.error_message = self._active.clean_message(line.error_message)
        if self._active.settings.redact is not None:
            line.metadata = self._active.clean_metadata(line.metadata)
        self._journal.append(encode_lines([line]), perf_counter_ns())
        if self._failure is not None:
            raise self._failure

    def _failed(self, what: str, where: str) -> None:
        self._failure = OSError(f"cannot write to {where}: {what}")


def _recorder_of(log_dir: Path) -> Recorder:
    return Recorder(replace(settings(), log_dir=log_dir, fallback=False))


def _read(
    line: bytes, offset: int, ids: ContentIds, service: str
) -> Iterator[OperationLine | Damaged]:
    if len(line) >= MAX_LINE_BYTES:
        yield Damaged(offset, f"line over {MAX_LINE_BYTES} bytes")
        return
    records, lost = _records(line)
    if lost:
        yield Damaged(offset, "damaged line" if records else "not JSON")
    for record in records:
        operation = operation_of(record) or _older_operation(record, service)
        if operation is None:
            yield Damaged(offset, _fault(record))
        else:
            yield _line(operation, record, ids)


def _records(line: bytes) -> tuple[list[bytes], bool]:
    """Return the records of a line, which is one unless it is damaged."""
    try:
        decode_head(line)
    except (ValueError, RecursionError):
        return salvage(line)
    return [line], False


def _line(operation: Operation, record: bytes, ids: ContentIds) -> OperationLine:
    known = asdict(operation)
    for name in _DERIVED:
        del known[name]
    metadata = operation.metadata
    if operation.extra:
        metadata = {**operation.extra, **metadata}
    if operation.tokens is None or not operation.duration_seconds:
        metadata |= _impossible(operation, record)
    line = OperationLine(
        timestamp=operation.timestamp.isoformat(timespec="microseconds")[:-6] + "Z",
        outcome=None if operation.outcome in ("ok", "error") else operation.outcome,
        metadata=metadata,
        operation_id=operation.operation_id or ids.of(record),
        **known,
    )
    if metadata:
        _lift(line, metadata)
    return line


def _impossible(operation: Operation, record: bytes) -> dict[str, Any]:
    """Name what the record says and no operation can have, as the recorder does."""
    said = record_of(record)
    tokens, seconds = said.get("tokens"), said.get("duration_seconds")
    dropped: dict[str, Any] = {}
    if operation.tokens is None and tokens is not None:
        dropped["tokens"] = tokens
    if not operation.duration_seconds and seconds not in (None, 0):
        dropped["duration_seconds"] = seconds
    return {"impossible_usage": dropped} if dropped else {}


def _lift(line: OperationLine, metadata: dict[str, Any]) -> None:
    """Take counts and model over from the metadata, if they agree with the total."""
    parts = (metadata.get("input_tokens"), metadata.get("output_tokens"))
    if not (_is_count(parts[0]) and _is_count(parts[1])):
        return
    total = (parts[0] or 0) + (parts[1] or 0)
    if parts != (None, None):
        if line.tokens not in (None, 0, total):
            return
        line.tokens = total
        line.input_tokens, line.output_tokens = parts
    model = metadata.get("model")
    if isinstance(model, str) and line.model is None:
        line.model = model


def _is_count(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value <= MAX_COUNT)


def _older_operation(line: bytes, service: str) -> Operation | None:
    """Read a line of the older format; `None` for what is none."""
    try:
        record = record_of(line)
    except (ValueError, RecursionError):
        return None
    command = record.pop("command", None)
    if not isinstance(command, str) or "operation" in record:
        return None
    renamed = {"actual_tokens": "tokens", "error": "error_message"}
    again = {renamed.get(name, name): value for name, value in record.items()}
    again = {"service": service, **again, "operation": _without_prompt(command)}
    return operation_of(encode_lines([again]))


def _without_prompt(command: str) -> str:
    words = command.split()
    first = next((n for n, word in enumerate(words) if word.startswith(_PROMPT_MARKS)), None)
    return " ".join(words[:first]) or "command"


def _fault(line: bytes) -> str:
    head = decode_head(line)
    return "no timestamp" if moment_of(head.timestamp) is None else "no operation"


def _lines(file: BinaryIO, advance: Callable[[int], None]) -> Iterator[bytes]:
    for line in iter(partial(file.readline, MAX_LINE_BYTES), b""):
        yield line
        advance(len(line))


def _ids_in(log_dir: Path) -> set[str | None]:
    """Return the ids of all operations in the log, and those that lines without one would get."""
    reading = Reading([log_dir], may_vanish=True)
    known: set[str | None] = set(reading.archive.operation_ids() if reading.archive else ())
    for source in reading.sources:
        ids = ContentIds()
        for line in scan([source], Skipped()):
            if line.head.is_operation:
                known.add(line.head.operation_id or ids.of(line.data))
    return known


def _check(path: Path, log_dir: Path) -> None:
    """Raise for a file that cannot be read, or that the log reads as it is."""
    if stat.S_ISDIR(path.stat().st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    if any(source.path.samefile(path) for source in sources_of([log_dir])):
        raise InstrumentError(f"{path} lies in the log {log_dir}, which reads it as it is there")
