"""The command line beside shells, terminals, pagers and writers: real processes all."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import child
import pytest
from cli_sample import OTHER, SESSION, write_sample
from log_writing import encoded, operation, write

INSTRUMENT = (sys.executable, "-m", "instrument")
ROWS = 10


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_sample(tmp_path / "log")


def environment(log: Path, **changes: str) -> dict[str, str]:
    kept = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "TZ": "UTC", "LANG": "C.UTF-8"}
    return kept | {"INSTRUMENT_DIR": str(log)} | changes


def on_terminal(log: Path, *command: str, keys: bytes = b"", **changes: str) -> tuple[int, str]:
    """Run a command on a terminal of a few lines; return its exit code and what is seen."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe(command[0], command, environment(log, **changes))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, 80, 0, 0))
    seen = b""
    with open(terminal, "rb", buffering=0) as screen:
        while chunk := _read(screen.fileno()):
            seen += chunk
            if (keys and b"\x1b[?1h" in seen) or (keys and seen.endswith(b"\x1b[m")):
                os.write(terminal, keys)
                keys = b""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), seen.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when the other side is closed
        return b""


@contextmanager
def tail(log: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`instrument tail -f` once it follows, for it has printed what was there."""
    with subprocess.Popen(
        [*INSTRUMENT, "tail", "-f", "--json", *arguments],
        env=environment(log),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def next_id(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(json.loads(process.stdout.readline())["operation_id"], 16)


# pager


@pytest.mark.parametrize("pager", ["cat", "false", "", "/nowhere/at/all", "exit 3"])
def test_long_output_is_seen_whatever_the_pager_does(log: Path, pager: str) -> None:
    code, seen = on_terminal(log, *INSTRUMENT, "stats", PAGER=pager)
    assert (code, seen.count("RateLimitError"), "Traceback" in seen) == (0, 1, False)


def test_long_output_goes_through_the_pager_and_short_does_not(log: Path) -> None:
    assert "|name " in on_terminal(log, *INSTRUMENT, "stats", PAGER="sed s/^/\\|/", NO_COLOR="1")[1]
    assert "|" not in on_terminal(log, *INSTRUMENT, "errors", PAGER="sed s/^/\\|/")[1]


@pytest.mark.parametrize("option", ["--no-pager", "--json"])
def test_no_pager_where_none_is_wanted(log: Path, option: str) -> None:
    assert "|" not in on_terminal(log, *INSTRUMENT, "stats", option, PAGER="sed s/^/\\|/")[1]


def test_a_pager_that_is_left_at_once_is_no_fault(log: Path) -> None:
    journal = next((log / "journal").iterdir())
    line = journal.read_bytes().splitlines()[-1]
    many = (line.replace(b"0000000000000005", b"%016x" % n) for n in range(100, 5_000))
    journal.write_bytes(b"\n".join([*many, b""]))
    code, seen = on_terminal(log, *INSTRUMENT, "show", "--all", PAGER="head -1")
    shown = seen.rpartition("\x1b[2K")[2]  # without the sign of life, which was erased again
    assert (code, shown.count("\n")) == (0, 1)


@pytest.mark.skipif(shutil.which("less") is None, reason="less is not installed")
def test_less_is_left_with_q(log: Path) -> None:
    code, seen = on_terminal(log, *INSTRUMENT, "stats", keys=b"q")
    assert (code, "nightly-report" in seen, "RateLimitError" in seen) == (0, True, False)


def test_without_less_long_output_is_printed(log: Path) -> None:
    code, seen = on_terminal(log, *INSTRUMENT, "stats", PATH="/nowhere")
    assert (code, seen.count("RateLimitError")) == (0, 1)


# signs of life


WAITING = """
import sys, time
from instrument.cli.progress import Waiting
waiting = Waiting("reading the log (4.2 GB)", ascii_only=True, colour=False)
waiting.start()
time.sleep(float(sys.argv[1]))
waiting.stop()
print("answer")
"""


def test_after_a_second_a_terminal_sees_what_is_waited_for_until_the_answer(log: Path) -> None:
    code, seen = on_terminal(log, sys.executable, "-c", WAITING, "1.3")
    assert code == 0
    assert "reading the log (4.2 GB)" in seen
    assert seen.endswith("\x1b[2Kanswer\r\n")


@pytest.mark.parametrize(("seconds", "terminal"), [("0.1", "xterm"), ("1.3", "dumb")])
def test_a_quick_answer_and_a_dumb_terminal_come_without_it(
    log: Path, seconds: str, terminal: str
) -> None:
    seen = on_terminal(log, sys.executable, "-c", WAITING, seconds, TERM=terminal)[1]
    assert seen == "answer\r\n"


# tail -f


def test_tail_follows_a_writer_through_torn_lines_rotation_and_new_files(log: Path) -> None:
    line = encoded(operation(12))
    with tail(log, "-n", "1") as process:
        assert next_id(process) == 5
        write(log, operation(11), line[:40])
        assert next_id(process) == 11
        write(log, line[40:])
        assert next_id(process) == 12
        write(log, operation(13), name="2026-11-25-host-0001.jsonl")
        assert next_id(process) == 13


def test_tail_follows_a_program_that_records(log: Path) -> None:
    with (
        tail(log, "--service", "s") as process,
        child.start("input(); ask('now'); input()", log) as program,
    ):
        assert program.stdin is not None
        assert process.stdout is not None
        time.sleep(1.0)  # tail has nothing to print by which to tell that it follows
        program.stdin.write("\n")
        program.stdin.flush()
        assert json.loads(process.stdout.readline())["operation"] == "ask"
        program.communicate("\n")


def test_tail_ends_silently_with_130_on_ctrl_c(log: Path) -> None:
    with tail(log, "-n", "1") as process:
        assert next_id(process) == 5
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == 130


def test_tail_ends_silently_when_its_reader_goes(log: Path) -> None:
    with tail(log, "-n", "1") as process:
        assert next_id(process) == 5
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        write(log, operation(11))
        assert (process.wait(timeout=10), process.stderr.read()) == (0, "")


# completion


def completions(log: Path, line: str, **changes: str) -> tuple[int, list[str], str]:
    """What bash is told for a line whose last word is being completed."""
    result = subprocess.run(
        INSTRUMENT,
        env=environment(
            log,
            _INSTRUMENT_COMPLETE="bash_complete",
            COMP_WORDS=line,
            COMP_CWORD=str(line.count(" ")),
            **changes,
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    found = [each.partition(",")[2] for each in result.stdout.split("\n") if each]
    return result.returncode, found, result.stderr


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("instrument sho", ["show"]),
        ("instrument show ", ["@last", SESSION, OTHER]),
        ("instrument show session_17955125", [OTHER]),
        ("instrument stats @", ["@last", "@all"]),
        ("instrument diff @", ["@last"]),
        ("instrument export @", ["@last", "@all"]),
        ("instrument stats --service ", ["openai", "pipeline", "anthropic", "google"]),
        ("instrument errors --model gpt", ["gpt-5-mini"]),
        ("instrument stats --by service,mo", ["service,model", "service,month"]),
        ("instrument tail --outcome p", ["partial"]),
        ("instrument export --format p", ["parquet"]),
        ("instrument completion z", ["zsh"]),
    ],
)
def test_completion_knows_commands_sessions_services_and_keys(
    log: Path, line: str, found: list[str]
) -> None:
    assert completions(log, line) == (0, found, "")


@pytest.mark.parametrize("line", ["instrument show ", "instrument stats --service "])
def test_completion_is_silent_where_there_is_no_log(tmp_path: Path, line: str) -> None:
    code, found, error = completions(tmp_path / "absent", line)
    assert (code, [each for each in found if each != "@last"], error) == (0, [], "")


def test_completion_leaves_out_what_a_shell_cannot_take(log: Path) -> None:
    write(log, operation(1, service="two\nlines"), operation(2, service="x" * 10_000))
    assert len(completions(log, "instrument stats --service ")[1]) == 4


SHELLS = {
    "bash": 'eval "$(instrument completion bash)"; complete -p instrument',
    "zsh": 'autoload -Uz compinit; compinit -u; eval "$(instrument completion zsh)";'
    ' [[ -n "${_comps[instrument]}" ]] && print $_comps[instrument]',
    "fish": "instrument completion fish | source; complete -C 'instrument show session_17955125'",
}


@pytest.mark.parametrize(
    ("shell", "said"),
    [("bash", "_instrument_completion"), ("zsh", "_instrument_completion"), ("fish", OTHER)],
)
def test_a_shell_takes_the_completion_script(log: Path, shell: str, said: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = environment(log, PATH=path, HOME=str(log.parent))
    result = subprocess.run(
        [shell, "-c", SHELLS[shell]], env=variables, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert said in result.stdout
