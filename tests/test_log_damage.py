"""Logs that others have damaged, forged or are still writing."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path

import pytest
from child import run
from hypothesis import example, given, settings
from hypothesis import strategies as st
from log_questions import few_answers
from log_writing import SEGMENT, encoded, exact, operation, write

from instrument import _scan
from instrument.log import UsageLog
from instrument.operation import Operation

WHOLE = encoded(operation(5))

# what stands on a line of its own, and how many lines it makes that are skipped
SKIPPED = {
    "torn": b'{"timestamp":"2026-11-20T12:00:01Z","session_id":"wo',
    "array": b"[1,2]",
    "number": b"5",
    "null": b"null",
    "text": b'"abc"',
    "no service": encoded(operation(3, service=None)),
    "no operation": encoded(operation(3, operation=None)),
    "no timestamp": encoded(operation(3, timestamp=None)),
    "impossible date": encoded(operation(3, timestamp="2026-02-30T00:00:00Z")),
    "year out of range": encoded(operation(3, timestamp="99999-01-01T00:00:00Z")),
    "date before the first": encoded(operation(3, timestamp="0001-01-01T00:00:00+14:00")),
    "zeros": b"\0" * 5000,
    "deep array": b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep and ours": WHOLE[:-2] + b',"x":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
    "many beginnings": b'{"' * 100_000,
    "begin without an id": b'{"type":"begin","service":"x","operation":"y"}',
}


@pytest.mark.parametrize("junk", SKIPPED.values(), ids=SKIPPED)
def test_a_line_that_is_no_record_is_skipped_counted_and_named(tmp_path: Path, junk: bytes) -> None:
    path = write(tmp_path, operation(1), junk.rstrip(b"\n"), b"\n", operation(2))
    log = UsageLog(tmp_path)
    for answer in (log.operations(), log.operations(limit=9)):
        assert [each.timestamp.second for each in answer] == [1, 2]
        assert log.skipped_count == 1
        assert log.skipped[0][:2] == (path, len(encoded(operation(1))))
    assert log.sql("select count(*) from operations").fetchall() == [(2,)]
    assert log.skipped_count == 1
    assert [row.operation_count for row in log.summary(by=())] == [2]
    assert log.skipped_count == 1


def test_blank_lines_are_no_damage(tmp_path: Path) -> None:
    write(tmp_path, b"\n \n\r\n", operation(1), b"\n\n")
    log = UsageLog(tmp_path)
    assert (len(log.operations()), log.skipped_count) == (1, 0)


HEALED = {
    "glued to a torn prefix": b'{"timestamp":"2026-11-20T12:00:01Z","session' + WHOLE,
    "behind a hole": b"\0" * 100 + WHOLE,
    "not UTF-8": WHOLE.replace(b'"metadata":{}', b'"metadata":{"a":"\xff"}'),
    "lone surrogate": WHOLE.replace(b'"metadata":{}', b'"metadata":{"a":"\\ud800"}'),
    "NaN": WHOLE.replace(b'"metadata":{}', b'"metadata":{"a":NaN}'),
    "numbers that JSON lacks": WHOLE.replace(b"{}", b'{"a":[nan,-INF,Infinity,1e400]}'),
    "unknown number": WHOLE.replace(b'"metadata"', b'"x":inf,"metadata"'),
    "comma behind the last": WHOLE.replace(b'"metadata":{}}', b'"metadata":{"a":[1,],},}'),
    "raw control character": WHOLE.replace(b'"metadata":{}', b'"metadata":{"a":"\0"}'),
    "byte order mark": b"\xef\xbb\xbf" + WHOLE,
    "without a newline": WHOLE.rstrip(b"\n"),
    "carriage return": WHOLE.replace(b"\n", b"\r\n"),
    "key twice": WHOLE.replace(b'"tokens"', b'"tokens":3,"tokens"'),
    "ten megabytes": encoded(operation(5, metadata={"a": "x" * 10_000_000})),
    "huge integer": WHOLE.replace(b'"metadata":{}', b'"metadata":{"a":%b}' % (b"9" * 400)),
    "text for numbers": WHOLE.replace(b'"tokens":10', b'"tokens":"10"').replace(b"1.0", b'"1.0"'),
    "spaces": WHOLE.replace(b":", b" : ").replace(b"12 : 00 : 05", b"12:00:05"),
    "day first zone": WHOLE.replace(b"12:00:05Z", b"14:00:05+02:00"),
    "basic date": WHOLE.replace(b"2026-11-20T12:00:05Z", b"20261120T120005Z"),
    "unknown type": WHOLE.replace(b'"metadata"', b'"type":"llm","metadata"'),
}


@pytest.mark.parametrize("line", HEALED.values(), ids=HEALED)
def test_a_whole_record_is_read_however_it_is_dressed(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, operation(1), line)
    log = UsageLog(tmp_path)
    expected = (5, 10, 1.0, True)
    for found in (log.operations(session="work")[1], log.operations(limit=1)[0]):
        known = (found.timestamp.second, found.tokens, found.duration_seconds, found.success)
        assert known == expected
    columns = "extract(second from timestamp), tokens, duration_seconds, success"
    assert log.sql(f"select {columns} from operations order by 1").fetchall()[1:] == [expected]
    assert [(row.operation_count, row.total_tokens) for row in log.summary(by=())] == [(2, 20)]


def test_numbers_that_json_lacks_are_read_as_text(tmp_path: Path) -> None:
    write(tmp_path, HEALED["numbers that JSON lacks"])
    log = UsageLog(tmp_path)
    (found,) = log.operations()
    assert found.metadata == {"a": ["nan", "-INF", "Infinity", "1e400"]}
    ((metadata,),) = log.sql("select metadata from operations").fetchall()
    assert json.loads(metadata) == found.metadata


def test_two_records_on_one_line_are_both_read(tmp_path: Path) -> None:
    write(tmp_path, encoded(operation(1)).rstrip(b"\n"), operation(2))
    log = UsageLog(tmp_path)
    assert (len(log.operations()), log.skipped_count) == (2, 0)


def test_values_of_a_wrong_type_are_unknown_and_the_record_stays(tmp_path: Path) -> None:
    write(
        tmp_path,
        operation(
            1, tokens=-4, input_tokens=True, output_tokens=1.5, metadata=[1], duration_seconds="x",
            cost_usd={}, pid="me", success="maybe", outcome="great", model=5, chunks=1e300,
        ),
    )  # fmt: skip
    log = UsageLog(tmp_path)
    names = "tokens, input_tokens, output_tokens, duration_seconds, cost_usd, pid, outcome, model"
    found = log.operations()[0]
    expected = (None, None, None, 0.0, None, None, "ok", "5")
    assert tuple(getattr(found, name) for name in names.split(", ")) == expected
    assert log.sql(f"select {names} from operations").fetchall() == [expected]


def test_what_is_no_regular_file_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, operation(1))
    (tmp_path / "directory.jsonl").mkdir()
    os.mkfifo(tmp_path / "journal" / "fifo.jsonl")
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "nowhere")
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short}/s")
        Path(f"{short}/s").rename(tmp_path / "socket.jsonl")
    log = UsageLog(tmp_path)
    assert len(log.operations()) == 1
    assert log.sql("select count(*) from operations").fetchall() == [(1,)]


def test_a_line_of_absurd_length_is_skipped_without_being_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_scan, "MAX_LINE_BYTES", 2**17)
    path = write(tmp_path, operation(1), b'{"x":"' + b"a" * 10**6 + b'"}\n', operation(2))
    log = UsageLog(tmp_path)
    assert [each.timestamp.second for each in log.operations(session="work")] == [1, 2]
    assert [each[:2] for each in log.skipped] == [(path, len(encoded(operation(1))))]


def test_a_file_that_others_go_on_writing_to_ends_where_it_ended_when_it_was_opened(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, *[operation(n) for n in range(1000)])
    lines = _scan.scan([_scan.Source(path, tmp_path, "host")], _scan.Skipped())
    found = []
    for line in lines:
        found.append(line)
        write(tmp_path, operation(5))
    assert len(found) == 1000


def test_hostile_lines_mean_the_same_in_the_archive_and_keep_nobody_out(tmp_path: Path) -> None:
    hostile = [*(SKIPPED | HEALED).values()]
    for number, line in enumerate(hostile):
        own = line.replace(b"%016x" % 5, b"%016x" % (100 + number))
        write(tmp_path, own, b"\n", operation(number), name=f"2026-11-20-host-{number:04d}.jsonl")
    log = UsageLog(tmp_path)
    before = few_answers(log)
    assert len(before["operations"]) == len(hostile) + len(HEALED)
    log.compact()
    assert few_answers(log) == before
    assert [*(tmp_path / "journal").iterdir()] == []


HOSTILE = (
    *(b"null", b"true", b"0", b"-1", b"1.5", b"1e3", b"1e999", b"9" * 400, b"NaN", b"-inf", b"01"),
    *(b'""', b'"7"', b'"1e3"', b'" 7 "', b'"nan"', b'"\\ud800"', b'"\\u0000"', b'"\xff"', b'"\0"'),
    *(b"[]", b"{}", b"[1,]", b'{"a":NaN}', b'{"a":1,"a":2}', b"'a'", b"tru", b'"a\tb"'),
    *(b'"error"', b'"begin"', b'"void"', b'"session"', b'"dropped"', b'"llm"', b'"FALSE"'),
    *(b"[" * 50_000 + b"]" * 50_000, b'{"a":' * 2000 + b"1" + b"}" * 2000),
    b'"%b"' % (b"y" * 2_000_000),
    *(b'"2026-11-20"', b'"2026-11-20T24:00:00Z"', b'"infinity"', b'"0001-01-01T00:00:00+14:00"'),
)
fields = st.tuples(
    st.sampled_from([*Operation.__struct_fields__, "type", "run", "x"]), st.sampled_from(HOSTILE)
)


@st.composite
def hostile_lines(draw: st.DrawFn) -> bytes:
    """Draw a line in which some keys are missing, some hostile and some there twice."""
    number = draw(st.integers(0, 50))
    values = {key: json.dumps(each).encode() for key, each in operation(number).items()}
    for key in draw(st.sets(st.sampled_from([*values]), max_size=1)):
        del values[key]
    values |= dict(draw(st.lists(fields, max_size=3)))
    pairs = [*values.items(), *draw(st.lists(fields, max_size=1))]
    body = b",".join(b'"%b":%b' % (key.encode(), each) for key, each in pairs)
    before = draw(st.sampled_from([b"{", b"{", b"{", b" {", b"\xef\xbb\xbf{", b"\0{", b"x{"]))
    form = draw(st.sampled_from([bytes, exact]))
    return (
        before + form(body) + draw(st.sampled_from([b"}", b"}", b"}", b",}", b"}\r", b"}x", b""]))
    )


@settings(max_examples=6, deadline=None)
@given(st.lists(hostile_lines(), min_size=1, max_size=4))
@example([encoded(operation(1)).replace(b"}\n", b',"type":null,"run":null}')])
@example([encoded(operation(1, type="another", run="one")).rstrip()])
def test_any_lines_count_alike_in_every_question_and_in_the_archive(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for line in lines:
            write(Path(directory), exact(encoded(operation(100))), line, b"\n")
        log = UsageLog(directory)
        before = few_answers(log)
        assert set(counts(log)) == {len(before["operations"])}
        log.compact(all=True)
        assert few_answers(log) == before
        assert set(counts(log)) == {len(before["operations"])}


def counts(log: UsageLog) -> list[int]:
    """Return how many operations there are, as each way of reading has it."""
    operations = log.operations()
    sessions = {each.session_id for each in operations} - {""}
    alone = sum(each.session_id == "" for each in operations)
    return [
        len(operations),
        len(log.operations(limit=1000)),
        len(list(log.iterate())),
        sum(row.operation_count for row in log.summary(by=())),
        *(count for (count,) in log.sql("select count(*) from operations").fetchall()),
        alone + sum(log.stats(each, children=False).operation_count for each in sessions),
    ]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_however_many_long_lines_there_are_a_reader_holds_a_few_at_a_time(tmp_path: Path) -> None:
    long = {"metadata": {"a": "x" * 10_000_000}}
    for number in range(8):
        write(tmp_path, operation(number, session_id=f"s{number}", **long))
        write(tmp_path, b'{"metadata":"' + b"y" * 20_000_000 + b'"}\n')
    program = """
        def megabytes():
            (line,) = (each for each in open("/proc/self/status") if each.startswith("VmHWM"))
            return int(line.split()[1]) / 1024
        log = UsageLog()
        print(len(log.operations(limit=1)), log.stats("s7").operation_count, log.skipped_count)
        print(megabytes() < 220)
        print(log.compact().operations, megabytes() < 900)
        """
    assert run(program, tmp_path) == ("1 1 8\nTrue\n8 True", "")


def test_records_across_the_edges_of_blocks_are_each_read_once(tmp_path: Path) -> None:
    write(tmp_path, *[operation(n, metadata={"x": "y" * (n % 700)}) for n in range(2000)])
    log = UsageLog(tmp_path)
    assert len(log.operations()) == len(log.operations(session="work")) == 2000
    assert log.skipped_count == 0


def test_a_file_that_vanishes_after_the_listing_is_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = write(tmp_path, operation(1))
    write(tmp_path, operation(2), name="2026-11-21-host-0001.jsonl")
    listed = os.open

    def open_late(path: object, *rest: object) -> int:
        if path == gone:
            gone.unlink(missing_ok=True)
        return listed(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", open_late)
    assert [each.timestamp.second for each in UsageLog(tmp_path).operations()] == [2]


def test_a_file_cut_short_while_it_is_read_ends_there(tmp_path: Path) -> None:
    path = write(tmp_path, *[operation(n) for n in range(3000)])
    source = _scan.Source(path, tmp_path, "host")
    lines = _scan.scan([source], _scan.Skipped())
    next(lines)
    os.truncate(path, 0)
    assert 0 < len(list(lines)) < 3000


def test_reading_changes_nothing_in_the_directory(tmp_path: Path) -> None:
    write(tmp_path, operation(1), b"torn")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    log = UsageLog(tmp_path)
    _ = (log.operations(), log.running(), log.sessions(), log.stats("work"))
    log.sql("select * from operations").fetchall()
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


junk = st.binary(max_size=300) | st.sampled_from([*SKIPPED.values(), WHOLE[:60], b"\xff{", b"\\"])


# up to ten long lines that are nested deep, each of which takes some 30 ms
@settings(deadline=5_000)
@given(st.lists(junk, max_size=5), st.data())
@example([WHOLE[:60]], None)
def test_bytes_between_lines_never_cost_another_whole_line(
    pieces: list[bytes], data: st.DataObject | None
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory), operation(10))
        for number, piece in enumerate(pieces):
            ended = data is None or data.draw(st.booleans())
            write(Path(directory), piece, b"\n" if ended else b"", b"\n", operation(11 + number))
        log = UsageLog(directory)
        expected = {f"{10 + number:016x}" for number in range(len(pieces) + 1)}
        assert expected <= {each.operation_id for each in log.operations()}
        assert expected <= {each.operation_id for each in log.operations(session="work")}
        assert log.stats("work").operation_count >= len(expected)
        assert log.running() == []
        log.sessions()


@given(st.integers(0, 3 * len(WHOLE)), st.binary(max_size=40))
def test_bytes_inserted_anywhere_harm_their_own_line_at_most(place: int, inserted: bytes) -> None:
    content = encoded(operation(1), operation(2), operation(3))
    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory), content[:place] + inserted + content[place:])
        hurt = content[:place].count(b"\n") + 1
        found = {each.operation_id for each in UsageLog(path.parent.parent).operations()}
    assert {f"{number:016x}" for number in (1, 2, 3) if number != hurt} <= found


@given(st.integers(0, len(WHOLE)))
def test_every_torn_prefix_glued_to_a_whole_line_leaves_it_readable(cut: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write(
            Path(directory), encoded(operation(6))[:cut].rstrip(b"\n"), operation(7), name=SEGMENT
        )
        found = {each.operation_id for each in UsageLog(directory).operations(session="work")}
    assert f"{7:016x}" in found


@pytest.mark.parametrize("objects", [1, 31, 32, 500])
def test_a_record_behind_a_torn_one_is_read_whatever_that_holds(
    tmp_path: Path, objects: int
) -> None:
    torn = encoded(operation(1, metadata={"parts": [{"n": n} for n in range(objects)]}))
    write(tmp_path, torn.partition(b"]")[0], operation(2))
    log = UsageLog(tmp_path)
    assert [each.timestamp.second for each in log.operations()] == [2]
    assert log.skipped_count == 1


def test_one_object_over_two_lines_and_two_on_one_are_told_apart(tmp_path: Path) -> None:
    """As many objects as lines, and yet none of them is where it seems to be."""
    over_two = encoded(operation(1)).replace(b',"service"', b'\n,"service"')
    on_one = encoded(operation(2))[:-1] + encoded(operation(3))
    write(tmp_path, over_two + on_one + encoded(operation(4)))
    for _ in range(2):
        log = UsageLog(tmp_path)
        assert [each.operation_id for each in log.operations()] == [f"{n:016x}" for n in (2, 3, 4)]
        assert log.summary(())[0].operation_count == 3
        log.compact(all=True)
