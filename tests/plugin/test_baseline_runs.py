"""`--instrument-save`, `-compare`, `-fail` and `-markdown` in real runs of pytest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instrument.pytest_plugin.comparing import METRICS

TESTS = """
import os
import pytest
from instrument import UsageLogger, tracked

TOKENS = int(os.environ.get("TOKENS", "15"))
SECONDS = float(os.environ.get("SECONDS", "1"))

@tracked(service="openai")
def ask(tokens):
    usage = {"prompt_tokens": tokens - 5, "completion_tokens": 5, "total_tokens": tokens}
    return {"object": "chat.completion", "model": "gpt-5", "usage": usage}

def test_asks():
    ask(TOKENS)

def test_asks_twice():
    ask(15)
    ask(15)

def test_takes_long():
    UsageLogger("stripe").log_usage("charge", tokens=None, duration=SECONDS)

def test_calls_nothing():
    open("ran", "w").close()

@pytest.mark.skipif("SKIP" in os.environ, reason="asked for")
def test_may_skip():
    ask(15)

def test_may_fail():
    ask(15)
    assert "FAIL" not in os.environ
"""
FEW = ["-p", "no:hypothesispytest", "-p", "no:anyio", "-p", "no:asyncio", "-p", "no:cov"]
USED = {"tokens": 15, "input_tokens": 10, "output_tokens": 5, "operations": 1, "errors": 0}


class Runs:
    """Runs pytest on a suite of its own."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pytester = pytester
        self._monkeypatch = monkeypatch
        self.path = pytester.path
        monkeypatch.setenv("INSTRUMENT_DIR", str(pytester.path / "log"))
        pytester.makepyfile(test_it=TESTS)
        pytester.makeini("[pytest]")

    def __call__(self, *options: str, **environment: str) -> pytest.RunResult:
        with self._monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return self._pytester.runpytest_subprocess(*FEW, *options)

    def saved(self, name: str = "main") -> dict[str, Any]:
        text = (self.path / ".instrument" / "baselines" / f"{name}.json").read_text()
        tests: dict[str, Any] = json.loads(text)["tests"]
        return tests

    def write(self, text: str) -> None:
        """Write another text as the baseline `main`."""
        directory = self.path / ".instrument" / "baselines"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "main.json").write_text(text)


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(pytester, monkeypatch)


def told(result: pytest.RunResult) -> list[str]:
    """Return the lines of our section of the summary."""
    lines = result.outlines
    begin = next(n for n, line in enumerate(lines) if "instrument: baseline" in line)
    end = next(n for n in range(begin + 1, len(lines)) if lines[n].startswith("==="))
    return lines[begin + 1 : end]


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one process", "xdist"])
def test_a_run_is_saved_and_another_compared_with_it(workers: list[str], run: Runs) -> None:
    assert run(*workers, "--instrument-save", "main").ret == 0
    saved = run.saved()
    assert {name: saved["test_it.py::test_asks"][name] for name in USED} == USED
    assert "test_it.py::test_calls_nothing" not in saved
    assert len(saved) == 5
    limits = ["--instrument-compare", "main", "--instrument-fail", "tokens:+10%,usd:+5%"]
    same, more = run(*workers, *limits), run(*workers, *limits, TOKENS="20")
    assert (same.ret, told(same)[0].split("; ")[-1]) == (0, "no limit exceeded")
    assert more.ret == 1
    assert told(more)[1:5] == [
        "limit exceeded: test_it.py::test_asks",
        "    tokens 15 -> 20, +33.3 %, where +10 % is allowed",
        "limit exceeded: test_it.py::test_asks",
        "    usd $0.0000625 -> $0.00006875, +10.0 %, where +5 % is allowed",
    ]


def test_three_repeats_show_that_calls_became_slower_and_one_does_not(run: Runs) -> None:
    for seconds in ("1", "1.1", "1.2"):
        run("--instrument-save", "main", "-k", "takes_long", SECONDS=seconds)
    assert run.saved()["test_it.py::test_takes_long"]["seconds"] == [1.0, 1.1, 1.2]
    limits = ["-k", "takes_long", "--instrument-compare", "main", "--instrument-fail", "p95:+30%"]
    once = run(*limits, SECONDS="9")
    repeated = run(*limits, "--count", "3", SECONDS="9")
    assert (once.ret, repeated.ret) == (0, 1)
    once.stdout.fnmatch_lines(["  p95 *1.1 s *9 s *+718.2 %  +30 %? too few repeats"])
    repeated.stdout.fnmatch_lines(["    p95 1.1 s -> 9 s, +718.2 %, where +30 % is allowed"])


