"""`UsageLog.follow`: what comes to the log from now on, and nothing twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest
from log_writing import begin, encoded, entered, operation, write

from instrument.errors import ConfigurationError
from instrument.log import UsageLog
from instrument.operation import Operation

NEXT_DAY = "2026-11-21-host-0001.jsonl"


def following(*log_dirs: Path, **filters: str) -> Iterator[Operation]:
    return UsageLog(*log_dirs).follow(poll_seconds=0.001, **filters)  # type: ignore[arg-type] # a session, or texts


def numbers(coming: Iterator[Operation], count: int) -> list[int]:
    """The numbers of the next operations; waits for ever for those that do not come."""
    return [int(each.operation_id or "", 16) for each in islice(coming, count)]


def test_what_stands_there_already_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, operation(1))
    coming = following(tmp_path)
    write(tmp_path, operation(2), operation(3))
    assert numbers(coming, 2) == [2, 3]


def test_following_begins_with_the_call_and_not_with_the_first_item(tmp_path: Path) -> None:
    coming = following(tmp_path)
    write(tmp_path, operation(1))
    assert numbers(coming, 1) == [1]


def test_what_comes_has_its_list_price_as_what_is_read_has(tmp_path: Path) -> None:
    usage = {"model": "gpt-4o", "input_tokens": 900, "output_tokens": 100, "tokens": 1000}
    coming = following(tmp_path)
    write(tmp_path, operation(1, **usage))
    (one,) = islice(coming, 1)
    assert one.cost_usd
    assert [one] == UsageLog(tmp_path).operations()


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    line = encoded(operation(2))
    coming = following(tmp_path)
    write(tmp_path, operation(1), line[:40])
    assert numbers(coming, 1) == [1]
    write(tmp_path, line[40:], operation(3))
    assert numbers(coming, 2) == [2, 3]


def test_a_line_half_written_at_the_start_is_given_when_it_is_whole(tmp_path: Path) -> None:
    line = encoded(operation(1))
    write(tmp_path, line[:40])
    coming = following(tmp_path)
    write(tmp_path, line[40:])
    assert numbers(coming, 1) == [1]


def test_a_line_torn_before_the_start_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, encoded(operation(1))[:40])
    coming = following(tmp_path)
    write(tmp_path, b"\n", operation(2))
    assert numbers(coming, 1) == [2]


def test_a_rotated_segment_is_read_from_its_begin(tmp_path: Path) -> None:
    write(tmp_path, operation(1))
    coming = following(tmp_path)
    write(tmp_path, operation(2))
    write(tmp_path, operation(3), name=NEXT_DAY)
    assert numbers(coming, 2) == [2, 3]


def test_a_directory_that_appears_is_noticed(tmp_path: Path) -> None:
    coming = following(tmp_path / "first", tmp_path / "second")
    write(tmp_path / "second", operation(1))
    write(tmp_path / "first", operation(2))
    assert sorted(numbers(coming, 2)) == [1, 2]


def test_an_emptied_file_is_read_from_its_begin(tmp_path: Path) -> None:
    path = write(tmp_path, operation(1), operation(2))
    coming = following(tmp_path)
    os.truncate(path, 0)
    write(tmp_path, operation(3))
    assert numbers(coming, 1) == [3]


def test_a_deleted_file_ends_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, operation(1))
    coming = following(tmp_path)
    path.unlink()
    write(tmp_path, operation(2), name=NEXT_DAY)
    assert numbers(coming, 1) == [2]


def test_only_operations_that_fit_are_given(tmp_path: Path) -> None:
    coming = following(tmp_path, service="openai")
    write(tmp_path, entered("work"), begin(1), operation(2), operation(3, service="openai"))
    assert numbers(coming, 1) == [3]


def test_one_session_can_be_followed(tmp_path: Path) -> None:
    coming = UsageLog(tmp_path).follow("b", poll_seconds=0.001)
    write(tmp_path, operation(1, session_id="a"), operation(2, session_id="b"))
    assert numbers(coming, 1) == [2]


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    coming = following(tmp_path)
    write(tmp_path, b"\xff\0\n", b'{"deep":' * 10_000 + b"\n", b"x" * 300_000 + b"\n", operation(1))
    assert numbers(coming, 1) == [1]


def test_a_line_longer_than_a_block_is_given_whole(tmp_path: Path) -> None:
    coming = following(tmp_path)
    write(tmp_path, operation(1, metadata={"note": "y" * 500_000}), operation(2))
    first, second = islice(coming, 2)
    assert (len(json.dumps(first.metadata)), second.operation_id) == (500_012, f"{2:016x}")


def test_bad_filters_are_told_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="outcome='fine'"):
        UsageLog(tmp_path).follow(outcome="fine")
    with pytest.raises(ConfigurationError):
        UsageLog(tmp_path).follow(since=timedelta)  # type: ignore[arg-type] # what is tested
