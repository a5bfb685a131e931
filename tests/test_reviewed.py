"""What somebody who met the library for the first time found."""

import subprocess
import sys
from pathlib import Path

import pytest
from child import run

from instrument import InstrumentWarning, configure, session, tracked
from instrument.testing import CapturedOperations, capture


def answer(tokens: int) -> dict[str, object]:
    usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    return {"id": "chatcmpl-7", "object": "chat.completion", "model": "m", "usage": usage}


def test_a_server_that_gives_an_id_out_again_does_not_hide_later_calls(
    capture_operations: CapturedOperations,
) -> None:
    ask = tracked(service="s")(answer)
    with session() as work:
        ask(10)
        ask(20)
        ask(20)
    assert work.stats().total_tokens == 32


def test_stats_of_a_log_that_cannot_be_read_are_empty_and_warned_about(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.touch()
    program = """
with session() as work: ask()
print(work.stats().operation_count, work.operations())
"""
    output, errors = run(program, place)
    assert (output, errors.count("InstrumentWarning")) == ("0 []", 2)


def test_a_session_whose_calls_report_nothing_does_not_speak_of_0_tokens(
    capture_operations: CapturedOperations,
) -> None:
    with session() as work:
        tracked(service="s")(lambda: None)()
    assert str(work.stats()).startswith("1 operation, tokens not reported, 100.0 % success")


def test_a_record_too_long_to_be_read_is_kept_with_its_texts_cut(
    capture_operations: CapturedOperations,
) -> None:
    metadata = {"text": "x" * 9_000_000, "other": "y" * 9_000_000}
    tracked(service="s", metadata=metadata)(answer)(1)
    assert len(capture_operations[0].metadata["text"]) == 200


def test_a_broken_usage_callable_is_named_and_told_once_for_each_function() -> None:
    def broken(result: object) -> int:
        raise ValueError(result)

    first = tracked(service="s", operation="first.of.two", usage=broken)(answer)
    second = tracked(service="s", operation="second.of.two", usage=broken)(answer)
    with capture(), pytest.warns(InstrumentWarning) as warned:
        first(1), second(1), second(1)
    assert [str(each.message).split(" raised")[0] for each in warned] == [
        "usage= of first.of.two",
        "usage= of second.of.two",
    ]


def test_what_configure_says_inside_capture_does_not_lead_to_the_real_log(tmp_path: Path) -> None:
    real = tmp_path / "real"
    program = f"""
from instrument.testing import capture
configure(log_dir={str(real)!r})
with capture() as operations:
    configure(error_messages=False)
    ask()
print(len(operations), os.path.exists({str(real)!r}))
"""
    assert run(program, tmp_path / "log") == ("1 False", "")


def test_operations_can_be_put_into_a_set(capture_operations: CapturedOperations) -> None:
    tracked(service="s")(answer)(1)
    assert len({*capture_operations, *capture_operations}) == 1


def test_the_command_line_is_silent_when_its_output_is_closed(tmp_path: Path) -> None:
    command = f"{sys.executable} -m instrument --help >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_unknown_settings_are_refused_with_what_is_accepted() -> None:
    with pytest.raises(TypeError, match="logdir"):
        configure(logdir="x")
