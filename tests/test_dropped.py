"""What could not be written is told in the log, once, as soon as it can be written to again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from child import raw_lines, run
from log_writing import at, operation, write

from instrument._looks import Looks
from instrument.log import UsageLog

FULL = """
import resource
warnings.simplefilter("ignore")
log_dir = os.environ["INSTRUMENT_DIR"]
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
def fill(room=0):
    size = segments(log_dir)[0].stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))
def make_room():
    resource.setrlimit(resource.RLIMIT_FSIZE, UNLIMITED)
ask()
"""


def told(log_dir: Path) -> list[tuple[int, str]]:
    """Return count and reason of every line that tells of dropped records."""
    whole = (each for each in raw_lines(log_dir) if each.endswith(b"}"))
    lines = [json.loads(each) for each in whole if b'"type":"dropped"' in each]
    return [(each["count"], each["reason"]) for each in lines]


def recorded(log_dir: Path) -> int:
    """Count the operations that stand in the log as whole lines."""
    return sum(b'"success":' in line and line.endswith(b"}") for line in raw_lines(log_dir))


def dropped(number: int, **keys: Any) -> dict[str, Any]:
    line = {"type": "dropped", "timestamp": at(number), "count": 3, "reason": "full", "pid": 7}
    return line | keys


def test_a_full_disk_is_told_after_the_first_line_that_fits_again(tmp_path: Path) -> None:
    run(f"{FULL}fill(100)\nfor n in range(20): ask()\nmake_room()\nask(); ask()", tmp_path)
    assert told(tmp_path) == [(20, "File too large")]
    *_, torn, first, telling, _ = raw_lines(tmp_path)
    assert (len(torn), b'"success":true' in first) == (100, True)
    assert list(json.loads(telling)) == ["type", "timestamp", "count", "reason", "pid"]


def test_a_line_cut_short_while_nothing_was_due_is_closed_and_told_of(tmp_path: Path) -> None:
    program = f"{FULL}for n in range(5): ask()\nfill(100)\nask()\nmake_room()\nask(); ask()"
    run(program, tmp_path)
    assert told(tmp_path) == [(1, "the line was cut short (is the disk full?)")]
    assert recorded(tmp_path) == 8
    assert [len(line) for line in raw_lines(tmp_path) if not line.endswith(b"}")] == [100]


def test_a_disk_that_is_full_while_nothing_was_due_is_told_of(tmp_path: Path) -> None:
    run(f"{FULL}for n in range(5): ask()\nfill()\nask()\nmake_room()\nask(); ask()", tmp_path)
    assert told(tmp_path) == [(1, "File too large")]
    assert recorded(tmp_path) == 8


def test_each_fault_is_told_once_with_what_it_alone_cost(tmp_path: Path) -> None:
    once = "fill()\nfor n in range({}): ask()\nmake_room()\nask(); ask()\n"
    run(FULL + once.format(3) + once.format(5), tmp_path)
    assert [count for count, _ in told(tmp_path)] == [3, 5]


def test_what_has_no_room_to_be_told_is_told_later_and_nothing_is_counted_twice(
    tmp_path: Path,
) -> None:
    program = f"""{FULL}
before = segments(log_dir)[0].stat().st_size
ask()
line = segments(log_dir)[0].stat().st_size - before
fill()
ask()
fill(line + 20)  # a line fits then, and 20 bytes of the one that tells
ask()
fill()
ask()
make_room()
ask()
"""
    run(program, tmp_path)
    assert told(tmp_path) == [(2, "File too large")]
    assert recorded(tmp_path) == 4


def test_a_log_that_loses_nothing_tells_of_nothing(tmp_path: Path) -> None:
    run("for n in range(50): ask()\nsame_second()\nask()", tmp_path)
    assert told(tmp_path) == []


def test_a_directory_that_could_not_be_made_is_told_of_once_it_is(tmp_path: Path) -> None:
    program = """
        warnings.simplefilter("ignore")
        log_dir = Path(os.environ["INSTRUMENT_DIR"])
        log_dir.touch()
        ask(); ask()
        log_dir.unlink()
        same_second()
        ask()
        """
    run(program, tmp_path / "log")
    assert told(tmp_path / "log") == [(2, "File exists")]


def test_another_log_directory_meanwhile_does_not_make_it_forgotten(tmp_path: Path) -> None:
    program = f"""{FULL}
