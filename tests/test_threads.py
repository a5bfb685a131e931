"""Threads and thread pools carry the session and operation of whoever gives them work."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.dummy import Process as DummyProcess
from multiprocessing.pool import Pool, ThreadPool
from pathlib import Path
from typing import Any

import anyio
import child as programs
import pytest
from responses import parents

from instrument import configure, current_operation, current_session, session, track, tracked
from instrument.testing import CapturedOperations


@tracked(service="s", operation="child")
def child(*arguments: Any) -> str:
    return current_session().id


@contextmanager
def work(name: str = "work") -> Iterator[None]:
    with session(id=name), track("parent", service="s"):
        yield


def belongs_to_work(captured: CapturedOperations) -> bool:
    """Whether all was recorded in the session, the children below the parent."""
    found = parents(captured)
    return found == {"parent": None, "child": "parent"} and {
        each.session_id for each in captured
    } == {"work"}


class Overriding(threading.Thread):
    def run(self) -> None:
        child()


class Named(ThreadPoolExecutor):
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(partial(fn, *args), **kwargs)


def run(thread: Any) -> None:
    thread.start()
    thread.join()


def by_instance() -> None:
    thread = threading.Thread()
    thread.run = child  # type: ignore[method-assign]
    run(thread)


def by_executor(use: Callable[[ThreadPoolExecutor], Any], kind: Any = ThreadPoolExecutor) -> None:
    with kind(2) as executor:
        use(executor)


def by_done_callback() -> None:
    future: Future[None] = Future()
    future.add_done_callback(child)
    run(threading.Thread(target=future.set_result, args=(None,)))


def by_pool(use: Callable[[ThreadPool], Any]) -> None:
    with ThreadPool(2) as pool:
        use(pool)
        pool.close()
        pool.join()


def by_joblib() -> None:
    joblib = pytest.importorskip("joblib")
    joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(child)() for _ in range(9))


WAYS: dict[str, Callable[[], Any]] = {
    "thread": lambda: run(threading.Thread(target=child)),
    "daemon": lambda: run(threading.Thread(target=child, daemon=True)),
    "timer": lambda: run(threading.Timer(0, child)),
    "overriding run": lambda: run(Overriding()),
    "run of the instance": by_instance,
    "thread in a thread": lambda: run(threading.Thread(target=WAYS["thread"])),
    "dummy process": lambda: run(DummyProcess(target=child)),
    "submit": lambda: by_executor(lambda executor: executor.submit(child)),
    "submit by a thread": lambda: by_executor(
        lambda executor: run(threading.Thread(target=executor.submit, args=(child,)))
    ),
    "map": lambda: by_executor(lambda executor: list(executor.map(child, range(9)))),
    "executor of its own": lambda: by_executor(lambda executor: executor.submit(child, 1), Named),
    "done callback": by_done_callback,
    "apply": lambda: by_pool(lambda pool: pool.apply(child)),
    "map of a pool": lambda: by_pool(lambda pool: pool.map(child, range(9))),
    "starmap": lambda: by_pool(lambda pool: pool.starmap(child, [(1, 2), (3, 4)])),
    "imap": lambda: by_pool(lambda pool: list(pool.imap(child, range(9)))),
    "imap_unordered": lambda: by_pool(lambda pool: list(pool.imap_unordered(child, range(9), 2))),
    "callback": lambda: by_pool(lambda pool: pool.apply_async(int, callback=child)),
    "callback by position": lambda: by_pool(lambda pool: pool.map_async(int, "1", 1, child)),
    "error callback": lambda: by_pool(
        lambda pool: pool.apply_async(int, "x", error_callback=child)
    ),
    "joblib": by_joblib,
}


@pytest.mark.parametrize("way", WAYS)
def test_work_belongs_to_whoever_gave_it(capture_operations: CapturedOperations, way: str) -> None:
    with work():
        WAYS[way]()
    assert belongs_to_work(capture_operations)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_runs_it_in_threads_of_its_own(
    capture_operations: CapturedOperations, backend: str
) -> None:
    async def main() -> None:
        with work():
            await anyio.to_thread.run_sync(child)
        assert await anyio.to_thread.run_sync(current_operation) is None

    anyio.run(main, backend=backend)
    assert belongs_to_work(capture_operations)


async def test_the_loop_hands_it_to_its_executor(capture_operations: CapturedOperations) -> None:
    loop = asyncio.get_running_loop()
    with work():
        await asyncio.to_thread(child)
        await loop.run_in_executor(None, child)
    assert belongs_to_work(capture_operations)
    assert await loop.run_in_executor(None, current_operation) is None


def test_idle_workers_of_a_pool_keep_nothing(capture_operations: CapturedOperations) -> None:
    with ThreadPoolExecutor(1) as executor, ThreadPool(1) as pool:
        for number in range(5):
            with session(id=f"work-{number}"), track("parent", service="s"):
                assert executor.submit(child).result() == f"work-{number}"
                assert pool.apply(child) == f"work-{number}"
            assert executor.submit(current_operation).result() is None
            assert pool.apply(current_operation) is None
            assert not executor.submit(child).result().startswith("work")


def test_workers_that_a_session_starts_are_nobodys(capture_operations: CapturedOperations) -> None:
    found: list[Any] = []
    with work(), ThreadPoolExecutor(1, initializer=lambda: found.append(current_operation())) as it:
        it.submit(int).result()
    assert found == [None]


def test_a_failed_call_leaves_the_worker_as_it_was(capture_operations: CapturedOperations) -> None:
    with ThreadPoolExecutor(1) as executor:
        with work():
            assert isinstance(executor.submit(int, "x").exception(), ValueError)
        assert executor.submit(current_operation).result() is None


def test_a_thread_that_outlives_the_session_stays_in_it(
    capture_operations: CapturedOperations,
) -> None:
    is_over = threading.Event()
    with work():
        thread = threading.Thread(target=lambda: is_over.wait(10) and child())
        thread.start()
    is_over.set()
    thread.join()
    assert belongs_to_work(capture_operations)


def test_a_timer_belongs_to_whoever_started_it(capture_operations: CapturedOperations) -> None:
    with session(id="other"):
        timer = threading.Timer(0, child)
    with work():
        run(timer)
    assert belongs_to_work(capture_operations)


def test_a_thread_that_starts_twice_raises_and_keeps_nothing(
    capture_operations: CapturedOperations,
) -> None:
    bare = set(vars(threading.Thread()))
    with work():
        thread = threading.Thread(target=child)
        thread.start()
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
        thread.join()
    assert set(vars(thread)) <= bare


def test_a_start_that_fails_carries_nothing_to_the_next(
    capture_operations: CapturedOperations,
) -> None:
    thread = threading.Thread.__new__(threading.Thread)
    with work("other"), pytest.raises(RuntimeError, match=r"thread.__init__\(\) not called"):
        thread.start()
    thread.__init__(target=child)  # type: ignore[misc]
    run(thread)
    assert parents(capture_operations) == {"parent": None, "child": None}


class Falsy:
    __module__ = "multiprocessing.pool"

    def __call__(self) -> None:
        child()

    def __bool__(self) -> bool:
        raise AssertionError("nobody asked for it")


def test_a_target_is_called_and_nothing_else(capture_operations: CapturedOperations) -> None:
    with work():
        run(threading.Thread(target=Falsy()))
    assert belongs_to_work(capture_operations)


@pytest.mark.parametrize("module", ["joblib_tasks", "multiprocessing_tools", "loky2"])
def test_a_module_may_be_named_like_a_pool(
    capture_operations: CapturedOperations, module: str
) -> None:
    def _worker() -> None:
        child()

    _worker.__module__ = module
    with work():
        run(threading.Thread(target=_worker))
    assert belongs_to_work(capture_operations)


def test_a_map_ends_with_its_timeout(capture_operations: CapturedOperations) -> None:
    first, second = threading.Event(), threading.Event()
    first.set()
    with work(), ThreadPoolExecutor(1) as executor:
        results = executor.map(threading.Event.wait, [first, second], timeout=1)
        assert next(results) is True
        with pytest.raises(TimeoutError):
            next(results)
        second.set()


def test_what_waits_can_be_cancelled(capture_operations: CapturedOperations) -> None:
    with work(), ThreadPoolExecutor(1) as executor:
        executor.submit(time.sleep, 0.1)
        waiting = executor.submit(child)
        assert waiting.cancel()
    assert parents(capture_operations) == {"parent": None}


def test_keywords_of_the_function_may_have_any_name(
    capture_operations: CapturedOperations,
) -> None:
    with work(), ThreadPoolExecutor(1) as executor:
        given = {"self": 1, "fn": 2, "carried": 3, "submit": 4}
        assert executor.submit(dict, **given).result() == given


def test_wrong_arguments_are_refused_as_before(capture_operations: CapturedOperations) -> None:
    with work(), ThreadPoolExecutor(1) as executor:
        with pytest.raises(TypeError, match=r"submit\(\) missing 1 required positional argument"):
            executor.submit()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"start\(\) takes 1 positional argument but 2 were"):
            threading.Thread(target=child).start(1)  # type: ignore[call-arg]


METHODS = [
    (threading.Thread, "start", "(self)"),
    (ThreadPoolExecutor, "submit", "(self, fn, /, *args, **kwargs)"),
    (Future, "add_done_callback", "(self, fn)"),
    (Pool, "apply_async", None),
    (Pool, "imap", "(self, func, iterable, chunksize=1)"),
]


@pytest.mark.parametrize(("owner", "name", "signature"), METHODS)
def test_the_methods_look_like_the_originals(
    capture_operations: CapturedOperations, owner: type, name: str, signature: str | None
) -> None:
    current_session()
    found = getattr(owner, name)
    assert found.__wrapped__.__module__ != "instrument._threads"
    assert (found.__qualname__, found.__module__) == (f"{owner.__name__}.{name}", owner.__module__)
    assert found.__doc__ == found.__wrapped__.__doc__
    assert signature in (None, str(inspect.signature(found)))


@pytest.fixture
def switched_off() -> Iterator[None]:
    """Threads carry nothing, until the test switches them on or ends."""
    configure(propagate_threads=False)
    yield
    configure(propagate_threads=True)


# from Python 3.14 on, threads may have the context of who starts them without us
BY_PYTHON = "parent" if getattr(sys.flags, "thread_inherit_context", False) else None


def starts() -> list[Any]:
    owners = threading.Thread, ThreadPoolExecutor, Future, Pool
    names = ["start", "submit", "add_done_callback", "apply_async", "imap"]
    if sys.version_info < (3, 14):  # later, a thread has a context of its own
        names.append("_bootstrap_inner")
    return [vars(owner)[name] for owner in owners for name in names if name in vars(owner)]


def test_switching_it_off_restores_the_originals(
    capture_operations: CapturedOperations, switched_off: None
) -> None:
    assert [each for each in starts() if hasattr(each, "__wrapped__")] == []
    with work():
        run(threading.Thread(target=child))
    assert parents(capture_operations) == {"parent": None, "child": BY_PYTHON}
    configure(propagate_threads=True)
    assert [each for each in starts() if not hasattr(each, "__wrapped__")] == []


def wrapping(method: Any) -> Any:
    """Return a wrapper as OpenTelemetry's, which needs to be told whose method it is."""
    wrapt = pytest.importorskip("wrapt")

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        instance.seen = True
        return wrapped(*args, **kwargs)

    return wrapt.FunctionWrapper(method, wrapper)


