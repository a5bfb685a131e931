"""Responses as dicts in OpenAI's shape, and what the tests say of the operations they become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from instrument import Operation

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def chat(response_id: str | None = "chat-1", **more: Any) -> dict[str, Any]:
    """Return a response that used 10 + 5 tokens."""
    named = {} if response_id is None else {"id": response_id}
    return {**named, "object": "chat.completion", "model": "gpt-5", "usage": USAGE, **more}


def embedding(**more: Any) -> dict[str, Any]:
    """Return a response without an id that used 8 tokens."""
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    return {"object": "list", "model": "e", "data": [], "usage": usage, **more}


def chunks(response_id: str | None = "chat-1") -> list[dict[str, Any]]:
    """Return the chunks of a stream that used 10 + 5 tokens."""
    named = {} if response_id is None else {"id": response_id}
    opening = {**named, "object": "chat.completion.chunk", "model": "gpt-5", "choices": []}
    return [opening, {**opening, "usage": USAGE}]


def only(operations: Sequence[Operation]) -> Operation:
    (operation,) = operations
    return operation


def named(operations: Sequence[Operation], name: str) -> Operation:
    return only([each for each in operations if each.operation == name])


def counts(operation: Operation) -> tuple[int | None, int | None, int | None]:
    return operation.tokens, operation.input_tokens, operation.output_tokens


def parents(operations: Sequence[Operation]) -> dict[str, str | None]:
    """Return the name of each operation's parent, by name."""
    names = {each.operation_id: each.operation for each in operations}
    return {each.operation: names.get(each.parent_id) for each in operations}
