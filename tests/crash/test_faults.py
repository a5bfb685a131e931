"""Faults that come from outside, in real processes: clocks, hosts, containers, mounts, shutdown.

What is missing for a test on a machine is named where it is skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from glob import glob
from pathlib import Path

import pytest
from child import raw_ids, raw_lines, run, start

from instrument import UsageLog

NOBODY = 65_534
HANG = """
@tracked(service="s")
def hang():
    print("in flight", flush=True)
    time.sleep(60)
hang()
"""


@cache
def namespace(*kinds: str) -> tuple[str, ...]:
    """Return the command that gives a program namespaces of its own, or skip the test."""
    command = ("unshare", *([] if os.getuid() == 0 else ["-r"]), *kinds)
    if not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip(f"`{' '.join(command)}` is not allowed here")
    return command


def needed(program: str) -> str:
    if not (found := shutil.which(program)):
        pytest.skip(f"{program} is missing")
    return found


def host(name: str, *kinds: str) -> tuple[str, ...]:
    """Return the command that runs a program on a host of that name."""
    return (*namespace("-u", *kinds), "sh", "-c", f'hostname {name} && exec "$@"', "sh")


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that users without privileges reach too."""
    place = Path(tempfile.mkdtemp(prefix="instrument-faults-"))
    place.chmod(0o777)
    yield place
    shutil.rmtree(place)


def end(process: subprocess.Popen[str], log: UsageLog) -> None:
    """Kill a container, and wait until the kernel has taken its lock."""
    left = len(log.running()) - 1
    process.kill()
    process.communicate()
    until = time.monotonic() + 10
    while len(log.running()) > left and time.monotonic() < until:
        time.sleep(0.01)


# clocks