fill()
ask(); ask()
make_room()
configure(log_dir=log_dir + "/elsewhere")
ask()
configure(log_dir=log_dir)
ask()
"""
    run(program, tmp_path)
    assert [count for count, _ in told(tmp_path)] == [2]
    assert told(tmp_path / "elsewhere") == []


def test_a_torn_tail_is_closed_too_where_the_segment_is_opened_anew(tmp_path: Path) -> None:
    program = """
        for n in range(3): ask()
        with open(segments(os.environ["INSTRUMENT_DIR"])[0], "ab") as file: file.write(b"torn")
        os.closerange(3, 65536)
        ask()
        """
    run(program, tmp_path)
    assert raw_lines(tmp_path)[-2:-1] == [b"torn"]


def test_a_forked_child_starts_from_nothing(tmp_path: Path) -> None:
    program = f"""{FULL}
fill()
ask(); ask(); ask()
child = os.fork()
make_room()
if child: os.waitpid(child, 0)
ask()
"""
    run(program, tmp_path)
    assert [count for count, _ in told(tmp_path)] == [3]


def test_what_many_threads_drop_is_told_exactly(tmp_path: Path) -> None:
    program = f"""{FULL}
over = threading.Event()
def work():
    while not over.is_set(): ask()
threads = [threading.Thread(target=work) for _ in range(4)]
for each in threads: each.start()
for n in range(60):
    fill(n); time.sleep(0.005)
    make_room(); time.sleep(0.005)
over.set()
for each in threads: each.join()
ask()
health = UsageLog().health()
print(health.dropped_count == health.dropped_in_log_count > 0, health.recorded_count)
"""
    output, _ = run(program, tmp_path)
    assert output == f"True {recorded(tmp_path)}"


HANDLERS = {
    "call": "ask()",
    "timeout": "raise TimeoutError",
    "two timeouts": """
        pauses.reverse()
        signal.setitimer(signal.ITIMER_REAL, pauses[0], 0.01)
        raise TimeoutError""",
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=list(HANDLERS))
def test_signal_handlers_neither_lose_nor_double_what_is_counted(
    handler: str, tmp_path: Path
) -> None:
    program = f"""{FULL}
def interrupt(number, frame):
    if limited and frame.f_code.co_filename != "<string>": {handler}
limited, pauses = True, [0.005, 0.00002]
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for n in range(150):
    for step in (lambda: fill(n), ask, ask, ask, make_room, ask, ask):
        try: step()
        except TimeoutError: pass
signal.setitimer(signal.ITIMER_REAL, 0)
limited = False
make_room()
ask()
health = UsageLog().health()
print(health.dropped_count == health.dropped_in_log_count > 0, health.recorded_count)
"""
    output, _ = run(program, tmp_path)
    assert output == f"True {recorded(tmp_path)}"


def test_such_a_line_is_no_operation_and_no_damage(tmp_path: Path) -> None:
    write(tmp_path, operation(0), dropped(1), operation(2))
    log = UsageLog(tmp_path)
    assert [each.operation_id for each in log.operations()] == [f"{n:016x}" for n in (0, 2)]
    assert [each.session_id for each in log.sessions()] == ["work"]
    assert log.skipped_count == 0
    assert log.sql("select count(*), sum(tokens) from operations").fetchall() == [(2, 20)]
    assert log.summary(by=())[0].operation_count == 2
    assert log.skipped_count == 0


def test_such_a_line_leaves_the_file_to_duckdb(tmp_path: Path) -> None:
    path = str(write(tmp_path, operation(0), dropped(1)))
    for columns in (None, ["tokens"]):
        assert Looks(duckdb.connect(), [path], columns).fill([path]) == set()


def test_keys_of_such_a_line_are_an_operations_own_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, operation(0, count=5, reason="retry"), dropped(1))
    query = "select extra->>'count', extra->>'reason' from operations"
    assert UsageLog(tmp_path).sql(query).fetchall() == [("5", "retry")]
    assert UsageLog(tmp_path).operations()[0].extra == {"count": 5, "reason": "retry"}
