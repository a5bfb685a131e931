"""What `UsageLog` answers over well-formed journals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from log_writing import SEGMENT, START, at, entered, operation, write

from instrument.errors import ConfigurationError
from instrument.log import UsageLog
from instrument.operation import Operation


def ids(operations: list[Operation]) -> list[int]:
    return [int(each.operation_id or "", 16) for each in operations]


def test_a_missing_directory_is_an_empty_log_and_is_not_created(tmp_path: Path) -> None:
    log = UsageLog(tmp_path / "nowhere")
    assert (log.operations(), log.running(), log.sessions()) == ([], [], [])
    assert log.sql("select * from operations").fetchall() == []
    assert not (tmp_path / "nowhere").exists()


def test_every_key_comes_back_under_its_own_name(tmp_path: Path) -> None:
    write(
        tmp_path,
        operation(
            1, tokens=9, input_tokens=7, output_tokens=2, model="m", kind="chat",
            metadata={"a": [1]}, cost_usd=0.5, cost_source="provider", response_id="r",
            pid=3, colour="red",
        ),
    )  # fmt: skip
    assert UsageLog(tmp_path).operations() == [
        Operation(
            timestamp=START + timedelta(seconds=1), session_id="work", service="gemini",
            operation="ask", success=True, outcome="ok", duration_seconds=1.0, tokens=9,
            input_tokens=7, output_tokens=2, model="m", kind="chat", metadata={"a": [1]},
            cost_usd=0.5, cost_source="provider", response_id="r", pid=3,
            operation_id=f"{1:016x}", extra={"colour": "red"},
        )
    ]  # fmt: skip


def test_operations_come_in_start_order_although_lines_stand_in_order_of_end(
    tmp_path: Path,
) -> None:
    write(tmp_path, operation(3), operation(1), operation(2), operation(0, timestamp=at(2)))
    assert ids(UsageLog(tmp_path).operations()) == [1, 0, 2, 3]


def test_limit_keeps_the_newest_and_still_gives_start_order(tmp_path: Path) -> None:
    write(tmp_path, *[operation(number) for number in (4, 0, 3, 1, 2)])
    log = UsageLog(tmp_path)
    assert ids(log.operations(limit=2)) == [3, 4]
    assert log.operations(limit=0) == []


def test_limit_is_exact_over_more_lines_than_are_kept_waiting(tmp_path: Path) -> None:
    write(tmp_path, *[operation(number * 7919 % 5000) for number in range(5000)])
    assert ids(UsageLog(tmp_path).operations(limit=3)) == [4997, 4998, 4999]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"session": "work"}, [1, 2, 3]),
        ({"service": "qwen"}, [4]),
        ({"operation": "embed"}, [2]),
        ({"model": "flash"}, [3]),
        ({"outcome": "error"}, [2]),
        ({"outcome": "partial"}, [3]),
        ({"session": "work", "outcome": "ok"}, [1]),
        ({"since": START + timedelta(seconds=2)}, [2, 3, 4]),
        ({"until": START + timedelta(seconds=2)}, [1]),
        ({"since": timedelta(days=40_000), "until": timedelta(seconds=0)}, [1, 2, 3, 4]),
        ({"since": timedelta.max}, [1, 2, 3, 4]),
    ],
)
def test_each_filter_keeps_what_it_names(
    tmp_path: Path, asked: dict[str, object], found: list[int]
) -> None:
    write(
        tmp_path,
        operation(1),
        operation(2, operation="embed", success=False, error_type="E"),
        operation(3, model="flash", outcome="partial"),
        operation(4, service="qwen", session_id="other"),
    )
    assert ids(UsageLog(tmp_path).operations(**asked)) == found  # type: ignore[arg-type]


def test_recent_counts_back_from_now(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    write(
        tmp_path,
        operation(1, timestamp=(now - timedelta(hours=3)).isoformat()),
        operation(2, timestamp=(now - timedelta(minutes=59)).isoformat()),
    )
    log = UsageLog(tmp_path)
    assert (ids(log.recent()), ids(log.recent(hours=4))) == ([2], [1, 2])


def test_errors_are_those_whose_outcome_is_error(tmp_path: Path) -> None:
    failed = [operation(number, success=False, error_type="E") for number in range(12)]
    write(tmp_path, *failed, operation(20, success=False, outcome="cancelled"), operation(21))
    log = UsageLog(tmp_path)
    assert ids(log.errors()) == list(range(2, 12))
    assert len(log.errors(limit=None)) == 12


def test_a_directory_reached_twice_or_a_copied_segment_counts_once(tmp_path: Path) -> None:
    lines = [operation(1), operation(2)]
    for copy in ("2026-11-20-host-0002.jsonl", SEGMENT):
        write(tmp_path / "log", *lines, name=copy)
    (tmp_path / "alias").symlink_to(tmp_path / "log")
    log = UsageLog(tmp_path / "log", str(tmp_path / "alias"))
    assert ids(log.operations()) == [1, 2]
    assert ids(log.operations(limit=5)) == [1, 2]
    assert log.stats("work").operation_count == 2
    assert log.sql("select count(*) from operations").fetchall() == [(2,)]


def test_several_directories_are_one_log(tmp_path: Path) -> None:
    write(tmp_path / "a", operation(1), operation(3))
    write(tmp_path / "b", operation(2))
    assert ids(UsageLog(tmp_path / "a", tmp_path / "b").operations(session="work")) == [1, 2, 3]


def test_lines_of_the_original_format_are_read_beside_the_journal(tmp_path: Path) -> None:
    write(tmp_path, operation(2))
    (tmp_path / "usage.jsonl").write_text(
        '{"timestamp": "2026-11-20T13:00:00+02:00", "session_id": "work", "service": "qwen", '
        '"operation": "old", "tokens": 5, "success": false, "duration_seconds": 0.5, '
        '"metadata": {}, "error_type": "E", "error_message": "no"}\n'
    )
    (tmp_path / "qwen.jsonl").write_text(
        '{"timestamp": "2026-11-20T11:30:00", "session_id": "work", "service": "qwen", '
        '"operation": "naive", "tokens": 6, "success": true, "duration_seconds": 2, '
        '"metadata": {}}\n'
    )
    found = UsageLog(tmp_path).operations(session="work")
    assert [(each.operation, each.timestamp.hour, each.timestamp.minute) for each in found] == [
        ("old", 11, 0),
        ("naive", 11, 30),
        ("ask", 12, 0),
    ]


@pytest.mark.parametrize("session_id", ['a"b', "né", "5", "true", "a/b", "1e5", " ", "a\tb", ""])
def test_a_session_id_from_another_writer_is_found_whatever_it_contains(
    tmp_path: Path, session_id: str
) -> None:
    write(tmp_path, operation(1, session_id=session_id), operation(2))
    assert ids(UsageLog(tmp_path).operations(session=session_id)) == [1]


def test_an_id_that_is_the_beginning_of_another_finds_its_own_lines_only(tmp_path: Path) -> None:
    write(tmp_path, operation(1, session_id="work2"), operation(2, metadata={"x": "work"}))
    assert ids(UsageLog(tmp_path).operations(session="work")) == [2]


@pytest.mark.parametrize(
    ("asked", "cure"),
    [
        ({"since": datetime(2026, 11, 1)}, "aware datetime"),
        ({"until": "yesterday"}, "aware datetime"),
        ({"outcome": "failed"}, "one of ok, error"),
        ({"limit": -1}, "from 0"),
        ({"limit": True}, "whole number"),
        ({"session": 5}, "text"),
        ({"service": b"x"}, "text"),
    ],
)
def test_a_mistaken_argument_is_named_with_its_cure(
    tmp_path: Path, asked: dict[str, object], cure: str
) -> None:
    with pytest.raises(ConfigurationError, match=cure):
        UsageLog(tmp_path).operations(**asked)  # type: ignore[arg-type]


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="log directory"):
        UsageLog(tmp_path / "file")
    with pytest.raises(TypeError, match="log directory"):
        UsageLog(5)  # type: ignore[arg-type]


def test_sessions_come_newest_first_by_where_something_began_last(tmp_path: Path) -> None:
    write(
        tmp_path,
        operation(1, session_id="old"),
        operation(2, session_id="long"),
        operation(3, session_id="short"),
        operation(4, session_id="long"),
        entered("empty", timestamp=at(9), session_name="nothing yet"),
    )
    found = UsageLog(tmp_path).sessions(limit=3)
    assert [(each.session_id, each.operation_count) for each in found] == [
        ("empty", 0),
        ("long", 2),
        ("short", 1),
    ]
    assert (found[0].name, found[0].first_at) == ("nothing yet", START + timedelta(seconds=9))


def test_sessions_equal_the_stats_of_each_without_its_children(tmp_path: Path) -> None:
    write(tmp_path, *[operation(n, session_id=f"s{n % 9}") for n in range(40)])
    write(tmp_path, entered("s3", parent_session_id="s1"), name="2026-11-21-host-0001.jsonl")
    log = UsageLog(tmp_path)
    assert log.sessions() == [
        log.stats(f"s{n}", children=False) for n in (3, 2, 1, 0, 8, 7, 6, 5, 4)
    ]
