"""Tests and fixtures that run in event loops, in contexts of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest_plugins = ["pytester"]

Runs = Callable[..., Any]

ASYNCIO = """
    import asyncio, pytest, pytest_asyncio
    {mark}
    @{fixture}(scope="{scope}"{loop})
    async def client():
        ask(1)
        yield asyncio.create_task(asyncio.sleep(0))
        ask(2)
    async def test_a(client):
        await asyncio.gather(*(asyncio.to_thread(ask, 3) for _ in range(2)))
    async def test_b(client):
        asyncio.get_running_loop().call_soon(ask, 4)
        await asyncio.sleep(0)
    def test_c(client):
        ask(5)
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
@pytest.mark.parametrize("scope", ["function", "module", "session"])
def test_calls_in_tests_and_fixtures_of_pytest_asyncio_are_of_the_phase_they_happen_in(
    mode: str, scope: str, run: Runs
) -> None:
    source = ASYNCIO.format(
        mark=f"pytestmark = pytest.mark.asyncio(loop_scope='{scope}')",
        fixture="pytest.fixture" if mode == "auto" else "pytest_asyncio.fixture",
        loop="" if mode == "auto" else f", loop_scope='{scope}'",
        scope=scope,
    )
    ran = run(
        source,
        f"--asyncio-mode={mode}",
        f"-oasyncio_default_fixture_loop_scope={scope}",
        "-Wignore:The test:pytest.PytestWarning",
        load=("asyncio",),
    )
    ran.result.assert_outcomes(passed=3, warnings=ran.result.parseoutcomes().get("warnings", 0))
    calls = [("test_a", "call", 3)] * 2 + [("test_b", "call", 4), ("test_c", "call", 5)]
    assert [each for each in ran.places() if each[1] == "call"] == calls
    around = [each for each in ran.places() if each[1] != "call"]
    tests = ["test_a", "test_b", "test_c"]
    if scope == "function":
        assert around == [
            (test, phase, tokens)
            for test in tests
            for phase, tokens in (("setup", 1), ("teardown", 2))
        ]
    else:
        assert around == [("test_a", "setup", 1), ("test_c", "teardown", 2)]


def test_what_a_session_wide_loop_does_meanwhile_is_of_the_test_that_runs(run: Runs) -> None:
    ran = run(
        """
        import asyncio, pytest
        pytestmark = pytest.mark.asyncio(loop_scope="session")
        @pytest.fixture(scope="session")
        async def server():
            async def serve(reader, writer):
                ask(int(await reader.readline()))
                writer.close()
            async with await asyncio.start_server(serve, "127.0.0.1") as server:
                yield server.sockets[0].getsockname()
        async def request(address, tokens):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"%d\\n" % tokens)
            await reader.read()
            writer.close()
        async def test_a(server): await request(server, 1)
        async def test_b(server): await request(server, 2)
        """,
        "--asyncio-mode=auto",
        "-oasyncio_default_fixture_loop_scope=session",
        load=("asyncio",),
    )
    assert ran.places() == [("test_a", "call", 1), ("test_b", "call", 2)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_calls_in_tests_and_fixtures_of_anyio_are_of_the_phase_they_happen_in(
    backend: str, run: Runs
) -> None:
    ran = run(
        f"""
        import anyio, anyio.to_thread, pytest
        pytestmark = pytest.mark.anyio
        @pytest.fixture(scope="module")
        def anyio_backend():
            return "{backend}"
        @pytest.fixture(scope="module")
        async def client():
            ask(1)
            with session("of the client"):
                yield
            ask(2)
        async def test_a(client):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, ask, 3)
        async def test_b(client):
            ask(4)
        """,
        load=("anyio",),
    )
    ran.result.assert_outcomes(passed=2)
    assert ran.places() == [
        ("test_a", "setup", 1),
        ("test_a", "call", 3),
        ("test_b", "call", 4),
        ("test_b", "teardown", 2),
    ]


def test_a_budget_holds_for_what_async_tests_do_elsewhere(run: Runs) -> None:
    ran = run(
        """
        import asyncio, pytest
        @pytest.mark.budget(tokens=5)
        async def test_it(usage):
            await asyncio.gather(*(asyncio.to_thread(ask, 2) for _ in range(3)))
            assert usage.total_tokens == 6
        """,
        "--asyncio-mode=auto",
        load=("asyncio",),
        instrument=False,
        strict=False,
    )
    ran.result.assert_outcomes(failed=1)
    ran.result.stdout.fnmatch_lines(["used 6 tokens, of a budget of 5"])
