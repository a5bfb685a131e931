"""Probes: frameworks that inspect, inject into or re-register functions still understand them.

Annotations are evaluated here (no `from __future__ import annotations`), because they name
things that exist inside a probe alone.
"""

import contextlib
import io
import sys
import tempfile
import textwrap
import unittest
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any
from unittest import mock

from .errors import raised
from .subject import Subject, behaviour


@behaviour("fastapi", "httpx2")
def fastapi_endpoints_and_dependencies_keep_their_signatures(subject: Subject) -> None:
    from fastapi import Depends, FastAPI

    def double(value: int) -> int:
        return 2 * value

    async def triple(value: int) -> int:
        return 3 * value

    app = FastAPI()

    def ask(a: Annotated[int, Depends(subject.decorate(double))]) -> dict[str, int]:
        return {"a": a}

    async def async_ask(b: Annotated[int, Depends(subject.decorate(triple))]) -> dict[str, int]:
        return {"b": b}

    app.get("/sync")(subject.decorate(ask))
    app.get("/async")(subject.decorate(async_ask))
    assert _get(app, "/sync?value=2") == (200, {"a": 4})
    assert _get(app, "/async?value=2") == (200, {"b": 6})
    assert _get(app, "/sync?value=two")[0] == 422


@behaviour("fastapi", "httpx2")
def fastapi_runs_generator_dependencies_to_their_end(subject: Subject) -> None:
    from fastapi import Depends, FastAPI

    events: list[str] = []

    def connection() -> Iterator[str]:
        events.append("open")
        yield "sync"
        events.append("close")

    async def async_connection() -> AsyncIterator[str]:
        events.append("async open")
        yield "async"
        events.append("async close")

    app = FastAPI()

    @app.get("/")
    @subject.decorate
    def both(
        one: Annotated[str, Depends(subject.decorate(connection))],
        two: Annotated[str, Depends(subject.decorate(async_connection))],
    ) -> list[str]:
        return [one, two]

    assert _get(app, "/") == (200, ["sync", "async"])
    assert sorted(events) == ["async close", "async open", "close", "open"]


@behaviour("fastapi", "httpx2")
def fastapi_streams_a_decorated_generator(subject: Subject) -> None:
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    async def words() -> AsyncIterator[str]:
        for word in ("one ", "two"):
            yield word

    app = FastAPI()
    app.get("/")(lambda: StreamingResponse(subject.decorate(words)()))
    with _client(app) as client:
        assert client.get("/").text == "one two"


def _get(app: Any, address: str) -> tuple[int, Any]:
    with _client(app) as client:
        response = client.get(address)
    return response.status_code, response.json()


@contextlib.contextmanager
def _client(app: Any) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the test client's own
        with TestClient(app) as client:
            yield client


@behaviour("pytest")
def pytest_injects_into_decorated_fixtures_and_tests(subject: Subject) -> None:
    import pytest

    test_file = """
        import pytest
        from decorator_under_test import decorate

        closed = []

        @pytest.fixture
        @decorate
        def number():
            return 42

        @pytest.fixture
        @decorate
        def resource(number):
            yield number + 1
            closed.append(number)

        @pytest.mark.parametrize("word", ["a", "b"])
        @decorate
        def test_parametrised(word, number):
            assert (word in "ab", number) == (True, 42)

        @decorate
        def test_yielding(resource):
            assert resource == 43

        def test_fixture_was_closed():
            assert closed == [42]
    """
    module = ModuleType("decorator_under_test")
    module.decorate = subject.decorate
    with (
        mock.patch.dict(sys.modules, decorator_under_test=module),
        mock.patch.dict("os.environ", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        tempfile.TemporaryDirectory() as directory,
        contextlib.redirect_stdout(io.StringIO()) as output,
    ):
        path = Path(directory, "test_inside.py")
        path.write_text(textwrap.dedent(test_file))
        options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:unraisableexception"]
        assert pytest.main([*options, "-c", "/dev/null", str(path)]) == 0, output.getvalue()


@behaviour()
def unittest_finds_and_patches_decorated_tests(subject: Subject) -> None:
    class Case(unittest.IsolatedAsyncioTestCase):
        @mock.patch("os.getcwd", return_value="here")
        @subject.decorate
        def test_patched(self, getcwd: Any) -> None:
            self.assertIs(getcwd(), "here")  # noqa: PT009 - it is a unittest case

        @subject.decorate
        async def test_async(self) -> None:
            self.ran = True

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Case)
    result = unittest.TestResult()
    suite.run(result)
    assert (result.testsRun, result.errors, result.failures) == (2, [], [])


@behaviour("celery")
def celery_tasks_run_under_their_own_name(subject: Subject) -> None:
    from celery import Celery

    app = Celery("probe", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_always_eager = True

    def double(value: int) -> int:
        return 2 * value

    def who(self: Any, value: int) -> tuple[str, int]:
        return self.name, value

    task = app.task(subject.decorate(double))
    bound = app.task(bind=True)(subject.decorate(who))
    assert task.delay(21).get() == 42
    assert task.name.endswith("frameworks.double")
    assert bound.delay(1).get() == (bound.name, 1)


@behaviour("celery")
def celery_refuses_wrong_arguments_before_sending(subject: Subject) -> None:
    from celery import Celery

    app = Celery("probe", broker="memory://", set_as_current=False)

    def double(value: int) -> int:
        return 2 * value

    task = app.task(subject.decorate(double))
    assert isinstance(raised(lambda: task.apply_async(args=(1, 2, 3))), TypeError)


@behaviour("click")
def click_commands_keep_name_help_and_parameters(subject: Subject) -> None:
    import click
    from click.testing import CliRunner

    def greet(name: str) -> None:
        """Greet somebody."""
        click.echo(f"hello {name}")

    over = click.command()(click.option("--name")(subject.decorate(greet)))
    under = click.command()(subject.decorate(click.option("--name")(greet)))
    for command in (over, under):
        assert CliRunner().invoke(command, ["--name", "you"]).output == "hello you\n"
        assert "Greet somebody." in CliRunner().invoke(command, ["--help"]).output
        assert command.name == "greet"


@behaviour("pydantic")
def pydantic_validates_calls_over_and_under(subject: Subject) -> None:
    from pydantic import validate_call

    def double(value: int) -> int:
        return 2 * value

    assert validate_call(subject.decorate(double))("21") == 42
    assert subject.decorate(validate_call(double))("21") == 42


@behaviour("tenacity")
def tenacity_retries_over_and_under(subject: Subject) -> None:
    from tenacity import retry, stop_after_attempt

    def flaky() -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError
        return "done"

    for compose in (
        lambda f: subject.decorate(retry(stop=stop_after_attempt(3))(f)),
        lambda f: retry(stop=stop_after_attempt(3))(subject.decorate(f)),
    ):
        attempts: list[int] = []
        decorated = compose(flaky)
        assert decorated() == "done"
        assert decorated.retry.stop.max_attempt_number == 3
