"""What price lists said of models is kept, so that the next command need not load the list."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from log_writing import operation, write

from instrument._price_list import listed
from instrument._rates import KnownRates

genai_prices = pytest.importorskip("genai_prices")
data_snapshot = pytest.importorskip("genai_prices.data_snapshot")
LIST = Path(genai_prices.__file__).parent
ASKED = """
import contextlib, io, json, sys
from instrument.cli.shell import run
answer = io.TextIOWrapper(io.BytesIO())
with contextlib.redirect_stdout(answer):
    assert run(["stats", "work", "--json", "--dir", sys.argv[1]]) == 0
stats = json.loads(answer.buffer.getvalue())["session"]
print(stats["cost_usd"], "genai_prices" in sys.modules)
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


def test_another_list_is_asked_anew_though_its_files_look_the_same(
    tmp_path: Path, ask: Ask
) -> None:
    data = tmp_path / "site" / "genai_prices" / "data.py"
    shutil.copytree(LIST, data.parent)
    os.utime(data, (1, 1))
    before = ask(PYTHONPATH=str(tmp_path / "site"))
    assert ask(PYTHONPATH=str(tmp_path / "site")) == (before[0], "False")
    data.write_bytes(data.read_bytes().replace(b"'10')", b"'90')"))
    os.utime(data, (1, 1))
    after = ask(PYTHONPATH=str(tmp_path / "site"))
    assert (float(after[0]) > float(before[0]), after[1]) == (True, "True")


def test_a_list_that_cannot_be_loaded_says_nothing_that_is_kept(
    tmp_path: Path, shelf: Path, ask: Ask
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "pydantic.py").write_text("raise ImportError")
    assert ask(PYTHONPATH=str(tmp_path / "site"))[0] == "None"
    assert not shelf.exists()
    assert ask()[0] != "None"


def test_programs_keep_nothing_and_look_at_nothing(shelf: Path, ask: Ask) -> None:
    program = """
import sys
from instrument import UsageLog
print(UsageLog(sys.argv[1]).stats("work").cost_usd, "genai_prices" in sys.modules)
"""
    cost, _ = ask(program=program)
    assert not shelf.exists()
    assert ask() == (cost, "True")
    assert ask(program=program) == (cost, "True")


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


DAMAGE = {
    "torn": lambda content: content[:-5],
    "other rates": lambda content: content.replace(b"1.25e-6", b"1.25e-3"),
    "no text": lambda content: content[:30] + b"\xff" + content[30:],
    "deep": lambda content: b"[" * 100_000 + b"\n" + content[:-1],
    "nothing": lambda content: b"",
}


@pytest.mark.parametrize("damaged", DAMAGE.values(), ids=list(DAMAGE))
def test_what_is_damaged_is_asked_again(
    damaged: Callable[[bytes], bytes], shelf: Path, ask: Ask
) -> None:
    cost, _ = ask()
    (kept,) = shelf.iterdir()
    kept.write_bytes(damaged(kept.read_bytes()))
    assert [ask() for _ in range(2)] == [(cost, "True"), (cost, "False")]


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


def test_it_stays_small_whatever_a_log_names(shelf: Path, ask: Ask) -> None:
    cost, _ = ask("m" * 600_000)
    assert cost == "None"
    assert not shelf.exists()
    cost, _ = ask()
    (kept,) = shelf.iterdir()
    kept.write_bytes(kept.read_bytes() + b"\n" * 500_000)
    assert ask() == (cost, "False")
    assert ask("gpt-5-mini")[1] == "True"
    assert kept.stat().st_size < 10_000
    assert ask("gpt-5-mini")[1] == "False"


def test_one_that_is_far_too_large_is_not_read(shelf: Path, ask: Ask) -> None:
    cost, _ = ask()
    (kept,) = shelf.iterdir()
    os.truncate(kept, 2**40)
    assert [ask() for _ in range(2)] == [(cost, "True"), (cost, "False")]


def test_what_lists_of_another_month_said_is_removed(shelf: Path, ask: Ask) -> None:
    shelf.mkdir(parents=True)
    for name in ("prices-old", "prices-new", "theirs"):
        (shelf / name).touch()
    (shelf / "prices-directory").mkdir()
    (shelf / "prices-nowhere").symlink_to("nowhere")
    for name in ("prices-old", "theirs", "prices-directory"):
        os.utime(shelf / name, (1, 1))
    ask()
    names = {each.name for each in shelf.iterdir()}
    assert names > {"prices-new", "theirs", "prices-directory", "prices-nowhere"}
    assert len(names) == 5


def test_commands_that_ask_at_once_keep_what_each_found(
    shelf: Path, tmp_path: Path, ask: Ask
) -> None:
    models = [f"gpt-5{kind}" for kind in ("", "-mini", "-nano", "-pro")]
    with ThreadPoolExecutor(len(models)) as pool:
        found = list(pool.map(ask, models))
    assert len([*shelf.iterdir()]) == 1
    assert [ask(each) for each in models] == [(cost, "False") for cost, _ in found]


def test_a_user_without_a_home_gets_the_answer(ask: Ask) -> None:
    nobody = """
import os, pwd
del os.environ["HOME"]
pwd.getpwuid = {}.__getitem__
"""
    cost, _ = ask()
    assert ask(program=nobody + ASKED, XDG_CACHE_HOME="") == (cost, "True")