@pytest.fixture
def clock(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is moved by what `CLOCK` holds."""
    libraries = glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not libraries:
        pytest.skip("libfaketime is missing: apt-get install libfaketime")
    (tmp_path / "clock").write_text("+0")
    return {
        "LD_PRELOAD": libraries[0],
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


JUMPS = """
import select
clock = Path(os.environ["FAKETIME_TIMESTAMP_FILE"])
def jump(days):
    clock.write_text(f"{86_400 * days:+d}")
    select.select([], [], [], 1.05)  # to the next look; a faked clock does not bear sleep()
"""


def test_clock_jumps_in_both_directions_lose_nothing_and_are_told(
    clock: dict[str, str], tmp_path: Path
) -> None:
    program = f"""{JUMPS}
for days in (0, 2, -3, 0):
    jump(days)
    print(*{{ask(n) for n in range(50)}} == set(range(50)) and [days])
"""
    output, errors = run(program, tmp_path / "log", "-W", "error", env=clock)
    assert (output.split(), errors) == (["0", "2", "-3", "0"], "")
    log = UsageLog(tmp_path / "log")
    found = log.operations()
    assert (len(found), len({each.operation_id for each in found})) == (200, 200)
    assert [*Counter(each.timestamp.date() for each in found).values()] == [50, 100, 50]
    assert found == sorted(found, key=lambda each: (each.timestamp, each.operation_id))
    assert all(0 <= each.duration_seconds < 1 for each in found)
    told = {each.check: each for each in log.doctor()}["clock"]
    assert (told.level, told.details["count"] > 0) == ("problem", True)
    log.compact(all=True)
    assert log.operations() == found


@pytest.mark.parametrize("days", [2, -2])
def test_a_call_during_which_the_clock_jumps_lasts_as_long_as_it_did(
    days: int, clock: dict[str, str], tmp_path: Path
) -> None:
    program = f"""{JUMPS}
@tracked(service="s")
def around(): jump({days})
around()
with track("killed", service="s"):
    jump({-days})
    print([each.duration_seconds >= 0 for each in UsageLog().running()], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    output, _ = run(program, tmp_path / "log", env=clock)
    assert output == "[True]"
    found = {each.operation: each for each in UsageLog(tmp_path / "log").operations()}
    assert 1 <= found["around"].duration_seconds < 30
    assert found["killed"].outcome == "interrupted"
    assert found["killed"].duration_seconds >= 0


# hosts and containers that share a directory


def test_two_hosts_that_share_a_directory_write_segments_of_their_own(tmp_path: Path) -> None:
    program = "for n in range(2_000): ask()\nos.kill(os.getpid(), signal.SIGKILL)"
    several = [start(program, tmp_path, under=host(name)) for name in ("alpha", "beta") * 2]
    for each in several:
        each.communicate(timeout=60)
    names = sorted(path.name for path in (tmp_path / "journal").iterdir())
    assert [name[11:] for name in names] == ["alpha-0001.jsonl", "beta-0001.jsonl"]
    log = UsageLog(tmp_path)
    found = log.operations()
    assert (len(raw_ids(tmp_path)), len(found), log.skipped_count) == (8_000, 8_000, 0)
    assert len({each.session_id for each in found}) == 1


@pytest.mark.parametrize("names", [("alpha", "beta"), ("alpha", "alpha")], ids=" and ".join)
def test_containers_with_one_process_number_are_told_apart_by_their_run_locks(
    names: tuple[str, str], tmp_path: Path
) -> None:
    log = UsageLog(tmp_path)
    both = [start(HANG, tmp_path, under=host(name, "-p", "-f", "--kill-child")) for name in names]
    for each in both:
        assert each.stdout is not None
        assert each.stdout.readline() == "in flight\n"
    running = log.running()
    assert [each.pid for each in running] == [1, 1]
    assert log.compact(all=True).segments == 0  # what runs is not compacted
    end(both[0], log)
    interrupted = log.operations()
    assert [each.outcome for each in interrupted] == ["interrupted"]
    assert [each.operation_id for each in log.running()] == [
        each.operation_id for each in running if each.operation_id != interrupted[0].operation_id
    ]
    end(both[1], log)
    ended = log.operations()
    log.compact(all=True)
    assert [each.outcome for each in ended] == ["interrupted", "interrupted"]
    assert (log.operations(), log.running()) == (ended, [])


def test_a_process_number_that_is_used_again_brings_nothing_back(tmp_path: Path) -> None:
    container = host("alpha", "-p", "-f", "--kill-child")
    run("tracked(service='s')(os._exit)(1)", tmp_path, under=container)
    log = UsageLog(tmp_path)
    (before,) = log.operations()
    assert (before.outcome, before.pid) == ("interrupted", 1)
    with start(f"ask()\n{HANG}", tmp_path, under=container) as again:
        assert again.stdout is not None
        again.stdout.readline()
        assert [(each.operation, each.pid) for each in log.running()] == [("hang", 1)]
        assert log.operations(outcome="interrupted") == [before]
        end(again, log)
    assert [each.outcome for each in log.operations()] == ["interrupted", "ok", "interrupted"]


def test_64_processes_that_start_at_once_agree_and_lose_nothing(tmp_path: Path) -> None:
    program = """
        barrier, go = os.pipe()
        for n in range(64):
            if os.fork() == 0:
                os.close(go)
                os.read(barrier, 1)
                for n in range(50): ask()
                os._exit(0)
        os.close(go)
        print({os.wait()[1] for n in range(64)})
        """
    assert run(program, tmp_path) == ("{0}", "")
    log = UsageLog(tmp_path)
    found = log.operations()
    assert (len(raw_ids(tmp_path)), log.skipped_count) == (3_200, 0)
    assert len({each.operation_id for each in found}) == 3_200
    assert Counter(each.pid for each in found).most_common()[-1][1] == 50
    assert len({each.session_id for each in found}) == 1


# directories that cannot be written to, or are gone

AFTER_THE_FAULT = """
print(lost_count(), len(told))
health = UsageLog().health()
print(health.dropped_count, health.dropped_in_log_count)
"""
TOLD = """
from instrument.recorder import lost_count
told = []
warnings.showwarning = lambda message, *rest: told.append(message)
log_dir = Path(os.environ["INSTRUMENT_DIR"])
"""


def test_a_file_system_that_was_read_only_is_written_to_again(tmp_path: Path) -> None:
    mounts = namespace("-m")
    log_dir = tmp_path / "log"
    run("ask()", log_dir)
    program = f"""{TOLD}
def mount(*options): assert os.spawnvp(os.P_WAIT, "mount", ["mount", *options, str(log_dir)]) == 0
mount("--bind", str(log_dir))
mount("-o", "remount,ro,bind")
print([ask(n) for n in range(3)], len(UsageLog().operations()))
mount("-o", "remount,rw,bind")
same_second()
ask()
{AFTER_THE_FAULT}
"""
    output, errors = run(program, log_dir, "-W", "always", under=mounts)
    assert (output.splitlines(), errors) == (["[0, 1, 2] 1", "3 1", "3 3"], "")
    assert [each.outcome for each in UsageLog(log_dir).operations()] == ["ok", "ok"]


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_a_directory_that_vanished_and_came_back_has_all_but_what_was_counted(
    user: str, open_to_all: Path
) -> None:
    if user == "nobody" and os.getuid() != 0:
        pytest.skip("drops its privileges")
    program = f"""{TOLD}
{"os.setuid(65_534)" if user == "nobody" else ""}
print([ask(n) for n in range(4)])
log_dir.rename(log_dir.with_name("elsewhere"))
log_dir.touch()
same_second()
print([ask(n) for n in range(3)])
log_dir.unlink()
log_dir.with_name("elsewhere").rename(log_dir)
same_second()
ask()
{AFTER_THE_FAULT}
"""
    output, errors = run(program, open_to_all / "log", "-W", "always")
    assert (output.splitlines(), errors) == (["[0, 1, 2, 3]", "[0, 1, 2]", "3 1", "3 3"], "")
    assert len(UsageLog(open_to_all / "log").operations()) == 5


@pytest.mark.skipif(os.getuid() != 0, reason="drops its privileges")
def test_modes_that_shut_a_user_out_for_a_while_cost_what_is_counted(open_to_all: Path) -> None:
    program = f"""{TOLD}
os.setuid({NOBODY})
print([ask(n) for n in range(4)])
log_dir.chmod(0)
same_second()
print([ask(n) for n in range(3)])
log_dir.chmod(0o700)
same_second()
ask()
{AFTER_THE_FAULT}
"""
    output, errors = run(program, open_to_all / "log", "-W", "always")
    assert (output.splitlines(), errors) == (["[0, 1, 2, 3]", "[0, 1, 2]", "3 1", "3 3"], "")
    assert len(UsageLog(open_to_all / "log").operations()) == 5


# what is on the disk when a call returns


def test_fsync_durability_syncs_each_line_before_the_call_returns(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    tracer = (needed("strace"), "-f", "-y", "-o", str(trace), "-e", "trace=write,fsync")
    program = """
        configure(durability="fsync")
        for n in range(3):
            ask()
            os.write(1, b"returned\\n")
        """
    output, _ = run(program, tmp_path / "log", under=tracer)
    if not output:
        pytest.skip("strace may not trace here")
    calls = re.findall(r"(write|fsync)\(\d+<([^>]*)>", trace.read_text())
    seen = [
        "returned" if name == "write" and not path.endswith(".jsonl") else name
        for name, path in calls
        if path.endswith(".jsonl") or "pipe:" in path
    ]
    line = ["write", "fsync"]
    assert seen == [*line, *line, "returned", *line, "returned", *line, "returned"]


# the end of the interpreter


def test_what_is_called_while_the_interpreter_ends_is_recorded(tmp_path: Path) -> None:
    program = """
        import atexit
        def told(operation, call=ask, write=os.write):
            call()
            write(1, b"+")
        class AsksWhenItGoes:
            def __del__(self, told=told): told("gone")
        atexit.register(told, "registered before the first call")
        ask()
        atexit.register(told, "registered after it")
        threading.Thread(target=lambda: [time.sleep(0.1), told("no daemon")]).start()
        module_global = AsksWhenItGoes()
        sys.modules["kept"] = AsksWhenItGoes()
        cycle = AsksWhenItGoes(); cycle.itself = cycle
        """
    assert run(program, tmp_path, "-W", "always") == ("++++++", "")
    assert [each.outcome for each in UsageLog(tmp_path).operations()] == ["ok"] * 7


def test_daemon_threads_record_what_returns_until_the_interpreter_stops_them(
    tmp_path: Path,
) -> None:
    program = """
        begun = threading.Semaphore(0)
        def work(write=os.write):
            while True:
                ask(); write(1, b"+")
                begun.release()
        for n in range(4): threading.Thread(target=work, daemon=True).start()
        for n in range(400): begun.acquire()
        """
    for _ in range(5):
        output, errors = run(program, tmp_path, "-W", "always")
        assert (len(output) >= 400, errors) == (True, "")
        lines = raw_lines(tmp_path)
        assert all(each.endswith(b"}") for each in lines)
        # a thread may be stopped between its line and what it says of it
        assert 0 <= len(raw_ids(tmp_path)) - len(output) <= 4
        shutil.rmtree(tmp_path / "journal")


@pytest.mark.parametrize("end", ["raise RuntimeError", "sys.exit(3)", "os.abort()"])
def test_however_a_program_ends_what_had_returned_is_on_record(end: str, tmp_path: Path) -> None:
    run(f"for n in range(100): ask()\n{end}", tmp_path)
    assert len(UsageLog(tmp_path).operations()) == 100
