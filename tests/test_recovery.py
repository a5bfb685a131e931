"""A manifest that was lost or damaged is made anew from the archive's own files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import msgspec
import pytest
from log_questions import answers
from log_writing import at, begin, encoded, entered, open_by_writers, operation, write

from instrument.errors import (
    ArchiveError,
    DamagedFileError,
    FormatError,
    ManifestError,
    MissingFileError,
)
from instrument.log import Finding, UsageLog

DAYS = ("2026-11-19", "2026-11-20", "2026-11-21")
TORN = b'{"timestamp":"2026-11-20T12:00:01Z","session_id":"wo\n'


def segment(day: str = DAYS[1], number: int = 1) -> str:
    return f"{day}-host-{number:04d}.jsonl"


def manifest(log_dir: Path) -> Path:
    return log_dir / "archive/manifest.json"


def files(log_dir: Path) -> set[Path]:
    return {each for each in (log_dir / "archive").rglob("*") if each.is_file()}


def parquet(log_dir: Path) -> list[Path]:
    return sorted((log_dir / "archive").glob("date=*/*.parquet"))


def examined(log_dir: Path) -> Finding:
    """Return what the doctor says of the archive when it may mend it."""
    found = {each.check: each for each in UsageLog(log_dir).doctor(fix=True)}
    return found["archive"]


def lose(log_dir: Path) -> None:
    manifest(log_dir).unlink()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of which all was compacted, in two batches, and its first day pruned to its sums."""
    log_dir = tmp_path_factory.mktemp("sample")
    log = UsageLog(log_dir)
    told = {"type": "dropped", "timestamp": at(3), "count": 7, "reason": "disk full", "pid": 1}
    write(
        log_dir,
        *(operation(n, model="gpt-5", input_tokens=n, response_id=f"r{n % 2}") for n in range(3)),
        *(TORN, entered("empty", session_name="nothing in it"), begin(7), encoded(told)),
    )
    write(log_dir, operation(8, timestamp="2026-11-19T12:00:00Z"), name=segment(DAYS[0]))
    log.compact()
    write(log_dir, operation(90_000, parent_session_id="parent"), name=segment(DAYS[2]))
    log.prune(datetime(2026, 11, 20, tzinfo=UTC), keep_summary=True)
    return log_dir


@pytest.fixture(scope="module")
def sample_answers(sample: Path) -> dict[str, object]:
    return asked(sample)


@pytest.fixture
def log_dir(sample: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample, tmp_path / "log"))


def asked(log_dir: Path) -> dict[str, object]:
    log = UsageLog(log_dir)
    return answers(log) | {"dropped": log.health().dropped_in_log_count}


LOSSES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "noise": lambda path: path.write_bytes(b"\xff\0" * 500),
    "of another shape": lambda path: path.write_bytes(b'{"parts": 5}'),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_every_answer_is_the_same_once_the_manifest_is_made_anew(
    loss: Callable[[Path], object], log_dir: Path, sample_answers: dict[str, object]
) -> None:
    before = sample_answers
    loss(manifest(log_dir))
    mended = examined(log_dir)
    assert (mended.level, mended.details["recovered"], mended.details["gone"]) == ("note", True, [])
    assert asked(log_dir) == before
    assert (examined(log_dir).level, examined(log_dir).details["recovered"]) == ("ok", False)


@pytest.mark.parametrize("place", ["sessions", "days"])
def test_sessions_and_days_that_are_gone_are_made_anew_from_the_operations(
    place: str, tmp_path: Path
) -> None:
    told = {"type": "dropped", "timestamp": at(3), "count": 7, "reason": "disk full", "pid": 1}
    family = {"session_name": "job", "parent_session_id": "work"}
    write(tmp_path, operation(1), operation(2, session_id="s2", **family), encoded(told))
    log = UsageLog(tmp_path)
    log.compact()
    before = asked(tmp_path)
    (path,) = (tmp_path / "archive" / place).iterdir()
    path.unlink()
    assert asked(tmp_path) == before
    write(tmp_path, operation(90_000), name=segment(DAYS[2]))
    before = asked(tmp_path)
    for change in (log.compact, lambda: log.prune(datetime(2026, 11, 20, tzinfo=UTC))):
        with pytest.raises(MissingFileError, match=f"{path.name} is gone.*doctor --fix"):
            change()
    (finding,) = (each for each in log.doctor() if each.check == "archive")
    assert (finding.level, finding.details["gone"]) == ("problem", [str(path)])
    assert "doctor --fix" in (finding.cure or "")
    assert (examined(tmp_path).level, examined(tmp_path).level) == ("note", "ok")
    assert log.compact().operations == 1
    assert asked(tmp_path) == before


@pytest.mark.parametrize("place", ["sessions", "days"])
def test_a_damaged_file_that_stops_a_compaction_is_named(place: str, tmp_path: Path) -> None:
    write(tmp_path, operation(1, response_id="r"))
    log = UsageLog(tmp_path)
    log.compact()
    (path,) = (tmp_path / "archive" / place).iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    write(tmp_path, operation(90_000, response_id="r"), name=segment(DAYS[2]))
    with pytest.raises(ArchiveError, match=path.name):
        log.compact()


