"""The recorder's promise: whatever goes wrong in here, the program does not notice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from child import raw_ids, raw_lines, run

from instrument import UsageLog

TOLD = """
told = []
warnings.showwarning = lambda message, *rest: told.append(str(message))
warnings.simplefilter("always")
from instrument.recorder import lost_count
"""
NOT_WRITABLE = {
    "a file in its place": "log_dir.parent.mkdir(exist_ok=True); log_dir.touch()",
    "a file above it": "log_dir.parent.touch()",
    "another user's": "log_dir.mkdir(parents=True); log_dir.chmod(0o555); os.setuid(65534)",
    "missing, in another user's": "log_dir.parent.mkdir(); os.setuid(65534)",
    "nothing can be opened": """
import resource; warm = len(os.listdir("/dev/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
""",
}
AFTERWARDS = """
results = [ask(n) for n in range(5)]
with session("work"): results.append(ask(5))
print(results == list(range(6)), len(told), lost_count() >= 6, "configure(log_dir=...)" in told[0])
"""
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="drops its privileges")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(each, marks=needs_root if "setuid" in each else ())
        for each in NOT_WRITABLE.values()
    ],
    ids=list(NOT_WRITABLE),
)
def test_a_log_that_cannot_be_written_is_said_once_and_counted(fault: str, tmp_path: Path) -> None:
    log_dir = tmp_path / "above" / "log"
    program = f"{TOLD}log_dir = Path({str(log_dir)!r})\n{fault}\n{AFTERWARDS}"
    assert run(program, log_dir) == ("True 1 True True", "")


@pytest.mark.parametrize("calls", [1, 20])
def test_a_full_disk_is_said_once_and_loses_only_what_does_not_fit(
    calls: int, tmp_path: Path
) -> None:
    program = f"""
import resource
{TOLD}
ask("warm")
(segment,) = segments(os.environ["INSTRUMENT_DIR"])
room = segment.stat().st_size + 100
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
print([ask(n) for n in range({calls})] == list(range({calls})), lost_count(), len(told))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for n in range(3): ask()
"""
    assert run(program, tmp_path) == (f"True {calls} 1", "")
    torn = [line for line in raw_lines(tmp_path) if not line.endswith(b"}")]
    assert (len(raw_ids(tmp_path)), [len(line) for line in torn]) == (4, [100])


@pytest.mark.parametrize("function", ["open", "write", "stat", "mkdir", "listdir"])
def test_a_fake_file_system_that_the_program_puts_in_place_disturbs_nobody(
    function: str, tmp_path: Path
) -> None:
    program = f"""
        def refuse(path, *rest, **more):
            if str(path).startswith({str(tmp_path)!r}) or {function == "write"}:
                raise FileNotFoundError(2, "no such file in here", str(path))
            return real(path, *rest, **more)
        real, os.{function} = os.{function}, refuse
        print(ask(1), ask(2))
        """
    output, errors = run(program, tmp_path / "log")
    assert (output, "Traceback" in errors) == ("1 2", False)


def test_recording_resumes_by_itself_when_the_fault_ends(tmp_path: Path) -> None:
    program = f"""
{TOLD}
log_dir = Path(os.environ["INSTRUMENT_DIR"])
log_dir.touch()
ask()
log_dir.unlink()
same_second()
ask(); ask()
print(lost_count() > 0, len(UsageLog().operations()))
"""
    assert run(program, tmp_path / "log") == ("True 2", "")


def test_a_call_that_cannot_be_recorded_takes_no_noticeable_time(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    program = """
        warnings.simplefilter("ignore")
        ask()
        started = time.perf_counter()
        for n in range(1_000): ask()
        print((time.perf_counter() - started) / 1_000 < 0.000_5)
        """
    assert run(program, tmp_path / "log") == ("True", "")


@pytest.mark.parametrize("flags", [("-W", "error"), ("-W", "error", "-X", "dev")])
def test_under_warnings_as_errors_nothing_reaches_the_program(
    flags: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "log").touch()
    program = "with session('work'): print(ask(1), ask(2))"
    assert run(program, tmp_path / "log", *flags) == ("1 2", "")


@pytest.mark.parametrize(
    "hook",
    [
        "warnings.showwarning = lambda *rest: told.append(untracked())",
        """
class Asks(logging.Handler):
    def emit(self, record): told.append(untracked())
logging.captureWarnings(True)
logging.getLogger("py.warnings").addHandler(Asks())
""",
        "warnings.showwarning = lambda *rest: (told.append(untracked()), 1 / 0)",
    ],
    ids=["showwarning", "log handler", "broken showwarning"],
)
def test_a_hook_for_warnings_that_makes_tracked_calls_does_not_recurse(
    hook: str, tmp_path: Path
) -> None:
    (tmp_path / "log").touch()
    program = f"""
import logging
told = []
untracked = tracked(service="s")(lambda: current_operation() is None)
{hook}
ask(); ask()
print(told)
"""
    assert run(program, tmp_path / "log") == ("[True]", "")


def test_a_fault_during_interpreter_shutdown_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    program = """
        class AsksAtTheEnd:
            def __del__(self): ask()
        sys.modules["kept"] = AsksAtTheEnd()
        """
    assert run(program, tmp_path / "log", "-W", "always") == ("", "")


def test_calls_made_while_the_interpreter_ends_are_recorded(tmp_path: Path) -> None:
    assert run("import atexit\natexit.register(ask)\nask()", tmp_path) == ("", "")
    assert len(UsageLog(tmp_path).operations()) == 2


def test_a_callback_that_fails_is_told_once_and_leaves_the_context_alone(tmp_path: Path) -> None:
    program = f"""
{TOLD}
@tracked(service="s", usage=lambda result: 1 / 0)
def fails(): return current_operation() is not None
print([fails(), fails()], current_operation(), len(told))
"""
    assert run(program, tmp_path) == ("[True, True] None 1", "")
    assert [each.outcome for each in UsageLog(tmp_path).operations()] == ["ok", "ok"]


def test_lines_lost_are_counted_from_zero_in_a_forked_child(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    program = """
        from instrument.recorder import lost_count
        warnings.simplefilter("ignore")
        ask()
        child = os.fork()
        if child: os.wait()
        else: print(lost_count(), flush=True)
        """
    assert run(program, tmp_path / "log") == ("0", "")


def test_what_the_session_id_in_the_environment_lacks_is_said_once(tmp_path: Path) -> None:
    program = f"{TOLD}ask(); ask()\nprint(told)"
    output, _ = run(program, tmp_path, env={"INSTRUMENT_SESSION_ID": "no spaces"})
    cure = "use 1 to 128 characters of [A-Za-z0-9._~:-]"
    assert output == str([f"INSTRUMENT_SESSION_ID='no spaces' is ignored: {cure}"])
