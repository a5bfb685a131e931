"""Signal handlers, finalisers and timeouts that come at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from child import raw_ids, run

INTERRUPTED = """
import itertools
handled, finalised = [], itertools.count()

def handler(number, frame):
    handled.append(None)
    ask()

class Finalised:
    def __del__(self):
        next(finalised)
        ask()

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
"""
COUNTED = """
signal.setitimer(signal.ITIMER_REAL, 0)
import gc; gc.collect()
print(len(handled) + next(finalised) + calls)
"""


def test_a_100_hz_handler_and_a_finaliser_that_record_neither_hang_nor_lose(tmp_path: Path) -> None:
    program = f"""
{INTERRUPTED}
until, calls = time.monotonic() + 0.5, 0
while time.monotonic() < until or len(handled) < 20:
    cycle = Finalised(); cycle.itself = cycle; del cycle
    ask(); calls += 1
{COUNTED}
"""
    output, errors = run(program, tmp_path)
    assert (output, errors) == (f"{len(raw_ids(tmp_path))}", "")


def test_the_same_while_segments_are_rotated_loses_nothing(tmp_path: Path) -> None:
    program = f"""
ask()
{INTERRUPTED}
text, calls = "x" * 8_000_000, 1
def large():
    with track("large", service="s", metadata={{"text": text}}): pass
while len(segments(os.environ["INSTRUMENT_DIR"])) < 2 or len(handled) < 20:
    Finalised()
    large(); time.sleep(0.1); calls += 1
{COUNTED}
"""
    output, errors = run(program, tmp_path)
    assert (output, errors) == (f"{len(raw_ids(tmp_path))}", "")


TIMEOUTS = """
class LateError({base}): pass
error = {error}
rng = __import__("random").Random(7)
def handler(number, frame): raise error("late")
signal.signal(signal.SIGALRM, handler)
{target}
call()
seen = leaked = 0
for n in range(3_000):
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(5e-6, 90e-6))
        for again in range(10_000): call()
    except error:
        seen += 1
    leaked += current_operation() is not None
print(seen, leaked)
"""
TARGETS = {
    "nothing": "call = ask",
    "usage": """
call = tracked(service="s", usage=lambda result: sum(range(50)))(lambda: None)
""",
    "metadata": """
configure(redact=lambda field, value: value)
call = tracked(service="s", metadata={"a": 1, "b": object()})(lambda: None)
""",
    "coroutine": """
@tracked(service="s")
async def later(): await asyncio.sleep(0)
def call():
    coroutine = later()
    try:
        while True: coroutine.send(None)
    except StopIteration: pass
    finally: coroutine.close()
""",
    "ambient session": """
configure(session_timeout_seconds=0.000_01)
call = ask
""",
}


@pytest.mark.parametrize("error", ["TimeoutError", "LateError"])
@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_a_timeout_of_a_handler_always_reaches_the_program_and_doubles_no_record(
    target: str, error: str, tmp_path: Path
) -> None:
    program = TIMEOUTS.format(base="ValueError", error=error, target=target)
    output, _ = run(program, tmp_path)
    ids = raw_ids(tmp_path)
    assert (output, len(ids)) == ("3000 0", len(set(ids)))


def test_a_timeout_of_a_handler_that_took_itself_off_reaches_the_program(tmp_path: Path) -> None:
    program = """
        def handler(number, frame):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            raise TimeoutError("late")
        def usage(result):
            signal.signal(signal.SIGALRM, handler)
            signal.raise_signal(signal.SIGALRM)
        try:
            tracked(service="s", usage=usage)(lambda: None)()
        except TimeoutError as error:
            print(error, current_operation())
        """
    assert run(program, tmp_path) == ("late None", "")


def test_no_timeout_is_lost_while_decorated_functions_go(tmp_path: Path) -> None:
    program = """
class Late(Exception): pass
def late(number, frame): raise Late
signal.signal(signal.SIGALRM, late)
lost = 0
def decorate(turn):  # from the end of a loop, Python 3.13 goes past the handlers around it
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.0005 + turn % 7 / 10_000)
    while time.monotonic() < began + 1:
        tracked(service="s")(lambda: None)()
for turn in range(400):
    try:
        decorate(turn)
        lost += 1
    except Late:
        pass
print(lost)
"""
    assert run(program, tmp_path) == ("0", "")


STRESSED = {
    "a generator": "list(chunks())",
    "an async generator": "drive(chunks_later())",
    "a returned coroutine": "drive(returned())",
    "a session's function": "entered()",
    "a session's generator": "list(entered_steps())",
    "a session's coroutine": "drive(entered_later())",
}


@pytest.mark.parametrize("call", STRESSED.values(), ids=STRESSED)
def test_a_timeout_of_a_handler_leaves_nothing_current_that_is_over(
    call: str, tmp_path: Path
) -> None:
    program = f"""
from instrument import context
class Late(BaseException): pass
armed, raised = [], []
def late(number, frame):
    if armed:
        armed.clear(); raised.append(None)
        raise Late
signal.signal(signal.SIGALRM, late)
@tracked(service="s")
def chunks(): yield 1; yield 2
@tracked(service="s")
async def steps(): yield 1
async def chunks_later():
    async for _ in steps(): pass
async def one(): return 1
@tracked(service="s")
def returned(): return one()
@session("s")
def entered(): return 1
@session("s")
def entered_steps(): yield 1
@session("s")
async def entered_later(): return 1
def drive(coroutine):
    try: coroutine.send(None)
    except StopIteration: pass
def once():
    try:
        armed.append(None)
        for _ in range(60): {call}
    except Late:
        return 1
    finally:
        armed.clear()
    return 0
{call}
unraised = []
sys.unraisablehook = lambda found: unraised.append(found.exc_type)
import warnings; warnings.simplefilter("ignore")
signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
got, current = 0, 0
while len(raised) < 700:
    got += once()
    current += context.scope.get() is not None
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(raised) - got, unraised.count(Late), current)
"""
    assert run(program, tmp_path)[0] == "0 0 0"
