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


def test_a_signal_is_handed_on_to_the_command(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "instrument", "run", "-q", "--", "sh", "-c", "echo go; sleep 60"],
        env={**os.environ, "INSTRUMENT_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == "go\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 128 + signal.SIGTERM
    (found,) = UsageLog(tmp_path).operations()
    assert (found.outcome, found.error_message) == ("error", "exit code -15")
