"""The archive: whatever is compacted, when and how often, every answer stays the same."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from child import run
from hypothesis import given, settings
from hypothesis import strategies as st
from log_questions import answers, few_answers, plain
from log_writing import at, begin, encoded, entered, exact, held, open_by_writers, operation, write
from msgspec.structs import replace

from instrument._batch import MOST_SESSION_FILES
from instrument._databases import opened
from instrument.archive import read_manifest, write_manifest
from instrument.errors import ArchiveError, FormatError
from instrument.log import UsageLog

DAYS = ("2026-11-19", "2026-11-20", "2026-11-21")


def segment(day: str = DAYS[1], host: str = "host", number: int = 1) -> str:
    return f"{day}-{host}-{number:04d}.jsonl"


def parquet(log_dir: Path) -> list[Path]:
    return sorted((log_dir / "archive").glob("date=*/*.parquet"))


def test_closed_days_become_parquet_and_every_answer_stays(tmp_path: Path) -> None:
    write(tmp_path, entered("work", session_name="job"), operation(1, model="gpt-5"), operation(2))
    write(tmp_path, operation(90_000, session_id="later"), name=segment(DAYS[2]))
    log = UsageLog(tmp_path)
    before = answers(log, thorough=True)
    done = log.compact()
    assert (done.segments, done.operations, done.left) == (2, 3, {})
    assert done.bytes_after == sum(each.stat().st_size for each in parquet(tmp_path))
    assert [each.parent.name for each in parquet(tmp_path)] == [f"date={day}" for day in DAYS[1:]]
    assert list((tmp_path / "journal").iterdir()) == []
    assert answers(log, thorough=True) == before
    assert log.compact() == type(done)()
    assert answers(log, thorough=True) == before


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/New_York"])
def test_archived_times_are_the_same_in_every_zone_of_a_machine(tmp_path: Path, zone: str) -> None:
    write(tmp_path, entered("work"), operation(1), operation(2))
    log = UsageLog(tmp_path)
    log.compact()
    expected = [each.timestamp.isoformat() for each in log.operations()]
    found = run(TIMES.format(str(tmp_path)), tmp_path, env={"TZ": zone})
    assert found == (str(expected), "")


TIMES = """
    from instrument.log import UsageLog
    log = UsageLog({!r})
    print([each.timestamp.isoformat() for each in log.operations()])
