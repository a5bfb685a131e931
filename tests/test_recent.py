"""What is remembered of the journal's rows: asked again, they are those of the files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from child import FORKING_BESIDE_THREADS, run
from hypothesis import given, settings
from hypothesis import strategies as st
from log_writing import at, begin, encoded, exact, held, operation, write
from test_archive import ODD, events, growing

from instrument import configure
from instrument.errors import QueryError
from instrument.log import UsageLog

pytest.importorskip("pyarrow")
SINCE = (None, *(datetime.fromisoformat(at(number)) for number in (0, 2)))


def rows(log_dir: Path, **filters: Any) -> list[list[dict[str, Any]]]:
    """Return what users get of a log, since several moments."""
    log = UsageLog(log_dir)
    found = [log.to_arrow(since=since, **filters).to_pylist() for since in SINCE]
    counts = [[len(log.operations(since=since, **filters))] for since in SINCE]
    assert [[len(each)] for each in found] == counts
    return found


def rows_of_copy(log_dir: Path) -> list[list[dict[str, Any]]]:
    """Return the same of a copy, of which nothing is remembered."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place, "log")
        shutil.copytree(log_dir, copy)
        return rows(copy)


def plain(number: int, **keys: Any) -> bytes:
    """Return a line as the recorder writes it."""
    return exact(encoded(operation(number, **keys)))


