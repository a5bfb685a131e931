"""The log examined: every fault is found, and what needs a person is told from what does not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from child import run
from log_writing import begin, held, operation, write
from rich.cells import cell_len

from instrument._premises import premises
from instrument.cli import shell
from instrument.log import Finding, Health, UsageLog

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime.now(UTC)
CHECKS = [
    *("writable", "permissions", "size", "disk", "format"),
    *("interrupted", "damaged", "archive", "dropped", "clock", "locks", "budgets"),
]
CONDITIONS = (
    {"COLUMNS": "60"},
    {"COLUMNS": "80"},
    {"COLUMNS": "200"},
    {"COLUMNS": "60", "TERM": "dumb"},
    {"COLUMNS": "80", "LC_ALL": "C"},
    {"COLUMNS": "80", "NO_COLOR": "1"},
)
KILLED = """
@tracked(service="s")
def last(): os.kill(os.getpid(), signal.SIGKILL)
"""


def ago(**units: float) -> str:
    return (NOW - timedelta(**units)).isoformat()


def found(log_dir: Path, **options: Any) -> dict[str, Finding]:
    """Return what the doctor finds, by check."""
    return {each.check: each for each in UsageLog(log_dir).doctor(**options)}


def levels(log_dir: Path) -> dict[str, str]:
    """Return the checks that are not `ok`."""
    return {name: each.level for name, each in found(log_dir).items() if each.level != "ok"}


@pytest.fixture(autouse=True)
def private() -> Iterator[None]:
    """Have the logs that tests write by hand for this user alone, as those of the recorder are."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """A log in which one operation was recorded."""
    run("ask()", tmp_path / "log")
    return tmp_path / "log"


@pytest.fixture
def sick(log_dir: Path) -> Path:
    """A log in which everything is wrong that lines can tell."""
    run(f"{KILLED}last()", log_dir)
    segment = next(log_dir.glob("journal/*"))
    write(log_dir, b'{"torn', name=segment.name)
    write(log_dir, b"\n", operation(9, timestamp=ago(days=-1), pid=1), name=segment.name)
    write(log_dir, {"type": "dropped", "timestamp": ago(hours=1), "count": 2, "reason": "full"})
    return log_dir


def command(
    capsys: pytest.CaptureFixture[str], log_dir: Path, *arguments: str
) -> tuple[int, str, str]:
    code = shell.run(["doctor", "--dir", str(log_dir), *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_sound_log_is_fine_in_every_respect(
    log_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {name: each.level for name, each in found(log_dir).items()} == dict.fromkeys(
        CHECKS, "ok"
    )
    assert all(each.cure is None for each in found(log_dir).values())
    assert command(capsys, log_dir)[0] == 0


def test_an_operation_that_was_killed_is_a_note_with_its_lock(log_dir: Path) -> None:
    run(f"{KILLED}last()", log_dir)
    seen = found(log_dir)
    assert levels(log_dir) == {"interrupted": "note", "locks": "note"}
    assert seen["interrupted"].details["count"] == 1
    assert seen["interrupted"].details["examples"][0]["operation"] == "last"
    assert (seen["locks"].details["orphaned_count"], seen["locks"].details["held_count"]) == (1, 0)


def test_of_many_that_were_interrupted_the_newest_are_named(tmp_path: Path) -> None:
    write(tmp_path, *(begin(n, operation=f"number {n}") for n in range(9)), operation(8))
    details = found(tmp_path)["interrupted"].details
    named = [each["operation"] for each in details["examples"]]
    assert (details["count"], named) == (8, [f"number {n}" for n in (7, 6, 5, 4, 3)])


def test_a_lock_that_is_held_is_no_orphan_and_stays(log_dir: Path) -> None:
    write(log_dir, begin(1, timestamp=ago(seconds=1)))
    with held(log_dir) as path:
        locks = found(log_dir, fix=True)["locks"]
        assert path.exists()
    assert (locks.level, locks.details["held_count"]) == ("ok", 1)


def test_an_orphan_whose_operations_ended_is_removed_when_asked_for(log_dir: Path) -> None:
    run("ask()\nos.kill(os.getpid(), signal.SIGKILL)", log_dir)
    assert found(log_dir)["locks"].details["orphaned_count"] == 1
    locks = found(log_dir, fix=True)["locks"].details
    assert (locks["removed_count"], locks["orphaned_count"]) == (1, 0)
    assert list((log_dir / "run").iterdir()) == []


def test_an_orphan_that_dates_an_interrupted_operation_stays(log_dir: Path) -> None:
    write(log_dir, begin(1, timestamp=ago(days=3)))
    with held(log_dir) as path:
        os.utime(path, times=(NOW.timestamp(), (NOW - timedelta(days=2)).timestamp()))
    before = UsageLog(log_dir).operations()
    locks = found(log_dir, fix=True)["locks"].details
    assert (locks["removed_count"], locks["needed_count"]) == (0, 1)
    assert UsageLog(log_dir).operations() == before
    assert before[0].duration_seconds == pytest.approx(86_400, abs=1)


@pytest.mark.parametrize(("days", "removed"), [(0, 0), (3, 1)])
def test_an_orphan_that_tells_no_more_than_the_lines_goes_after_a_day(
    days: float, removed: int, log_dir: Path
) -> None:
    started, later = ago(days=days, hours=1), ago(days=days, minutes=1)
    write(log_dir, begin(1, timestamp=started), operation(2, timestamp=later, pid=77))
    with held(log_dir) as path:
        moment = (NOW - timedelta(days=days, minutes=30)).timestamp()
        os.utime(path, times=(moment, moment))
    before = UsageLog(log_dir).operations()
    assert found(log_dir, fix=True)["locks"].details["removed_count"] == removed
    assert UsageLog(log_dir).operations() == before


def test_damaged_lines_are_named_by_file_and_offset(log_dir: Path) -> None:
    segment = next(log_dir.glob("journal/*"))
    offset = segment.stat().st_size
    write(log_dir, b'{"torn\n', operation(5, timestamp=ago(hours=1)), name=segment.name)
    (example,) = found(log_dir)["damaged"].details["examples"]
    assert example == {"path": str(segment), "offset": offset, "reason": "not JSON"}
    assert levels(log_dir) == {"damaged": "problem"}


def test_damage_of_long_ago_is_a_note(tmp_path: Path) -> None:
    path = write(tmp_path, operation(1), b"torn\n", name="2026-11-01-host-0001.jsonl")
    then = (NOW - timedelta(days=2)).timestamp()
    os.utime(path, times=(then, then))
    assert found(tmp_path)["damaged"].level == "note"


@pytest.mark.parametrize(("days", "level"), [(0.5, "problem"), (2, "note")])
def test_dropped_records_are_a_problem_for_a_day(days: float, level: str, tmp_path: Path) -> None:
    write(tmp_path, {"type": "dropped", "timestamp": ago(days=9), "count": 3, "reason": "old"})
    write(tmp_path, {"type": "dropped", "timestamp": ago(days=days), "count": 4, "reason": "full"})
    seen = found(tmp_path)["dropped"]
    assert (seen.level, seen.details["count"], seen.details["reason"]) == (level, 7, "full")


def test_what_this_process_drops_is_told_before_the_log_is(tmp_path: Path) -> None:
    program = """
        import resource
        warnings.simplefilter("ignore")
        ask()
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        ask(); ask()
        (dropped,) = (each for each in UsageLog().doctor() if each.check == "dropped")
        print(dropped.level, dropped.details["count"], dropped.details["reason"])
        """
    assert run(program, tmp_path)[0] == "problem 2 File too large"


@pytest.mark.parametrize(
    ("seconds", "jumps"),
    [
        ([0, 10, -30, 40], 0),  # later than a minute before what was written last
        ([0, 10, -51, -50, -40], 1),
        ([0, 100, 10, 20, 200, 100], 2),
        ([0, 4_000, 10], 2),  # ahead of now, and back
    ],
)
def test_clock_jumps_are_counted_once_each(
    seconds: list[float], jumps: int, tmp_path: Path
) -> None:
    begin = datetime.now(UTC) - timedelta(hours=1)  # the tests before may have taken minutes
    times = [begin + timedelta(seconds=each) for each in seconds]
    lines = [operation(n, timestamp=each.isoformat(), pid=1) for n, each in enumerate(times)]
    write(tmp_path, *lines)
    seen = found(tmp_path)["clock"]
    assert (seen.level, seen.details["count"]) == ("problem" if jumps else "ok", jumps)


def test_a_jump_is_told_with_file_and_times_and_of_long_ago_is_a_note(tmp_path: Path) -> None:
    before, after = NOW - timedelta(days=9), NOW - timedelta(days=10)
    times = [before.isoformat(), after.isoformat()]
    path = write(tmp_path, *(operation(n, timestamp=times[n], pid=1) for n in (0, 1)))
    seen = found(tmp_path)["clock"]
    second = timedelta(seconds=1)
    jump = {"path": str(path), "after": before + second, "at": after + second}
    assert (seen.level, seen.details["examples"]) == ("note", [jump])


def test_times_that_only_seem_to_jump_do_not(tmp_path: Path) -> None:
    long_ago, hour_ago = ago(days=30), ago(hours=1)
    write(
        tmp_path,
        operation(1, timestamp=hour_ago, pid=1),
        operation(2, timestamp=long_ago, pid=None),  # imported
        operation(3, timestamp=ago(hours=3), duration_seconds=7_200.0, pid=1),
        {"type": "void", "operation_id": "x"},
    )
    write(tmp_path, operation(4, timestamp=long_ago, pid=1), name="2026-10-29-host-0001.jsonl")
    write(tmp_path, operation(5, timestamp=ago(hours=9), pid=1), name="2026-11-20-other-0001.jsonl")
    assert found(tmp_path)["clock"].details["count"] == 0


@pytest.mark.parametrize("name", ["", "journal", "journal/{segment}", "session.json", "run"])
def test_what_is_open_to_others_is_a_problem(name: str, log_dir: Path) -> None:
    path = log_dir / name.format(segment=next(log_dir.glob("journal/*")).name)
    path.chmod(0o750)
    (example,) = found(log_dir)["permissions"].details["examples"]
    assert example["path"] == str(path)
    assert levels(log_dir) == {"permissions": "problem"}
    shell_command = found(log_dir)["permissions"].cure
    assert shell_command is not None
    assert os.system(shell_command) == 0
    assert levels(log_dir) == {}


@pytest.mark.skipif(os.getuid() != 0, reason="gives files away")
def test_another_users_file_is_a_problem(log_dir: Path) -> None:
    os.chown(log_dir / "session.json", 65534, 65534)
    assert levels(log_dir) == {"permissions": "problem"}
    assert found(log_dir)["permissions"].cure == f"chown -R 0 {log_dir}"


def test_a_link_that_leads_outside_is_a_note_and_one_inside_is_fine(
    log_dir: Path, tmp_path: Path
) -> None:
    (log_dir / "archive").mkdir(mode=0o700)
    (log_dir / "archive" / "inside").symlink_to(log_dir / "session.json")
    assert levels(log_dir) == {}
    (log_dir / "archive" / "outside").symlink_to(tmp_path)
    assert levels(log_dir) == {"permissions": "note"}


def test_a_link_to_itself_is_told_and_the_rest_is_examined(log_dir: Path) -> None:
    link = log_dir / "journal" / "round.jsonl"
    link.symlink_to(link.name)
    assert levels(log_dir) == {"permissions": "note", "writable": "problem"}
    assert "leads to itself" in str(found(log_dir)["permissions"].details)


def test_a_log_above_its_size_is_a_problem(tmp_path: Path) -> None:
    program = """
        warnings.simplefilter("ignore")
        ask()
        archive = Path(os.environ["INSTRUMENT_DIR"], "archive", "date=2026-11-01")
        archive.mkdir(parents=True)
        (archive / "1.parquet").write_bytes(bytes(5_000))
        for most in (10_000, 4_000):
            configure(max_bytes=most)
            (size,) = (each for each in UsageLog().doctor() if each.check == "size")
            print(size.level, size.details["archive_bytes"], size.details["journal_files"])
        """
    assert run(program, tmp_path)[0].splitlines() == ["ok 5000 1", "problem 5000 1"]


@pytest.mark.parametrize(
    ("free", "level"), [(1024**3, "ok"), (1024**3 - 1, "problem"), (2 * 1024**3, "ok")]
)
def test_a_disk_that_is_nearly_full_is_a_problem(free: int, level: str, log_dir: Path) -> None:
    *_, disk = premises(log_dir, 1_000, free_bytes=lambda path: free)
    assert (disk.check, disk.level, disk.details["free_bytes"]) == ("disk", level, free)


def test_less_room_than_the_log_takes_is_a_problem(log_dir: Path) -> None:
    with next(log_dir.glob("journal/*")).open("r+b") as file:
        file.truncate(3 * 1024**3)  # sparse
    *_, disk = premises(log_dir, 1_000, free_bytes=lambda path: 2 * 1024**3)
    assert disk.level == "problem"


def test_a_newer_format_is_a_problem_with_its_cure(
    log_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(log_dir, operation(1, v=2))
    assert "pip install -U" in found(log_dir)["format"].message
    assert levels(log_dir) == {"format": "problem"}
    assert command(capsys, log_dir)[0] == 1


@pytest.mark.skipif(os.getuid() != 0, reason="drops its privileges")
@pytest.mark.parametrize(
    ("directories", "files", "check"),
    [(0o755, 0o666, "writable"), (0o777, 0o644, "writable"), (0o700, 0o600, "readable")],
)
def test_a_directory_that_shuts_this_user_out_is_a_problem(
    directories: int, files: int, check: str
) -> None:
    program = f"""
        ask()
        log_dir = Path(os.environ["INSTRUMENT_DIR"])
        for path in (*log_dir.rglob("*"), log_dir):
            path.chmod({directories} if path.is_dir() else {files})
        os.setuid(65534)
        print([each.check for each in UsageLog().doctor() if each.level == "problem"])
        """
    place = Path("/tmp", f"instrument-doctor-{os.getpid()}")
    output, errors = run(program, place)
    shutil.rmtree(place)
    assert (check in output, errors) == (True, "")


def test_a_directory_that_does_not_exist_yet_is_a_note_and_one_in_the_way_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (missing,) = UsageLog(tmp_path / "log").doctor()
    assert (missing.check, missing.level) == ("writable", "note")
    program = "print([each.level for each in UsageLog().doctor()])"
    (tmp_path / "file").touch()
    assert run(program, tmp_path / "file") == ("['problem']", "")
    assert run(program, tmp_path / "file" / "log") == ("['problem']", "")


def test_each_directory_is_examined_and_nothing_is_changed(sick: Path, tmp_path: Path) -> None:
    run("ask()", tmp_path / "other")
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    seen = UsageLog(sick, tmp_path / "other").doctor()
    assert [each.log_dir for each in seen] == [str(sick)] * len(CHECKS) + [
        str(tmp_path / "other")
    ] * len(CHECKS)
    after = {path: path.stat() for path in tmp_path.rglob("*")}
    assert {path: each.st_mtime_ns for path, each in after.items()} == {
        path: each.st_mtime_ns for path, each in before.items()
    }


def test_how_far_it_is_adds_up_to_the_size_of_the_log(log_dir: Path) -> None:
    advanced: list[float] = []
    UsageLog(log_dir).doctor(advance=advanced.append)
    assert sum(advanced) == next(log_dir.glob("journal/*")).stat().st_size


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("COLUMNS", "TERM", "LC_ALL", "NO_COLOR", "PAGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    return monkeypatch


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_it_is_readable_at_any_width_on_any_terminal(
    condition: dict[str, str],
    sick: Path,
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in condition.items():
        environment.setenv(name, value)
    code, out, err = command(capsys, sick, "--utc")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert [each for each in lines if cell_len(each) > int(condition["COLUMNS"])] == []
    assert "\x1b" not in out
    assert out.isascii()
    shown = [each.split()[:2] for each in lines if each.startswith(("ok ", "note ", "problem "))]
    assert shown == [
        ["ok", "writable:"],
        ["ok", "permissions:"],
        ["ok", "size:"],
        ["ok", "disk:"],
        ["ok", "format:"],
        ["note", "interrupted:"],
        ["problem", "damaged:"],
        ["ok", "archive:"],
        ["problem", "dropped:"],
        ["problem", "clock:"],
        ["note", "locks:"],
        ["ok", "budgets:"],
    ]
    assert lines[-1] == "3 problems, 2 notes"


def test_json_is_one_document_of_stable_keys(
    sick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = command(capsys, sick, "--json")
    document = json.loads(out)
    assert (code, list(document)) == (1, ["findings", "health"])
    assert [each["check"] for each in document["findings"]] == CHECKS
    keys = {tuple(each) for each in document["findings"]}
    assert keys == {("check", "level", "message", "cure", "log_dir", "details")}
    assert tuple(document["health"]) == Health.__struct_fields__
    assert document["health"]["dropped_in_log_count"] == 2


def test_help_is_the_golden_text(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("COLUMNS", "80")
    assert shell.run(["doctor", "--help"]) == 0
    assert capsys.readouterr().out == (GOLDEN / "help_doctor.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["--dir", "/nowhere"], ["--mend"], ["more"]], ids=str)
def test_a_mistake_is_told_in_one_line_with_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.run(["doctor", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_names_in_the_log_cannot_move_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, begin(1, operation="\x1b[2J" + "x" * 9_000))
    assert "\x1b" not in command(capsys, tmp_path)[1]
