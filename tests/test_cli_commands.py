"""The commands as a user runs them: options, exit codes, pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path

import pytest
from cli_sample import OPERATIONS, OTHER, SESSION, START, write_sample
from log_writing import at, encoded, write
from log_writing import operation as logged

from instrument.cli.shell import run
from instrument.log import UsageLog
from instrument.operation import Operation, SessionStats

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log directory that holds the sample session, and an older one."""
    return write_sample(tmp_path / "log")


def command(log: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with nothing but `environment` around it."""
    return subprocess.run(
        [sys.executable, "-m", "instrument", *arguments],
        env={"INSTRUMENT_DIR": str(log), "COLUMNS": "80", "TZ": "UTC"} | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def started(number: signal.Signals, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start the command, so that a signal of that number ends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "instrument", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
        # whoever runs the tests in the background ignores it
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )


def wait_for_duckdb(process: subprocess.Popen[bytes]) -> None:
    maps = Path(f"/proc/{process.pid}/maps")
    while maps.exists() and b"duckdb" not in maps.read_bytes():
        time.sleep(0.02)


def on_terminal(log: Path, *arguments: str, **environment: str) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    variables = {"INSTRUMENT_DIR": str(log), "COLUMNS": "80", "TZ": "UTC", "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-m", "instrument", *arguments], stdout=theirs, env=variables | environment
    ):
        os.close(theirs)
        chunks = []
        while chunk := _read(ours):
            chunks.append(chunk)
    os.close(ours)
    return b"".join(chunks).decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when the other side is closed
        return b""


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_show_prints_the_latest_session(log: Path) -> None:
    shown = command(log, "show")
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[0] == f"nightly-report  {SESSION}"
    assert shown.stdout.count("openai title") == 1


@pytest.mark.parametrize(
    "wanted",
    [OTHER, "session_1795512599", "session_1795512599_f", OTHER[:-3] + "…", OTHER[:-3] + "..."],
)
def test_a_session_is_found_by_its_id_or_its_unique_beginning(log: Path, wanted: str) -> None:
    assert command(log, "show", wanted).stdout.startswith("before  ")


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
def test_a_time_at_the_end_of_the_calendar_is_shown_in_every_zone(
    zone: str, tmp_path: Path
) -> None:
    ends = ["0001-01-01T00:00:00Z", at(0), "9999-12-31T23:59:59.999999Z"]
    write(tmp_path, *[logged(number, timestamp=each) for number, each in enumerate(ends)])
    for arguments in (["sessions"], ["tail"], ["show", "work"], ["stats", "@all"]):
        done = command(tmp_path, *arguments, TZ=zone)
        assert (done.returncode, done.stderr) == (0, "")
    days = command(tmp_path, "daily", TZ=zone)
    assert [line.split()[-1] for line in days.stdout.splitlines()[1:]]
    rows = [
        json.loads(line)
        for line in command(tmp_path, "daily", "--json", TZ=zone).stdout.splitlines()
    ]
    assert [row["operation_count"] for row in rows] == [1, 1, 1]


def test_daily_leaves_out_its_bars_before_its_figures(tmp_path: Path) -> None:
    usage = {"model": "gpt-4o-2024-08-06", "tokens": 63_000_000, "input_tokens": 63_000_000}
    write(tmp_path, logged(1, **usage), logged(2, **usage))
    titles = command(tmp_path, "daily", "--by", "service,model").stdout.splitlines()[0].split()
    assert {"calls", "tokens", "cost"} <= {*titles}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "-o", "/nowhere/x.csv"], "there is no such directory: '/nowhere'"),
        (["export", "-o", ""], "Is a directory: '.'"),
        (["demo", "--dir", __file__], "use a directory: this is a file"),
        (["run", "-m"], "name a script, a module (-m) or a command"),
    ],
)
def test_what_cannot_be_used_is_named_as_it_was_given(
    log: Path, arguments: list[str], said: str
) -> None:
    done = command(log, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "unfinished" not in done.stderr


def test_sql_as_json_has_numbers_and_objects(tmp_path: Path) -> None:
    write(tmp_path, logged(1, metadata={"http_status": 429}), logged(2, extra_key={"a": [1]}))
    query = "select metadata, extra, 1.5 as half, 10::decimal(20, 2) as ten, null::json as none"
    done = command(tmp_path, "sql", f"{query} from operations order by timestamp", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"metadata": {"http_status": 429}, "extra": {}, "half": 1.5, "ten": 10.0, "none": None},
        {"metadata": {}, "extra": {"extra_key": {"a": [1]}}, "half": 1.5, "ten": 10, "none": None},
    ]
    odd = """select [1.5, 2.5] as several, {'of': 1.5} as inside, 'NaN'::json as nan,
        '{"a":' || chr(10) || '1}' as text, ('{"a":' || chr(10) || '1}')::json as lines"""
    done = command(tmp_path, "sql", odd, "--json")
    (line,) = done.stdout.splitlines()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name)) == {
        "several": [1.5, 2.5],
        "inside": {"of": 1.5},
        "nan": "NaN",
        "text": '{"a":\n1}',
        "lines": {"a": 1},
    }


def test_show_as_json_is_one_document_of_stable_keys(log: Path) -> None:
    document = json.loads(command(log, "show", "--json").stdout)
    assert list(document) == ["session", "operations"]
    assert tuple(document["session"]) == SessionStats.__struct_fields__
    assert {tuple(one) for one in document["operations"]} == {Operation.__struct_fields__}
    assert [one["outcome"] for one in document["operations"]].count("error") == 1


def test_stats_as_json_sums_up_by_service_and_model(log: Path) -> None:
    document = json.loads(command(log, "stats", "--json").stdout)
    tokens = {(group["service"], group["total_tokens"]) for group in document["groups"]}
    assert list(document) == ["session", "by", "groups", "budgets"]
    assert document["by"] == ["service", "model"]
    assert document["session"]["total_tokens"] == sum(total for _, total in tokens) == 17_058


def test_sessions_as_json_are_one_object_a_line_newest_first(log: Path) -> None:
    lines = command(log, "sessions", "--json").stdout.splitlines()
    assert [json.loads(line)["session_id"] for line in lines] == [SESSION, OTHER]


def test_sessions_lists_no_more_than_asked_for(log: Path) -> None:
    listed = command(log, "sessions", "--limit", "1").stdout
    assert SESSION in listed
    assert OTHER not in listed


def test_several_directories_are_read_as_one_log(log: Path, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    arguments = ("sessions", "--json", "--dir", str(tmp_path / "second"), "--dir", str(log))
    assert len(command(tmp_path, *arguments).stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "nothing-like-it"], "no session 'nothing-like-it'"),
        (["stats", "session_18"], "no session 'session_18'"),
        (["show", "session_17955"], f"several sessions: {SESSION}, {OTHER}"),
        (["show", "--dir", "/nowhere"], "no log in /nowhere: there is no such directory"),
        (["show", "--dir", __file__], "is no directory"),
        (["show", "--dir", ""], "'' names no directory"),
        (["stats", "--what-if", "no-such-model"], "no price is known for 'no-such-model'"),
        (["export", "--format", "parquet", "-o", os.devnull], "is no regular file"),
        (["export", "--format", "parquet", "-o", "-"], "Parquet needs a file"),
        (["shwo"], "No such command 'shwo'"),
        (["show", "--jsno"], "No such option '--jsno'"),
        (["sessions", "--limit", "none"], "'none' is not a valid integer"),
        (["sessions", "--limit", "0"], "0 is not in the range"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_exit_code_2(
    log: Path, arguments: list[str], said: str
) -> None:
    result = command(log, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


@pytest.mark.parametrize("name", ["show", "stats"])
def test_an_empty_log_is_told_in_one_line_with_exit_code_2(tmp_path: Path, name: str) -> None:
    result = command(tmp_path, name)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "instrument demo" in result.stderr


def test_no_log_at_all_is_told_with_its_place(tmp_path: Path) -> None:
    result = command(tmp_path / "absent", "sessions")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert str(tmp_path / "absent") in result.stderr


def test_a_path_that_no_system_takes_is_told_without_a_traceback(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = told(capsys, "show", "--dir", f"{log}\0")
    assert (code, error.count("\n")) == (2, 1)
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        ("1 / 0", 1, "instrument: unexpected ZeroDivisionError: division by zero; run it with"),
        ("signal.raise_signal(signal.SIGINT)", 130, ""),
        ("open('/nowhere/at/all')", 2, "instrument: [Errno 2] No such file or directory"),
    ],
)
def test_a_command_that_fails_ends_without_a_traceback(failure: str, code: int, said: str) -> None:
    program = f"""
import signal, sys, types, click
from instrument.cli import shell
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs this may ignore it
broken = types.ModuleType("instrument.cli.broken")
broken.command = click.Command("broken", callback=lambda: {failure})
sys.modules["instrument.cli.broken"] = broken
shell.COMMANDS["broken"] = ""
sys.exit(shell.run(["broken"]))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (result.returncode, "Traceback" in result.stderr) == (code, False)
    assert result.stderr.strip().startswith(said)


def test_a_closed_pipe_is_silent(log: Path) -> None:
    journal = next((log / "journal").iterdir())
    line = journal.read_bytes().splitlines()[-1]
    many = (line.replace(b"0000000000000005", b"%016x" % n) for n in range(100, 20_000))
    journal.write_bytes(b"\n".join([*many, b""]))
    script = f"{sys.executable} -m instrument show --all | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", script],
        env=dict(os.environ, INSTRUMENT_DIR=str(log)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout.splitlines()[1:], result.stderr) == (["0"], "")


