"""Decorated callables keep their exact type, under mypy and under pyright."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "tests" / "typing" / "cases.py"
REVEAL = ROOT / "tests" / "typing" / "reveal.py"

PYRIGHT_SETTINGS = {
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": False,
    "reportUnnecessaryTypeIgnoreComment": "error",
    "reportUnusedFunction": False,
    "reportUnusedExpression": False,
}


def needs(checker: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(checker) is None
    return pytest.mark.skipif(missing, reason=f"{checker} is not installed")


def mypy(path: Path, cache: Path, settings: str = "") -> list[str]:
    """Return what `mypy --strict` says, line by line."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--hide-error-context",
    ]
    options = [f"--config-file={settings}", f"--cache-dir={cache}"]
    done = subprocess.run(
        [*command, *options, path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def pyright(*options: str | Path) -> dict[str, object]:
    """Return pyright's JSON; it looks for packages in the first interpreter on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", *options],
        env=os.environ | {"PATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout)


def diagnostics(path: Path, directory: Path) -> list[str]:
    """Return what pyright says of a copy of one file under the settings above."""
    shutil.copy(path, directory)
    settings = PYRIGHT_SETTINGS | {"include": [path.name], "extraPaths": [str(ROOT)]}
    project = directory / "pyrightconfig.json"
    project.write_text(json.dumps(settings))
    found = pyright("--project", project)["generalDiagnostics"]
    return [f"{one['range']['start']['line'] + 1}: {one['message']}" for one in found]


def revealed(lines: list[str]) -> list[str]:
    """Return the types in the notes of either checker, in the order of the lines."""
    found = [
        re.search(r'(?:Revealed type is "(.*)"|Type of ".*" is "(.*)")', text) for text in lines
    ]
    return [match[1] or match[2] for match in found if match]


def assert_pairs_agree(types: list[str]) -> None:
    assert len(types) == REVEAL.read_text().count("\nreveal_type(")
    assert types[1::2] == types[::2]


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@needs("mypy")
def test_mypy_accepts_and_refuses_what_it_should(mypy_cache: Path) -> None:
    assert mypy(CASES, mypy_cache) == []


@needs("mypy")
def test_mypy_reveals_the_same_types_bare_and_decorated(mypy_cache: Path) -> None:
    assert_pairs_agree(revealed(mypy(REVEAL, mypy_cache)))


@needs("mypy")
def test_the_package_passes_mypy_strict(mypy_cache: Path) -> None:
    assert mypy(ROOT / "instrument", mypy_cache, "pyproject.toml") == []


@needs("pyright")
def test_pyright_accepts_and_refuses_what_it_should(tmp_path: Path) -> None:
    assert diagnostics(CASES, tmp_path) == []


@needs("pyright")
def test_pyright_reveals_the_same_types_bare_and_decorated(tmp_path: Path) -> None:
    assert_pairs_agree(revealed(diagnostics(REVEAL, tmp_path)))


@needs("pyright")
def test_public_names_are_completely_typed() -> None:
    completeness = pyright("--verifytypes", "instrument", "--ignoreexternal")["typeCompleteness"]
    unknown = [
        symbol["name"]
        for symbol in completeness["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"]
    ]
    assert (completeness["completenessScore"], unknown) == (1, [])
