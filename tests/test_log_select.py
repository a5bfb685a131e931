"""Operations as iterators and tables, ids of sessions, and a session in one reading."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from log_writing import START, begin, entered, held, operation, write

from instrument.errors import ConfigurationError, InstrumentError
from instrument.log import UsageLog
from instrument.operation import Operation


def filled(log_dir: Path) -> UsageLog:
    write(log_dir, operation(3, success=False, error_type="E", metadata={"a": [1]}))
    write(log_dir, operation(1, service="qwen", colour="red"), operation(2), begin(4))
    write(log_dir, b'{"torn', name="2026-11-21-host-0001.jsonl")
    return UsageLog(log_dir)


def test_iterate_yields_what_operations_lists(tmp_path: Path) -> None:
    log = filled(tmp_path)
    assert list(log.iterate()) == log.operations() != []
    filters = {"session": "work", "service": "gemini", "since": START + timedelta(seconds=2)}
    assert list(log.iterate(**filters)) == log.operations(**filters) != []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_iterate_takes_memory_that_does_not_grow_with_the_log(tmp_path: Path) -> None:
    for first in range(0, 30_000, 1_000):
        numbers = range(first, first + 1_000)
        write(tmp_path, *(operation(number, metadata={"k": "x" * 20_000}) for number in numbers))
    program = f"""
import re
from instrument import UsageLog
assert sum(1 for _ in UsageLog({str(tmp_path)!r}).iterate()) == 30_000
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    assert int(done.stdout) < 300_000  # kB; the log has 600 MB


def test_tables_have_a_column_for_each_attribute_in_start_order(tmp_path: Path) -> None:
    log = filled(tmp_path)
    ids = [each.operation_id for each in log.operations()]
    arrow, frame, polars = log.to_arrow(), log.to_pandas(), log.to_polars()
    assert tuple(arrow.column_names) == tuple(frame.columns) == tuple(polars.columns)
    assert tuple(arrow.column_names) == Operation.__struct_fields__
    assert arrow["operation_id"].to_pylist() == list(frame["operation_id"]) == ids
    assert polars["operation_id"].to_list() == ids
    assert str(frame["timestamp"].dtype).endswith("UTC]")


def test_a_missing_library_is_named_with_its_cure(tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["polars"] = None
import importlib.util
importlib.util.find_spec = lambda name: None
from instrument import UsageLog
try:
    UsageLog({str(tmp_path)!r}).to_polars()
except ImportError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    expected = "MissingDependencyError to_polars() needs polars: pip install polars\n"
    assert (done.stdout, done.stderr) == (expected, "")


def test_correlate_merges_the_directories_of_several_services(tmp_path: Path) -> None:
    write(tmp_path / "a", operation(1), operation(3), operation(5, session_id="other"))
    write(tmp_path / "b", operation(2, service="qwen"))
    found = UsageLog(tmp_path / "a", tmp_path / "b").correlate("work")
    assert [each.service for each in found] == ["gemini", "qwen", "gemini"]


def test_sessions_are_found_by_the_beginning_of_their_ids_newest_first(tmp_path: Path) -> None:
    write(tmp_path, entered("session_1_a"), operation(5, session_id="session_1_b"))
    write(tmp_path, operation(7, session_id="session_2"), operation(6, metadata={"session_": 1}))
    log = UsageLog(tmp_path)
    assert log.find_sessions("session_1") == ["session_1_b", "session_1_a"]
    assert log.find_sessions("session_", limit=1) == ["session_2"]
    assert log.find_sessions() == ["session_2", "work", "session_1_b", "session_1_a"]
    assert log.find_sessions("x") == []
    with pytest.raises(ConfigurationError, match="prefix=5"):
        log.find_sessions(5)  # type: ignore[arg-type]


def test_sessions_are_chosen_by_what_began_in_them(tmp_path: Path) -> None:
    write(tmp_path, entered("empty"), operation(1), operation(2, session_id="b", service="qwen"))
    write(tmp_path, operation(3, session_id="b"))
    log = UsageLog(tmp_path)
    (found,) = log.sessions(service="qwen")
    assert (found.session_id, found.operation_count) == ("b", 2)
    assert [each.session_id for each in log.sessions(since=START + timedelta(seconds=2))] == ["b"]


def test_a_report_holds_the_stats_and_the_operations_of_one_reading(tmp_path: Path) -> None:
    child = {"session_id": "child", "parent_session_id": "work"}
    write(tmp_path, operation(1), operation(2, **child), begin(3), begin(4, session_id="other"))
    with held(tmp_path):
        report = UsageLog(tmp_path).report("work")
        stats = UsageLog(tmp_path).stats("work")
    assert report.stats == stats
    assert [(each.session_id, each.outcome) for each in report.operations] == [
        ("work", "ok"),
        ("child", "ok"),
        ("work", "running"),
    ]


def test_the_latest_name_of_a_session_counts_in_whichever_file_it_stands(tmp_path: Path) -> None:
    old = write(tmp_path, entered("work", session_name="old"), name="2026-11-19-host-0001.jsonl")
    write(tmp_path, entered("work", session_name="new", timestamp="2026-11-22T00:00:00Z"))
    for seconds in (1, 10**9):
        os.utime(old, (seconds, seconds))
        assert UsageLog(tmp_path).stats("work").name == "new"


def test_files_written_to_before_what_is_asked_for_are_passed_over_and_no_others(
    tmp_path: Path,
) -> None:
    old = write(tmp_path, operation(1), name="2026-11-19-host-0001.jsonl")
    write(tmp_path, operation(2, timestamp="2026-11-22T00:00:00Z"))
    log = UsageLog(tmp_path)
    os.utime(old, (START.timestamp(), START.timestamp()))
    assert [len(log.operations(limit=limit)) for limit in (1, 2, 3)] == [1, 2, 2]
    assert len(log.operations(since=START)) == 2
    assert len(log.operations(since=START + timedelta(days=1, hours=1))) == 1
    assert len(list(log.iterate(since=START))) == 2


@pytest.mark.parametrize("ask", [lambda log: log.correlate(5), lambda log: log.report(None)])
def test_what_is_no_session_id_is_refused(tmp_path: Path, ask: object) -> None:
    with pytest.raises(InstrumentError, match="session_id="):
        ask(UsageLog(tmp_path))  # type: ignore[operator]
