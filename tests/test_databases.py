"""What forks make of the databases that answer questions of a log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from child import FORKING_BESIDE_THREADS, run
from log_writing import operation, write

from instrument import UsageLog

ASK = """
    def ask(log):
        rows = log.sql("select sum(tokens) from operations").fetchall()
        return rows, len(log.sessions()), [row.total_tokens for row in log.summary("day")]

    log = UsageLog(os.environ["INSTRUMENT_DIR"])
    answer, kept = ask(log), log.sql("from operations")
    child = os.fork()
    if not child:
        {}
        sys.exit()
    print(os.waitpid(child, 0)[1], answer)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is missing")
@pytest.mark.parametrize(
    "child",
    [
        "pass",
        "os._exit(answer != ask(log))",
        "answer == ask(log) or os._exit(1)",
        "del log, kept",
        "with_pool()",
    ],
)
def test_a_fork_after_a_question_leaves_child_and_parent_whole(tmp_path: Path, child: str) -> None:
    write(tmp_path, operation(1))
    UsageLog(tmp_path).compact()
    write(tmp_path, operation(2), name="2026-11-23-host-0001.jsonl")
    pool = """
    import multiprocessing

    def with_pool():
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(ask, (log,)) == answer
    """
    found = run(pool + ASK.format(child), tmp_path, *FORKING_BESIDE_THREADS)
    assert found == ("0 ([(20,)], 1, [20])", "")
