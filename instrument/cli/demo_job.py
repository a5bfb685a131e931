"""The demo's job: a digest of reader feedback, written with the help of three services."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from instrument.cli.demo_client import RateLimitError, post, post_async, stream, stream_async
from instrument.propagation import propagate
from instrument.session import current_session
from instrument.tracked import tracked

__all__ = ["review", "write_digest"]

Json = dict[str, Any]

REPORTS = (
    "The export stops at ten thousand rows and says nothing about it.",
    "Search finds nothing in documents that were added today; yesterday's are fine.",
    "Since the update the invoice page needs eight seconds, and twice it timed out.",
)
LANGUAGES = ("German", "Japanese", "Portuguese")
GUIDE = "You write for readers in a hurry. Say what happened, to whom, and what follows. " * 60


@tracked(service="pipeline")
def write_digest(api: str) -> str:
    """Run the whole job against the services at `api`."""
    embed(api, REPORTS)
    asyncio.run(read_reports(api))
    for _ in outline(api):
        pass
    title = title_patiently(api)
    glance(api)
    translate_all(api, title)
    review_in_child(api)
    return title


@tracked(service="openai")
def embed(api: str, texts: Sequence[str]) -> Json:
    body = {"model": "text-embedding-3-small", "input": list(texts)}
    return post(api, "/v1/embeddings", body)


@tracked(service="pipeline")
async def read_reports(api: str) -> None:
    """Three summaries and an answer, all at once; the first summary fills the prompt cache."""
    first, *others = REPORTS
    await summarise(api, first)
    await asyncio.gather(*(summarise(api, report) for report in others), collect(answer(api)))


@tracked(service="anthropic")
async def summarise(api: str, report: str) -> Json:
    body = {
        "model": "claude-sonnet-5",
        "max_tokens": 120,
        "system": [{"type": "text", "text": GUIDE, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": f"Summarise: {report}"}],
    }
    return await post_async(api, "/v1/messages", body)


@tracked(service="openai")
async def answer(api: str) -> AsyncIterator[Json]:
    body = {
        "model": "gpt-5.4-mini",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Which report is the most urgent, and why?"}],
    }
    async for chunk in stream_async(api, "/v1/chat/completions", body):
        yield chunk


async def collect(chunks: AsyncIterator[Json]) -> list[Json]:
    return [chunk async for chunk in chunks]


@tracked(service="google")
def outline(api: str) -> Iterator[Json]:
    path = "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    yield from stream(api, path, _prompt("Outline a digest of these reports.", *REPORTS))


@tracked(service="openai")
def title(api: str) -> Json:
    messages = [
        {"role": "developer", "content": GUIDE},
        {"role": "user", "content": "A title for the digest, in six words."},
    ]
    body = {"model": "gpt-5.4-nano", "messages": messages, "max_completion_tokens": 90}
    return post(api, "/v1/chat/completions", body)


def title_patiently(api: str) -> str:
    """Ask again once when the service says that it was asked too often."""
    try:
        given = title(api)
    except RateLimitError as error:
        time.sleep(error.retry_after_seconds)
        given = title(api)
    return str(given["choices"][0]["message"]["content"])


def glance(api: str) -> None:
    """Read the beginning of a long draft, and leave the rest."""
    with closing(draft(api)) as chunks:
        for _ in itertools.islice(chunks, 9):
            pass


@tracked(service="anthropic")
def draft(api: str) -> Generator[Json, None, None]:
    body = {
        "model": "claude-opus-5",
        "max_tokens": 8000,
        "stream": True,
        "messages": [{"role": "user", "content": "Write the digest in full: " + " ".join(REPORTS)}],
    }
    yield from stream(api, "/v1/messages", body)


def translate_all(api: str, text: str) -> None:
    """Translate in threads; what they do belongs to the session and to the caller here."""
    with ThreadPoolExecutor(len(LANGUAGES)) as threads:
        bound = propagate(translate)
        list(threads.map(bound, itertools.repeat(api), itertools.repeat(text), LANGUAGES))


@tracked(service="google")
def translate(api: str, text: str, language: str) -> Json:
    path = "/v1beta/models/gemini-2.5-flash:generateContent"
    return post(api, path, _prompt(f"Translate into {language}.", text))


@tracked(service="python")
def review_in_child(api: str) -> subprocess.CompletedProcess[bytes]:
    """Have another process review the digest; `env()` is what makes it join the session."""
    # -I and the path as it is here: the child imports this very package, wherever it is started
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import review; review({api!r})"
    environment = {**os.environ, **current_session().env()}
    return subprocess.run([sys.executable, "-I", "-c", code], env=environment, check=False)


@tracked(service="openai")
def review(api: str) -> Json:
    body = {"model": "gpt-5.4", "instructions": GUIDE, "input": "Review: " + " ".join(REPORTS)}
    return post(api, "/v1/responses", body)


def _prompt(*parts: str) -> Json:
    return {
        "contents": [{"role": "user", "parts": [{"text": part} for part in parts]}],
        "generationConfig": {"maxOutputTokens": 160},
    }
