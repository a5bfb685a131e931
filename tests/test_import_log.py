"""`instrument import-log`: the logs of the original usage logger become part of this one."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from child import raw_ids, raw_lines
from log_writing import write
from responses import only

from instrument import UsageLog
from instrument.cli.shell import run
from instrument.errors import InstrumentError
from instrument.importers.original import Damaged, Imported, import_original, read_original
from instrument.operation import OperationLine
from instrument.testing import capture


def original(number: int = 0, **keys: Any) -> dict[str, Any]:
    """Return a line as the original's `usage_logger.py` writes it."""
    return {
        "timestamp": f"2025-12-05T10:30:{number:02d}.081877Z",
        "session_id": "session_1733394600",
        "service": "my-service",
        "operation": "analyze_files",
        "tokens": 5000,
        "success": True,
        "duration_seconds": 2.5,
        "error_type": None,
        "error_message": None,
        "metadata": {"files": 10},
    } | keys


def older(**keys: Any) -> dict[str, Any]:
    """Return a line as the logger of the Gemini command line writes it."""
    return {
        "timestamp": "2025-11-05T10:30:00.081877+00:00",
        "command": "gemini -p What is the secret",
        "estimated_tokens": 100,
        "actual_tokens": 150,
        "success": False,
        "duration_seconds": 1.5,
        "error": "quota exceeded",
        "session_id": "session_1730802600",
    } | keys