"""


def test_no_database_prints_how_far_it_is() -> None:
    asked = "select value from duckdb_settings() where name = 'enable_progress_bar'"
    assert opened().cursor().execute(asked).fetchall() == [("false",)]


def test_other_programs_can_read_the_files(tmp_path: Path) -> None:
    write(tmp_path, operation(1), operation(2))
    UsageLog(tmp_path).compact()
    files = tmp_path / "archive/date=*/*.parquet"
    query = f"select count(*), sum(tokens), max(date) from read_parquet('{files}')"
    assert duckdb.sql(query).fetchall() == [(2, 20, datetime(2026, 11, 20).date())]
    named = duckdb.sql(f"select decode(value) from parquet_kv_metadata('{files}')").fetchall()
    assert segment() in named[0][0]


def test_what_a_process_goes_on_with_stays_unless_all_is_asked_for(tmp_path: Path) -> None:
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    now = datetime.now(UTC).isoformat()
    write(tmp_path, operation(1, timestamp=now), name=segment(today))
    write(tmp_path, operation(2, timestamp=now), name=segment(today, number=2))
    log = UsageLog(tmp_path)
    before = answers(log)
    assert log.compact().segments == 1
    assert [each.name for each in (tmp_path / "journal").iterdir()] == [segment(today, number=2)]
    assert answers(log) == before
    assert log.compact(all=True).segments == 1
    assert answers(log) == before


def test_a_segment_that_a_process_has_open_is_left_and_said(tmp_path: Path) -> None:
    path = write(tmp_path, operation(1))
    log = UsageLog(tmp_path)
    with open_by_writers(path):
        assert log.compact().left == {path.name: "a process has it open"}
    assert path.exists()
    assert log.compact().segments == 1


def test_a_segment_in_which_something_runs_is_left_until_it_ends(tmp_path: Path) -> None:
    path = write(tmp_path, operation(1), begin(7))
    write(tmp_path, operation(8), name=segment(number=2))
    log = UsageLog(tmp_path)
    with held(tmp_path):
        before = answers(log)
        assert "still running" in log.compact().left[path.name]
        assert answers(log) == before
    # the process has ended, and with it the operation
    assert [each.outcome for each in log.operations()] == ["ok", "interrupted", "ok"]
    before = answers(log)
    assert log.compact().segments == 1
    assert answers(log) == before


def test_an_operation_that_ended_in_the_archive_is_not_interrupted(tmp_path: Path) -> None:
    first = write(tmp_path, begin(1), begin(2))
    write(tmp_path, operation(1), name=segment(number=2))
    log = UsageLog(tmp_path)
    with held(tmp_path):
        before = answers(log)
        done = log.compact()
        assert (done.segments, [*done.left]) == (1, [first.name])
        assert answers(log) == before
        assert [each.operation_id for each in log.running()] == [f"{2:016x}"]


def test_the_last_sign_of_life_may_be_in_the_archive(tmp_path: Path) -> None:
    first = write(tmp_path, begin(1))
    write(tmp_path, begin(2), operation(2, pid=77, duration_seconds=40.0), name=segment(number=2))
    log = UsageLog(tmp_path)
    with open_by_writers(first):
        assert log.compact().segments == 1
        (interrupted,) = log.operations(outcome="interrupted")
        assert interrupted.duration_seconds == 41.0


def test_a_process_number_that_went_to_another_is_no_sign_of_life(tmp_path: Path) -> None:
    first = write(tmp_path, begin(1))
    second = segment(number=2)
    write(tmp_path, operation(2, pid=77), begin(5, run="run2"), operation(5, pid=77), name=second)
    write(tmp_path, operation(9, pid=77), name=segment(number=3))
    log = UsageLog(tmp_path)
    third = tmp_path / "journal" / segment(number=3)
    with open_by_writers(first, third):
        before = log.operations(outcome="interrupted")
        assert before[0].duration_seconds == 2.0
        assert log.compact().segments == 1
        assert log.operations(outcome="interrupted") == before


def test_what_ended_by_a_clock_that_was_set_back_is_not_interrupted(tmp_path: Path) -> None:
    write(tmp_path, exact(encoded(operation(1))), name=segment(DAYS[0]))
    write(tmp_path, exact(encoded(begin(1), begin(2), operation(3))), name=segment(DAYS[1]))
    log = UsageLog(tmp_path)
    before = answers(log)
    assert log.compact().segments == 2
    assert answers(log) == before
    assert [each.outcome for each in log.operations()] == ["ok", "interrupted", "ok"]


def test_signs_of_life_are_found_in_whichever_segment_they_are(tmp_path: Path) -> None:
    write(tmp_path, exact(encoded(begin(1, pid=77))), name=segment(DAYS[0]))
    write(tmp_path, exact(encoded(operation(2, pid=78))), name=segment(DAYS[1]))
    write(tmp_path, exact(encoded(operation(90_000, pid=77))), name=segment(DAYS[2]))
    log = UsageLog(tmp_path)
    before = answers(log)
    log.compact()
    assert answers(log) == before
    assert log.operations()[0].duration_seconds == 90_000


def write_three_batches(log_dir: Path) -> None:
    """Write three segments that are moved one by one, each with an operation that only began."""
    padding = {"x": "y" * 900_000}
    for number in range(1, 4):
        first = number * 100
        lines = (operation(first + each, metadata=padding) for each in range(65))
        write(log_dir, *lines, begin(first + 80), name=segment(number=number))


def test_what_several_batches_begin_and_end_is_told_apart(tmp_path: Path) -> None:
    write_three_batches(tmp_path)
    write(tmp_path, operation(180), begin(390, run="run9"), name=segment(number=3))
    write(tmp_path, operation(390), name=segment(number=4))
    log = UsageLog(tmp_path)
    before = [(each.operation_id, each.outcome) for each in log.operations()]
    assert [int(name or "", 16) for name, outcome in before if outcome == "interrupted"] == [
        280,
        380,
    ]
    assert log.compact().segments == 4
    assert [(each.operation_id, each.outcome) for each in log.operations()] == before


def test_what_ends_while_batches_are_moved_was_not_interrupted(tmp_path: Path) -> None:
    write_three_batches(tmp_path)
    late, log = iter([operation(380)]), UsageLog(tmp_path)

    def end_late(size: float) -> None:
        for each in late:
            write(tmp_path, each, name=segment(number=9))

    log.compact(advance=end_late)
    assert log.compact().segments == 1
    found = {each.operation_id: each.outcome for each in log.operations()}
    assert [found[f"{each:016x}"] for each in (180, 280, 380)] == ["interrupted"] * 2 + ["ok"]


ODD = {
    "torn": b'{"timestamp":"2026-11-20T12:00:01Z","session_id":"wo\n',
    "unknown key": encoded(operation(3, colour="red")),
    "key twice": encoded(operation(3))[:-2] + b',"tokens":10}\n',
    "null": encoded(operation(3) | {"tokens": None}),
    "blanks": b' {"timestamp": "2026-11-20T12:00:03Z", "service": "a", "operation": "b"} \n',
    "offset": encoded(operation(3, timestamp="2026-11-20T14:00:03+02:00")),
    "naive": encoded(operation(3, timestamp="2026-11-20T12:00:03")),
    "numbers as texts": encoded(operation(3, tokens="12", duration_seconds="0.5", success="0")),
    "impossible counts": encoded(operation(3, tokens=-1, input_tokens=1e300)),
    "not UTF-8": encoded(operation(3)).replace(b"gemini", b"gem\xffni"),
    "surrogate": encoded(operation(3)).replace(b"gemini", b"gem\\ud800ni"),
    "NUL": encoded(operation(3, error_message="a\0b", metadata={"k\0": "\0"})),
    "numbers": encoded(operation(3, metadata={"a": 1e300, "b": 2**70, "c": -0.0, "d": [1.50]})),
    "numbers too large": encoded(operation(3)).replace(b"{}", b'{"a":1e400,"b":[-1.5E+999]}'),
    "details behind an escape": encoded(operation(3, model="gpt-5", input_tokens=9)).replace(
        b"{}", b'{"usage\\u005fdetails":{"responses":2,"service_tier":"odd"}}'
    ),
    "metadata is no object": encoded(operation(3, metadata=[1])),
    "contradiction": encoded(operation(3, success=True, outcome="error", error_type="E")),
    "unknown outcome": encoded(operation(3, outcome="odd")),
    "of a newer version": encoded(operation(3, v=2, type="bookmark")),
    "no session": encoded(operation(3, session_id=None)),
    "long session": encoded(operation(3, session_id="s" * 5000)),
    "long line": encoded(operation(3, metadata={"x": "y" * 3_000_000})),
    "nulls": encoded(operation(3)).replace(b'"work"', b"null").replace(b"{}", b"null")[:-2]
    + b',"pid":null,"outcome":null,"model":null,"cost_usd":null}\n',
    "blanks within": encoded(operation(3)).replace(b",", b" ,\t").replace(b":", b" : ", 1),
    "carriage return": encoded(operation(3))[:-1] + b"\r\n",
    "blank lines": b"\n\n" + encoded(operation(3)) + b"\n",
    "escapes": encoded(operation(3)).replace(b"gemini", b"\\u0067emini\\/"),
    "key twice, escaped": encoded(operation(3))[:-2] + b',"t\\u006fkens":11}\n',
    "key twice, null": encoded(operation(3))[:-2] + b',"tokens":null}\n',
    "two on a line": encoded(operation(3))[:-1] + b" " + encoded(operation(2)),
    "exponent": encoded(operation(3)).replace(b"1.0", b"1E-1"),
    "minus zero": encoded(operation(3, duration_seconds=-0.0, cost_usd=-0.0)),
    "whole as fraction": encoded(operation(3)).replace(b"10", b"10.0"),
    "first year": encoded(operation(3, timestamp="0001-01-02T00:00:00.000000Z")),
    "last year": encoded(operation(3, timestamp="9999-12-30T00:00:00.000000Z")),
    "twice": encoded(operation(1)),
    "begin without run": encoded({k: v for k, v in begin(8).items() if k not in ("run", "pid")}),
    "voided": encoded(begin(9), {"type": "void", "operation_id": f"{9:016x}"}),
    "odd pid": encoded(begin(8, pid=True)),
    "no newline": encoded(operation(3))[:-1],
}


@pytest.mark.parametrize("form", [bytes, exact])
@pytest.mark.parametrize("lines", ODD.values(), ids=ODD)
def test_odd_lines_mean_the_same_in_the_archive(
    tmp_path: Path, lines: bytes, form: Callable[[bytes], bytes]
) -> None:
    write(tmp_path, form(encoded(operation(1)) + lines))
    write(tmp_path, form(encoded(operation(4))), name=segment(number=2))
    log = UsageLog(tmp_path)
    before = few_answers(log)
    log.compact()
    assert list((tmp_path / "journal").iterdir()) == []
    assert few_answers(log) == before


def test_damaged_lines_are_kept_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, operation(1), ODD["torn"], b"\xff\xfe noise\n", operation(2))
    UsageLog(tmp_path).compact()
    (kept,) = (tmp_path / "archive/damaged").iterdir()
    assert kept.read_bytes() == ODD["torn"] + b"\xff\xfe noise\n"


keys = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": st.integers(0, 200_000).map(at),
        "session_id": st.sampled_from(["work", "s\u00e9", "", "z" * 200]),
        "parent_session_id": st.sampled_from(["work", "s\u00e9"]),
        "session_name": st.sampled_from(["a", "b"]),
        "model": st.sampled_from(["gpt-5", "claude-sonnet-4-5", "unknown"]),
        "provider": st.sampled_from(["openai", "anthropic"]),
        "service": st.sampled_from(["gemini", "openai"]),
        "response_id": st.sampled_from(["r1", "r2"]),
        "input_tokens": st.integers(0, 500_000),
        "output_tokens": st.integers(0, 1000),
        "tokens": st.one_of(st.none(), st.integers(0, 500_000)),
        "cost_usd": st.floats(0, 3),
        "duration_seconds": st.floats(0, 1e4),
        "success": st.booleans(),
        "outcome": st.sampled_from(["cancelled", "partial"]),
        "error_type": st.sampled_from(["E", None]),
        "metadata": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        "attempt": st.integers(1, 3),
        "pid": st.sampled_from([77, 78]),
        "colour": st.just("red"),
    },
)
segments = st.builds(segment, st.sampled_from(DAYS), st.sampled_from("ab"))
events = st.one_of(
    st.tuples(st.just("operation"), keys, segments),
    st.tuples(st.just("begun"), keys, segments),
    st.tuples(st.just("interrupted"), st.just({}), segments),
    st.tuples(st.just("voided"), st.just({}), segments),
    st.tuples(st.just("copy"), st.just({}), segments),
    st.tuples(
        st.just("session"),
        st.fixed_dictionaries(
            {
                "session_id": st.sampled_from(["work", "other"]),
                "timestamp": st.integers(0, 200_000).map(at),
                "session_name": st.sampled_from(["a", None]),
                "parent_session_id": st.sampled_from(["work", None]),
            }
        ),
        segments,
    ),
    st.tuples(st.just("odd"), st.sampled_from([*ODD.values()]), segments),
)


def write_events(log_dir: Path, written: list[Any], already: int = 0) -> None:
    """Write a log in which each operation has an id and begins and ends at most once.

    Goes on with one in which so many stand `already`.
    """
    line = encoded(operation(500_000 + already))
    for number, (kind, what, name) in enumerate(written[already:], already):
        if kind == "odd":
            # ids of its own: of operations that differ under one id any may count
            line = re.sub(rb"0{15}(?=\d\")", b"1%014x" % number, what)
        elif kind in ("operation", "begun"):
            line = encoded(operation(number, **what))
        elif kind == "interrupted":
            line = encoded(begin(number, pid=1000 + number))
        elif kind == "voided":
            line = encoded(begin(number), {"type": "void", "operation_id": f"{number:016x}"})
        elif kind == "session":
            line = encoded({key: each for key, each in entered(**what).items() if each})
        if kind == "begun":
            shared = {key: what[key] for key in ("timestamp", "session_id") if key in what}
            write(log_dir, begin(number, **shared), name=segment(DAYS[0]))
        write(log_dir, line if number % 2 else exact(line), name=name)


def growing(log_dir: Path, written: list[Any], count: int) -> Iterator[None]:
    """Write a log in about so many steps, and compact some of it once; yield behind each."""
    step = max(1, len(written) // count)
    for end in range(step, len(written) + 1, step):
        write_events(log_dir, written[:end], already=end - step)
        yield
        if end == 2 * step:
            with open_by_writers(*sorted(log_dir.glob("journal/*"))[1::2]):
                UsageLog(log_dir).compact()
            yield


@settings(max_examples=8, deadline=None)
@given(st.lists(events, max_size=30))
def test_any_log_answers_alike_before_between_and_after(written: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        log_dir = Path(place)
        write_events(log_dir, written)
        log = UsageLog(log_dir)
        before = answers(log)
        paths = sorted(log_dir.glob("journal/*"))
        with open_by_writers(*paths[1::2]):
            log.compact()
        assert answers(log) == before
        log.compact()
        assert list(log_dir.glob("journal/*")) == []
        assert answers(log) == before


def test_readers_see_the_same_while_segments_are_compacted(tmp_path: Path) -> None:
    for number in range(1, 7):
        write(
            tmp_path,
            *(operation(number * 100 + each, session_id=f"s{each % 7}") for each in range(50)),
            name=segment(number=number),
        )
    log = UsageLog(tmp_path)
    before, done, asked = quick_answers(log), threading.Event(), threading.Event()
    failed: list[object] = []

    def compact() -> None:
        try:
            for path in sorted((tmp_path / "journal").iterdir()):
                others = [each for each in (tmp_path / "journal").iterdir() if each != path]
                asked.clear()
                with open_by_writers(*others):
                    log.compact()
                asked.wait(30)
        except Exception as error:
            failed.append(error)
        finally:
            done.set()

    worker = threading.Thread(target=compact)
    worker.start()
    rounds = 0
    while not done.is_set():
        assert quick_answers(UsageLog(tmp_path)) == before
        rounds += 1
        asked.set()
    worker.join()
    assert (failed, list((tmp_path / "journal").iterdir())) == ([], [])
    assert rounds >= 6
    assert quick_answers(log) == before


def quick_answers(log: UsageLog) -> tuple[object, ...]:
    sums = "select count(*), count(distinct operation_id), sum(tokens) from operations"
    return log.operations(), log.sessions(), log.stats("s3"), log.sql(sums).fetchall()


def test_a_segment_that_comes_back_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path, operation(1), operation(2))
    copy = path.read_bytes()
    log = UsageLog(tmp_path)
    before = answers(log)
    log.compact()
    path.write_bytes(copy)  # as after a kill before it was removed, or out of a backup
    assert answers(log) == before
    log.compact()
    assert not path.exists()
    assert answers(log) == before


def test_what_was_appended_to_a_compacted_segment_counts_too(tmp_path: Path) -> None:
    path = write(tmp_path, operation(1))
    copy = path.read_bytes()
    log = UsageLog(tmp_path)
    log.compact()
    path.write_bytes(copy + encoded(operation(2)))
    before = answers(log)
    assert [each.tokens for each in log.operations()] == [10, 10]
    log.compact()
    assert answers(log) == before
    assert not path.exists()


def test_a_new_segment_of_an_old_name_counts(tmp_path: Path) -> None:
    write(tmp_path, operation(1))
    log = UsageLog(tmp_path)
    log.compact()
    write(tmp_path, operation(2), operation(3))
    assert len(log.operations()) == 3
    before = answers(log)
    log.compact()
    assert answers(log) == before


def test_a_new_segment_that_begins_like_a_torn_one_of_its_name_counts(tmp_path: Path) -> None:
    line = encoded(operation(1))
    for size in (1, len(line) // 2, len(line) - 1):
        log = UsageLog(tmp_path / str(size))
        path = write(tmp_path / str(size), operation(1))
        path.write_bytes(line[:size])
        log.compact()
        assert not path.exists()
        path.write_bytes(encoded(operation(1), operation(2)))
        assert [each.tokens for each in log.operations()] == [10, 10]
        before = answers(log)
        log.compact()
        assert answers(log) == before


def test_a_torn_segment_that_comes_back_and_is_gone_on_with_counts_once(tmp_path: Path) -> None:
    first, second, third = (operation(each, metadata={"n": each}) for each in (1, 2, 3))
    torn = encoded(first) + encoded(second)[:-9]
    path = write(tmp_path)
    path.write_bytes(torn)
    log = UsageLog(tmp_path)
    log.compact()
    path.write_bytes(torn + b"\n" + encoded(third))
    assert [each.metadata for each in log.operations()] == [{"n": 1}, {"n": 3}]
    assert log.skipped_count == 0  # what is torn there is in the archive


def test_a_later_copy_of_a_torn_segment_counts_once(tmp_path: Path) -> None:
    nobody = operation(2, operation_id=None)
    head = encoded(operation(1), nobody, {"type": "dropped", "timestamp": at(1), "count": 5})
    path = write(tmp_path)
    path.write_bytes(head + encoded(operation(3))[:60])
    log = UsageLog(tmp_path)
    log.compact()
    path.write_bytes(head + encoded(operation(3)))
    for _ in range(2):
        assert [each.tokens for each in log.operations()] == [10, 10, 10]
        assert log.health().dropped_in_log_count == 5
        log.compact()


def test_files_that_no_manifest_names_count_for_nothing_and_go(tmp_path: Path) -> None:
    write(tmp_path, operation(1))
    log = UsageLog(tmp_path)
    log.compact()
    before = answers(log)
    (first,) = parquet(tmp_path)
    orphan = first.with_name(f"{0:016x}.parquet")
    shutil.copy(first, orphan)
    assert answers(log) == before
    write(tmp_path, operation(5), name=segment(DAYS[0]))
    log.compact()
    assert (orphan.exists(), first.exists()) == (False, True)


def test_what_a_compaction_left_that_was_killed_at_its_end_goes_with_nothing_to_do(
    tmp_path: Path,
) -> None:
    write(tmp_path, operation(1))
    log = UsageLog(tmp_path)
    log.compact()
    scratch = tmp_path / "archive/unfinished-abc"
    scratch.mkdir()
    (scratch / "rows.parquet").write_bytes(b"some")
    replaced = tmp_path / "archive/sessions/0123456789abcdef.parquet"
    replaced.write_bytes(b"some")
    log.compact()
    assert not scratch.exists()
    assert not replaced.exists()
    assert len(log.operations()) == 1


def test_files_of_sessions_that_were_put_together_are_gone_at_once(tmp_path: Path) -> None:
    log = UsageLog(tmp_path)
    for number in range(1, MOST_SESSION_FILES + 2):
        write(tmp_path, operation(number), name=segment(number=number))
        log.compact()
    directory = tmp_path / "archive"
    found = [each.relative_to(directory).as_posix() for each in directory.glob("sessions/*")]
    assert (found, len(found)) == ([*read_manifest(tmp_path).sessions], 1)
    assert log.stats("work").operation_count == MOST_SESSION_FILES + 1


def test_a_file_that_somebody_deleted_is_missed_alone(tmp_path: Path) -> None:
    write(tmp_path, operation(1), operation(90_000))
    log = UsageLog(tmp_path)
    log.compact()
    parquet(tmp_path)[0].unlink()
    assert len(log.operations()) == 1
    assert log.sql("select count(*) from operations").fetchall() == [(1,)]


def test_the_archive_is_this_users_alone(tmp_path: Path) -> None:
    write(tmp_path, operation(1), ODD["torn"], entered("work"))
    UsageLog(tmp_path).compact()
    for path in (tmp_path / "archive").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_log_in_two_places_counts_once(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write(here, operation(1), operation(2))
    before = answers(UsageLog(here))
    shutil.copytree(here, there)
    UsageLog(there).compact()
    assert answers(UsageLog(here, there)) == before
    UsageLog(here).compact()
    shutil.copytree(there / "archive", here / "archive", dirs_exist_ok=True)
    assert answers(UsageLog(here, there)) == before


@pytest.mark.parametrize("name", ["a[b]c", "sch\u00f6n*", "it's", "?{x}"])
def test_any_directory_name_will_do(tmp_path: Path, name: str) -> None:
    log_dir = tmp_path / name
    write(log_dir, operation(1))
    log = UsageLog(log_dir)
    before = few_answers(log)
    assert log.compact().segments == 1
    assert few_answers(log) == before


def test_one_process_at_a_time_changes_an_archive(tmp_path: Path) -> None:
    write(tmp_path, operation(1))
    log = UsageLog(tmp_path)
    lock = tmp_path / "archive/archive.lock"
    lock.parent.mkdir()
    lock.touch()
    with open_by_writers(lock), pytest.raises(ArchiveError, match="another process"):
        log.compact()
    assert log.compact().segments == 1


DAMAGED: dict[str, tuple[bytes, type[Exception]]] = {
    "no JSON": (b"{", ArchiveError),
    "of another shape": (b'{"parts": 5}', ArchiveError),
    "of a newer format": (b'{"v": 99}', FormatError),
}


@pytest.mark.parametrize(("text", "error"), DAMAGED.values(), ids=DAMAGED)
def test_a_manifest_that_cannot_be_read_is_named(
    tmp_path: Path, text: bytes, error: type[Exception]
) -> None:
    write(tmp_path, operation(1))
    log = UsageLog(tmp_path)
    log.compact()
    manifest = tmp_path / "archive/manifest.json"
    manifest.write_bytes(text)
    asked: list[Callable[[], object]] = [log.operations, log.sessions, log.compact]
    write(tmp_path, operation(2))
    for each in asked:
        with pytest.raises(error, match="manifest"):
            each()


def test_prune_removes_old_days_and_their_sessions(tmp_path: Path) -> None:
    write(tmp_path, operation(1), entered("work"))
    write(tmp_path, operation(90_000, session_id="later"), name=segment(DAYS[2]))
    log = UsageLog(tmp_path)
    done = log.prune(datetime(2026, 11, 21, tzinfo=UTC))
    assert done.operations == 1
    assert [each.session_id for each in log.operations()] == ["later"]
    assert log.find_sessions() == ["later"]
    assert [row.operation_count for row in log.summary(by="day")] == [1]
    assert not (tmp_path / "archive/date=2026-11-20").exists()
    assert log.prune(datetime(2026, 11, 21, tzinfo=UTC)) == type(done)()


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("Asia/Kolkata")], ids=str)
def test_what_pruned_days_came_to_can_be_kept(tmp_path: Path, zone: tzinfo) -> None:
    keys = {"model": "gpt-5", "input_tokens": 1000, "output_tokens": 10, "tokens": 1010}
    write(tmp_path, operation(1, **keys), operation(2, success=False, error_type="E", attempt=2))
    write(tmp_path, operation(90_000, **keys), name=segment(DAYS[2]))
    log = UsageLog(tmp_path)
    questions = [("day",), ("service", "model"), ("month",), ()]
    before = [plain(log.summary(by=by)) for by in questions]
    assert log.prune(datetime(2026, 11, 21, tzinfo=UTC), keep_summary=True).operations == 2
    assert len(log.operations()) == 1
    for by, rows in zip(questions, before, strict=True):
        again = plain(log.summary(by=by, zone=zone))
        for row, row_again in zip(rows, again, strict=True):
            assert row_again | percentiles(row) == row
    # a compaction goes on with them
    write(tmp_path, operation(90_001), name=segment(DAYS[2]))
    log.compact()
    assert [row.operation_count for row in log.summary(by="day")] == [2, 2]


def test_kept_sums_count_before_a_killed_compaction_has_summed_up(tmp_path: Path) -> None:
    write(tmp_path, operation(1))
    write(tmp_path, operation(90_000), name=segment(DAYS[2]))
    log = UsageLog(tmp_path)
    log.prune(datetime(2026, 11, 21, tzinfo=UTC), keep_summary=True)
    behind = replace(read_manifest(tmp_path), unsummed=(DAYS[2],))
    write_manifest(tmp_path, behind)
    assert [row.operation_count for row in log.summary(by="day")] == [1, 1]


def test_days_that_were_summed_up_before_retries_were_counted_leave_them_unknown(
    tmp_path: Path,
) -> None:
    write(tmp_path, operation(1, attempt=2))
    log = UsageLog(tmp_path)
    log.prune(datetime(2026, 11, 21, tzinfo=UTC), keep_summary=True)
    write(tmp_path, operation(90_000, attempt=2), name=segment(DAYS[2]))
    assert [row.retry_count for row in log.summary(by="day")] == [1, 1]
    (days,) = (tmp_path / "archive/days").glob("*.parquet")
    before = days.rename(days.with_suffix(".before"))
    rows = f"select * exclude retries from read_parquet('{before}')"
    duckdb.sql(f"copy ({rows}) to '{days}' (format parquet)")
    assert [row.retry_count for row in log.summary(by="day")] == [None, 1]
    assert [row.retry_count for row in log.summary(by=())] == [None]


def percentiles(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("p50_seconds", "p95_seconds", "p99_seconds")}


def test_what_was_dropped_is_known_after_compaction(tmp_path: Path) -> None:
    told = {"type": "dropped", "timestamp": at(3), "count": 7, "reason": "disk full", "pid": 1}
    write(tmp_path, operation(1), encoded(told))
    log = UsageLog(tmp_path)
    assert log.health().dropped_in_log_count == 7
    log.compact()
    assert (log.health().dropped_in_log_count, log.health().last_dropped_reason) == (7, "disk full")


def test_the_doctor_names_files_that_are_gone(tmp_path: Path) -> None:
    write(tmp_path, operation(1), begin(7))
    log = UsageLog(tmp_path)
    log.compact()
    found = {each.check: each for each in log.doctor()}
    assert (found["archive"].level, found["interrupted"].details["count"]) == ("ok", 1)
    (path,) = parquet(tmp_path)
    path.unlink()
    found = {each.check: each for each in log.doctor()}
    assert found["archive"].level == "problem"
    assert found["archive"].details["gone"] == [str(path)]


def test_what_is_archived_is_not_imported_again(tmp_path: Path) -> None:
    old, log_dir = tmp_path / "old.jsonl", tmp_path / "log"
    line = {key: each for key, each in operation(1).items() if key != "operation_id"}
    old.write_bytes(encoded(line))
    program = f"""
        from instrument.importers.original import import_original
        print(import_original([{str(old)!r}], {str(log_dir)!r}).imported)
    """
    assert run(program, tmp_path) == ("1", "")
    log = UsageLog(log_dir)
    assert log.compact(all=True).operations == 1
    assert run(program, tmp_path) == ("0", "")
    assert len(log.operations()) == 1


LOADED = """
import sys
from instrument import UsageLog, configure
configure(prices={prices})
log = UsageLog({log_dir!r})
print(log.stats("work").cost_usd, "genai_prices" in sys.modules)
"""


@pytest.mark.parametrize("prices", [None, {"gpt-5": {"input": 2.0, "output": 20.0}}])
def test_readers_of_an_archive_need_not_load_its_price_list(
    tmp_path: Path, prices: dict[str, dict[str, float]] | None
) -> None:
    keys = {"model": "gpt-5", "provider": "openai", "input_tokens": 900, "output_tokens": 100}
    write(tmp_path, operation(1, tokens=1000, **keys))
    log = UsageLog(tmp_path)
    log.compact()
    listed = log.stats("work").cost_usd
    own = (900 * 2 + 100 * 20) / 1e6
    text = LOADED.format(prices=prices, log_dir=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True, text=True)
    assert done.stdout.split() == [str(listed if prices is None else own), "False"]


def test_rates_of_another_price_list_are_not_those_of_this_one(tmp_path: Path) -> None:
    keys = {"model": "gpt-5", "provider": "openai", "input_tokens": 900, "output_tokens": 100}
    write(tmp_path, operation(1, tokens=1000, **keys))
    log = UsageLog(tmp_path)
    log.compact()
    write_manifest(tmp_path, replace(read_manifest(tmp_path), prices="another"))
    text = LOADED.format(prices=None, log_dir=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True, text=True)
    assert done.stdout.split() == [str(log.stats("work").cost_usd), "True"]
