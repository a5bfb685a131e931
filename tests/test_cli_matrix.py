"""Every command under every condition: its width, its letters, its exit code and its keys."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_sample import OPERATIONS, OTHER, write_sample
from log_writing import begin, entered, held, write
from log_writing import operation as logged
from msgspec.structs import replace
from rich.cells import cell_len

from instrument.cli.layout import View
from instrument.cli.render_lists import render_running
from instrument.cli.shell import run
from instrument.operation import Operation, SessionStats, SummaryRow

GOLDEN = Path(__file__).parent / "golden"
READERS = (
    ("sessions", "--utc"),
    ("show", "--utc"),
    ("stats", "--utc"),
    ("stats", "@all", "--by", "day,service", "--plot", "--utc"),
    ("stats", "--by", "session,operation,outcome", "--utc"),
    ("diff", OTHER, "--utc"),
    ("daily", "--utc"),
    ("weekly", "--by", "service,model", "--utc"),
    ("monthly", "--utc"),
    ("errors", "--utc"),
    ("running", "--utc"),
    ("tail", "--utc"),
    ("budget", "--utc"),
    ("sql", "select * from operations order by timestamp, operation_id", "--utc"),
    ("sql", "select model, sum(tokens) as tokens from operations group by all order by all"),
)
CONDITIONS = (
    {"COLUMNS": "60"},
    {"COLUMNS": "80"},
    {"COLUMNS": "200"},
    {"COLUMNS": "60", "TERM": "dumb"},
    {"COLUMNS": "80", "LC_ALL": "C"},
    {"COLUMNS": "80", "NO_COLOR": "1"},
    {},
)
HELPED = (
    *dict.fromkeys(each[0] for each in READERS),
    "export",
    "import-log",
    "where",
    "completion",
    "demo",
)
WITHOUT_LOG = ("where", "completion", "import-log", "demo")
NEEDS_A_SESSION = ("show", "stats", "diff")
KEYS_OF_LINES = {
    "sessions": SessionStats,
    "daily": SummaryRow,
    "weekly": SummaryRow,
    "monthly": SummaryRow,
    "errors": Operation,
    "running": Operation,
    "tail": Operation,
    "export": Operation,
}


class Shell:
    """Runs commands in this process, in a given environment."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], log: Path
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self._log = log
        for name in ("COLUMNS", "TERM", "LC_ALL", "NO_COLOR", "PAGER"):
            monkeypatch.delenv(name, raising=False)
        self.environ(TERM="xterm-256color", LANG="C.UTF-8")

    def environ(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        takes_log = arguments[0] not in WITHOUT_LOG and "--help" not in arguments
        code = run([*arguments, *(["--dir", str(self._log)] if takes_log else [])])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return Shell(monkeypatch, capsys, write_sample(tmp_path / "log"))


@pytest.fixture
def empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
@pytest.mark.parametrize("arguments", READERS, ids=" ".join)
def test_no_command_prints_wider_than_the_terminal_or_letters_it_lacks(
    shell: Shell, arguments: tuple[str, ...], condition: dict[str, str]
) -> None:
    shell.environ(**condition)
    code, out, err = shell(*arguments)
    width = int(condition.get("COLUMNS", "80"))
    assert (code, [line for line in out.splitlines() if cell_len(line) > width]) == (0, [])
    assert "\x1b" not in out
    assert out.isascii() or "LC_ALL" not in condition
    assert err == ("nothing is running\n" if arguments[0] == "running" else "")


@pytest.mark.parametrize("width", ["60", "80", "200"])
def test_every_command_prints_the_golden_text(shell: Shell, width: str) -> None:
    shell.environ(COLUMNS=width)
    shown = "\n".join(f"$ instrument {' '.join(each)}\n{shell(*each)[1]}" for each in READERS)
    assert shown == (GOLDEN / f"commands_{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", HELPED)
def test_help_is_the_golden_text(shell: Shell, name: str) -> None:
    shell.environ(COLUMNS="80")
    golden = (GOLDEN / f"help_{name}.txt").read_text(encoding="utf-8")
    assert shell(name, "--help") == (0, golden, "")
    assert "instrument " in golden.partition("Examples:")[2] or name in ("demo", "completion")


@pytest.mark.parametrize("arguments", READERS, ids=" ".join)
def test_an_empty_log_is_no_fault_unless_a_session_is_asked_for(
    empty: Shell, arguments: tuple[str, ...]
) -> None:
    code, out, err = empty(*arguments)
    assert code == (2 if arguments[0] in NEEDS_A_SESSION else 0)
    assert err.count("\n") <= 1
    assert len(out.splitlines()) <= 1


@pytest.mark.parametrize("name", KEYS_OF_LINES)
def test_json_lines_have_the_keys_that_help_names(shell: Shell, name: str, tmp_path: Path) -> None:
    write(tmp_path / "log", begin(7))
    with held(tmp_path / "log"):
        code, out, _ = shell(name, "--json")
    found = {tuple(json.loads(line)) for line in out.splitlines()}
    assert (code, found) == (0, {KEYS_OF_LINES[name].__struct_fields__})


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (("show",), ["session", "operations"]),
        (("stats",), ["session", "by", "groups", "budgets"]),
        (("stats", "@all"), ["session", "by", "groups", "budgets"]),
        (("diff", OTHER), ["a", "b", "groups"]),
        (
            ("where",),
            ["log_dir", "why", "exists", "is_writable", "is_recording", "file_count", "bytes"],
        ),
    ],
)
def test_json_documents_have_the_keys_that_help_names(
    shell: Shell, arguments: tuple[str, ...], keys: list[str]
) -> None:
    assert list(json.loads(shell(*arguments, "--json")[1])) == keys


