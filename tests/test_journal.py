"""The journal under everything that happens to files: rotation, deletion, locks, full disks."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from child import run, start

from instrument import UsageLog
from instrument.journal import Journal

SECOND_NS = 1_000_000_000
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


class Notes:
    """What a journal reported."""

    def __init__(self) -> None:
        self.faults: list[tuple[str, str]] = []
        self.sizes: list[int] = []


def opened(
    log_dir: Path,
    notes: Notes | None = None,
    clock: Callable[[], float] = lambda: NOON,
    max_bytes: int = 1000,
) -> Journal:
    notes = notes or Notes()
    return Journal(
        log_dir,
        fsync=False,
        max_bytes=max_bytes,
        report=lambda what, where: notes.faults.append((what, where)),
        grown=notes.sizes.append,
        clock=clock,
    )


def segments(log_dir: Path) -> dict[str, bytes]:
    """Return what is in the segments, by day and number."""
    found = sorted((log_dir / "journal").glob("*.jsonl"))
    return {f"{each.name[:10]} {each.stem[-4:]}": each.read_bytes() for each in found}


def segment(log_dir: Path, number: int = 1) -> Path:
    """Return where a segment of that number would be."""
    host = os.uname().nodename
    return log_dir / "journal" / f"2026-11-22-{host}-{number:04d}.jsonl"


def test_another_utc_day_is_another_segment(tmp_path: Path) -> None:
    now = NOON
    journal = opened(tmp_path, clock=lambda: now)
    journal.append(b"1\n", 0)
    now += 86_400
    journal.append(b"2\n", SECOND_NS)
    assert segments(tmp_path) == {"2026-11-22 0001": b"1\n", "2026-11-23 0001": b"2\n"}


def test_a_full_segment_is_followed_by_the_next_number(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(b"1\n", 0)
    line = b"x" * (64 * 1024**2) + b"\n"
    journal.append(line, 1)
    journal.append(b"2\n", SECOND_NS)
    opened(tmp_path).append(b"3\n", 0)
    assert segments(tmp_path) == {"2026-11-22 0001": b"1\n" + line, "2026-11-22 0002": b"2\n3\n"}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
def test_what_is_no_file_is_passed_over(make: Callable[[Path], None], tmp_path: Path) -> None:
    segment(tmp_path).parent.mkdir()
    make(segment(tmp_path))
    assert opened(tmp_path).append(b"1\n", 0)
    assert segment(tmp_path, 2).read_bytes() == b"1\n"


def test_a_segment_that_is_being_compacted_is_left_for_the_next_number(tmp_path: Path) -> None:
    segment(tmp_path).parent.mkdir()
    descriptor = os.open(segment(tmp_path), os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert opened(tmp_path).append(b"1\n", 0)
    os.close(descriptor)
    assert segments(tmp_path) == {"2026-11-22 0001": b"", "2026-11-22 0002": b"1\n"}


def test_a_segment_being_written_cannot_be_locked_for_compaction(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(b"1\n", 0)
    with segment(tmp_path).open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    journal.forget()


def test_a_torn_tail_is_closed_before_the_next_line(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(b"1\n", 0)
    with segment(tmp_path).open("ab") as file:
        file.write(b"torn")
    journal.append(b"2\n", SECOND_NS)
    journal.append(b"3\n", SECOND_NS)
    assert segments(tmp_path) == {"2026-11-22 0001": b"1\ntorn\n2\n3\n"}


@pytest.mark.parametrize(("missing", "kept"), [(1, True), (2, False)])
def test_a_line_that_lacks_no_more_than_its_newline_is_kept(
    missing: int, kept: bool, tmp_path: Path
) -> None:
    program = f"""
        import resource
        from instrument.journal import Journal
        log_dir, line = Path(os.environ["INSTRUMENT_DIR"]), b'{{"a":1}}\\n'
        journal = Journal(
            log_dir, fsync=True, max_bytes=10**9, report=lambda *_: None, grown=lambda _: None
        )
        journal.append(line, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * len(line) - {missing}, -1))
        print(journal.append(line, 1), journal.holds(line * 2))
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        journal.append(line, 2)
        """
    assert run(program, tmp_path) == (f"{kept} {kept}", "")
    line = b'{"a":1}'
    (segment,) = (tmp_path / "journal").iterdir()
    assert segment.read_bytes().splitlines() == [line, line[: len(line) + 1 - missing], line]


def test_a_line_that_another_is_still_writing_is_not_torn(tmp_path: Path) -> None:
    program = """
        from instrument.journal import Journal
        log_dir = Path(os.environ["INSTRUMENT_DIR"])
        journal = Journal(
            log_dir, fsync=False, max_bytes=10**9, report=lambda *_: None, grown=lambda _: None
        )
        journal.append(b"1\\n", 0)
        (path,) = segments(log_dir)
        file = path.open("ab", buffering=0)
        file.write(b"x")
        # between any two looks at the end of the file
        sys.addaudithook(lambda event, _: event == "os.utime" and file.write(b"x"))
        journal.append(b"2\\n", 1_000_000_000)
        """
    assert run(program, tmp_path) == ("", "")
    assert [each for _, each in segments(tmp_path).items()] == [b"1\nxx2\n"]


def test_a_log_beyond_its_size_is_said_once_and_recording_goes_on(tmp_path: Path) -> None:
    notes = Notes()
    opened(tmp_path).append(b"x" * 1000 + b"\n", 0)
    journal = opened(tmp_path, notes)
    for now_ns in (0, SECOND_NS):
        assert journal.append(b"1\n", now_ns)
        segment(tmp_path).rename(tmp_path / "journal" / f"{now_ns}.jsonl")
    assert (notes.sizes, notes.faults) == ([1001], [])


@pytest.mark.parametrize("other_bytes", [0, 2000])
def test_a_log_that_grows_beyond_its_size_is_said_where_it_does(
    tmp_path: Path, other_bytes: int
) -> None:
    notes = Notes()
    journal = opened(tmp_path, notes)
    for number in range(12):
        assert journal.append(b"x" * 99 + b"\n", number)
        if number == 5 and other_bytes:
            with segment(tmp_path).open("ab") as other:
                other.write(b"y" * (other_bytes - 1) + b"\n")
    assert notes.sizes == [700 + other_bytes if other_bytes else 1100]


def test_a_log_that_others_fill_is_looked_at_once_a_second(tmp_path: Path) -> None:
    notes = Notes()
    journal = opened(tmp_path, notes, max_bytes=2 * 1024**2)
    journal.append(b"1\n", 0)
    with segment(tmp_path).open("ab") as other:
        other.write(b"y" * (2 * 1024**2) + b"\n")
    journal.append(b"2\n", SECOND_NS - 1)
    assert notes.sizes == []
    journal.append(b"3\n", SECOND_NS)
    assert notes.sizes == [2 * 1024**2 + 5]


def test_what_cannot_be_opened_is_tried_again_a_second_later_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"in the way")
    notes = Notes()
    journal = opened(tmp_path, notes)
    assert [journal.append(b"1\n", now_ns) for now_ns in (0, 1, 2)] == [False] * 3
    (tmp_path / "journal").unlink()
    assert [journal.append(b"2\n", now_ns) for now_ns in (3, SECOND_NS)] == [False, True]
    assert notes.faults == [("File exists", str(tmp_path / "journal"))]


MISHAPS = {
    "deleted": "segments(log_dir)[0].unlink()",
    "moved": "segments(log_dir)[0].rename(log_dir / 'elsewhere')",
    "directory deleted": "shutil.rmtree(log_dir)",
    "directory moved": "log_dir.rename(str(log_dir) + '.old')",
    "replaced by another file": """path = segments(log_dir)[0]; path.unlink(); path.touch()""",
}


@pytest.mark.parametrize("mishap", MISHAPS.values(), ids=list(MISHAPS))
def test_recording_goes_on_at_most_a_second_after_a_mishap(mishap: str, tmp_path: Path) -> None:
    program = f"""
        import shutil
        log_dir = Path(os.environ["INSTRUMENT_DIR"])
        ask()
        {mishap}
        same_second()
        ask()
        """
    assert run(program, tmp_path / "log", "-W", "error") == ("", "")
    assert UsageLog(tmp_path / "log").operations()


def test_the_programs_own_file_is_not_written_into_when_it_has_our_number(tmp_path: Path) -> None:
    program = f"""
        ask()
        (segment,) = segments(os.environ["INSTRUMENT_DIR"])
        own = os.open({str(tmp_path / "own")!r}, os.O_RDWR | os.O_CREAT)
        for number in map(int, os.listdir("/dev/fd")):
            try:
                if os.path.samestat(os.fstat(number), segment.stat()): os.dup2(own, number)
            except OSError:
                pass
        same_second()
        ask()
        """
    assert run(program, tmp_path / "log", "-W", "error") == ("", "")
    assert (tmp_path / "own").read_bytes() == b""
    assert len(UsageLog(tmp_path / "log").operations()) == 2


@pytest.mark.parametrize("before", [1, 5], ids=["while a look is due", "while nothing is"])
def test_a_descriptor_closed_behind_our_back_costs_no_record(before: int, tmp_path: Path) -> None:
    program = f"for n in range({before}): ask()\nos.closerange(3, 65536)\nask(); ask()"
    run(program, tmp_path, "-W", "error")
    assert len(UsageLog(tmp_path).operations()) == before + 2


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_directories_are_0700_and_files_0600_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    run(f"os.umask({umask})\nask()\nwith session(): ask()\ntime.sleep(0.2)", tmp_path / "a" / "b")
    modes = {
        path.relative_to(tmp_path).name: stat.filemode(path.stat().st_mode)
        for path in tmp_path.rglob("*")
    }
    directories = {"a", "b", "journal", "run"}
    assert directories < set(modes)
    for name, mode in modes.items():
        assert mode == ("drwx------" if name in directories else "-rw-------"), name


@pytest.mark.parametrize("given", ["..", "a..b", "~", "a:b", ".", "-", "x" * 128])
def test_no_session_id_makes_anything_outside_the_log(given: str, tmp_path: Path) -> None:
    run(f"with session(id={given!r}): ask()", tmp_path / "log")
    assert [each.name for each in tmp_path.iterdir()] == ["log"]
    assert [each.session_id for each in UsageLog(tmp_path / "log").operations()] == [given]


def test_captures_without_end_leave_no_descriptor_open(tmp_path: Path) -> None:
    program = """
        import gc
        from instrument.testing import capture
        def once():
            with capture():
                tracked(service="s")(lambda: 1)()
        once(); gc.collect()
        before = len(os.listdir("/dev/fd"))
        for n in range(30): once()
        gc.collect()
        print(len(os.listdir("/dev/fd")) - before)
        """
    assert run(program, tmp_path) == ("0", "")


def test_the_journal_stays_locked_while_its_process_lives(tmp_path: Path) -> None:
    with start("ask()\nprint('ready', flush=True)\ninput()", tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (path,) = (tmp_path / "journal").iterdir()
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.communicate("\n")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.fixture
def beside_a_thread() -> Iterator[None]:
    """Have writes beside another thread seem slow, after which they keep the interpreter's lock."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.usefixtures("beside_a_thread")
