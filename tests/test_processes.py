"""Processes and process pools carry session, operation and log of whoever gives them work."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
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
    whole = f"sys.argv = ['program', {str(tmp_path)!r}, {method!r}]\n{POOLS_BEFORE_THE_SESSION}"
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
def test_a_trace_goes_through_processes(tmp_path: Path, method: str) -> None:
    given = run(
        """
        from instrument import propagate
        with session(id="work"), track("root", service="s"), track("parent", service="s"):
            here = work.trace()
            for give in (lambda fn: executor.submit(fn).result(), pool.apply):
                assert give(work.trace) == give(propagate(work.trace)) == here
                assert give(work.trace_of_a_call) == here[0]
        """,
        tmp_path,
        method,
    )
    assert given == ("", "")


@pytest.mark.parametrize("method", METHODS)
def test_the_trace_of_a_span_beside_us_goes_through_processes(tmp_path: Path, method: str) -> None:
    pytest.importorskip("opentelemetry.sdk")
    given = run(
        """
        from opentelemetry.sdk.trace import TracerProvider
        tracer = TracerProvider().get_tracer("test")
        with tracer.start_as_current_span("span") as span, session(id="work"):
            ids = span.get_span_context()
            executor.submit(work.child, "below the span").result()
            with track("parent", service="s"):
                executor.submit(work.child, "below the operation").result()
        found = UsageLog(log_dir + "/log").operations()
        assert {each.trace_id for each in found} == {f"{ids.trace_id:032x}"}
        ours = {each.operation: each.parent_id for each in found}
        assert ours["below the span"] == ours["parent"] == f"{ids.span_id:016x}"
        """,
        tmp_path,
        method,
    )
    assert given == ("", "")


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


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("within", ["session(id='work')", "contextlib.nullcontext()"])
def test_workers_follow_the_settings_of_whoever_gives_them_work(
    tmp_path: Path, method: str, within: str
) -> None:
    given = run(
        f"""
        import contextlib
        def fail():
            executor.submit(work.failing, "executor").result()
            pool.apply(work.failing, ("pool",))
        with {within}:
            fail()
            for settings in (
                dict(error_messages=False),
                dict(error_messages=True, redact=work.starred),
                dict(redact=lambda field, value: "shown"),
                dict(enabled=False),
                dict(enabled=True, redact=work.starred),
            ):
                configure(**settings)
                fail()
        """,
        tmp_path,
        method,
    )
    assert given == ("", "")
    shown = [each.error_message for each in UsageLog(tmp_path / "log").operations()]
    assert shown == [
        each for each in ("secret", None, "***", None, "***") for _ in ("executor", "pool")
    ]


def test_a_worker_that_is_told_itself_keeps_what_it_was_told(tmp_path: Path) -> None:
    given = run(
        """
        with session(id="work"):
            executor.submit(configure, redact=work.starred).result()
            configure(redact=work.withheld, durability="fsync")
            executor.submit(work.failing, "told").result()
        """,
        tmp_path,
        "spawn",
    )
    assert given == ("", "")
    assert [each.error_message for each in UsageLog(tmp_path / "log").operations()] == ["***"]


MAIN = """
import process_work as work, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from instrument import configure, session
configure(log_dir=sys.argv[1], error_messages=True)
if __name__ == "__main__":
    configure(error_messages=False)
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    executor.submit(work.failing, "first").result()
    configure(error_messages=True)
    executor.submit(work.failing, "second").result()
"""


def test_what_a_main_module_asks_for_is_not_asked_again_in_its_workers(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(MAIN)
    command = [sys.executable, str(program), str(tmp_path / "log")]
    subprocess.run(command, check=True, env=os.environ | TESTS)
    shown = {each.operation: each.error_message for each in UsageLog(tmp_path / "log").operations()}
    assert shown == {"first": None, "second": "secret"}


def test_settings_made_before_anything_else_is_loaded_reach_workers(tmp_path: Path) -> None:
    program = """
    from instrument import configure
    configure(log_dir=sys.argv[1], session_timeout_seconds=77)
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    import process_work
    from instrument import session
    with session(id="work"), ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        print(pool.submit(process_work.child, "a").result())
    """
    bare = f"import sys\nsys.argv = ['-', {str(tmp_path / 'log')!r}]\n" + programs.dedent(program)
    ran = subprocess.run(
        [sys.executable, "-c", bare],
        env={**os.environ, **TESTS, "INSTRUMENT_DIR": str(tmp_path / "other")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("work\n", "")
    assert [each.operation for each in UsageLog(tmp_path / "log").operations()] == ["a"]
