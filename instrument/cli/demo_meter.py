"""How the demo's services count tokens, and the tally of what they sent."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from typing import NamedTuple
from zlib import crc32

__all__ = ["Meter", "Tally", "Tokens"]

LETTERS_PER_TOKEN = 4
CACHEABLE_TOKENS = 1024
CACHE_STEP = 128
USUAL_LIMIT = 240


class Tokens(NamedTuple):
    """One answer's tokens; `input` includes both caches and `output` includes reasoning."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output


class Meter:
    """Counts tokens reproducibly, and remembers which prompts' beginnings are in the cache."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cached: set[tuple[str, str]] = set()

    def embedding(self, texts: list[str]) -> Tokens:
        return Tokens(input=sum(_tokens_in(text) for text in texts))

    def answer(
        self, model: str, prefix: str, prompt: str, *, limit: int | None, writes_cache: bool
    ) -> Tokens:
        """Count a chat answer; `prefix` is the part of the prompt that providers cache."""
        room = limit or USUAL_LIMIT
        output = max(1, room * 3 // 4 + crc32(prompt.encode()) % max(1, room // 4))
        reasoning = output // 3 if model.startswith(("gpt-5", "o", "gemini-2.5")) else 0
        start = _tokens_in(prefix)
        read = written = 0
        if start >= CACHEABLE_TOKENS:
            known = self._known(model, prefix)
            read = start // CACHE_STEP * CACHE_STEP if known else 0
            written = start if writes_cache and not known else 0
        return Tokens(start + _tokens_in(prompt), output, read, written, reasoning)

    def _known(self, model: str, prefix: str) -> bool:
        with self._lock:
            known = (model, prefix) in self._cached
            self._cached.add((model, prefix))
        return known


class Tally:
    """What the services have sent so far, each answer under its own number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: defaultdict[str, dict[str, Tokens]] = defaultdict(dict)
        self.requests: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def asked(self, service: str) -> None:
        with self._lock:
            self.requests[service] += 1

    def refuse(self, service: str) -> None:
        with self._lock:
            self.refused[service] += 1

    def sent(self, service: str, answer: str, tokens: Tokens) -> None:
        """Note what the answer's reader knows now; a stream's later word replaces the earlier."""
        with self._lock:
            self._sent[service][answer] = tokens

    def total(self, service: str | None = None) -> Tokens:
        """Sum up one service, or all."""
        with self._lock:
            answers = [
                tokens
                for name, sent in self._sent.items()
                if service in (None, name)
                for tokens in sent.values()
            ]
        return Tokens(*map(sum, zip(*answers, strict=True))) if answers else Tokens()


def _tokens_in(text: str) -> int:
    return len(text) // LETTERS_PER_TOKEN + 8 if text else 0
