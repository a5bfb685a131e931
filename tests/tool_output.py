"""What the command-line tools print, as they print it, and a child process that prints it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SESSION = "0b2f6a52-3c1e-4a5e-9d0c-5f6a0c1d2e3f"
CLAUDE, HAIKU = "claude-opus-4-6", "claude-haiku-4-5-20251001"


def lines(*messages: Any) -> str:
    return "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in messages)


def printing(out: str, *, code: int = 0, err: str = "", **options: Any) -> Any:
    """Run a process that prints this and exits so."""
    script = (
        f"import os, sys; sys.stdout.write({out!r}); sys.stdout.flush()\n"
        f"sys.stderr.write({err!r}); sys.stderr.flush()\n"
        f"os.kill(os.getpid(), {-code}) if {code} < 0 else sys.exit({code})"
    )
    settings = {"capture_output": True, "text": True, **options}
    return subprocess.run([sys.executable, "-c", script], check=False, **settings)


def gemini(**more: Any) -> dict[str, Any]:
    """`gemini -o json` with two models."""
    return {
        "session_id": SESSION,
        "response": "The capital is Lisbon.",
        "stats": {
            "models": {
                "gemini-2.5-pro": {
                    "api": {"totalRequests": 2, "totalErrors": 0, "totalLatencyMs": 5053},
                    "tokens": {
                        "input": 16000,
                        "prompt": 24939,
                        "candidates": 20,
                        "total": 25128,
                        "cached": 8939,
                        "thoughts": 154,
                        "tool": 15,
                    },
                },
                "gemini-2.5-flash": {
                    "api": {"totalRequests": 1, "totalErrors": 0, "totalLatencyMs": 1879},
                    "tokens": {
                        "input": 8965,
                        "prompt": 8965,
                        "candidates": 10,
                        "total": 9033,
                        "cached": 0,
                        "thoughts": 30,
                        "tool": 28,
                    },
                },
            },
            "tools": {"totalCalls": 1, "totalSuccess": 1, "totalFail": 0, "byName": {}},
            "files": {"totalLinesAdded": 0, "totalLinesRemoved": 0},
        },
        **more,
    }


def gemini_error(kind: str, message: str, code: Any = None) -> dict[str, Any]:
    coded = {} if code is None else {"code": code}
    return {"session_id": SESSION, "error": {"type": kind, "message": message, **coded}}


def gemini_stream(*, models: bool = True, **more: Any) -> list[dict[str, Any]]:
    """`gemini -o stream-json`."""
    now = {"timestamp": "2026-11-24T19:30:00.000Z"}
    counts = {"total_tokens": 9033, "input_tokens": 8965, "output_tokens": 10, "cached": 4100}
    by_model = {"models": {"gemini-2.5-pro": {**counts, "input": 4865}}} if models else {}
    stats = {**counts, "input": 4865, "duration_ms": 1879, "tool_calls": 1, **by_model}
    text = {"role": "assistant", "content": "Lisbon.", "delta": True}
    return [
        {"type": "init", **now, "session_id": SESSION, "model": "gemini-2.5-pro"},
        {"type": "message", **now, "role": "user", "content": 'Which "usage" has a capital?'},
        {"type": "tool_use", **now, "tool_name": "x", "tool_id": "1", "parameters": {}},
        {"type": "tool_result", **now, "tool_id": "1", "status": "error", "output": "no file"},
        {"type": "message", **now, **text},
        {"type": "result", **now, "status": "success", "stats": stats, **more},
    ]


def claude_usage(*counts: int) -> dict[str, Any]:
    """Return input, cache write, cache read, output."""
    new, written, read, output = counts
    return {
        "input_tokens": new,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": output,
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
        "service_tier": "standard",
        "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": written},
    }


def claude_model(*counts: int, cost: float) -> dict[str, Any]:
    new, written, read, output = counts
    return {
        "inputTokens": new,
        "outputTokens": output,
        "cacheReadInputTokens": read,
        "cacheCreationInputTokens": written,
        "webSearchRequests": 0,
        "costUSD": cost,
        "contextWindow": 200000,
    }


def claude(**more: Any) -> dict[str, Any]:
    """`claude -p --output-format json`: one model for the work and one for a title."""
    return {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "duration_ms": 4312,
        "duration_api_ms": 5120,
        "num_turns": 2,
        "result": "The capital is Lisbon.",
        "session_id": SESSION,
        "total_cost_usd": 0.0412,
        "usage": claude_usage(5, 1253, 128955, 10),
        "modelUsage": {
            CLAUDE: claude_model(5, 1253, 128955, 10, cost=0.0405),
            HAIKU: claude_model(300, 0, 0, 12, cost=0.0007),
        },
        "permission_denials": [],
        "terminal_reason": "completed",
        "uuid": "5a8c6b1e-7b0f-4f57-8a3e-3f1d1f9d3c11",
        **more,
    }


def claude_message(number: int, usage: dict[str, Any], kind: str = "text") -> dict[str, Any]:
    return {
        "type": "assistant",
        "message": {
            "model": CLAUDE,
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "content": [{"type": kind, kind: "Lisbon."}],
            "stop_reason": None,
            "usage": usage,
        },
        "parent_tool_use_id": None,
        "session_id": SESSION,
        "uuid": f"uuid-{number}-{kind}",
    }


def claude_stream(result: dict[str, Any] | None) -> list[dict[str, Any]]:
    """`claude -p --output-format stream-json --verbose`: the first response in two pieces."""
    init = {"type": "system", "subtype": "init", "cwd": "/w", "session_id": SESSION}
    first, second = claude_usage(3, 1253, 60000, 1), claude_usage(2, 0, 68955, 1)
    answer = {"role": "user", "content": [{"type": "tool_result", "content": '"usage": 3'}]}
    return [
        {**init, "tools": ["Bash"], "model": CLAUDE, "claude_code_version": "2.1.0"},
        claude_message(1, first, "thinking"),
        claude_message(1, first, "text"),
        {"type": "user", "message": answer, "session_id": SESSION, "parent_tool_use_id": None},
        claude_message(2, second),
        *([] if result is None else [result]),
    ]


def codex(*turns: tuple[int, int, int], end: Any = None) -> list[dict[str, Any]]:
    """`codex exec --json`: input, cached input and output of each turn."""
    messages: list[dict[str, Any]] = [{"type": "thread.started", "thread_id": SESSION}]
    item = {"id": "item_0", "type": "agent_message", "text": "Lisbon."}
    for new, cached, output in turns:
        usage = {"input_tokens": new, "cached_input_tokens": cached, "output_tokens": output}
        messages += [
            {"type": "turn.started"},
            {"type": "item.completed", "item": item},
            {"type": "turn.completed", "usage": usage},
        ]
    return messages + ([] if end is None else [{"type": "turn.started"}, *end])


def qwen(**more: Any) -> list[dict[str, Any]]:
    """`qwen --output-format json`: the result repeats what the messages said."""
    head = {"session_id": SESSION, "parent_tool_use_id": None}
    one = {"input_tokens": 6000, "output_tokens": 40, "cache_read_input_tokens": 2000}
    two = {"input_tokens": 6500, "output_tokens": 60, "cache_read_input_tokens": 6000}
    answers = [
        {
            "type": "assistant",
            "uuid": f"u{number}",
            **head,
            "message": {
                "id": f"m{number}",
                "type": "message",
                "role": "assistant",
                "model": "qwen3-coder-plus",
                "content": [{"type": "text", "text": "Lisbon."}],
                "stop_reason": None,
                "usage": {**usage, "total_tokens": usage["input_tokens"] + usage["output_tokens"]},
            },
        }
        for number, usage in enumerate((one, two))
    ]
    total = {"input_tokens": 12500, "output_tokens": 100, "cache_read_input_tokens": 8000}
    result = {
        "type": "result",
        "subtype": "success",
        "uuid": "r1",
        "session_id": SESSION,
        "is_error": False,
        "duration_ms": 900,
        "duration_api_ms": 800,
        "num_turns": 2,
        "result": "Lisbon.",
        "usage": {**total, "total_tokens": 12600},
        "permission_denials": [],
        **more,
    }
    init = {"type": "system", "subtype": "init", "uuid": "i", "session_id": SESSION}
    return [{**init, "model": "qwen3-coder-plus", "qwen_code_version": "0.5.0"}, *answers, result]
