import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from instrument.cli.demo_server import DemoServer

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^(instrument [^#\n]+)", README, re.MULTILINE)


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def output(log_dir: Path) -> str:
    """What the README's Python prints, run from top to bottom as one program."""
    pytest.importorskip("openai")
    program = "\n".join(text for language, text in BLOCKS if language == "python")
    with DemoServer() as server:
        environment = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": f"{server.url}/v1"}
        return _run([sys.executable, "-W", "error", "-c", program], log_dir, environment)


def test_first_example_prints_what_the_readme_shows(output: str) -> None:
    shown = next(text for language, text in BLOCKS if language == "text")
    assert _masked(output.splitlines()[0]) == _masked(shown.strip())


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_work_on_what_its_examples_recorded(
    command: str, output: str, log_dir: Path
) -> None:
    arguments = shlex.split(command)[1:]
    assert _run([sys.executable, "-m", "instrument", *arguments], log_dir, {})


def test_the_conformance_figures_of_bare_code_and_of_ours_are_what_the_benchmark_prints() -> None:
    program = Path(__file__).parent.parent / "benchmarks" / "conformance.py"
    printed = _run([sys.executable, str(program), "--summary", "--without-peers"], Path(), {})
    if "Probes not run" in printed:
        pytest.skip("a package that some probes need is not installed")
    shown = README[README.index("| probes on") :].split("\n\n")[0]
    assert _columns(shown) == _columns(printed.split("\n\n")[0])


def test_readme_is_short_and_shows_output_early() -> None:
    lines = README.splitlines()
    assert len(lines) < 200
    assert lines.index("```text") < 25


def _run(command: list[str], log_dir: Path, environment: dict[str, str]) -> str:
    environment = {**os.environ, "INSTRUMENT_DIR": str(log_dir), **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _columns(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ")[:3] for line in table.splitlines()]


def _masked(text: str) -> str:
    return re.sub(r"[\d,.]*\d", "N", text)
