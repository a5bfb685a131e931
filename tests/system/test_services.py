"""One session through a whole system: web services, a worker, pools and a program, as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from redis_child import free_port, redis_server, wait_for

from instrument import UsageLog

pytest.importorskip("redis")

HERE = Path(__file__).parent
SERVICES = HERE / "services.py"
TREE = """
jobs write_report
  jobs fetch
    summaries summarise
      openai chat
      search look_up
        index update
  jobs fetch
    summaries summarise
      openai chat
      search look_up
        index update
  jobs score
  jobs score
  cli publish
"""


class Done(NamedTuple):
    """A job that went through the system: its session, and the log directories by program."""

    session_id: str
    log_dirs: dict[str, Path]

    @property
    def log(self) -> UsageLog:
        return UsageLog(*self.log_dirs.values())


@contextmanager
def running(*command: str, log_dir: Path, environment: dict[str, str]) -> Iterator[None]:
    given = os.environ | environment | {"INSTRUMENT_DIR": str(log_dir), "C_FORCE_ROOT": "1"}
    process = subprocess.Popen([sys.executable, *command], cwd=HERE, env=given)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """Start the system, have it do one job, and end it."""
    programs = ("job", "asgi", "wsgi", "worker", "publish")
    log_dirs = {name: tmp_path_factory.mktemp(name) for name in programs}
    ports = {name: free_port() for name in ("asgi", "wsgi")}
    with ExitStack() as stack:
        redis_port = stack.enter_context(redis_server())
        environment = {f"TEST_{name.upper()}": local(port) for name, port in ports.items()} | {
            "TEST_REDIS": f"redis://127.0.0.1:{redis_port}/0",
            "TEST_PUBLISH_DIR": str(log_dirs["publish"]),
        }
        worker = ("-m", "celery", "-q", "-A", "services", "worker", "-c", "2", "-l", "ERROR")
        commands = {"worker": worker} | {
            name: (str(SERVICES), name, str(port)) for name, port in ports.items()
        }
        for name, command in commands.items():
            stack.enter_context(running(*command, log_dir=log_dirs[name], environment=environment))
        for port in ports.values():
            wait_for(port)
        given = os.environ | environment | {"INSTRUMENT_DIR": str(log_dirs["job"])}
        command = [sys.executable, str(SERVICES), "job"]
        output = subprocess.run(
            command, env=given, check=True, timeout=120, stdout=subprocess.PIPE, text=True
        ).stdout
        yield Done(output.strip(), log_dirs)


def local(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def edges(tree: str) -> Counter[tuple[str, str | None]]:
    """Return how often each operation stands below which other."""
    found: Counter[tuple[str, str | None]] = Counter()
    above: list[str] = []
    for line in tree.strip().splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        del above[depth:]
        found[line.strip(), above[-1] if above else None] += 1
        above.append(line.strip())
    return found


def test_the_merged_log_has_every_operation_once_with_the_right_parent(done: Done) -> None:
    found = done.log.correlate(done.session_id)
    names = {each.operation_id: f"{each.service} {each.operation}" for each in found}
    assert len(names) == len(found)
    assert Counter(
        (f"{each.service} {each.operation}", names.get(each.parent_id)) for each in found
    ) == edges(TREE)
    assert {each.success for each in found} == {True}


def test_each_program_has_recorded_its_part_in_its_own_directory(done: Done) -> None:
    parts = {
        name: {each.service for each in UsageLog(path).correlate(done.session_id)}
        for name, path in done.log_dirs.items()
    }
    assert parts == {
        "job": {"jobs"},
        "asgi": {"summaries", "openai"},
        "wsgi": {"search"},
        "worker": {"index"},
        "publish": {"cli"},
    }


def test_the_pools_and_services_are_processes_of_their_own(done: Done) -> None:
    found = done.log.correlate(done.session_id)
    pids = {each.operation: each.pid for each in found}
    apart = ("write_report", "summarise", "look_up", "update", "score", "publish")
    assert len({pids[each] for each in apart}) == len(apart)


def shown(done: Done, *options: str) -> str:
    directories = [option for path in done.log_dirs.values() for option in ("--dir", str(path))]
    command = [sys.executable, "-m", "instrument", "show", done.session_id, *directories, *options]
    environment = os.environ | {"COLUMNS": "100"}
    return subprocess.run(
        command, env=environment, check=True, timeout=60, stdout=subprocess.PIPE, text=True
    ).stdout


def test_show_prints_the_directories_as_one_tree_in_time_order(done: Done) -> None:
    heading, _, table = shown(done).partition("\n\n")
    assert "nightly" in heading
    assert "14 operations, 2,580 tokens, 100.0 % success" in heading
    tree = "\n".join(line.partition("  ok")[0].rstrip() for line in table.splitlines()[1:])
    assert tree.strip() == TREE.strip()


def test_its_numbers_are_those_of_the_whole(done: Done) -> None:
    stats = done.log.stats(done.session_id)
    assert (stats.operation_count, stats.total_tokens, stats.error_count) == (14, 2_580, 0)
