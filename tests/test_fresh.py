"""What is remembered of the journal's sums: asked again, the answer is that of the files."""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_questions import plain
from log_writing import at, begin, encoded, held, operation, write
from test_archive import ODD, events, growing, write_events

from instrument.log import UsageLog

GROUPINGS: tuple[tuple[str, ...], ...] = (
    (),
    ("model",),
    ("service", "day"),
    ("day", "week"),
    ("month", "model", "service"),
)
LATER = datetime(2026, 11, 21, tzinfo=UTC)


def sums(log_dir: Path) -> list[Any]:
    log = UsageLog(log_dir)
    found = [log.summary(by=by) for by in GROUPINGS]
    found += [log.summary("day", since=LATER), log.summary("model", until=LATER)]
    found += [log.summary(("day", "model"), service="openai"), log.summary((), model="gpt-5")]
    return [plain(each) for each in found]


def read_whole(log_dir: Path) -> list[Any]:
    """Return the sums of a copy of a log that is read as a whole, for its last line may go on."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place, "log")
        shutil.copytree(log_dir, copy)
        write(copy, b"{", name="2026-11-23-torn-0001.jsonl")
        return sums(copy)


@settings(max_examples=15, deadline=None)
@given(st.lists(events, max_size=40), st.integers(1, 4))
def test_a_log_that_grows_and_is_compacted_answers_as_if_it_were_read_anew(
    written: list[Any], count: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        for _ in growing(Path(place), written, count):
            assert sums(Path(place)) == read_whole(Path(place))


@pytest.mark.parametrize("lines", ODD.values(), ids=ODD)
def test_odd_lines_count_as_they_do_where_everything_is_read(tmp_path: Path, lines: bytes) -> None:
    write(tmp_path, operation(1))
    sums(tmp_path)
    write(tmp_path, lines + b"\n" * (not lines.endswith(b"\n")), operation(4))
    assert sums(tmp_path) == read_whole(tmp_path)


def test_an_operation_that_ends_later_was_interrupted_until_then(tmp_path: Path) -> None:
    write(tmp_path, operation(1), begin(2))
    log = UsageLog(tmp_path)
    assert [row.interrupted_count for row in log.summary("day")] == [1]
    with held(tmp_path):
        assert [row.operation_count for row in log.summary("day")] == [1]
        write(tmp_path, operation(2))
    (row,) = log.summary("day")
    assert (row.operation_count, row.interrupted_count) == (2, 0)


@pytest.mark.parametrize("again", [operation(1), operation(3, response_id="r")], ids=["id", "r"])
def test_what_stands_there_twice_counts_once(tmp_path: Path, again: dict[str, Any]) -> None:
    write(tmp_path, operation(1), operation(2, response_id="r"))
    log = UsageLog(tmp_path)
    assert log.summary(())[0].total_tokens == 20
    log.compact(all=True)
    write(tmp_path, operation(9), name="2026-11-20-host-0002.jsonl")
    assert log.summary(())[0].total_tokens == 30
    write(tmp_path, again, name="2026-11-20-host-0002.jsonl")
    assert log.summary(())[0].total_tokens == 30


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path, operation(1), operation(2))
    log = UsageLog(tmp_path)
    assert log.summary(())[0].total_tokens == 20
    path.write_bytes(encoded(operation(1, tokens=99), operation(2), operation(3)))
    assert log.summary(())[0].total_tokens == 119
    os.truncate(path, len(encoded(operation(1, tokens=99))))
    assert log.summary(())[0].total_tokens == 99


def test_damaged_lines_are_told_again(tmp_path: Path) -> None:
    write(tmp_path, operation(1), b"damaged\n")
    log = UsageLog(tmp_path)
    for _ in range(2):
        log.summary(("day",))
        assert [each.reason for each in log.skipped] == ["not JSON"]


FAILED = {"success": False, "error_type": "E", "outcome": "error"}
# which DuckDB reads when it is asked again, for it has more than 4 MB
LONG = [
    *(
        operation(each, timestamp=at(9 * each), metadata={"": "x" * 9999})
        for each in range(1000, 1450)
    ),
    *(operation(each, model="gpt-5", input_tokens=7, **FAILED) for each in range(1450, 1459)),
    operation(1470, response_id="long"),
    begin(1471),
    begin(1472),
]


def write_long(log_dir: Path) -> None:
    write(log_dir, *LONG, name="2026-11-19-host-0001.jsonl")


def leave_alone(log_dir: Path) -> None:
    """Make it an hour ago that anybody wrote to the journal."""
    for path in log_dir.glob("journal/*"):
        then = path.stat().st_mtime - 3600
        os.utime(path, (then, then))


@pytest.mark.parametrize("is_quiet", [True, False])
def test_a_long_journal_has_the_same_sums_each_time(tmp_path: Path, is_quiet: bool) -> None:
    write_long(tmp_path)
    if is_quiet:
        leave_alone(tmp_path)
    first = sums(tmp_path)
    assert [row["operation_count"] for row in first[0]] == [462]
    assert [row["interrupted_count"] for row in first[0]] == [2]
    assert sums(tmp_path) == first == read_whole(tmp_path)


@settings(max_examples=4, deadline=None)
@given(st.lists(events, max_size=20), st.lists(events, max_size=10))
def test_a_long_journal_that_grows_answers_as_if_it_were_read_anew(
    before: list[Any], after: list[Any]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        log_dir = Path(place)
        write_events(log_dir, before)
        write_long(log_dir)
        leave_alone(log_dir)
        sums(log_dir)
        write_events(log_dir, [*before, *after], already=len(before))
        assert sums(log_dir) == read_whole(log_dir)


@pytest.mark.parametrize(
    ("news", "added"),
    [
        (LONG[3], 0),
        (operation(1480, response_id="long"), 0),
        (operation(1480, response_id="long", session_id="other"), 10),
        (operation(1471), 10),
        ({"type": "void", "operation_id": f"{1471:016x}", "timestamp": at(1471)}, 0),
        ({"type": "void", "operation_id": f"{1471:016x}"}, 0),
        ({"type": "void", "operation_id": f"{1471:016x}", "timestamp": at(7)}, 0),
    ],
    ids=["an id", "a response", "another session's", "an end", "a void", "of all", "of another"],
)
def test_what_is_new_is_held_against_a_long_journal(
    tmp_path: Path, news: dict[str, Any], added: int
) -> None:
    write_long(tmp_path)
    leave_alone(tmp_path)
    before = sums(tmp_path)
    write(tmp_path, news, name="2026-11-20-host-0002.jsonl")
    after = sums(tmp_path)
    assert after[0][0]["total_tokens"] == before[0][0]["total_tokens"] + added
    assert after == read_whole(tmp_path)


@pytest.mark.parametrize("lines", [ODD["key twice"], encoded(LONG[3]), ODD["torn"]])
def test_a_long_journal_with_an_odd_line_has_the_same_sums_each_time(
    tmp_path: Path, lines: bytes
) -> None:
    write_long(tmp_path)
    write(tmp_path, lines, name="2026-11-18-host-0001.jsonl")
    leave_alone(tmp_path)
    assert sums(tmp_path) == sums(tmp_path) == read_whole(tmp_path)


def test_a_long_journal_beside_an_archive_with_the_same_operation_counts_it_once(
    tmp_path: Path,
) -> None:
    write(tmp_path, LONG[3], operation(1600))
    UsageLog(tmp_path).compact(all=True)
    write_long(tmp_path)
    leave_alone(tmp_path)
    found = sums(tmp_path)
    assert [row["operation_count"] for row in found[0]] == [463]
    assert found == sums(tmp_path) == read_whole(tmp_path)
