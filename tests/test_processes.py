"""Processes and process pools carry session, operation and log of whoever gives them work."""

from __future__ import annotations

import multiprocessing
import pickle
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import child as programs
import pytest
from process_work import child
from responses import parents

from instrument import UsageLog, session, track
from instrument.testing import CapturedOperations

METHODS = ["fork", "spawn", "forkserver"]
TESTS = {"PYTHONPATH": str(Path(__file__).parent)}
POOLS_BEFORE_THE_SESSION = """
import multiprocessing, process_work as work
from concurrent.futures import ProcessPoolExecutor
log_dir, method = sys.argv[1:]
context = multiprocessing.get_context(method)
configure(log_dir=log_dir + "/first")
pool = context.Pool(1)
executor = ProcessPoolExecutor(1, mp_context=context)
pool.apply(int)
executor.submit(int).result()
configure(log_dir=log_dir + "/log")
"""


def run(program: str, tmp_path: Path, method: str) -> tuple[str, str]:
    """Run a program that has a pool and an executor, and was told only then where the log is."""
    whole = f"sys.argv = [..., {str(tmp_path)!r}, {method!r}]\n{POOLS_BEFORE_THE_SESSION}"
    body = programs.dedent(program) + "\npool.terminate()\nexecutor.shutdown()"
    return programs.run(whole + body, tmp_path / "default", env=TESTS)


def found(log_dir: Path, session_id: str = "work") -> Any:
    """Return each operation's parent by name; every one is there once, in one session."""
    operations = UsageLog(log_dir).operations()
    assert Counter(programs.raw_ids(log_dir)).most_common(1)[0][1] == 1
    assert {each.session_id for each in operations} == {session_id}
    return parents(operations)


@pytest.mark.parametrize("method", METHODS)
def test_work_for_processes_belongs_to_whoever_gave_it(tmp_path: Path, method: str) -> None:
    given = run(
        """
        with session(id="work"), track("parent", service="s"):
            executor.submit(work.in_thread, "thread of a worker").result()
            executor.submit(work.child, "submit").result()
            executor.submit(work.nested, "nested").result()
            assert list(executor.map(work.child, ["map"])) == ["work"]
            pool.apply(work.child, ("apply",))
            pool.starmap(work.child, [("starmap", 1)])
            assert list(pool.imap(work.child, ["imap"], 2)) == ["work"]
            pool.apply_async(str, ("callback",), callback=work.child).wait()
            work.run(context.Process(target=work.child, args=("process",)))
            work.run(context.Process(target=work.in_thread, args=("thread of a process",)))
            work.run(work.OVERRIDING[method]())
            pool.close()
            pool.join()
        """,
        tmp_path,
        method,
    )
    assert given == ("", "")
    names = ["submit", "map", "apply", "starmap", "imap", "callback", "process"]
    names += ["thread of a worker", "thread of a process", "outer of nested", "overriding run"]
    assert found(tmp_path / "log") == {
        "parent": None,
        "nested": "outer of nested",
        **dict.fromkeys(names, "parent"),
    }
    assert not (tmp_path / "first").exists()
    assert not (tmp_path / "default").exists()


@pytest.mark.parametrize("method", METHODS)
def test_workers_keep_nothing_of_a_session(tmp_path: Path, method: str) -> None:
    output, errors = run(
        """
        for number in range(3):
            with session(id=f"work-{number}"):
                print(executor.submit(work.child, "in").result(), pool.apply(work.child, ("in",)))
                late = ProcessPoolExecutor(1, mp_context=context)
                late.submit(int).result()
            with late:
                ids = {each(work.child, "out").result() for each in (executor.submit, late.submit)}
                print(ids == {pool.apply(work.child, ("out",))} == {work.current_session().id})
        """,
        tmp_path,
        method,
    )
    lines = [f"work-{number} work-{number}\nTrue" for number in range(3)]
    assert (output, errors) == ("\n".join(lines), "")