def test_operations_that_are_gone_stop_no_compaction_and_are_still_missed_after_it(
    tmp_path: Path,
) -> None:
    log = UsageLog(tmp_path)
    for number in (1, 2):
        write(tmp_path, operation(5, operation_id=str(number)), name=segment(number=number))
        assert log.compact().operations == 1
        path = max(parquet(tmp_path), key=lambda each: each.stat().st_mtime_ns)
        path.unlink()
    for each in (tmp_path / "archive/days").iterdir():
        each.unlink()
    assert str(path) in examined(tmp_path).details["gone"]
    write(tmp_path, operation(5, operation_id="3"), name=segment(number=3))
    assert log.compact().operations == 1
    assert [each.operation_id for each in log.operations()] == ["3"]


@pytest.mark.parametrize(
    "place",
    ["../kept/{}", "sessions/../../kept/{}", "{directory}/{}", "sessions/kept", "date=../{}"],
)
@pytest.mark.parametrize("key", ["days", "sessions", "damaged"])
def test_a_manifest_that_names_other_files_is_none(key: str, place: str, tmp_path: Path) -> None:
    name = place.format(f"{0:016x}.parquet", directory=tmp_path)
    (tmp_path / "archive/sessions").mkdir(parents=True)
    named = {key: name if key == "days" else [name]}
    manifest(tmp_path).write_bytes(msgspec.json.encode(named))
    with pytest.raises(ManifestError, match="no file of an archive"):
        UsageLog(tmp_path).operations()


def test_what_was_dropped_counts_once_though_later_batches_know_of_it(tmp_path: Path) -> None:
    told = {"type": "dropped", "timestamp": at(3), "count": 7, "reason": "disk full", "pid": 1}
    log = UsageLog(tmp_path)
    for number, more in enumerate((encoded(told), b"")):
        write(tmp_path, operation(number), more, name=segment(number=number))
        log.compact()
    lose(tmp_path)
    examined(tmp_path)
    assert log.health().dropped_in_log_count == 7


def test_compaction_and_pruning_go_on_after_it(log_dir: Path) -> None:
    lose(log_dir)
    examined(log_dir)
    log = UsageLog(log_dir)
    write(log_dir, operation(90_001), name=segment(DAYS[2]))
    before = asked(log_dir)
    log.compact()
    assert asked(log_dir) == before
    assert log.prune(datetime(2026, 11, 21, tzinfo=UTC)).operations == 4
    assert [each.timestamp.day for each in log.operations()] == [21, 21]


@pytest.mark.parametrize("loss", [LOSSES["gone"], LOSSES["noise"]], ids=["gone", "noise"])
def test_until_then_nothing_is_answered_and_nothing_removed(
    loss: Callable[[Path], object], log_dir: Path
) -> None:
    loss(manifest(log_dir))
    write(log_dir, operation(90_001), name=segment(DAYS[2]))
    log, before = UsageLog(log_dir), files(log_dir)
    questions: list[Callable[[], object]] = [log.operations, log.sessions, log.running, log.compact]
    for each in [*questions, lambda: log.prune(datetime(2027, 1, 1, tzinfo=UTC))]:
        with pytest.raises(ManifestError, match="doctor --fix") as caught:
            each()
        assert caught.value.path == manifest(log_dir)
    (finding,) = (each for each in log.doctor() if each.check == "archive")
    assert (finding.level, "doctor --fix" in finding.message) == ("problem", True)
    assert files(log_dir) == before


def test_an_older_manifest_that_was_put_back_costs_nothing(log_dir: Path) -> None:
    older = manifest(log_dir).read_bytes()
    log = UsageLog(log_dir)
    write(log_dir, operation(90_001, operation_id=None), name=segment(DAYS[2]))
    before = asked(log_dir)
    log.compact()
    manifest(log_dir).write_bytes(older)
    (finding,) = (each for each in log.doctor() if each.check == "archive")
    assert (finding.level, len(finding.details["unnamed"])) == ("problem", 1)
    write(log_dir, operation(90_002), name=segment(DAYS[2]))
    with pytest.raises(ManifestError, match="older than files beside it"):
        log.compact()
    (log_dir / "journal" / segment(DAYS[2])).unlink()
    assert examined(log_dir).level == "note"
    assert asked(log_dir) == before


def test_an_archive_of_kept_sums_alone_is_no_empty_one(log_dir: Path) -> None:
    UsageLog(log_dir).prune(datetime(2027, 1, 1, tzinfo=UTC), keep_summary=True)
    before = asked(log_dir)
    lose(log_dir)
    with pytest.raises(ManifestError):
        UsageLog(log_dir).compact()
    examined(log_dir)
    assert asked(log_dir) == before