@pytest.mark.parametrize(
    ("disturb", "expected"),
    [
        (lambda path: None, b"1\n2\n3\n"),
        (lambda path: path.unlink(), b"3\n"),
        (lambda path: path.rename(path.with_suffix(".moved")), b"3\n"),
        (lambda path: path.write_bytes(path.read_bytes() + b"torn"), b"1\n2\ntorn\n3\n"),
        (lambda path: os.replace(shutil.copy(path, f"{path}.new"), path), b"1\n2\n3\n"),
    ],
    ids=["nothing", "deleted", "moved", "torn by another", "replaced"],
)
def test_what_happens_to_the_segment_is_noticed_while_the_lock_is_kept(
    disturb: Callable[[Path], object], expected: bytes, tmp_path: Path
) -> None:
    journal = opened(tmp_path)
    long_ago = time.perf_counter_ns() - 10_000_000
    journal.append(b"1\n", long_ago)
    journal.append(b"2\n", long_ago + 1)
    disturb(segment(tmp_path))
    journal.append(b"3\n", long_ago + SECOND_NS)
    assert segments(tmp_path) == {"2026-11-22 0001": expected}


@pytest.mark.parametrize(("apart", "keeps"), [(1, True), (1000, False)])
def test_one_slow_write_alone_has_no_write_keep_the_lock(
    apart: int, keeps: bool, tmp_path: Path
) -> None:
    program = f"""
        import os, sys, threading, time
        from pathlib import Path
        from instrument._account import Account
        from instrument.journal import Journal

        over = threading.Event()
        thread = threading.Thread(target=over.wait)
        thread.start()
        account = Account()
        told = lambda *what: None
        log_dir = Path(os.environ["INSTRUMENT_DIR"])
        journal = Journal(
            log_dir, fsync=False, max_bytes=10**9, report=told, grown=told, account=account
        )
        for number in range(3):
            account.recorded_count = {apart} * number
            journal.append(b"1\\n", time.perf_counter_ns() - 10_000_000)
        over.set()
        thread.join()
        print("ctypes" in sys.modules)
    """
    assert run(program, tmp_path) == (str(keeps), "")