@pytest.mark.parametrize("form", ["csv", "json"])
def test_an_export_to_a_file_is_the_one_to_the_terminal(
    shell: Shell, form: str, tmp_path: Path
) -> None:
    _, printed, _ = shell("export", "--format", form)
    code, out, err = shell("export", "--format", form, "-o", str(tmp_path / "out"))
    assert (code, out, err) == (0, "", "")
    assert (tmp_path / "out").read_text(encoding="utf-8") == printed
    assert printed.count("nightly-report") == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sessions", "--since", "soon"], "'soon': use 30m, 2h, 3d"),
        (["sessions", "--since", "2026-13-01"], "'2026-13-01': use"),
        (["sql", "selec"], "Parser Error"),
        (["sql", "select nope from operations"], "nope"),
        (["sql", ""], "use SELECT"),
        (["tail", "--outcome", "fine"], "'fine' is not one of"),
        (["stats", "--by", "colour"], "'colour': use each at most once, of service"),
        (["export", "--format", "parquet"], "Parquet needs a file"),
        (["export", "-o", "/nowhere/at/all.csv"], "/nowhere"),
        (["stats", "@all", "--service", "none"], "no operations in the log that fit"),
        (["diff", "@last", "@first"], "no session '@first'"),
        (["import-log", "/nowhere.jsonl"], "/nowhere.jsonl"),
    ],
)
def test_bad_input_is_told_in_one_line_that_says_what(
    shell: Shell, arguments: list[str], said: str
) -> None:
    code, out, err = shell(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.parametrize("arguments", READERS, ids=" ".join)
def test_a_log_of_a_newer_format_is_told_with_its_cure(
    shell: Shell, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path / "log", logged(1, v=2))
    code, out, err = shell(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is of format 2" in err
    assert "pip install -U" in err


@pytest.mark.parametrize("width", [60, 80, 200])
def test_running_operations_keep_their_session_at_any_width(width: int) -> None:
    running = replace(OPERATIONS[-1], pid=4_194_304, duration_seconds=7_265.0)
    lines = [line.plain for line in render_running([running], View(width=width))]
    assert all(cell_len(line) <= width for line in lines)
    assert running.session_id in lines[1]


@pytest.mark.parametrize("width", ["60", "80"])
@pytest.mark.parametrize("arguments", [each for each in READERS if each[0] != "diff"], ids=" ".join)
def test_names_of_any_length_and_script_fit(
    empty: Shell, arguments: tuple[str, ...], width: str, tmp_path: Path
) -> None:
    names = ("x" * 100_000, "漢字" * 5_000, "\x1b[31m\u202e" * 100, "")
    for number, name in enumerate(names):
        keys = {"service": name, "operation": name, "model": name, "session_id": f"s{name}"}
        failure = {"success": False, "error_type": name, "error_message": name}
        write(tmp_path, logged(number, session_name=name, **keys, **failure))
        write(tmp_path, entered("child", parent_session_id=f"s{name}"))
    empty.environ(COLUMNS=width)
    code, out, _ = empty(*arguments)
    assert (code, [line for line in out.splitlines() if cell_len(line) > int(width)]) == (0, [])
    assert all(line.isprintable() for line in out.splitlines())


def test_skipped_lines_are_counted_and_named_by_file_and_offset(
    shell: Shell, tmp_path: Path
) -> None:
    path = write(tmp_path / "log", b"nonsense\n", logged(1), name="2026-11-25-host-0001.jsonl")
    assert shell("sessions")[2] == "instrument: skipped 1 damaged line; -v names them\n"
    assert f"  {path}, byte 0: not JSON\n" in shell("sessions", "-v")[2]


def test_a_directory_a_pipe_and_a_circle_of_links_are_passed_over(
    shell: Shell, tmp_path: Path
) -> None:
    journal = tmp_path / "log" / "journal"
    (journal / "a.jsonl").mkdir()
    os.mkfifo(journal / "b.jsonl")
    (journal / "c.jsonl").symlink_to("c.jsonl")
    (journal / "d.jsonl").symlink_to("/nowhere/d.jsonl")
    code, out, err = shell("sessions", "--json")
    assert (code, len(out.splitlines()), err) == (0, 2, "")
