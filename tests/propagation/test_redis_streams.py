"""The recipe for any queue with headers, as it stands in the documentation, on real Redis."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from instrument import UsageLog, inject, propagation, session, track
from instrument.testing import CapturedOperations

redis: Any = pytest.importorskip("redis")


def recipe() -> tuple[str, str]:
    """Return the code of the one who hands a job in, and of the one who does it."""
    text = propagation.__doc__ or ""
    blocks = [part for part in text.split("\n\n") if part.startswith("    ")]
    hand_in, do = (dedent(each) for each in blocks)
    return hand_in, do


WORKER = """
import sys, redis
from instrument import extract, tracked

@tracked(service="worker")
def answer(prompt):
    return prompt

queue = redis.Redis(port=int(sys.argv[1]))
"""


def test_a_job_from_a_stream_is_below_the_operation_that_handed_it_in(
    capture_operations: CapturedOperations,
    redis_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hand_in, do = recipe()
    with redis.Redis(port=redis_port) as queue:
        with session() as work, track("ask", service="s") as ask:
            exec(hand_in, {"queue": queue, "prompt": "What?", "inject": inject})
        exec(hand_in, {"queue": queue, "prompt": "Who?", "inject": dict})
    monkeypatch.setenv("INSTRUMENT_DIR", str(tmp_path))
    subprocess.run([sys.executable, "-c", WORKER + do, str(redis_port)], check=True, timeout=60)
    first, second = UsageLog(tmp_path).operations()
    assert (first.session_id, first.parent_id) == (work.id, ask.id)
    assert second.session_id != work.id
    assert second.parent_id is None