def test_a_wrapper_below_ours_learns_whose_method_it_is(
    capture_operations: CapturedOperations, switched_off: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", wrapping(threading.Thread.start))
    below = threading.Thread.start
    configure(propagate_threads=True)
    with work():
        thread: Any = threading.Thread(target=child)
        run(thread)
    configure(propagate_threads=False)
    assert thread.seen
    assert threading.Thread.start == below
    assert belongs_to_work(capture_operations)


@pytest.mark.parametrize("is_carried", [False, True])
def test_a_wrapper_above_ours_works_in_both_states(
    capture_operations: CapturedOperations, monkeypatch: pytest.MonkeyPatch, is_carried: bool
) -> None:
    current_session()
    monkeypatch.setattr(threading.Thread, "start", wrapping(threading.Thread.start))
    for _ in range(3):
        configure(propagate_threads=False)
        configure(propagate_threads=is_carried)
    with work():
        thread: Any = threading.Thread(target=child)
        run(thread)
    assert thread.seen
    assert not hasattr(threading.Thread.start.__wrapped__.__wrapped__, "__wrapped__")
    assert parents(capture_operations)["child"] == ("parent" if is_carried else BY_PYTHON)
    configure(propagate_threads=True)


def test_ours_comes_back_where_a_wrapper_threw_it_away(
    capture_operations: CapturedOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    current_session()
    ours = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: ours.__wrapped__(self))
    configure(propagate_threads=False)
    configure(propagate_threads=True)
    with work():
        run(threading.Thread(target=child))
    assert belongs_to_work(capture_operations)
    configure(propagate_threads=False)
    monkeypatch.undo()
    configure(propagate_threads=True)


SWARM = 200, 10, 10  # sessions, rounds, operations a round: 20,000


def test_200_sessions_over_tasks_and_threads_never_mix(
    capture_operations: CapturedOperations,
) -> None:
    sessions, rounds, operations = SWARM

    def step(expected: str, parent: str) -> None:
        with track("step", service="s", metadata={"session": expected, "parent": parent}):
            pass

    async def in_task(*expected: str) -> None:
        await asyncio.sleep(0)
        step(*expected)

    async def one(number: int, pool: ThreadPoolExecutor) -> None:
        name = f"work-{number}"
        loop = asyncio.get_running_loop()
        async with session(id=name):
            for _ in range(rounds):
                with track("round", service="s", metadata={"session": name}) as parent:
                    given = name, parent.id
                    jobs: list[Any] = [in_task(*given) for _ in range(4)]
                    jobs += [loop.run_in_executor(pool, step, *given) for _ in range(3)]
                    jobs += [asyncio.wrap_future(pool.submit(step, *given)), in_task(*given)]
                    await asyncio.gather(*jobs)

    async def main() -> None:
        await asyncio.gather(*(one(number, pool) for number in range(sessions)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(int, range(100)))  # made before any session
        asyncio.run(main())
        assert set(pool.map(lambda _: current_operation(), range(100))) == {None}
    found = list(capture_operations)
    assert len(found) == sessions * rounds * operations
    assert [each for each in found if each.session_id != each.metadata["session"]] == []
    assert [each for each in found if each.parent_id != each.metadata.get("parent")] == []


FRESH = {
    "concurrent.futures.thread": "ThreadPoolExecutor(1).submit(ask).result()",
    "multiprocessing.pool": "ThreadPool(1).apply(ask)",
    # a program without a file has nothing that other kinds of workers could import
    "concurrent.futures.process": (
        "import multiprocessing;"
        " forking = ProcessPoolExecutor(1, multiprocessing.get_context('fork'));"
        " forking.submit(ask).result()"
    ),
}


@pytest.mark.parametrize("module", FRESH)
def test_a_module_that_is_loaded_inside_the_session_is_told(tmp_path: Path, module: str) -> None:
    output, errors = programs.run(
        f"""
        from importlib.util import find_spec
        for name in [each for each in sys.modules if each.startswith(("concurrent", "multip"))]:
            del sys.modules[name]
        with session(id="work") as work, track("parent", service="s"):
            find_spec({module!r})  # a mere look
            from {module} import *
            from {module} import __spec__ as spec
            if "pool" in {module!r}:
                from multiprocessing.pool import ThreadPool
            {FRESH[module]}
        print(type(spec.loader).__name__, [each.operation for each in work.operations()])
        """,
        tmp_path,
    )
    assert (output, errors) == ("SourceFileLoader ['parent', 'ask']", "")


def test_importing_patches_nothing_and_disabled_neither(tmp_path: Path) -> None:
    program = """
        print(hasattr(threading.Thread.start, "__wrapped__"))
        configure(max_bytes=10**9)
        with session(id="work"):
            print(hasattr(threading.Thread.start, "__wrapped__"))
        """
    assert programs.run(program, tmp_path) == ("False\nTrue", "")
    disabled = {"INSTRUMENT_DISABLED": "1"}
    assert programs.run(program, tmp_path, env=disabled) == ("False\nFalse", "")


def test_a_broken_module_of_that_name_fails_as_it_would_bare(tmp_path: Path) -> None:
    package = tmp_path / "loky"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "process_executor.py").write_text("import time; time.broken")
    output, errors = programs.run(
        f"""
        sys.path.insert(0, {str(tmp_path)!r})
        with session():
            for line in ("import time; time.broken", "ProcessPoolExecutor = None", ""):
                Path({str(package)!r}, "process_executor.py").write_text(line)
                try:
                    import loky.process_executor
                except AttributeError as error:
                    print(error)
                sys.modules.pop("loky.process_executor", None)
        """,
        tmp_path / "log",
        "-B",
    )
    assert (output, errors) == ("module 'time' has no attribute 'broken'", "")


def test_exceptions_in_threads_are_shown_as_they_would_be_bare(tmp_path: Path) -> None:
    program = """
        configure(propagate_threads={})
        def fail():
            raise ValueError("shown")
        class Failing(threading.Thread):
            def run(self):
                fail()
        with session(id="work"):
            for thread in (threading.Thread(target=fail), Failing(), threading.Timer(0, fail)):
                thread.name = "thread"
                thread.start()
                thread.join()
        """
    _, bare = programs.run(program.format("False"), tmp_path)
    _, ours = programs.run(program.format("True"), tmp_path)
    assert bare.count("ValueError: shown") == 3
    assert ours.replace("True", "") == bare.replace("False", "")


def test_an_exception_from_a_worker_has_one_more_frame_at_most(
    capture_operations: CapturedOperations,
) -> None:
    with ThreadPoolExecutor(1) as executor:
        bare = executor.submit(divmod, 1, 0).exception()
        with work():
            ours = executor.submit(divmod, 1, 0).exception()
    assert depth(ours) == depth(bare) + 1
    assert ours is not None
    assert (ours.__context__, ours.__cause__) == (None, None)


def depth(error: BaseException | None) -> int:
    return 0 if error is None else len(traceback.extract_tb(error.__traceback__))
