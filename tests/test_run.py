"""`instrument run`: programs and commands in a session, unchanged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instrument.cli.demo_server import DemoServer
from instrument.log import UsageLog

PROGRAM = """
import sys
from openai import OpenAI
client = OpenAI(max_retries=0)
client.chat.completions.create(model="gpt-5.4", messages=[{"role": "user", "content": "hello"}])
print(sys.argv[1:], __name__, __file__)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with DemoServer() as server:
        yield f"{server.url}/v1"


def run(
    place: Path, *arguments: str, url: str = "", **options: object
) -> subprocess.CompletedProcess[str]:
    named = {"INSTRUMENT_DIR": str(place / "log"), "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": url}
    return subprocess.run(
        [sys.executable, "-m", "instrument", "run", *arguments],
        env={**os.environ, **named},
        cwd=place,
        capture_output=True,
        text=True,
    )


def program(place: Path, end: str = "") -> str:
    script = place / "program.py"
    script.write_text(PROGRAM + end)
    return str(script)


def test_a_script_runs_as_python_runs_it_with_its_sdks_tracked(tmp_path: Path, url: str) -> None:
    script = program(tmp_path)
    done = run(tmp_path, "--session", "nightly", script, "--month", "11", url=url)
    assert done.stdout == f"['--month', '11'] __main__ {script}\n"
    assert done.returncode == 0
    (stats,) = UsageLog(tmp_path / "log").sessions()
    assert (stats.name, stats.operation_count, stats.services) == ("nightly", 1, ("openai",))
    assert f"instrument show {stats.session_id}" in done.stderr


def test_a_module_gets_all_that_stands_behind_its_name(tmp_path: Path, url: str) -> None:
    program(tmp_path)
    done = run(tmp_path, "-q", "-m", "program", "--help", "-q", url=url)
    assert done.stdout.startswith("['--help', '-q'] __main__")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no')", 1, "no\n"),
        ("raise ValueError('boom')", 1, "ValueError: boom"),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_the_exit_code_is_the_programs_own(
    end: str, code: int, said: str, tmp_path: Path, url: str
) -> None:
    done = run(tmp_path, "-q", program(tmp_path, end), url=url)
    assert done.returncode == code
    assert said in done.stderr
    assert "instrument/cli" not in done.stderr


def test_any_other_command_gets_the_session_by_its_environment(tmp_path: Path, url: str) -> None:
    child = "from instrument import track\nwith track('inside', service='s'): pass"
    done = run(tmp_path, "--", sys.executable, "-c", child)
    assert done.returncode == 0
    command, inside = UsageLog(tmp_path / "log").operations()
    assert (inside.parent_id, inside.session_id) == (command.operation_id, command.session_id)
    assert (command.service, command.success) == ("process", True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["no-such-command"], 127, "no-such-command: no such command"),
        ([], 2, "name a script, a module (-m) or a command"),
        (["-m", "no_such_module"], 2, "no module named no_such_module"),
        (["--id", "not an id", "true"], 2, "session id='not an id'"),
    ],
)
def test_what_cannot_be_run_is_told_with_the_shells_exit_codes(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = run(tmp_path, "-q", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "WINCH"])
def test_a_signal_is_handed_on_to_the_command(tmp_path: Path, name: str) -> None:
    script = f"trap 'exit 42' {name}; echo go; while true; do sleep 0.05; done"
    running = subprocess.Popen(
        [sys.executable, "-m", "instrument", "run", "-q", "--", "sh", "-c", script],
        env={**os.environ, "INSTRUMENT_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == "go\n"
        running.send_signal(getattr(signal, f"SIG{name}"))
        assert running.wait(10) == 42
    (found,) = UsageLog(tmp_path).operations()
    assert (found.outcome, found.error_message) == ("error", "exit code 42")


AFTERWARDS = """
import atexit, os, sys, threading, time, warnings
from instrument import track

warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads

def call(name, seconds=0):
    time.sleep(seconds)
    with track(name, service="s"):
        print(name, file=sys.stderr, flush=True)

atexit.register(call, "at exit")
threading.Thread(target=call, args=("in a thread", 0.3)).start()
if os.fork() == 0:
    atexit.unregister(call)
    sys.exit()
os.wait()
"""


def test_what_a_program_does_at_its_end_is_in_the_session_and_summed_up(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(AFTERWARDS)
    done = run(tmp_path, str(script))
    *names, summary = done.stderr.splitlines()
    assert names == ["in a thread", "at exit"]
    (stats,) = UsageLog(tmp_path / "log").sessions()
    assert stats.operation_count == 2
    assert summary.startswith("instrument: 2 operations")


IN_A_CHILD = """
import multiprocessing, os
from openai import OpenAI

def call():
    messages = [{"role": "user", "content": "hello"}]
    OpenAI(max_retries=0).chat.completions.create(model="gpt-5.4", messages=messages)

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            pool.apply(call)
"""


def test_the_sdks_are_tracked_in_child_processes_of_every_kind(tmp_path: Path, url: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(IN_A_CHILD)
    done = run(tmp_path, str(script), url=url)
    assert done.returncode == 0
    (stats,) = UsageLog(tmp_path / "log").sessions()
    assert (stats.operation_count, stats.services) == (3, ("openai",))


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("exit 0", 126, "cannot be executed: Exec format error"),
        ("#!/no/such/interpreter", 127, "cannot be executed: its interpreter does not exist"),
    ],
)
def test_an_executable_that_cannot_begin_is_told_with_the_shells_exit_codes(
    tmp_path: Path, text: str, code: int, said: str
) -> None:
    command = tmp_path / "command"
    command.write_text(text)
    command.chmod(0o700)
    done = run(tmp_path, "-q", str(command))
    assert (done.returncode, said in done.stderr) == (code, True)
    (found,) = UsageLog(tmp_path / "log").operations()
    assert (found.operation, found.outcome) == ("command", "error")


def test_baggage_and_trace_of_others_go_on_to_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAGGAGE", "userId=alice")
    monkeypatch.setenv("TRACEPARENT", f"00-{'a' * 32}-{'b' * 16}-00")
    done = run(tmp_path, "-q", "sh", "-c", "echo $BAGGAGE $TRACEPARENT")
    (found,) = UsageLog(tmp_path / "log").operations()
    baggage, traceparent = done.stdout.split()
    assert baggage == f"userId=alice,session.id={found.session_id}"
    assert traceparent == f"00-{'a' * 32}-{found.operation_id}-00"
    assert (found.trace_id, found.parent_id) == ("a" * 32, "b" * 16)