@settings(max_examples=20, deadline=None)
@given(st.lists(events, max_size=40), st.integers(1, 4))
def test_a_log_that_grows_and_is_compacted_has_the_rows_of_its_files(
    written: list[Any], count: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        for _ in growing(Path(place), written, count):
            assert rows(Path(place)) == rows_of_copy(Path(place))


@pytest.mark.parametrize("lines", ODD.values(), ids=ODD)
def test_odd_lines_mean_what_they_do_where_everything_is_read(tmp_path: Path, lines: bytes) -> None:
    write(tmp_path, plain(1))
    rows(tmp_path)
    write(tmp_path, lines + b"\n" * (not lines.endswith(b"\n")), plain(4))
    assert rows(tmp_path) == rows_of_copy(tmp_path)


def test_an_operation_that_ends_later_was_interrupted_until_then(tmp_path: Path) -> None:
    write(tmp_path, plain(1), exact(encoded(begin(2))))
    assert [each["outcome"] for each in rows(tmp_path)[0]] == ["ok", "interrupted"]
    with held(tmp_path):
        assert [each["outcome"] for each in rows(tmp_path)[0]] == ["ok"]
        write(tmp_path, plain(2))
    assert [each["outcome"] for each in rows(tmp_path)[0]] == ["ok", "ok"]
    assert rows(tmp_path) == rows_of_copy(tmp_path)


def test_the_same_operation_in_what_is_new_counts_once(tmp_path: Path) -> None:
    write(tmp_path, plain(1), plain(2))
    rows(tmp_path)
    write(tmp_path, plain(2), plain(3))
    assert [len(each) for each in rows(tmp_path)] == [3, 3, 2]
    write(tmp_path, plain(3), name="2026-11-22-other-0001.jsonl")
    assert [len(each) for each in rows(tmp_path)] == [3, 3, 2]


def test_what_was_passed_over_is_read_once_it_is_asked_for(tmp_path: Path) -> None:
    log = UsageLog(tmp_path)
    for begin_at, end in ((0, 2000), (2000, 2100), (2100, 2101)):
        write(tmp_path, *map(plain, range(begin_at, end)))
        for number in (1900, 50, 1990, 1000):
            found = log.to_arrow(since=datetime.fromisoformat(at(number)))
            assert found["operation_id"].to_pylist() == [
                f"{each:016x}" for each in range(number, end)
            ]


def _truncated(path: Path) -> None:
    path.write_bytes(plain(3))


def _emptied(path: Path) -> None:
    os.truncate(path, 0)


def _begun_before(path: Path) -> None:
    path.write_bytes(plain(0))


def _rewritten(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"tokens":10', b'"tokens":77'))


def _replaced(path: Path) -> None:
    path.unlink()
    path.write_bytes(plain(4) + plain(5) + plain(6))


@pytest.mark.parametrize(
    "change", [Path.unlink, _truncated, _emptied, _begun_before, _rewritten, _replaced]
)
def test_files_that_somebody_changes_are_read_anew(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = write(tmp_path, plain(1), plain(2))
    write(tmp_path, plain(9), name="2026-11-22-other-0001.jsonl")
    rows(tmp_path)
    change(path)
    assert rows(tmp_path) == rows_of_copy(tmp_path)


def test_other_prices_are_not_those_that_are_remembered(tmp_path: Path) -> None:
    write(tmp_path, plain(1, model="gpt-5", input_tokens=10, output_tokens=0))
    (first,) = rows(tmp_path)[0]
    (second,) = UsageLog(tmp_path).repriced(model="gpt-5-nano").to_arrow().to_pylist()
    assert 0 < second["cost_usd"] < first["cost_usd"]
    configure(prices={"gpt-5": {"input": 1e6, "output": 0}})
    try:
        (third,) = rows(tmp_path)[0]
    finally:
        configure(prices={})
    assert third["cost_usd"] == 10


def test_files_whose_time_passes_them_over_are_not_answered_from_memory(tmp_path: Path) -> None:
    path = write(tmp_path, plain(10), name="2026-11-20-other-0001.jsonl")
    os.utime(path, (0, 0))
    write(tmp_path, plain(9))
    log, since = UsageLog(tmp_path), datetime.fromisoformat(at(5))
    before = log.to_arrow(since=since).num_rows
    log.to_arrow()
    assert log.to_arrow(since=since).num_rows == before


def test_a_file_that_goes_during_a_question_is_looked_for_again(tmp_path: Path) -> None:
    write(tmp_path, *map(plain, range(1000)))
    write(tmp_path, plain(1001), name="2026-11-23-other-0001.jsonl")
    program = """
        import threading
        log = UsageLog(os.environ["INSTRUMENT_DIR"])
        path = Path(os.environ["INSTRUMENT_DIR"], "journal", "2026-11-23-other-0001.jsonl")
        text, over = path.read_bytes(), threading.Event()

        def come_and_go():
            while not over.is_set():
                path.unlink()
                path.write_bytes(text)

        threading.Thread(target=come_and_go).start()
        found = {log.to_arrow().num_rows for _ in range(60)}
        over.set()
        print(found <= {1000, 1001})
    """
    assert run(program, tmp_path) == ("True", "")


def test_threads_that_ask_at_once_get_the_same(tmp_path: Path) -> None:
    write(tmp_path, *(plain(each) for each in range(300)))
    log = UsageLog(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: log.to_arrow(since=SINCE[2]).num_rows, range(64)))
    assert found == [298] * 64


def test_a_question_that_fails_leaves_the_next_one_alone(tmp_path: Path) -> None:
    write(tmp_path, plain(1))
    log = UsageLog(tmp_path)
    for _ in range(2):
        with pytest.raises(QueryError):
            log.write_parquet(tmp_path / "there" / "is" / "none.parquet")
        assert log.to_arrow().num_rows == 1


def test_writers_are_seen_while_they_write(tmp_path: Path) -> None:
    program = """
        from threading import Thread
        log = UsageLog(os.environ["INSTRUMENT_DIR"])
        writers = [Thread(target=lambda: [ask() for _ in range(2000)]) for _ in range(3)]
        for each in writers:
            each.start()
        counts = []
        while any(each.is_alive() for each in writers):
            counts.append(log.to_arrow().num_rows)
        for each in writers:
            each.join()
        assert counts == sorted(counts), counts
        print(log.to_arrow().num_rows)
    """
    assert run(program, tmp_path) == ("6000", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is missing")
def test_a_forked_child_has_nothing_of_what_its_parent_remembers(tmp_path: Path) -> None:
    write(tmp_path, plain(1))
    program = """
        log = UsageLog(os.environ["INSTRUMENT_DIR"])
        before = log.to_arrow()
        child = os.fork()
        if not child:
            sys.exit(log.to_arrow() != before or log.to_arrow() != before)
        print(os.waitpid(child, 0)[1], log.to_arrow() == before)
    """
    assert run(program, tmp_path, *FORKING_BESIDE_THREADS) == ("0 True", "")
