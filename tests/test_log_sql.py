"""The view `operations` says what `operations()` says."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from child import run
from hypothesis import given, settings
from hypothesis import strategies as st
from log_writing import START, begin, encoded, exact, operation, write

from instrument._scan import MAX_LINE_BYTES
from instrument.errors import InstrumentError, QueryError
from instrument.log import UsageLog
from instrument.operation import Operation

COLUMNS = Operation.__struct_fields__


def through_sql(log: UsageLog) -> list[dict[str, Any]]:
    rows = log.sql("select * from operations order by timestamp, operation_id").fetchall()
    found = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    for each in found:
        each["metadata"] = json.loads(each["metadata"])
        each["extra"] = json.loads(each["extra"])
        each["timestamp"] = each["timestamp"].astimezone(UTC)
    return found


def through_python(log: UsageLog) -> list[dict[str, Any]]:
    return [{name: getattr(each, name) for name in COLUMNS} for each in log.operations()]


def test_columns_are_the_attributes_with_their_types(tmp_path: Path) -> None:
    relation = UsageLog(tmp_path).sql("select * from operations")
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    assert tuple(types) == COLUMNS
    assert types["timestamp"] == "TIMESTAMP WITH TIME ZONE"
    assert {types[name] for name in ("tokens", "attempt", "pid", "v")} == {"BIGINT"}
    assert {types[name] for name in ("duration_seconds", "cost_usd")} == {"DOUBLE"}
    assert {types[name] for name in ("metadata", "extra")} == {"JSON"}
    assert types["success"] == "BOOLEAN"


def test_unknown_keys_are_in_extra(tmp_path: Path) -> None:
    write(tmp_path, operation(1, colour="red", deep={"a": [None]}), operation(2))
    log = UsageLog(tmp_path)
    assert through_sql(log) == through_python(log)
    assert through_sql(log)[0]["extra"] == {"colour": "red", "deep": {"a": [None]}}


def test_parameters_are_bound_by_place_and_by_name(tmp_path: Path) -> None:
    write(tmp_path, operation(1, session_id="it's"), operation(2))
    log = UsageLog(tmp_path)
    count = "select count(*) from operations where session_id = "
    assert log.sql(count + "?", ["it's"]).fetchall() == [(1,)]
    assert log.sql(count + "$id", {"id": "' or true --"}).fetchall() == [(0,)]


@pytest.mark.parametrize("query", ["selec", "select nothing_such from operations", "select 1/'a'"])
def test_a_mistake_in_the_query_keeps_the_message_of_the_database(
    tmp_path: Path, query: str
) -> None:
    with pytest.raises(QueryError, match="Error") as caught:
        UsageLog(tmp_path).sql(query)
    assert isinstance(caught.value, InstrumentError)
    assert isinstance(caught.value, ValueError)


def test_rows_are_those_of_the_call_whatever_becomes_of_the_files(tmp_path: Path) -> None:
    path = write(tmp_path, operation(1))
    relation = UsageLog(tmp_path).sql("select count(*) as n from operations")
    write(tmp_path, operation(2))
    path.unlink()
    assert relation.fetchall() == [(1,)]


def test_a_directory_whose_name_looks_like_a_pattern_is_read(tmp_path: Path) -> None:
    for name in ("a[1]*", "it's", "log?"):
        write(tmp_path / name, operation(1))
        log = UsageLog(tmp_path / name)
        assert log.sql("select count(*) from operations").fetchall() == [(1,)]


def test_a_file_that_changes_under_a_name_with_offsets_keeps_utc(tmp_path: Path) -> None:
    write(tmp_path, operation(1, timestamp="2026-11-20T14:00:00+02:00"))
    write(tmp_path, operation(2, timestamp="2026-11-20 12:00:00"))
    rows = UsageLog(tmp_path).sql("select distinct timestamp from operations").fetchall()
    assert [when.astimezone(UTC) for (when,) in rows] == [START]


def test_an_odd_line_behind_many_of_the_recorder_is_read_like_any(tmp_path: Path) -> None:
    lines = exact(encoded(*map(operation, range(1, 1000))))
    write(tmp_path, lines)
    log = UsageLog(tmp_path)
    query = "select count(*), min(cast(extra as varchar)), sum(tokens) from operations"
    assert log.sql(query).fetchall() == [(999, "{}", 9990)]
    write(tmp_path, operation(2000, colour="red"))
    assert log.sql(query).fetchall() == [(1000, '{"colour":"red"}', 10_000)]


def test_a_line_that_is_too_long_is_counted_by_every_reader(tmp_path: Path) -> None:
    lines = exact(encoded(*map(operation, range(1, 4))))
    write(tmp_path, lines, b"x" * (MAX_LINE_BYTES + 1), b"\n", lines.replace(b"000", b"111"))
    log = UsageLog(tmp_path)
    assert log.sql("select count(*) from operations").fetchall() == [(6,)]
    assert log.skipped_count == 1


def test_a_file_that_is_written_anew_is_looked_at_anew(tmp_path: Path) -> None:
    path = write(tmp_path, exact(encoded(*map(operation, range(1, 1000)))))
    log = UsageLog(tmp_path)
    query = "select distinct cast(extra as varchar) from operations"
    assert log.sql(query).fetchall() == [("{}",)]
    path.write_bytes(path.read_bytes().replace(b'"metadata"', b'"colourful"'))
    assert log.sql(query).fetchall() == [('{"colourful":{}}',)]


values: Any = st.none() | st.booleans() | st.integers(-5, 10**13) | st.floats(-1, 1e4)
values = values | st.sampled_from(["7", "x", "7.5", "true", "", "1e3"]) | st.just([1]) | st.just({})
named = st.fixed_dictionaries(
    {},
    optional={
        "tokens": values,
        "duration_seconds": values,
        "cost_usd": values,
        "success": values,
        "outcome": st.sampled_from(["ok", "error", "cancelled", "partial", "odd", 5, None]),
        "error_type": st.sampled_from(["E", None]),
        "model": st.sampled_from(["m", None]),
        "metadata": values,
        "v": values,
        "operation_id": st.sampled_from(["a", "b", None]),
        "surprise": values,
        "timestamp": st.sampled_from(["2026-11-20T12:00:00Z", "20261120T12", "2026-11-20", "x"]),
    },
)


@settings(deadline=None, max_examples=60)
@given(st.lists(named, max_size=4), st.booleans(), st.sampled_from([bytes, exact]))
def test_both_readers_understand_any_values_alike(
    keys: list[dict[str, Any]], torn: bool, form: Callable[[bytes], bytes]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        lines = encoded(begin(90), *[operation(n) | each for n, each in enumerate(keys)])
        write(Path(directory), form(lines))
        write(Path(directory), b"torn" if torn else b"", name="2026-11-21-host-0001.jsonl")
        log = UsageLog(directory)

        def key(row: dict[str, Any]) -> str:
            return repr(sorted(row.items(), key=lambda item: item[0]))

        assert sorted(map(key, through_sql(log))) == sorted(map(key, through_python(log)))


def test_no_progress_of_ours_is_printed_into_a_program(tmp_path: Path) -> None:
    program = """
        import duckdb
        from instrument._filing import connected
        query = "select value from duckdb_settings() where name = 'enable_progress_bar'"
        print(UsageLog().sql(query).fetchall(), connected(Path(".")).execute(query).fetchall())
        print(duckdb.execute(query).fetchall())
        """
    # run like this, the database would
    assert run(program, tmp_path) == ("[('false',)] [('false',)]\n[('true',)]", "")
