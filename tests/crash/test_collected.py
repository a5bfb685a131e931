"""What finalisers record while the garbage collector runs.

On Python 3.11 the collector runs inside allocations, those of `ContextVar.set` included. A tracked
call that a finaliser made there set a variable too, and freed what the outer `set` was walking, so
that the process died of SIGSEGV. That is seen from outside alone. In these programs a collection
begins at each of the first allocations in turn, and what it freed is overwritten.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from child import raw_ids, run

from instrument import UsageLog

GARBAGE = {
    "a finaliser": """
class Garbage:
    def __init__(self): self.itself = self
    @tracked(service="s", operation="in garbage")
    def overwrite(self): overwrite_freed()
    def __del__(self): self.overwrite()
""",
    "a stream left early": """
@tracked(service="s", operation="in garbage")
def chunks(owner):
    try: yield
    finally: overwrite_freed()
class Garbage:
    def __init__(self):
        self.chunks = chunks(self)
        next(self.chunks)
""",
}
OUTER = {
    "a tracked call": "ask()",
    "a session": "with session(): pass",
    "the program's own variable": "own.set(n)",
    "the program's copy of the context": "contextvars.copy_context()",
}
COLLECTED = """
import gc
class Garbage:
    def __init__(self, *calls): self.itself, self.calls = self, calls
    def __del__(self):
        for call in self.calls: call()
def while_collecting(*calls):
    Garbage(*calls)
    gc.collect()
"""


def crashing(garbage: str, outer: str) -> str:
    return f"""
import contextvars, gc
own, filled = contextvars.ContextVar("own"), []
def overwrite_freed():
    filled.extend(b"\\xff" * size for size in range(300))
{garbage}
ask()
child = os.fork()
gc.disable()
for n in range(400):
    gc.collect(0)
    Garbage()
    gc.set_threshold(n % 40 + 1)
    gc.enable()
    {outer}
    gc.disable()
assert current_operation() is None
if child: print("child", os.waitpid(child, 0)[1])
"""


@pytest.mark.parametrize("outer", OUTER.values(), ids=list(OUTER))
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=list(GARBAGE))
def test_garbage_that_records_crashes_neither_the_program_nor_its_forks(
    garbage: str, outer: str, tmp_path: Path
) -> None:
    assert run(crashing(garbage, outer), tmp_path) == ("child 0", "")


def test_calls_made_by_a_finaliser_nest_and_leave_the_context_alone(tmp_path: Path) -> None:
    program = f"""
{COLLECTED}
@tracked(service="s")
def outer(): while_collecting(finaliser, ask)
@tracked(service="s")
def finaliser():
    with session("inside"): ask()
outer()
print(current_operation())
"""
    assert run(program, tmp_path) == ("None", "")
    found = {each.operation_id: each for each in UsageLog(tmp_path).operations()}
    parents = {
        (
            each.operation,
            each.session_name,
            getattr(found.get(each.parent_id or ""), "operation", ""),
        )
        for each in found.values()
    }
    assert parents == {
        ("outer", None, ""),
        ("finaliser", None, "outer"),
        ("ask", "inside", "finaliser"),
        ("ask", None, "outer"),
    }


def test_a_session_that_a_finaliser_leaves_is_left(tmp_path: Path) -> None:
    program = f"""
{COLLECTED}
from instrument import current_session
with session("around"):
    held = session("held")
    held.__enter__()
    while_collecting(lambda: held.__exit__(None, None, None))
    print(current_session().name)
print(current_session().name)
"""
    assert run(program, tmp_path) == ("around\nNone", "")


def test_a_suspended_coroutine_that_the_collector_closes_is_left(tmp_path: Path) -> None:
    program = f"""
{COLLECTED}
@tracked(service="s")
async def suspended(owner): await asyncio.sleep(0)
garbage = Garbage()
garbage.coroutine = suspended(garbage)
garbage.coroutine.send(None)
print(current_operation() is None)
del garbage
gc.collect()
print(current_operation() is None)
"""
    assert run(program, tmp_path) == ("False\nTrue", "")
    assert [each.outcome for each in UsageLog(tmp_path).operations()] == ["partial"]


def test_callbacks_of_calls_that_finalisers_make_are_not_tracked(tmp_path: Path) -> None:
    program = f"""
{COLLECTED}
@tracked(service="s", usage=lambda result: asked())
def asked():
    return 1
while_collecting(asked)
"""
    assert run(program, tmp_path) == ("", "")
    assert len(raw_ids(tmp_path)) == 1


def test_a_timeout_that_comes_during_a_collection_reaches_the_program(tmp_path: Path) -> None:
    program = """
import gc
def handler(number, frame): raise TimeoutError("late")
signal.signal(signal.SIGALRM, handler)
ask()
heap = [[n] for n in range(1_000_000)]
seen = 0
for n in range(5):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        gc.collect()
        time.sleep(1)
    except TimeoutError:
        seen += 1
print(seen)
"""
    assert run(program, tmp_path) == ("5", "")