@pytest.mark.parametrize("method", METHODS)
def test_a_process_that_is_told_itself_keeps_its_log(tmp_path: Path, method: str) -> None:
    given = run(
        """
        other = log_dir + "/other"
        with session(id="work"):
            work.run(context.Process(target=work.elsewhere, args=("elsewhere", other)))
            pool.apply(work.elsewhere, ("elsewhere too", other))
            pool.apply(work.child, ("as before",))
        """,
        tmp_path,
        method,
    )
    assert given == ("", "")
    assert set(found(tmp_path / "other")) == {"elsewhere", "elsewhere too", "as before"}
    assert not (tmp_path / "log" / "journal").exists() or UsageLog(tmp_path / "log").recent() == []


@pytest.mark.parametrize("method", METHODS)
def test_what_a_killed_process_began_is_in_the_session(tmp_path: Path, method: str) -> None:
    given = run(
        """
        with session(id="work"), track("parent", service="s"):
            work.run(context.Process(target=work.killed, args=("killed",)))
        """,
        tmp_path,
        method,
    )
    assert given == ("", "")
    assert parents(UsageLog(tmp_path / "log").operations()) == {"parent": None, "killed": "parent"}
    outcomes = {each.operation: each.outcome for each in UsageLog(tmp_path / "log").operations()}
    assert outcomes == {"parent": "ok", "killed": "interrupted"}


def test_a_command_joins_by_its_environment(tmp_path: Path) -> None:
    given = run(
        """
        import subprocess
        command = "import process_work; process_work.in_thread('command')"
        with session(id="work") as here, track("parent", service="s"):
            subprocess.run([sys.executable, "-c", command], env={**os.environ, **here.env()})
        """,
        tmp_path,
        "fork",
    )
    assert given == ("", "")
    assert found(tmp_path / "log") == {"parent": None, "command": "parent"}


def test_joblib_carries_lambdas_beyond_its_first_batches(
    capture_operations: CapturedOperations,
) -> None:
    joblib = pytest.importorskip("joblib")
    with session(id="work"), track("parent", service="s"), joblib.parallel_config("loky"):
        jobs = (joblib.delayed(lambda number: child(f"job {number}"))(each) for each in range(9))
        assert joblib.Parallel(n_jobs=2, batch_size=1)(jobs) == ["work"] * 9
    expected = {f"job {number}": "parent" for number in range(9)}
    assert parents(capture_operations) == {"parent": None} | expected
    pytest.importorskip("joblib.externals.loky").get_reusable_executor().shutdown(wait=True)


def by_executor(function: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function).result()


def by_pool(function: Any) -> Any:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function)


def by_process(function: Any) -> Any:
    multiprocessing.get_context("spawn").Process(target=function).start()


def failure(way: Callable[[Any], Any], function: Any) -> tuple[type, str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever, it is compared
        way(function)
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize("way", [by_executor, by_pool, by_process])
@pytest.mark.parametrize("function", [lambda: 1, Lock().acquire], ids=["lambda", "lock"])
def test_what_does_not_pickle_fails_as_it_would_bare(
    capture_operations: CapturedOperations, way: Callable[[Any], Any], function: Any
) -> None:
    bare = failure(way, function)
    with session(id="work"):
        assert failure(way, function) == bare


def test_a_process_that_did_not_start_keeps_nothing(
    capture_operations: CapturedOperations,
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=lambda: 1)
    before = set(vars(process))
    with session(id="work"), pytest.raises((pickle.PicklingError, AttributeError)):
        process.start()
    assert set(vars(process)) == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ("redact=work.starred", {"***"}),
        ("redact=lambda field, value: '***'", {None, "***"}),
        ("error_messages=False", {None}),
        ("enabled=False", set()),
    ],
)
def test_what_the_parent_does_not_want_recorded_its_children_do_not_record(
    tmp_path: Path, method: str, settings: str, shown: set[str | None]
) -> None:
    run(
        f"""
        configure({settings})
        work.run(context.Process(target=work.failing, args=("process",)))
        late = context.Pool(1)
        late.apply(work.failing, ("pool",))
        late.terminate()
        """,
        tmp_path,
        method,
    )
    operations = UsageLog(tmp_path / "log").operations() if shown else []
    assert {each.error_message for each in operations} <= shown
    assert len(operations) == 2 * bool(shown)
    assert shown or not (tmp_path / "log").exists()
