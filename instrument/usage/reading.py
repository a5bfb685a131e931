"""What a usage reader finds in a result, and how the chunks of a stream add up to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from instrument.operation import Usage

__all__ = ["Merge", "Reader", "Reading"]


class Reading(Usage, frozen=True):
    """A `Usage`, and what else the response says of itself.

    `provider` and `kind` are OpenTelemetry's `gen_ai.provider.name` and `gen_ai.operation.name`.
    `outcome` is `error` or `cancelled` when the result says so, with `error_type` and
    `error_message`; otherwise `None`. Counts are as the provider gave them: the recorder drops
    impossible ones.
    """

    provider: str | None = None
    kind: str | None = None
    outcome: str | None = None
    error_type: str | None = None
    error_message: str | None = None


Reader = Callable[[Any], "Reading | None"]


class Merge(Protocol):
    """Adds up the chunks of one stream in constant memory."""

    def add(self, chunk: Any) -> None:
        """Look at one chunk; one that says nothing is ignored."""

    def reading(self) -> Reading | None:
        """Return what was seen so far; `None` if nothing was."""
