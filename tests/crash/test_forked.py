"""What forks record, and what they leave alone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from child import raw_ids, run, start

from instrument import UsageLog


def test_a_call_that_forks_is_recorded_by_the_parent_alone(tmp_path: Path) -> None:
    program = """
        @tracked(service="s")
        def forks(): return os.fork()
        child = forks()
        if child: os.waitpid(child, 0)
        print(os.getpid() if child else "")
        """
    output, _ = run(program, tmp_path)
    assert len(raw_ids(tmp_path)) == 1
    assert [str(each.pid) for each in UsageLog(tmp_path).operations()] == output.split()


def test_a_child_forked_inside_a_call_records_its_own_calls_under_it(tmp_path: Path) -> None:
    program = """
        @tracked(service="s")
        def outer():
            if os.fork() == 0:
                ask()
                os._exit(0)
            os.wait()
            ask()
        outer()
        """
    run(program, tmp_path)
    found = UsageLog(tmp_path).operations()
    outer = next(each for each in found if each.operation == "outer")
    asked = [each for each in found if each.operation == "ask"]
    assert [each.parent_id for each in asked] == [outer.operation_id] * 2
    assert len({each.pid for each in asked}) == len({each.operation_id for each in asked}) == 2


@pytest.mark.parametrize("warm", ["ask()", ""], ids=["after a call", "before any call"])
def test_forked_children_draw_ids_of_their_own(warm: str, tmp_path: Path) -> None:
    program = f"""
        import multiprocessing
        {warm}
        def work():
            for n in range(20): ask()
        several = [multiprocessing.get_context("fork").Process(target=work) for n in range(4)]
        for each in several: each.start()
        for each in several: each.join()
        work()
        """
    run(program, tmp_path)
    ids = raw_ids(tmp_path)
    assert len(ids) == len(set(ids)) == 100 + bool(warm)


def test_forking_from_a_thread_while_others_record_loses_nothing(tmp_path: Path) -> None:
    program = """
        def record():
            for n in range(2_000): ask()
        def fork():
            for n in range(10):
                if os.fork() == 0:
                    ask()
                    os._exit(0)
                os.wait()
        threads = [threading.Thread(target=each) for each in (record, record, fork)]
        for each in threads: each.start()
        for each in threads: each.join()
        """
    run(program, tmp_path)
    ids = raw_ids(tmp_path)
    assert len(ids) == len(set(ids)) == 4_010


def test_a_fork_beside_a_thread_that_imports_a_reader_does_not_hang_the_child(
    tmp_path: Path,
) -> None:
    program = """
        class Slow:  # an import that lasts, so that the fork comes in the middle of it
            def find_spec(self, name, path=None, target=None):
                if name == "instrument.usage.openai": begun.set(); time.sleep(0.5)
        begun, response = threading.Event(), {"usage": {"prompt_tokens": 1}}
        sys.meta_path.insert(0, Slow())
        thread = threading.Thread(target=ask, args=(response,))
        thread.start()
        begun.wait()
        if os.fork() == 0:
            signal.alarm(20)
            ask(response)
            os._exit(0)
        print(os.wait()[1])
        thread.join()
        """
    output, _ = run(program, tmp_path)
    assert output.split() == ["0"]
    assert [each.input_tokens for each in UsageLog(tmp_path).operations()] == [1, 1]


def test_the_end_of_a_child_unlocks_nothing_of_its_parent(tmp_path: Path) -> None:
    program = """
        ask()
        if os.fork() == 0: sys.exit()
        os.wait()
        print("ready", flush=True)
        input()
        """
    with start(program, tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        held = [*(tmp_path / "journal").iterdir(), *(tmp_path / "run").iterdir()]
        for path in held:
            descriptor = os.open(path, os.O_RDWR)
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)
        process.communicate("\n")
    assert len(held) == 2


def test_a_process_that_ends_in_good_order_leaves_no_run_lock(tmp_path: Path) -> None:
    run("ask()", tmp_path)
    assert list((tmp_path / "run").iterdir()) == []
