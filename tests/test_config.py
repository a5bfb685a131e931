"""What `configure` and the environment accept, and what they say about the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child import run

from instrument import ConfigurationError, UsageLog, configure, tracked
from instrument.testing import capture

WRONG_TYPES: list[tuple[str, Any, str]] = [
    ("log_dir", 5, "a path as text or a pathlib.Path"),
    ("log_dir", b"log", "a path as text or a pathlib.Path"),
    ("enabled", 1, "True or False"),
    ("enabled", "yes", "True or False"),
    ("durability", 1, "'call' or 'fsync'"),
    ("session_timeout_seconds", "60", "a number of seconds above 0"),
    ("session_timeout_seconds", True, "a number of seconds above 0"),
    ("error_messages", "no", "True or False"),
    ("redact", "password", "a callable (field, value) -> value or None"),
    ("propagate_threads", 0, "True or False"),
    ("max_bytes", 1.5, "a number of bytes above 0"),
    ("max_bytes", True, "a number of bytes above 0"),
]
WRONG_VALUES: list[tuple[str, Any, str]] = [
    ("log_dir", "", "the path of a directory"),
    ("log_dir", "a\0b", "the path of a directory"),
    ("log_dir", "\ud800", "the absolute path of a directory"),
    ("log_dir", "~no-such-user/log", "the absolute path of a directory"),
    ("durability", "maybe", "'call' or 'fsync'"),
    ("session_timeout_seconds", 0, "a number of seconds above 0"),
    ("session_timeout_seconds", -1.0, "a number of seconds above 0"),
    ("session_timeout_seconds", float("nan"), "a number of seconds above 0"),
    ("session_timeout_seconds", float("inf"), "a number of seconds above 0"),
    ("session_timeout_seconds", 10**400, "a number of seconds above 0"),
    ("max_bytes", 0, "a number of bytes above 0"),
    ("max_bytes", -1, "a number of bytes above 0"),
]


@pytest.fixture(autouse=True)
def settings_of_its_own() -> Iterator[None]:
    """What a test configures is over with it."""
    with capture():
        yield


@pytest.mark.parametrize(("name", "value", "accepted"), WRONG_TYPES + WRONG_VALUES)
def test_a_bad_value_is_told_with_its_name_and_what_is_accepted(
    name: str, value: Any, accepted: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configure(**{name: value})
    assert (caught.value.name, caught.value.accepted) == (name, accepted)
    assert str(caught.value).endswith(f": use {accepted}")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError) == ((name, value, accepted) in WRONG_TYPES)


def test_an_unknown_argument_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match="unknown argument verbose=1: use one of log_dir,"):
        configure(verbose=1)


def test_what_a_capture_is_given_is_checked_as_well() -> None:
    for given in ({"durability": "maybe"}, {"verbose": True}):
        with pytest.raises(ConfigurationError), capture(**given):
            pass


def test_a_refused_call_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        configure(log_dir=tmp_path, max_bytes=0)
    assert UsageLog().paths != (tmp_path,)


def test_settings_hold_from_the_next_operation_on(tmp_path: Path) -> None:
    program = """
        ask()
        configure(enabled=False)
        with session("work"): ask()
        configure(enabled=True, log_dir=os.environ["INSTRUMENT_DIR"] + "-2")
        ask()
        """
    run(program, tmp_path / "log")
    counts = [len(UsageLog(tmp_path / name).operations()) for name in ("log", "log-2")]
    assert counts == [1, 1]


def test_arguments_come_before_the_environment(tmp_path: Path) -> None:
    program = f"configure(log_dir={str(tmp_path / 'given')!r})\nask()"
    assert run(program, tmp_path / "environment") == ("", "")
    assert [each.name for each in tmp_path.iterdir()] == ["given"]


def test_a_relative_directory_stays_where_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    run("ask()\nos.chdir('elsewhere')\nask()", Path("log"), cwd=tmp_path)
    assert len(UsageLog(tmp_path / "log").operations()) == 2


TOLD = """
told = []
warnings.showwarning = lambda message, *rest: told.append(str(message))
"""


def test_a_bad_durability_is_told_once_and_the_other_variables_hold(tmp_path: Path) -> None:
    output, _ = run(
        f"{TOLD}ask(); ask()\nprint(told)", tmp_path, env={"INSTRUMENT_DURABILITY": "x"}
    )
    assert output == str(["INSTRUMENT_DURABILITY='x': use 'call' or 'fsync'; the default is used"])
    assert len(UsageLog(tmp_path).operations()) == 2


def test_a_bad_directory_in_the_environment_is_told_and_the_default_used(tmp_path: Path) -> None:
    changes = {"INSTRUMENT_DIR": "~no-such-user/log", "XDG_STATE_HOME": str(tmp_path)}
    program = f"{TOLD}print(ask(1), UsageLog().paths[0].parent, len(told))"
    assert run(program, tmp_path, env=changes)[0] == f"1 {tmp_path} 1"


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_disabled_when_decorating_gives_the_function_itself(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function() -> None: ...

    monkeypatch.setenv("INSTRUMENT_DISABLED", value)
    assert tracked(service="s")(function) is function


def test_disabled_creates_no_file_and_sessions_still_work(tmp_path: Path) -> None:
    program = """
        with session("work", id="abc") as work, track("block", service="s") as block:
            ask(); block.add_usage(input_tokens=1); print(work.id)
        """
    assert run(program, tmp_path / "log", env={"INSTRUMENT_DISABLED": "1"}) == ("abc", "")
    assert list(tmp_path.iterdir()) == []


def test_importing_and_reading_create_nothing(tmp_path: Path) -> None:
    assert run("print(UsageLog().operations())", tmp_path / "log") == ("[]", "")
    assert list(tmp_path.iterdir()) == []


def homeless(tmp_path: Path, **more: str) -> dict[str, str | None]:
    changes = {"HOME": "/dev/null/home", "TMPDIR": str(tmp_path), "INSTRUMENT_DIR": None}
    return {**changes, "XDG_STATE_HOME": None, **more}


WHERE = f"{TOLD}ask(); ask()\nprint(UsageLog().paths[0], len(UsageLog().operations()), len(told))"


def test_without_a_state_directory_the_log_is_in_the_temporary_one(tmp_path: Path) -> None:
    output, errors = run(WHERE, tmp_path, env=homeless(tmp_path), cwd=tmp_path)
    fallback = tmp_path / f"instrument-{os.getuid()}"
    assert (output, errors) == (f"{fallback} 2 1", "")
    assert [each.name for each in tmp_path.iterdir()] == [fallback.name]
    assert fallback.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="becomes a user that does not exist")
def test_a_user_without_a_home_gets_a_log_of_its_own(tmp_path: Path) -> None:
    program = f"""
