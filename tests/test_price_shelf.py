"""What price lists said of models is kept, so that the next question need not load the list."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
from log_writing import operation, write

from instrument._price_list import listed
from instrument._rates import KnownRates

genai_prices = pytest.importorskip("genai_prices")
data_snapshot = pytest.importorskip("genai_prices.data_snapshot")
LIST = Path(genai_prices.__file__).parent
ASKED = """
import sys
from instrument import UsageLog
print(UsageLog(sys.argv[1]).stats("work").cost_usd, "genai_prices" in sys.modules)
"""
KEYS = {"provider": "openai", "input_tokens": 900, "output_tokens": 100, "tokens": 1000}

Ask = Callable[..., tuple[str, str]]


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "instrument"


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Return a function that asks in a process of its own: the cost, and was the list loaded."""

    def asked(model: str = "gpt-5", program: str = ASKED, **environment: str) -> tuple[str, str]:
        log_dir = tmp_path / f"log of {model[:20]}"
        if not log_dir.exists():
            write(log_dir, operation(1, model=model, **KEYS))
        given = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")} | environment
        command = [sys.executable, "-W", "error", "-c", program, str(log_dir)]
        done = subprocess.run(command, env=given, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        cost, loaded = done.stdout.split()
        return cost, loaded

    return asked


@pytest.mark.parametrize("model", ["gpt-5", "nobody's"])
def test_the_list_is_loaded_once_for_a_model_that_it_knows_or_does_not(
    model: str, ask: Ask
) -> None:
    cost, loaded = ask(model)
    assert loaded == "True"
    assert (cost != "None") is (model == "gpt-5")
    assert ask(model) == (cost, "False")


def test_what_the_list_says_of_all_its_models_is_kept_exactly() -> None:
    for known in keys_of_the_list():
        line = msgspec.json.encode(known)
        assert msgspec.json.decode(line, type=KnownRates) == known


def keys_of_the_list() -> Iterator[KnownRates]:
    for provider in data_snapshot.get_snapshot().providers:
        for model in provider.models:
            key = provider.id, "llm", model.id
            yield KnownRates(*key, listed(*key))


def test_another_list_is_asked_anew(tmp_path: Path, ask: Ask) -> None:
    place = tmp_path / "site"
    shutil.copytree(LIST, place / "genai_prices")
    before = ask(PYTHONPATH=str(place))
    assert ask(PYTHONPATH=str(place)) == (before[0], "False")
    os.utime(place / "genai_prices" / "data.py", (1, 1))
    assert ask(PYTHONPATH=str(place)) == before


def test_a_list_that_the_program_has_loaded_is_asked(shelf: Path, ask: Ask) -> None:
    cost, _ = ask()
    dearer = f"""
from decimal import Decimal
from genai_prices import data_snapshot
snapshot = data_snapshot.get_snapshot()
provider = next(each for each in snapshot.providers if each.id == "openai")
model = next(each for each in provider.models if each.id == "gpt-5")
for each in model.prices if isinstance(model.prices, list) else [model.prices]:
    getattr(each, "prices", each).output_mtok = Decimal(1000)
{ASKED}"""
    written = contents(shelf)
    found, _ = ask(program=dearer)
    assert float(found) > float(cost) + 0.09
    assert contents(shelf) == written
    assert ask() == (cost, "False")


def contents(directory: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in directory.iterdir()}


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"model": 1}\n', b"\xff\n", b"[" * 100_000 + b"\n"]
)
def test_what_cannot_be_read_is_passed_over(damage: bytes, shelf: Path, ask: Ask) -> None:
    cost, _ = ask()
    (kept,) = shelf.iterdir()
    kept.write_bytes(damage + kept.read_bytes())
    assert ask()[0] == cost
    kept.write_bytes(damage)
    assert ask() == (cost, "True")
    assert ask()[0] == cost


def test_where_nothing_can_be_kept_the_list_is_asked_each_time(
    tmp_path: Path, shelf: Path, ask: Ask
) -> None:
    (tmp_path / "file").touch()
    no_place = str(tmp_path / "file")
    for place in (no_place, "relative", "/proc/nowhere"):
        loaded = [ask(XDG_CACHE_HOME=place, HOME=no_place)[1] for _ in range(2)]
        assert loaded == ["True", "True"]
    assert not Path("relative").exists()


INSTEAD: dict[str, Callable[[Path], object]] = {
    "directory": Path.mkdir,
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "itself": lambda path: path.symlink_to(path),
    "huge": lambda path: (path.touch(), os.truncate(path, 2**40)),
}


@pytest.mark.parametrize("put", INSTEAD.values(), ids=list(INSTEAD))
def test_something_else_in_its_place_is_left_alone(
    put: Callable[[Path], object], shelf: Path, ask: Ask
) -> None:
    cost, _ = ask()
    (kept,) = shelf.iterdir()
    kept.unlink()
    put(kept)
    before = kept.lstat()
    assert [ask() for _ in range(2)] == [(cost, "True")] * 2
    assert (kept.lstat().st_mode, kept.lstat().st_size) == (before.st_mode, before.st_size)


def test_others_may_not_read_it(shelf: Path, ask: Ask) -> None:
    ask()
    (kept,) = shelf.iterdir()
    assert (shelf.stat().st_mode & 0o777, kept.stat().st_mode & 0o777) == (0o700, 0o600)


def test_it_stays_small_whatever_a_log_names(tmp_path: Path, shelf: Path, ask: Ask) -> None:
    ask("m" * 10_000)
    assert not shelf.exists() or [*shelf.iterdir()] == []
    ask()
    (kept,) = shelf.iterdir()
    kept.write_bytes(kept.read_bytes() + b"\n" * 500_000)
    size = kept.stat().st_size
    assert [ask("gpt-5-mini")[1] for _ in range(2)] == ["True", "True"]
    assert kept.stat().st_size == size


def test_what_lists_of_another_month_said_is_removed(shelf: Path, ask: Ask) -> None:
    shelf.mkdir(parents=True)
    for name in ("prices-old.jsonl", "prices-new.jsonl", "theirs.jsonl"):
        (shelf / name).touch()
    for name in ("prices-old.jsonl", "theirs.jsonl"):
        os.utime(shelf / name, (1, 1))
    ask()
    names = {each.name for each in shelf.iterdir()}
    assert names > {"prices-new.jsonl", "theirs.jsonl"}
    assert len(names) == 3


def test_processes_that_ask_at_once_keep_what_each_found(shelf: Path, tmp_path: Path) -> None:
    models = [model.id for model in islice(data_snapshot.get_snapshot().providers[0].models, 8)]
    provider = data_snapshot.get_snapshot().providers[0].id
    program = """
import sys
from instrument import _price_shelf
_price_shelf.listed(tuple(sys.argv[1:]))
"""
    environment: dict[str, Any] = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    started = [
        subprocess.Popen([sys.executable, "-c", program, provider, "llm", each], env=environment)
        for each in models
    ]
    assert [each.wait(60) for each in started] == [0] * len(models)
    (kept,) = shelf.iterdir()
    lines = kept.read_bytes().splitlines()
    assert {msgspec.json.decode(each, type=KnownRates).model for each in lines} == set(models)