@pytest.mark.parametrize("finished", [False, True])
def test_segments_that_are_there_beside_their_batch_count_once(
    finished: bool, tmp_path: Path
) -> None:
    paths = [write(tmp_path, operation(n), name=segment(number=n)) for n in (1, 2)]
    write(tmp_path, operation(3, operation_id=None), TORN, name=segment(number=2))
    contents = [each.read_bytes() for each in paths]
    before = asked(tmp_path)
    UsageLog(tmp_path).compact()
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    lose(tmp_path)
    if not finished:  # as after a kill before there was a manifest; else out of a backup
        shutil.rmtree(tmp_path / "archive/days")
    assert examined(tmp_path).details["count"] == (3 if finished else 0)
    assert asked(tmp_path) == before
    assert bool(parquet(tmp_path)) == finished
    UsageLog(tmp_path).compact()
    assert asked(tmp_path) == before


def test_a_batch_of_which_one_segment_is_gone_counts_with_all_of_them(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, operation(n, operation_id=None), name=segment(number=n)) for n in (1, 2)
    ]
    kept = paths[0].read_bytes()
    before = asked(tmp_path)
    UsageLog(tmp_path).compact()
    paths[0].write_bytes(kept)
    lose(tmp_path)
    assert examined(tmp_path).details["count"] == 2
    assert asked(tmp_path) == before
    UsageLog(tmp_path).compact()
    assert (asked(tmp_path), paths[0].exists()) == (before, False)


def test_what_was_appended_between_two_batches_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path, operation(1, operation_id=None))
    log = UsageLog(tmp_path)
    begins = path.read_bytes()
    log.compact()
    path.write_bytes(begins + encoded(operation(2, operation_id=None)))
    whole = path.read_bytes()
    other = write(tmp_path, operation(3), name=segment(number=2))
    before = asked(tmp_path)
    log.compact()
    path.write_bytes(whole)  # the first batch is in the journal, and hidden by the second
    assert asked(tmp_path) == before
    lose(tmp_path)
    shutil.rmtree(tmp_path / "archive/days")  # which tells of the first that it counted
    assert (examined(tmp_path).details["count"], other.exists()) == (3, False)
    assert asked(tmp_path) == before


def test_what_a_killed_prune_had_not_removed_yet_does_not_come_back(log_dir: Path) -> None:
    old = [each for each in parquet(log_dir) if DAYS[1] in str(each)]
    copies = {path: path.read_bytes() for path in old}
    UsageLog(log_dir).prune(datetime(2026, 11, 21, tzinfo=UTC), keep_summary=True)
    before = asked(log_dir)
    for path, copy in copies.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(copy)
    lose(log_dir)
    examined(log_dir)
    assert asked(log_dir) == before
    assert not any(path.exists() for path in old)


def test_a_file_that_cannot_be_read_is_put_away_and_told(log_dir: Path) -> None:
    path = parquet(log_dir)[-1]
    content = path.read_bytes()
    path.write_bytes(content[:100])
    lose(log_dir)
    finding = examined(log_dir)
    assert (finding.level, finding.details["count"]) == ("problem", 4)
    (kept,) = (log_dir / "archive/damaged").glob("*.parquet")
    assert (kept.read_bytes(), kept.name in (finding.cure or "")) == (content[:100], True)
    # as the cure says
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    lose(log_dir)
    assert examined(log_dir).details["count"] == 5


def test_a_file_that_is_cut_short_is_named_with_the_cure_and_set_aside(log_dir: Path) -> None:
    log = UsageLog(log_dir)
    before = {each.operation_id for each in log.operations()}
    damaged = parquet(log_dir)[0]
    os.truncate(damaged, 100)
    for ask in (
        log.operations,
        log.to_arrow,
        lambda: log.sql("select * from operations"),
        lambda: log.summary(("service",), since=datetime(2026, 11, 1, tzinfo=UTC)),
    ):
        with pytest.raises(DamagedFileError, match=r"backup.*doctor --fix"):
            ask()
    found = {each.check: each for each in log.doctor()}
    assert (found["format"].level, str(damaged) in found["format"].message) == ("problem", True)
    assert examined(log_dir).level == "problem"
    assert not damaged.exists()
    after = {each.operation_id for each in log.operations()}
    assert after < before
    assert len(log.to_arrow()) == len(after)


def test_files_of_a_newer_format_are_left_alone(log_dir: Path) -> None:
    path = parquet(log_dir)[0]
    with duckdb.connect() as database:
        database.execute(
            f"copy (from '{path}') to '{path}.new'"
            """ (format parquet, kv_metadata {instrument: '{"v":99}'})"""
        )
    Path(f"{path}.new").replace(path)
    lose(log_dir)
    before = files(log_dir)
    with pytest.raises(FormatError, match="pip install -U"):
        UsageLog(log_dir)._recover()
    levels = {each.check: each.level for each in UsageLog(log_dir).doctor(fix=True)}
    assert levels["format"] == "problem"
    assert files(log_dir) == before


def test_one_process_at_a_time_mends_an_archive(log_dir: Path) -> None:
    lose(log_dir)
    with open_by_writers(log_dir / "archive/archive.lock"):
        findings = UsageLog(log_dir).doctor(fix=True)
    assert any("another process" in each.message for each in findings)
    assert not manifest(log_dir).exists()
    assert examined(log_dir).details["recovered"]