import tempfile
os.setuid(54321)
with tempfile.TemporaryDirectory() as place:
    os.chdir(place)
    os.environ["TMPDIR"] = place
    {WHERE.replace(chr(10), chr(10) + "    ")}
    print(os.listdir(place))
"""
    output, errors = run(program, tmp_path, env=homeless(tmp_path) | {"HOME": None})
    assert (output.split(maxsplit=1)[1], errors) == ("2 1\n['instrument-54321']", "")


def test_where_nothing_can_be_written_at_all_calls_go_on(tmp_path: Path) -> None:
    program = f"{TOLD}print(ask(1), ask(2), len(told))"
    nowhere = homeless(tmp_path, TMPDIR="/dev/null")
    assert run(program, tmp_path, env=nowhere) == ("1 2 1", "")


@pytest.mark.parametrize("relative", ["state", "~/state"])
def test_a_relative_state_directory_is_not_used(relative: str, tmp_path: Path) -> None:
    output, _ = run(WHERE, tmp_path, env=homeless(tmp_path, XDG_STATE_HOME=relative), cwd=tmp_path)
    assert output == f"{tmp_path}/instrument-{os.getuid()} 2 1"


ATTACKS = {
    "symlink": "fallback.symlink_to(fallback.with_name('victim'))",
    "open to others": "fallback.mkdir(); fallback.chmod(0o777)",
    "file": "fallback.touch()",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_a_temporary_directory_that_others_reach_is_not_used(attack: str, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    fallback = f"Path({str(tmp_path)!r}, 'instrument-{os.getuid()}')"
    program = f"{TOLD}fallback = {fallback}\n{attack}\nprint(ask(1), len(told))"
    assert run(program, tmp_path, env=homeless(tmp_path)) == ("1 1", "")
    assert [each for each in tmp_path.rglob("*") if each.suffix] == []