def test_a_full_disk_is_told_in_one_line(log: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    script = f"{sys.executable} -m instrument show > /dev/full"
    result = subprocess.run(
        ["bash", "-c", script],
        env=dict(os.environ, INSTRUMENT_DIR=str(log)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)


def test_a_terminal_gets_colours(log: Path) -> None:
    assert "\x1b[32mok" in on_terminal(log, "show")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_escape_sequences_where_the_environment_says_so(
    log: Path, environment: dict[str, str]
) -> None:
    assert "\x1b" not in on_terminal(log, "show", **environment)


def test_no_escape_sequences_with_no_color(log: Path) -> None:
    assert "\x1b" not in on_terminal(log, "show", "--no-color")


def test_a_dumb_terminal_and_a_pipe_get_the_same_text(log: Path) -> None:
    piped = command(log, "stats").stdout
    assert on_terminal(log, "stats", TERM="dumb").replace("\r\n", "\n") == piped


def test_the_c_locale_gets_ascii_alone(log: Path) -> None:
    shown = command(log, "show", LC_ALL="C").stdout
    assert shown.isascii()
    assert "####" in shown


def test_an_output_that_takes_ascii_alone_gets_it(log: Path) -> None:
    assert command(log, "show", PYTHONIOENCODING="ascii").stdout.isascii()


def test_times_are_local_with_their_zone_and_utc_on_request(log: Path) -> None:
    local = command(log, "show", TZ="Asia/Tokyo").stdout.splitlines()[1]
    utc = command(log, "show", "--utc", TZ="Asia/Tokyo").stdout.splitlines()[1]
    assert (local, utc) == ("2026-11-24 18:30:00 JST", "2026-11-24 09:30:00 UTC")


@pytest.mark.parametrize("zone", ["FAR-14", "UTC0", "WEST+12"])
def test_today_in_utc_is_utcs_day_wherever_the_machine_is(zone: str, tmp_path: Path) -> None:
    midnight = datetime.combine(datetime.now(UTC), time_of_day.min, UTC)
    seconds = (-1, 1)
    stamps = [f"{midnight + timedelta(seconds=each):%Y-%m-%dT%H:%M:%S.%fZ}" for each in seconds]
    write(tmp_path, *(logged(n, timestamp=each) for n, each in enumerate(stamps)))
    for day, count in (("today", 1), ("yesterday", 2)):
        told = command(tmp_path, "export", "--since", day, "--utc", TZ=zone).stdout
        assert told.count("\n") == 1 + count
        # what is local is what it was
        local = command(tmp_path, "export", "--since", day, TZ=zone).stdout
        assert (local == told) or zone != "UTC0"


def test_export_writes_into_what_is_no_file_and_follows_links(log: Path, tmp_path: Path) -> None:
    written = command(log, "export").stdout
    for place in ("-", "/dev/stdout", "/dev/fd/1"):
        assert command(log, "export", "-o", place).stdout == written
    pipe, private, link = (tmp_path / name for name in ("pipe", "private.csv", "link.csv"))
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        assert command(log, "export", "-o", str(pipe)).returncode == 0
        assert reader.communicate(timeout=30)[0] == written
    private.touch(mode=0o600)
    link.symlink_to(private)
    for form in ("csv", "json", "parquet"):
        assert command(log, "export", "--format", form, "-o", str(link)).returncode == 0
        assert (link.is_symlink(), private.stat().st_mode & 0o777) == (True, 0o600)
        assert private.stat().st_size > 100
    assert pipe.is_fifo()
    assert {each.name for each in tmp_path.iterdir()} == {"log", "pipe", "private.csv", "link.csv"}


def test_help_is_given_without_loading_what_commands_need() -> None:
    code = (
        "import sys; from instrument.cli.shell import run; code = run(['--help']);"
        "sys.exit(code or bool({'rich', 'duckdb', 'asyncio'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, b"Commands:" in result.stdout) == (0, True)


def test_the_package_itself_loads_neither_click_nor_rich() -> None:
    code = "import sys, instrument; sys.exit(bool({'click', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_sample_spans_what_its_statistics_say() -> None:
    ends = [one.timestamp + timedelta(seconds=one.duration_seconds) for one in OPERATIONS]
    assert (max(ends) - START).total_seconds() == pytest.approx(1.82)


def test_the_latest_sessions_are_found_in_whatever_order_lines_stand(tmp_path: Path) -> None:
    numbers = list(range(3_000))
    random.Random(7).shuffle(numbers)
    forms = (at, lambda number: at(number).replace("Z", "+00:00"))
    lines = [
        logged(number, session_id=f"s{number % 97}", timestamp=forms[number % 2](number))
        for number in numbers
    ]
    write(tmp_path, *lines[:1_500], name="2026-11-20-host-0001.jsonl")
    write(tmp_path, *lines[1_500:], name="2026-11-20-host-0002.jsonl")
    log = UsageLog(tmp_path)
    assert [log.find_sessions(limit=limit) for limit in (1, 5)] == [
        log.find_sessions()[:limit] for limit in (1, 5)
    ]


def test_ctrl_c_ends_a_compaction_silently(tmp_path: Path) -> None:
    lines = [encoded(logged(n, session_id=f"s{n % 99}")) for n in range(60_000)]
    codes = set()
    for tenths in range(4, 14, 2):
        log_dir = tmp_path / str(tenths)
        write(log_dir, *lines)
        with started(signal.SIGINT, "compact", "--all", "--dir", str(log_dir)) as process:
            wait_for_duckdb(process)
            time.sleep(tenths / 10)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60)[1] == b""
        codes.add(process.returncode)
        assert len(UsageLog(log_dir).operations()) == 60_000
    assert codes <= {0, 130, -signal.SIGINT}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_leaves_nothing_behind(
    number: signal.Signals, tmp_path: Path
) -> None:
    log_dir, scratch = tmp_path / "log", tmp_path / "scratch"
    scratch.mkdir()
    write(log_dir, *(logged(n, session_id=f"s{n % 99}") for n in range(60_000)))
    codes = set()
    for seconds in (0.0, 0.1, 0.2):
        arguments = ("stats", "@all", "--dir", str(log_dir))
        with started(number, *arguments, TMPDIR=str(scratch)) as process:
            while process.poll() is None and not [*scratch.iterdir()]:
                time.sleep(0.005)
            time.sleep(seconds)
            process.send_signal(number)
            assert process.communicate(timeout=60)[1] == b""
        codes.add(process.returncode)
        assert [*scratch.iterdir()] == []
    assert -number in codes
    assert codes <= {0, -number}


def test_ctrl_c_ends_a_query_silently_with_130(log: Path) -> None:
    endless = "select count(*) from range(1_000_000_000_000) where md5(range::varchar) = 'x'"
    with started(signal.SIGINT, "sql", endless, "--dir", str(log)) as process:
        wait_for_duckdb(process)
        time.sleep(1.5)
        for _ in range(20):  # DuckDB looks for one between its steps
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        process.kill()
        assert process.communicate() == (b"", b"")
    assert process.returncode == 130