def test_tests_that_are_new_gone_skipped_and_failed_are_told_apart(run: Runs) -> None:
    run("--instrument-save", "main")
    tests = TESTS.replace("test_asks_twice", "test_asks_again")
    (run.path / "test_it.py").write_text(tests)
    result = run("--instrument-compare", "main", SKIP="1", FAIL="1")
    assert told(result)[0] == (
        '2 tests compared with baseline "main"; 1 failed, 1 skipped, 1 new, 1 gone'
    )
    assert told(result)[-8:] == [
        "failed:",
        "  test_it.py::test_may_fail",
        "skipped:",
        "  test_it.py::test_may_skip",
        "new:",
        "  test_it.py::test_asks_again",
        "gone:",
        "  test_it.py::test_asks_twice",
    ]


NARROW = {
    "by name": ["-k", "test_asks"],
    "by node id": ["test_it.py::test_asks", "test_it.py::test_asks_twice"],
    "deselected": [f"--deselect=test_it.py::test_{name}" for name in ("may", "takes", "calls")],
    "in another directory": ["other"],
}


@pytest.mark.parametrize("options", NARROW.values(), ids=NARROW)
def test_what_a_run_left_out_is_not_gone(options: list[str], run: Runs) -> None:
    run("--instrument-save", "main")
    (run.path / "other").mkdir()
    (run.path / "other" / "test_else.py").write_text("def test_else(): pass")
    result = run("--instrument-compare", "main", "--instrument-save", "main", *options)
    count = 0 if options == ["other"] else 2
    assert told(result)[0].endswith(f"; {5 - count} not run")
    assert len(run.saved()) == 5


def test_a_module_that_is_skipped_as_a_whole_is_skipped(run: Runs) -> None:
    run("--instrument-save", "main")
    skipping = "import pytest\npytest.skip('not here', allow_module_level=True)\n"
    (run.path / "test_it.py").write_text(skipping + TESTS)
    result = run("--instrument-compare", "main")
    assert told(result)[0] == '0 tests compared with baseline "main"; 5 skipped'


def test_a_test_that_is_gone_is_dropped_when_saved_again(run: Runs) -> None:
    run("--instrument-save", "main")
    (run.path / "test_it.py").write_text(TESTS.replace("test_asks_twice", "test_other"))
    run("--instrument-save", "main")
    assert {"test_it.py::test_other"} == {each for each in run.saved() if "_asks" not in each} - {
        f"test_it.py::test_{name}" for name in ("may_skip", "may_fail", "takes_long")
    }


def test_nothing_is_saved_of_a_run_that_exceeds_a_limit_or_breaks_off(run: Runs) -> None:
    run("--instrument-save", "main")
    before = run.saved()
    exceeding = ["--instrument-compare", "main", "--instrument-fail", "tokens:+1%"]
    result = run(*exceeding, "--instrument-save", "main", TOKENS="99")
    assert 'baseline "main" is not saved: a limit was exceeded' in told(result)
    (run.path / "test_it.py").write_text(TESTS + "\ndef test_breaks(): raise KeyboardInterrupt")
    assert run("--instrument-save", "main", TOKENS="99").ret == 2
    assert run.saved() == before


def test_a_run_without_tests_leaves_the_baseline_as_it_is(run: Runs) -> None:
    run("--instrument-save", "main")
    (run.path / "test_it.py").rename(run.path / "kept.py")
    assert run("--instrument-save", "main").ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert len(run.saved()) == 5


def test_markdown_is_written(run: Runs) -> None:
    run("--instrument-save", "main")
    run("--instrument-compare", "main", "--instrument-markdown", "out/report.md")
    text = (run.path / "out" / "report.md").read_text()
    assert text.startswith("### Baseline `main`: no limits asked for\n")
    assert "| tokens | 75 | 75 | 0 % |" in text