def test_a_directory_that_vanishes_between_two_steps_is_made_again(tmp_path: Path) -> None:
    program = """
        import os, sys
        from instrument import tracked
        from instrument.recorder import lost_count

        removed = []

        def remove(event, arguments):
            if event == "open" and not removed and str(arguments[0]).endswith(".jsonl"):
                removed.append(os.path.dirname(arguments[0]))
                os.rmdir(removed[0])

        sys.addaudithook(remove)
        ask = tracked(service="s")(lambda: None)
        ask()
        print(len(removed), lost_count())
    """
    assert run(program, tmp_path) == ("1 0", "")
    assert len(UsageLog(tmp_path).operations()) == 1


def test_processes_forked_before_the_first_call_draw_ids_of_their_own(tmp_path: Path) -> None:
    program = """
        import os, threading
        from instrument import tracked

        ask = tracked(service="s")(lambda: None)

        def work(barrier):
            barrier.wait()
            for _ in range(5):
                ask()

        for _ in range(100):
            child = os.fork()
            if child == 0:
                barrier = threading.Barrier(4)
                threads = [threading.Thread(target=work, args=[barrier]) for _ in range(4)]
                for each in threads:
                    each.start()
                for each in threads:
                    each.join()
                os._exit(0)
            os.waitpid(child, 0)
    """
    run(program, tmp_path)
    found = UsageLog(tmp_path).operations()
    assert len({each.operation_id for each in found}) == len(found) == 2000