def encoded(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def file_of(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_bytes(encoded(*lines))
    return path


def read(*lines: dict[str, Any] | bytes) -> list[OperationLine | Damaged]:
    data = (line if isinstance(line, bytes) else encoded(line) for line in lines)
    return list(read_original(data))


def read_one(line: dict[str, Any]) -> OperationLine:
    found = only(read(line))  # type: ignore[type-var]
    assert isinstance(found, OperationLine)
    return found


def command(log_dir: Path, *arguments: str | Path, **environment: str) -> tuple[int, str, str]:
    """Run the command in a process of its own; return its exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, "-m", "instrument", "import-log", *map(str, arguments)],
        env={"INSTRUMENT_DIR": str(log_dir), "TZ": "UTC"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_line_keeps_what_it_says() -> None:
    found = read_one(original(error_type="E", error_message="m", success=False))
    assert found == OperationLine(
        timestamp="2025-12-05T10:30:00.081877Z",
        session_id="session_1733394600",
        service="my-service",
        operation="analyze_files",
        success=False,
        duration_seconds=2.5,
        tokens=5000,
        metadata={"files": 10},
        operation_id=found.operation_id,
        error_type="E",
        error_message="m",
    )


def test_a_time_without_fraction_or_zone_is_the_same_in_the_usual_form() -> None:
    stamps = ["2025-12-05T10:30:00Z", "2025-12-05T10:30:00", "2025-12-05T11:30:00+01:00"]
    found = [read_one(original(timestamp=each)).timestamp for each in stamps]
    assert found == ["2025-12-05T10:30:00.000000Z"] * 3


def test_the_older_format_is_understood() -> None:
    found = read_one(older())
    assert found == OperationLine(
        timestamp="2025-11-05T10:30:00.081877Z",
        session_id="session_1730802600",
        service="gemini",
        operation="gemini",
        success=False,
        duration_seconds=1.5,
        tokens=150,
        metadata={"estimated_tokens": 100},
        operation_id=found.operation_id,
        error_message="quota exceeded",
    )


def test_an_estimate_alone_is_no_usage() -> None:
    found = read_one(older(actual_tokens=None, duration_seconds=None))
    assert (found.tokens, found.duration_seconds) == (None, 0.0)
    assert found.metadata == {"estimated_tokens": 100}


@pytest.mark.parametrize(
    ("said", "operation"),
    [
        ("analyze code", "analyze code"),
        ("gemini -p secret", "gemini"),
        ("gemini @src/secret", "gemini"),
        ("gemini chat 'secret'", "gemini chat"),
        ("-p secret", "command"),
        ("", "command"),
    ],
)
def test_prompts_in_commands_are_not_taken_over(said: str, operation: str) -> None:
    found = read_one(older(command=said))
    assert found.operation == operation
    assert "secret" not in repr(found)


COUNTS = {
    "that agree": (5000, {"input_tokens": 4000, "output_tokens": 1000}, (5000, 4000, 1000)),
    "without a total": (None, {"input_tokens": 4, "output_tokens": 1}, (5, 4, 1)),
    "with a total of 0": (0, {"input_tokens": 4, "output_tokens": 1}, (5, 4, 1)),
    "that are a part": (4000, {"input_tokens": 4000}, (4000, 4000, None)),
    "that disagree": (5000, {"input_tokens": 4, "output_tokens": 1}, (5000, None, None)),
    "that are none": (5, {"input_tokens": "4", "output_tokens": 1}, (5, None, None)),
    "that are negative": (3, {"input_tokens": 4, "output_tokens": -1}, (3, None, None)),
}


@pytest.mark.parametrize(("total", "said", "expected"), COUNTS.values(), ids=COUNTS)
def test_counts_in_the_metadata_are_taken_over_if_they_agree(
    total: int | None, said: dict[str, Any], expected: tuple[int | None, ...]
) -> None:
    found = read_one(original(tokens=total, metadata={**said, "model": "gemini-2.5-pro"}))
    assert (found.tokens, found.input_tokens, found.output_tokens) == expected
    assert (found.model is None) == (found.input_tokens is None)
    assert found.metadata == {**said, "model": "gemini-2.5-pro"}


@pytest.mark.parametrize("key", ["tokens", "duration_seconds"])
@pytest.mark.parametrize("value", [-5, "many", True, 10**13])
def test_what_is_impossible_is_left_out_and_named(key: str, value: Any) -> None:
    found = read_one(original(metadata={}, **{key: value}))
    assert found.metadata == {"impossible_usage": {key: value}}
    assert {"tokens": found.tokens, "duration_seconds": found.duration_seconds or None}[key] is None


def test_unknown_keys_become_metadata() -> None:
    assert read_one(original(host="h", metadata={"a": 1})).metadata == {"host": "h", "a": 1}


def test_ids_are_of_the_content_and_tell_equal_lines_apart() -> None:
    lines = [original(), original(1), original(), original()]
    ids = [each.operation_id for each in read(*lines) if isinstance(each, OperationLine)]
    assert ids == [each.operation_id for each in read(*lines) if isinstance(each, OperationLine)]
    assert len(set(ids)) == 4
    assert ids[:2] == [read_one(each).operation_id for each in lines[:2]]
    assert all(len(each or "") == 16 and int(each or "", 16) for each in ids)


def test_a_line_of_ours_keeps_its_id_and_keys() -> None:
    ours = original(operation_id="a" * 16, parent_id="b" * 16, outcome="partial", pid=7)
    found = read_one(ours)
    assert (found.operation_id, found.parent_id, found.pid) == ("a" * 16, "b" * 16, 7)
    assert (found.outcome, found.success) == ("partial", True)


DAMAGED = {
    "text": (b"hello\n", "not JSON"),
    "torn": (b'{"timestamp": "2025-12-05T10:30:00Z", "serv\n', "not JSON"),
    "no object": (b"[1, 2]\n", "not JSON"),
    "binary": (b"\xff\xfe\x00\n", "not JSON"),
    "nested without end": (b"[" * 100_000 + b"\n", "not JSON"),
    "bytes in the command": (b'{"timestamp":"2025-12-05","command":"\xff"}\n', "no operation"),
    "no time": (encoded(original(timestamp="soon")), "no timestamp"),
    "no operation": (encoded(original(operation=None)), "no operation"),
    "a session": (encoded({"type": "session", **original(), "operation": None}), "no operation"),
    "long": (b'{"a": "' + b"x" * 16_000_000 + b'"}\n', "line over 15728640 bytes"),
}


@pytest.mark.parametrize(("line", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_named_and_costs_nothing_around_it(line: bytes, reason: str) -> None:
    first, damage, last = read(original(1), line, original(2))
    assert damage == Damaged(len(encoded(original(1))), reason)
    assert [each.timestamp[17:19] for each in (first, last)] == ["01", "02"]  # type: ignore[union-attr]


def test_a_line_in_pieces_is_damaged_once() -> None:
    pieces = [b"x" * 15 * 1024**2, b"x" * 15 * 1024**2, b"x\n", encoded(original())]
    damage, found = read(*pieces)
    assert damage == Damaged(0, "line over 15728640 bytes")
    assert isinstance(found, OperationLine)


def test_whole_records_on_a_damaged_line_are_kept_and_the_damage_is_told() -> None:
    torn = b'{"timestamp": "20' + encoded(original(1))
    damage, found = read(torn)
    assert damage == Damaged(0, "damaged line")
    assert isinstance(found, OperationLine)


def test_the_nan_of_other_writers_is_no_damage() -> None:
    found = read_one(original(duration_seconds=float("nan"), metadata={"x": float("inf")}))
    told = {"x": "Infinity", "impossible_usage": {"duration_seconds": "NaN"}}
    assert (found.duration_seconds, found.metadata) == (0.0, told)


def test_blank_lines_are_nothing() -> None:
    assert len(read(b"\n", original(1), b"  \r\n")) == 1


def test_importing_twice_changes_nothing(tmp_path: Path) -> None:
    lines = [original(1), original(1), original(2), older()]
    source = file_of(tmp_path / "old.jsonl", *lines)
    log_dir = tmp_path / "log"
    assert import_original([source], log_dir) == Imported(4, 0, 0)
    first = raw_lines(log_dir)
    assert import_original([source, source], log_dir) == Imported(0, 8, 0)
    assert raw_lines(log_dir) == first
    assert len(UsageLog(log_dir).operations()) == len(set(raw_ids(log_dir))) == 4


def test_what_was_added_since_is_imported_alone(tmp_path: Path) -> None:
    source = file_of(tmp_path / "old.jsonl", original(1))
    import_original([source], tmp_path / "log")
    file_of(source, original(1), original(2))
    assert import_original([source], tmp_path / "log") == Imported(1, 1, 0)


def test_what_is_imported_is_read_as_the_file_itself_would_be(tmp_path: Path) -> None:
    lines = [original(1), original(2, success=False, error_type="E"), original(3, tokens=0)]
    source = file_of(tmp_path / "old.jsonl", *lines)
    import_original([source], tmp_path / "log")
    there, here = UsageLog(tmp_path / "log"), UsageLog(tmp_path)
    assert there.stats("session_1733394600") == here.stats("session_1733394600")
    assert there.stats("session_1733394600").total_tokens == 10_000


def test_a_copy_in_the_log_is_recognised(tmp_path: Path) -> None:
    source = file_of(tmp_path / "old.jsonl", original(1), original(1))
    (tmp_path / "log").mkdir()
    file_of(tmp_path / "log" / "copy.jsonl", original(1), original(1))
    assert import_original([source], tmp_path / "log") == Imported(0, 2, 0)


def test_a_line_of_ours_that_the_log_holds_is_left_out(tmp_path: Path) -> None:
    ours = original(operation_id="a" * 16)
    write(tmp_path / "log", ours)
    source = file_of(tmp_path / "old.jsonl", ours)
    assert import_original([source], tmp_path / "log") == Imported(0, 1, 0)


def test_files_are_private_and_of_the_journal(tmp_path: Path) -> None:
    import_original([file_of(tmp_path / "old.jsonl", original())], tmp_path / "log")
    (segment,) = (tmp_path / "log" / "journal").iterdir()
    assert (segment.stat().st_mode & 0o777, segment.parent.stat().st_mode & 0o777) == (
        0o600,
        0o700,
    )


def test_messages_and_metadata_follow_the_settings(tmp_path: Path) -> None:
    source = file_of(tmp_path / "old.jsonl", original(error_message="m" * 600))
    with capture(redact=lambda field, value: "*" if field == "files" else value) as log:
        import_original([source])
    assert (only(log).error_message, only(log).metadata) == ("m" * 500, {"files": "*"})


def test_numbers_that_json_alone_can_hold_do_not_stop_it(tmp_path: Path) -> None:
    source = file_of(tmp_path / "old.jsonl", original(metadata={"n": 10**30, "s": "\ud800"}))
    assert import_original([source], tmp_path / "log") == Imported(1, 0, 0)
    assert set(only(UsageLog(tmp_path / "log").operations()).metadata) == {"n", "s"}


def test_a_full_disk_ends_the_import_and_the_next_completes_it(tmp_path: Path) -> None:
    source = file_of(tmp_path / "old.jsonl", *map(original, range(50)))
    program = f"""
import resource, signal
from instrument.cli.shell import run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
code = run(["import-log", {str(source)!r}])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(code, run(["import-log", {str(source)!r}]))
"""
    environment = os.environ | {"INSTRUMENT_DIR": str(tmp_path / "log")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "2 0"
    assert done.stderr.startswith(f"instrument: cannot write to {tmp_path / 'log'}")
    assert len(UsageLog(tmp_path / "log").operations()) == 50


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    source = file_of(tmp_path / "old.jsonl", original(1), older())
    source.write_bytes(b"hello\n" + source.read_bytes())
    log_dir = tmp_path / "log"
    assert command(log_dir, source) == (
        0,
        "imported 2 operations, 0 already there, 1 skipped\n",
        "",
    )
    named = f"{source}: byte 0: not JSON\n"
    assert command(log_dir, source, "-v") == (
        0,
        "imported 0 operations, 2 already there, 1 skipped\n",
        named,
    )
    code, output, _ = command(log_dir, source, "--json")
    assert (code, json.loads(output)) == (0, {"imported": 0, "already_there": 2, "skipped": 1})


def test_directory_and_service_may_be_chosen(tmp_path: Path) -> None:
    source = file_of(tmp_path / "old.jsonl", original(1), older())
    command(tmp_path / "log", source, "--dir", tmp_path / "other", "--service", "qwen")
    services = [each.service for each in UsageLog(tmp_path / "other").operations()]
    assert services == ["qwen", "my-service"]
    assert not (tmp_path / "log").exists()


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, encoded(original(1)))
    os.close(theirs)
    log_dir = str(tmp_path / "log")
    assert run(["import-log", f"/dev/fd/{ours}", "--dir", log_dir]) == 0
    os.close(ours)
    assert len(UsageLog(log_dir).operations()) == 1


MISTAKES = {
    "a missing file": (["nowhere.jsonl"], "No such file or directory: 'nowhere.jsonl'"),
    "a directory": (["."], "Is a directory: '.'"),
    "nothing": ([], "Missing argument 'FILE...'"),
    "no directory to write to": (["old.jsonl", "--dir", "old.jsonl"], "Not a directory"),
    "a missing file among others": (["old.jsonl", "nowhere"], "No such file or directory"),
}


@pytest.mark.parametrize(("arguments", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file_of(tmp_path / "old.jsonl", original())
    code, output, errors = command(tmp_path / "log", *arguments)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert said in errors
    assert not (tmp_path / "log").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_an_unreadable_file_is_told_in_one_line(tmp_path: Path) -> None:
    source = file_of(tmp_path / "old.jsonl", original())
    source.chmod(0o600)
    for place in (tmp_path, *tmp_path.parents[:2]):
        place.chmod(0o755)
    program = f"""
import locale, os, sys
from instrument.cli.shell import run
import instrument.cli.import_log
os.setuid(65534)
sys.exit(run(["import-log", {str(source)!r}, "--dir", "/tmp/nobody"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"instrument: [Errno 13] Permission denied: '{source}'\n"


@pytest.mark.parametrize("place", ["", "journal"])
def test_a_file_that_the_log_reads_as_it_is_is_refused(place: str, tmp_path: Path) -> None:
    directory = tmp_path / "log" / place
    directory.mkdir(parents=True)
    inside = file_of(directory / "my-service.jsonl", original())
    (tmp_path / "link.jsonl").symlink_to(inside)
    for path in (inside, tmp_path / "link.jsonl"):
        code, output, errors = command(tmp_path / "log", path)
        assert (code, output, errors.count("\n")) == (2, "", 1)
        assert f"{path} lies in the log" in errors


def test_nothing_is_imported_where_recording_is_off(tmp_path: Path) -> None:
    source = file_of(tmp_path / "old.jsonl", original())
    code, _, errors = command(tmp_path / "log", source, INSTRUMENT_DISABLED="1")
    assert (code, "switched off" in errors) == (2, True)
    with capture(enabled=False), pytest.raises(InstrumentError):
        import_original([source])


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import-log", "--help"]) == 0
    assert "instrument import-log ~/.claude/leyline/usage/*.jsonl" in capsys.readouterr().out


BAR = """
from instrument.cli.progress import progress
now = iter({times})
with progress("Importing", total=100, clock=lambda: next(now)) as advance:
    for _ in range(4): advance(25)
"""


def shown(times: list[float], terminal: str = "xterm") -> str:
    """Return what the bar writes to a terminal while the clock runs so."""
    ours, theirs = pty.openpty()
    program = [sys.executable, "-c", BAR.format(times=times)]
    with subprocess.Popen(program, stderr=theirs, env=os.environ | {"TERM": terminal}) as process:
        os.close(theirs)
        chunks = []
        while chunk := _read(ours):
            chunks.append(chunk)
    os.close(ours)
    assert process.returncode == 0
    return b"".join(chunks).decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when the other side is closed
        return b""


def test_a_bar_is_shown_on_a_terminal_after_a_second() -> None:
    written = shown([0, 0.5, 1.1, 1.15, 1.3])
    percents = [each for each in ("25%", "50%", "75%", "100%") if each in written]
    assert ("Importing" in written, percents) == (True, ["50%", "100%"])


def test_no_bar_is_shown_in_the_first_second() -> None:
    assert shown([0, 0.2, 0.4, 0.6, 0.8]) == ""


def test_no_bar_is_shown_on_a_terminal_that_cannot_redraw() -> None:
    assert shown([0, 2, 3, 4, 5], "dumb") == ""


def test_no_bar_is_written_to_a_file() -> None:
    program = [sys.executable, "-c", BAR.format(times=[0, 2, 3, 4, 5])]
    done = subprocess.run(program, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_the_bar_is_told_of_every_byte(tmp_path: Path) -> None:
    source = file_of(tmp_path / "old.jsonl", *map(original, range(9)))
    told = [0]
    import_original([source], tmp_path / "log", advance=lambda size: told.append(told[-1] + size))
    assert told[-1] == source.stat().st_size
    assert len({after - before for before, after in pairwise(told)}) == 1
