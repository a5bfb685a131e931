"""The commands that change the archive, and what starts them by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from log_writing import begin, held, open_by_writers, operation, write

from instrument.cli.shell import run
from instrument.log import UsageLog


def segment(day: int, number: int = 1) -> str:
    return f"2026-11-{day:02d}-host-{number:04d}.jsonl"


def test_compact_says_what_it_moved_and_what_it_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, operation(1), operation(2), name=segment(19))
    open_one = write(tmp_path, operation(3), name=segment(20))
    write(tmp_path, begin(4), name=segment(21))
    with open_by_writers(open_one), held(tmp_path):
        assert run(["compact", "--dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("moved 2 operations of 1 segment into the archive: ")
    assert out[1:] == [
        f"left {segment(20)}: a process has it open",
        f"left {segment(21)}: an operation that began in it is still running",
    ]
    assert run(["compact", "--dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["segments"] == 2
    assert run(["compact", "--dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing to compact: no segment is closed\n"


def test_prune_removes_what_is_old_and_says_how_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, operation(1), name=segment(20))
    write(tmp_path, operation(90_000), name=segment(21))
    told = ["prune", "--older-than", "2026-11-21", "--utc", "--dir", str(tmp_path)]
    assert run(told) == 0
    assert capsys.readouterr().out.startswith("removed 1 operation, ")
    assert run(told) == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert len(UsageLog(tmp_path).operations()) == 1


@pytest.mark.parametrize("arguments", [["prune"], ["prune", "--older-than", "soon"]])
def test_prune_wants_to_know_how_old(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, operation(1))
    assert run([*arguments, "--dir", str(tmp_path)]) == 2
    assert "--older-than" in capsys.readouterr().err
    assert len(UsageLog(tmp_path).operations()) == 1


def test_an_archive_that_cannot_be_read_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, operation(1))
    UsageLog(tmp_path).compact()
    (tmp_path / "archive/manifest.json").write_text("{")
    for command in ("sessions", "compact", "stats", "daily"):
        assert run([command, "--dir", str(tmp_path)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_command_that_has_met_many_closed_segments_has_them_compacted(tmp_path: Path) -> None:
    for number in range(500):
        write(tmp_path, operation(number), name=segment(20, number + 1))
    before = UsageLog(tmp_path).operations()
    done = subprocess.run(
        [sys.executable, "-m", "instrument", "sessions", "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stderr, "500" in done.stdout) == ("", True)
    until = time.monotonic() + 60
    while any((tmp_path / "journal").iterdir()) and time.monotonic() < until:
        time.sleep(0.1)
    assert list((tmp_path / "journal").iterdir()) == []
    assert UsageLog(tmp_path).operations() == before


def test_a_command_loads_no_plugin_that_somebody_registered(tmp_path: Path) -> None:
    pytest.importorskip("genai_prices")
    write(tmp_path, operation(1, model="gpt-5", input_tokens=9, output_tokens=1))
    place = tmp_path / "plugin"
    (place / "noisy-1.dist-info").mkdir(parents=True)
    (place / "noisy-1.dist-info/METADATA").write_text("Name: noisy\nVersion: 1\n")
    (place / "noisy-1.dist-info/entry_points.txt").write_text("[pydantic]\nnoisy = noisy:plugin\n")
    (place / "noisy.py").write_text("print('loaded')\nplugin = object()\n")
    path = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "instrument", "sessions", "--json", "--dir", str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["cost_usd"] > 0
