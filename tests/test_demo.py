"""The demo as a process of its own, and its server with the providers' real SDKs."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai

from instrument._config import override
from instrument.cli.demo_meter import Tokens
from instrument.cli.demo_server import DemoServer
from instrument.log import UsageLog
from instrument.operation import SessionStats
from instrument.tracked import tracked

QUESTION = "How are you?"
GUIDE = "Answer in one sentence, and name your source. " * 200


def demo(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the demo with an empty home, no terminal, and no environment but this."""
    return subprocess.run(
        [sys.executable, "-I", "-m", "instrument", "demo", *arguments],
        env={"HOME": str(home), "TMPDIR": str(home), "TZ": "UTC"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def figures(stats: SessionStats) -> Tokens:
    return Tokens(
        stats.input_tokens,
        stats.output_tokens,
        stats.cache_read_tokens,
        stats.cache_write_tokens,
        stats.reasoning_tokens,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The log directory and the output of one run of the demo."""
    home = tmp_path_factory.mktemp("home")
    result = demo(home, "--dir", str(home / "log"), COLUMNS="80")
    assert (result.returncode, result.stderr) == (0, "")
    return home / "log", result.stdout


def test_the_log_has_exactly_the_tokens_that_the_services_sent(ran: tuple[Path, str]) -> None:
    assert re.search(r"sent [\d,]+ tokens in \d+ answers; the log has the same\.", ran[1])


def test_every_operation_of_the_job_is_in_one_session(ran: tuple[Path, str]) -> None:
    operations = UsageLog(ran[0]).operations()
    names = sorted(f"{one.service} {one.operation}" for one in operations)
    assert len({one.session_id for one in operations}) == 1
    assert names == [
        "anthropic draft",
        *["anthropic summarise"] * 3,
        *["google outline", "google translate", "google translate", "google translate"],
        *["openai answer", "openai embed", "openai review", "openai title", "openai title"],
        *["pipeline read_reports", "pipeline write_digest"],
        "python review_in_child",
    ]


def test_the_rate_limit_and_the_stream_left_early_are_told(ran: tuple[Path, str]) -> None:
    operations = UsageLog(ran[0]).operations()
    outcomes = {(one.operation, one.outcome) for one in operations if one.outcome != "ok"}
    assert outcomes == {("title", "error"), ("draft", "partial")}


def test_calls_from_threads_tasks_and_the_child_process_know_their_caller(
    ran: tuple[Path, str],
) -> None:
    operations = UsageLog(ran[0]).operations()
    names = {one.operation_id: one.operation for one in operations}
    callers = {one.operation: names.get(one.parent_id) for one in operations}
    assert callers["write_digest"] is None
    assert callers["translate"] == callers["draft"] == "write_digest"
    assert callers["summarise"] == callers["answer"] == "read_reports"
    assert callers["review"] == "review_in_child"


def test_the_child_is_another_process(ran: tuple[Path, str]) -> None:
    processes = {one.operation: one.pid for one in UsageLog(ran[0]).operations()}
    assert processes["review"] != processes["review_in_child"]


def test_caching_and_reasoning_are_part_of_what_is_shown(ran: tuple[Path, str]) -> None:
    (stats,) = UsageLog(ran[0]).sessions()
    assert min(figures(stats)) > 0


def test_the_demo_ends_with_what_to_paste(ran: tuple[Path, str]) -> None:
    *_, imported, decorated, entered = ran[1].splitlines()
    assert imported.strip() == "from instrument import session, tracked"
    assert decorated.strip().startswith('@tracked(service="openai")')
    assert entered.strip().startswith('with session("my-job") as work:')


def test_no_line_of_the_demo_is_wider_than_the_terminal(ran: tuple[Path, str]) -> None:
    lines = [line for line in ran[1].splitlines() if not line.startswith("Log: ")]
    assert max(map(len, lines)) <= 80


def test_the_demo_leaves_nothing_behind_and_the_configured_log_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    result = demo(tmp_path, INSTRUMENT_DIR=str(tmp_path / "mine"))
    assert (result.returncode, result.stderr) == (0, "")
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_the_demo_keeps_its_log_on_request(tmp_path: Path) -> None:
    place = re.search(r"^Log: (.*) \(kept\)$", demo(tmp_path, "--keep").stdout, re.MULTILINE)
    assert place is not None
    assert len(UsageLog(place[1]).sessions()) == 1


def test_a_directory_that_the_demo_makes_is_this_users_alone(tmp_path: Path) -> None:
    assert demo(tmp_path, "--dir", str(tmp_path / "new")).returncode == 0
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_disabled_package_is_told_in_one_line(tmp_path: Path) -> None:
    result = demo(tmp_path, INSTRUMENT_DISABLED="1")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "INSTRUMENT_DISABLED" in result.stderr


def test_a_directory_that_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = demo(tmp_path, "--dir", str(tmp_path / "file"))
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)


def test_the_demo_is_over_in_seconds(ran: tuple[Path, str]) -> None:
    (stats,) = UsageLog(ran[0]).sessions()
    assert stats.elapsed_seconds < 20


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with DemoServer(refused={"gpt-5.4-nano": 1}, pace=0.05) as running:
        yield running


@pytest.fixture
def log(tmp_path: Path) -> Iterator[UsageLog]:
    """The log of what is tracked in this process during a test."""
    with override(log_dir=tmp_path):
        yield UsageLog(tmp_path)


def logged(log: UsageLog) -> Tokens:
    return Tokens(*map(sum, zip(*map(figures, log.sessions()), strict=True)))


def drained(stream: Iterable[Any]) -> list[Any]:
    return list(stream)


def test_the_log_of_openais_sdk_equals_the_tally(server: DemoServer, log: UsageLog) -> None:
    said: Any = [{"role": "user", "content": GUIDE}, {"role": "user", "content": QUESTION}]
    usage: Any = {"include_usage": True}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="demo") as client:
        openai_tracked = tracked(service="openai")
        chat = openai_tracked(lambda **given: client.chat.completions.create(**given))
        respond = openai_tracked(lambda **given: client.responses.create(**given))
        embed = openai_tracked(lambda **given: client.embeddings.create(**given))
        chat(model="gpt-5.4", messages=said)
        chat(model="gpt-5.4", messages=said)
        drained(chat(model="gpt-5.4", messages=said, stream=True, stream_options=usage))
        respond(model="gpt-5.4", input=QUESTION)
        drained(respond(model="gpt-5.4", input=QUESTION, stream=True))
        embed(model="text-embedding-3-small", input=[QUESTION])
    assert logged(log) == server.tally.total("openai")
    assert min(server.tally.total()._replace(cache_write=1)) > 0


def test_the_log_of_anthropics_sdk_equals_the_tally(server: DemoServer, log: UsageLog) -> None:
    given: Any = {
        "model": "claude-sonnet-5",
        "max_tokens": 200,
        "system": [{"type": "text", "text": GUIDE, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": QUESTION}],
    }
    with anthropic.Anthropic(base_url=server.url, api_key="demo") as client:
        create = tracked(service="anthropic")(
            lambda **more: client.messages.create(**given, **more)
        )
        create()
        create()
        drained(create(stream=True))
        with tracked(service="anthropic")(client.messages.stream)(**given) as stream:
            assert stream.get_final_text()
    assert logged(log) == server.tally.total("anthropic")
    assert min(server.tally.total()._replace(reasoning=1)) > 0


def test_an_anthropic_stream_left_early_counts_what_was_told_until_then(
    server: DemoServer, log: UsageLog
) -> None:
    said: Any = [{"role": "user", "content": QUESTION}]
    with anthropic.Anthropic(base_url=server.url, api_key="demo") as client:
        ask = tracked(service="anthropic")(
            lambda: client.messages.create(
                model="claude-opus-5", max_tokens=60_000, messages=said, stream=True
            )
        )
        with ask() as stream:
            next(iter(stream))
    assert [one.outcome for one in log.operations()] == ["partial"]
    assert logged(log) == server.tally.total() == Tokens(input=11, output=1)


def test_the_log_of_googles_sdk_equals_the_tally(server: DemoServer, log: UsageLog) -> None:
    options: Any = {"base_url": server.url}
    with genai.Client(api_key="demo", http_options=options) as client:
        google_tracked = tracked(service="google")
        generate = google_tracked(client.models.generate_content)
        stream = google_tracked(client.models.generate_content_stream)
        config: Any = {"system_instruction": GUIDE}
        for _ in range(2):
            generate(model="gemini-2.5-pro", contents=QUESTION, config=config)
        drained(stream(model="gemini-2.5-pro", contents=QUESTION, config=config))
    assert logged(log) == server.tally.total("google")
    assert min(server.tally.total()._replace(cache_write=1)) > 0


async def test_the_log_of_asynchronous_clients_equals_the_tally(
    server: DemoServer, log: UsageLog
) -> None:
    said: Any = [{"role": "user", "content": QUESTION}]
    async with (
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="demo") as ours,
        anthropic.AsyncAnthropic(base_url=server.url, api_key="demo") as theirs,
    ):
        chat = tracked(service="openai")(ours.chat.completions.create)
        create = tracked(service="anthropic")(theirs.messages.create)
        await asyncio.gather(
            *(chat(model="gpt-5.4", messages=said) for _ in range(8)),
            *(create(model="claude-sonnet-5", max_tokens=99, messages=said) for _ in range(8)),
        )
    assert logged(log) == server.tally.total()
    assert server.tally.requests == {"openai": 8, "anthropic": 8}


def test_a_rate_limit_is_the_sdks_own_error(server: DemoServer, log: UsageLog) -> None:
    said: Any = [{"role": "user", "content": QUESTION}]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="demo", max_retries=0) as client:
        chat = tracked(service="openai")(client.chat.completions.create)
        with pytest.raises(openai.RateLimitError) as caught:
            chat(model="gpt-5.4-nano", messages=said)
        assert chat(model="gpt-5.4-nano", messages=said).usage is not None
    assert caught.value.response.headers["retry-after-ms"] == "150"
    assert [one.error_type for one in log.operations()] == ["RateLimitError", None]