def test_quiet_runs_show_only_what_exceeds_a_limit(run: Runs) -> None:
    run("--instrument-save", "main")
    options = ["-q", "--instrument-compare", "main", "--instrument-fail", "tokens:+1%"]
    assert not [line for line in run(*options).outlines if "baseline" in line]
    more = run(*options, TOKENS="16")
    assert "limit exceeded: test_it.py::test_asks" in more.outlines
    assert more.ret == 1


GOOD = '{"format": "instrument-baseline", "version": 1, "tests": {}}'
COMPARE = ["--instrument-compare", "main"]
MISTAKES = {
    "unknown metric": (GOOD, [*COMPARE, "--instrument-fail", "cost:+1%"], ["'cost'", *METRICS]),
    "malformed limit": (GOOD, [*COMPARE, "--instrument-fail", "usd:1"], ["'1'", *METRICS]),
    "limit without baseline": (GOOD, ["--instrument-fail", "usd:+1%"], ["--instrument-compare"]),
    "markdown alone": (GOOD, ["--instrument-markdown", "x.md"], ["--instrument-compare"]),
    "missing": (GOOD, ["--instrument-compare", "mian"], ["'mian'", "saved are main"]),
    "no name": (GOOD, ["--instrument-save", "../x"], ["'../x' is no name"]),
    "corrupt": (GOOD[:-1], COMPARE, ["main.json", "no JSON", "--instrument-save"]),
    "corrupt when saving": ("<<<<<<<", ["--instrument-save", "main"], ["main.json", "no JSON"]),
    "newer": (GOOD.replace("1", "7"), COMPARE, ["format 7", "reads 1", "update instrument-kit"]),
    "not text": ("\ud800", COMPARE, ["main.json"]),
}


@pytest.mark.parametrize(("text", "options", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_a_usage_error_before_any_test(
    text: str, options: list[str], said: list[str], run: Runs
) -> None:
    run.write("")
    path = run.path / ".instrument" / "baselines" / "main.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    result = run(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in result.errlines if line.startswith("ERROR: "))
    assert [each for each in said if each not in line] == []
    assert not (run.path / "ran").exists()
    assert path.read_bytes() == text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("more", [["-n", "2"], ["--collect-only"]], ids=["xdist", "collect-only"])
def test_a_mistake_is_told_by_the_controller_and_when_only_collecting(
    more: list[str], run: Runs
) -> None:
    result = run(*more, "--instrument-compare", "main")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: no baseline 'main' in *: none is saved yet; *"])


def test_what_cannot_be_written_fails_the_run_and_says_where(run: Runs) -> None:
    run.write(GOOD)
    (run.path / "file").write_text("")
    result = run(*COMPARE, "--instrument-markdown", "file/report.md")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["file/report.md was not written: *"])


def test_a_rerun_counts_with_all_its_attempts(run: Runs) -> None:
    flaky = (
        "\nTRIES = []\ndef test_flaky():\n    TRIES.append(ask(15))\n    assert len(TRIES) > 1\n"
    )
    (run.path / "test_it.py").write_text(TESTS + flaky)
    assert run("--instrument-save", "main", "--reruns", "2").ret == 0
    saved = run.saved()["test_it.py::test_flaky"]
    assert (saved["tokens"], saved["operations"]) == (30, 2)


def test_nothing_of_it_is_loaded_by_a_run_that_does_not_ask(run: Runs) -> None:
    inner = """
import sys
def test_loaded():
    ours = {name.rpartition(".")[2] for name in sys.modules if "instrument.pytest_plugin" in name}
    assert not ours & {"baselines", "baseline_run", "comparing", "comparison_texts"}
"""
    (run.path / "test_it.py").write_text(inner)
    assert run().ret == 0
    assert run("--instrument").ret == 0


def test_a_saved_baseline_names_nothing_of_the_machine(run: Runs, tmp_path: Path) -> None:
    run("--instrument-save", "main")
    text = (run.path / ".instrument" / "baselines" / "main.json").read_text()
    assert str(run.path) not in text
    assert text.isascii()
    assert "\r" not in text
