"""The checks themselves: that they see what they are there to see."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checks import Known
from zygote import Plan, Zygote

Damage = Callable[[list[bytes]], list[bytes]]


def without_the_fifth(lines: list[bytes]) -> list[bytes]:
    return lines[:4] + lines[5:]


def doubled(lines: list[bytes]) -> list[bytes]:
    return [*lines, lines[4]]


def changed(lines: list[bytes]) -> list[bytes]:
    record = json.loads(lines[4])
    return [*lines[:4], json.dumps(record | {"tokens": record["tokens"] + 1}).encode(), *lines[5:]]


def torn(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4], lines[4][:-20], *lines[5:]]


def with_others(lines: list[bytes]) -> list[bytes]:
    record = json.loads(lines[4])
    others = [json.dumps(record | {"operation_id": f"{n:016x}"}).encode() for n in range(2)]
    return lines + others


DAMAGES = {
    without_the_fifth: "operations are lost",
    doubled: "on record twice",
    changed: "tokens",
    torn: "operations are lost",
    with_others: "more than could be in flight",
}


@pytest.fixture
def known(zygote: Zygote, tmp_path: Path) -> Known:
    """What is known of a log in which one process made thirty calls, and was well."""
    plan = Plan("calls", str(tmp_path / "log"), "seed", after=30, end="exit")
    found = Known(tmp_path / "log", tmp_path / "grave")
    (life,) = zygote.run([plan])
    assert [*found.heard(life)] == []
    return found


def segment(log_dir: Path) -> Path:
    (found,) = (log_dir / "journal").iterdir()
    return found


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checks_notice_what_is_wrong_with_the_files(damage: Damage, known: Known) -> None:
    path = segment(known.log_dir)
    path.write_bytes(b"\n".join(damage(path.read_bytes().splitlines())) + b"\n")
    assert any(DAMAGES[damage] in each for each in known.after_round())


def test_the_checks_find_nothing_wrong_with_what_is_well(known: Known) -> None:
    assert [*known.after_round(), *known.after_round(), *known.answers()] == []


def test_the_checks_notice_that_an_earlier_line_was_changed(known: Known) -> None:
    assert [*known.after_round()] == []
    path = segment(known.log_dir)
    path.write_bytes(path.read_bytes().replace(b"crash", b"CRASH"))
    assert "an earlier line was changed" in known.after_round()


@pytest.mark.parametrize(
    ("program", "end", "options", "told"),
    [
        ("calls", "exit", {"dies_at": ("", 2, 0)}, "died with status"),
        ("unknown", "SIGKILL", {}, "wrote to stderr"),
    ],
)
def test_the_checks_notice_a_process_that_does_not_end_as_planned(
    program: str, end: str, options: dict[str, Any], told: str, zygote: Zygote, tmp_path: Path
) -> None:
    plan = Plan(program, str(tmp_path / "log"), "seed", after=1, end=end, options=options)
    known = Known(tmp_path / "log", tmp_path / "grave")
    (life,) = zygote.run([plan])
    assert any(told in each for each in known.heard(life))
