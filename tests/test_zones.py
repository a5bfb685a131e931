"""What is remembered of files that were read: nothing that it passes over could be an answer."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from log_writing import START, at, begin, encoded, entered, operation, write

from instrument._scan import BLOCK_BYTES, Source, sources_of
from instrument._zones import known_zones, zones
from instrument.log import UsageLog

NOTE = {"note": "x" * 2_000}
FORMS = (".000000Z", ".000000Z", "Z", "+05:30", "")


def source_of(log_dir: Path) -> Source:
    (found,) = sources_of([log_dir])
    return found


def stamp(seconds: int, form: str = FORMS[0]) -> str:
    """Return a moment as the recorder writes it, or in another form."""
    return at(seconds).removesuffix("Z") + form


def long_log(log_dir: Path, count: int = 300) -> Path:
    """Write some 700 kB, a session for every ten operations."""
    for each in range(count):
        keys = {"timestamp": stamp(each), "session_id": f"s{each // 10}", "metadata": NOTE}
        path = write(log_dir, operation(each, **keys))
    return path


def test_zones_cover_a_file_and_tell_the_latest_start_and_the_sessions(tmp_path: Path) -> None:
    path = long_log(tmp_path)
    found = zones(source_of(tmp_path))
    assert [each.begin for each in found] == [0, *(each.end for each in found[:-1])]
    assert found[-1].end == path.stat().st_size
    assert found[-1].last == stamp(299)
    assert (found[0].may_name(["s0"]), found[-1].may_name(["s0"])) == (True, False)
    assert [each.reaches(START + timedelta(seconds=299)) for each in found[-2:]] == [False, True]


def test_only_what_is_new_is_read_again(tmp_path: Path) -> None:
    long_log(tmp_path)
    before = zones(source_of(tmp_path))
    write(tmp_path, operation(900, timestamp=stamp(900), session_id="new"))
    known = known_zones(source_of(tmp_path))
    assert known[:-1] == [each for each in before if each.end - each.begin > BLOCK_BYTES // 2]
    assert UsageLog(tmp_path).sessions(limit=1)[0].session_id == "new"


def test_lines_without_a_session_are_found_whatever_was_asked_before(tmp_path: Path) -> None:
    write(tmp_path, operation(999, session_id=None, timestamp=stamp(0), tokens=7))
    long_log(tmp_path)
    log = UsageLog(tmp_path)
    for _ in range(2):
        assert [each.tokens for each in log.operations(session="")] == [7]
        assert log.stats("").total_tokens == 7
        assert [row.operation_count for row in log.summary(by=(), session="")] == [1]
        log.sessions()


def test_a_file_that_was_written_anew_is_not_remembered(tmp_path: Path) -> None:
    path = long_log(tmp_path)
    log = UsageLog(tmp_path)
    assert log.sessions(limit=1)[0].session_id == "s29"
    text = path.read_bytes().replace(b'"s29"', b'"t29"')
    path.write_bytes(text)  # the same file, of the same size
    assert log.sessions(limit=1)[0].session_id == "t29"
    os.truncate(path, len(text) // 2)
    assert log.sessions(limit=1)[0].session_id == "s14"


def test_children_are_found_in_a_file_that_is_remembered(tmp_path: Path) -> None:
    long_log(tmp_path)
    keys = {"session_id": "child", "parent_session_id": "s3", "timestamp": stamp(400)}
    write(tmp_path, operation(400, **keys, metadata=NOTE))
    long_log(tmp_path)
    log = UsageLog(tmp_path)
    assert log.sessions(limit=1)[0].session_id == "child"
    assert log.stats("s3").operation_count == 11


lines = st.one_of(
    st.builds(
        lambda number, seconds, session, form: operation(
            number,
            timestamp=stamp(seconds, form),
            session_id=session,
            metadata=NOTE,
        ),
        st.integers(0, 10**6),
        st.integers(0, 90_000),
        st.sampled_from(["a", "b", "c", "d", 5]),
        st.sampled_from(FORMS),
    ),
    st.builds(lambda seconds: entered("e", timestamp=stamp(seconds)), st.integers(0, 90_000)),
    st.builds(lambda number: begin(number, timestamp=stamp(number), pid=7), st.integers(0, 90_000)),
)


def its_id(line: dict[str, Any]) -> Any:
    """Return what no other line of a log has that nobody has copied by hand."""
    return line.get("operation_id") or id(line)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(lines, min_size=1, max_size=90, unique_by=its_id),
    st.integers(1, 5),
    st.integers(0, 90_000),
)
def test_what_is_passed_over_changes_no_answer(
    written: list[dict[str, Any]], limit: int, since: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        log = UsageLog(place)
        half = len(written) // 2
        for part in (written[:half], written[half:]):
            write(Path(place), b"{torn\n", encoded(*part))
            found = log.sessions(limit=None)
            assert log.sessions(limit=limit) == found[:limit]
            for each in found:
                assert log.stats(each.session_id, children=False) == each
            moment = START + timedelta(seconds=since)
            rows = log.to_arrow(since=moment).column("operation_id").to_pylist()
            assert rows == [each.operation_id for each in log.operations(since=moment)]
