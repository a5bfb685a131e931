"""The demo's answers in the published wire formats of OpenAI, Anthropic and Gemini."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, cycle, islice
from typing import Any, NamedTuple

from instrument.cli.demo_meter import Tokens

__all__ = [
    "Event",
    "Json",
    "chat",
    "chat_events",
    "content",
    "content_events",
    "embeddings",
    "message",
    "message_events",
    "refusal",
    "response",
    "response_events",
    "words",
]

Json = dict[str, Any]

TOKENS_PER_CHUNK = 5
CREATED = 1_795_512_600
SENTENCE = "The reports agree on the cause and differ in what they would do about it."


class Event(NamedTuple):
    """One server-sent event; `known` is the usage that a reader has learnt with it, if any."""

    data: Json | str
    name: str | None = None
    known: Tokens | None = None


def words(tokens: Tokens) -> list[str]:
    """The answer's visible text, a chunk for every few tokens."""
    chunks = max(1, (tokens.output - tokens.reasoning) // TOKENS_PER_CHUNK)
    return [f"{word} " for word in islice(cycle(SENTENCE.split()), chunks)]


def chat_usage(tokens: Tokens) -> Json:
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.total,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat(identity: str, model: str, tokens: Tokens) -> Json:
    """OpenAI, Chat Completions."""
    said = {"role": "assistant", "content": "".join(words(tokens)), "refusal": None}
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": "stop"}
    return {
        "id": f"chatcmpl-{identity}",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [choice],
        "usage": chat_usage(tokens),
        "service_tier": "default",
        "system_fingerprint": None,
    }


def chat_events(identity: str, model: str, tokens: Tokens, *, usage: bool) -> Iterator[Event]:
    """OpenAI, Chat Completions with `stream`; `usage` is `stream_options.include_usage`."""

    def chunk(delta: Json, finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return frame | {"choices": [choice]} | ({"usage": None} if usage else {})

    frame = {
        "id": f"chatcmpl-{identity}",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": None,
    }
    yield Event(chunk({"role": "assistant", "content": "", "refusal": None}))
    for word in words(tokens):
        yield Event(chunk({"content": word}))
    yield Event(chunk({}, "stop"))
    if usage:
        yield Event(frame | {"choices": [], "usage": chat_usage(tokens)}, known=tokens)
    yield Event("[DONE]")


def response(identity: str, model: str, tokens: Tokens, status: str = "completed") -> Json:
    """OpenAI, Responses."""
    done = status == "completed"
    text = {"type": "output_text", "text": "".join(words(tokens)), "annotations": []}
    said = {
        "type": "message",
        "id": f"msg_{identity}",
        "status": status,
        "role": "assistant",
        "content": [text],
    }
    usage = {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cache_read},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.total,
    }
    return {
        "id": f"resp_{identity}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [{"type": "reasoning", "id": f"rs_{identity}", "summary": []}, said] * done,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage if done else None,
    }


def response_events(identity: str, model: str, tokens: Tokens) -> Iterator[Event]:
    """OpenAI, Responses with `stream`."""

    def event(name: str, known: Tokens | None = None, **fields: Any) -> Event:
        return Event({"type": name, "sequence_number": next(numbers)} | fields, name, known)

    numbers = count()
    place: Json = {"item_id": f"msg_{identity}", "output_index": 1, "content_index": 0}
    started = response(identity, model, tokens, "in_progress")
    yield event("response.created", response=started)
    yield event("response.in_progress", response=started)
    for word in words(tokens):
        yield event("response.output_text.delta", **place, delta=word, logprobs=[])
    yield event("response.completed", tokens, response=response(identity, model, tokens))


def embeddings(model: str, texts: list[str], tokens: Tokens) -> Json:
    """OpenAI, Embeddings."""
    vectors = ([(len(text) * step % 97) / 97 for step in range(1, 9)] for text in texts)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens.input, "total_tokens": tokens.input},
    }


def message_usage(tokens: Tokens) -> Json:
    """Anthropic counts cached tokens beside `input_tokens`, not within."""
    return {
        "input_tokens": tokens.input - tokens.cache_read - tokens.cache_write,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cache_read,
        "output_tokens": tokens.output,
    }


def message(identity: str, model: str, tokens: Tokens) -> Json:
    """Anthropic, Messages."""
    split = {"ephemeral_5m_input_tokens": tokens.cache_write, "ephemeral_1h_input_tokens": 0}
    return {
        "id": f"msg_{identity}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "".join(words(tokens))}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": message_usage(tokens) | {"cache_creation": split, "service_tier": "standard"},
    }


def message_events(identity: str, model: str, tokens: Tokens) -> Iterator[Event]:
    """Anthropic, Messages with `stream`: the last `message_delta` has the final usage."""

    def event(name: str, known: Tokens | None = None, **fields: Any) -> Event:
        return Event({"type": name} | fields, name, known)

    seed = tokens._replace(output=1, reasoning=0)
    begun = message(identity, model, seed) | {"content": [], "stop_reason": None}
    yield event("message_start", seed, message=begun)
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield event("ping")
    for word in words(tokens):
        delta = {"type": "text_delta", "text": word}
        yield event("content_block_delta", index=0, delta=delta)
    yield event("content_block_stop", index=0)
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield event("message_delta", tokens, delta=end, usage=message_usage(tokens))
    yield event("message_stop")


def content(identity: str, model: str, tokens: Tokens) -> Json:
    """Gemini, `generateContent`."""
    return _content(identity, model, tokens, "".join(words(tokens)), "STOP")


def content_events(identity: str, model: str, tokens: Tokens) -> Iterator[Event]:
    """Gemini, `streamGenerateContent`: every chunk has the usage so far."""
    chunks = words(tokens)
    visible = tokens.output - tokens.reasoning
    for number, word in enumerate(chunks, 1):
        so_far = tokens.reasoning + visible * number // len(chunks)
        known = tokens._replace(output=so_far)
        finish = "STOP" if number == len(chunks) else None
        yield Event(_content(identity, model, known, word, finish), known=known)


def _content(identity: str, model: str, tokens: Tokens, text: str, finish: str | None) -> Json:
    """Gemini counts thoughts beside `candidatesTokenCount`, not within."""
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    usage = {
        "promptTokenCount": tokens.input,
        "candidatesTokenCount": tokens.output - tokens.reasoning,
        "totalTokenCount": tokens.total,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens.input}],
    }
    cached = {"cachedContentTokenCount": tokens.cache_read} if tokens.cache_read else {}
    thoughts = {"thoughtsTokenCount": tokens.reasoning} if tokens.reasoning else {}
    return {
        "candidates": [candidate | ({"finishReason": finish} if finish else {})],
        "usageMetadata": usage | cached | thoughts,
        "modelVersion": model,
        "responseId": identity,
    }


def refusal(service: str, model: str, retry_ms: int) -> tuple[Json, dict[str, str]]:
    """The body and headers of a rate limit's 429, as each provider words it."""
    again = {"retry-after-ms": str(retry_ms), "retry-after": "1"}
    limits = {"limit-requests": "3", "remaining-requests": "0", "reset-requests": f"{retry_ms}ms"}
    if service == "anthropic":
        said = "This request would exceed your organization's rate limit of 3 requests per minute."
        error: Json = {"type": "rate_limit_error", "message": said}
        headers = {f"anthropic-ratelimit-{name}": value for name, value in limits.items()}
        return {"type": "error", "error": error, "request_id": "req_demo"}, again | headers
    if service == "google":
        said = "Resource has been exhausted (e.g. check quota)."
        retry = {
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": f"{retry_ms / 1000}s",
        }
        error = {"code": 429, "message": said, "status": "RESOURCE_EXHAUSTED", "details": [retry]}
        return {"error": error}, again
    said = (
        f"Rate limit reached for {model} in organization org-demo on requests per min (RPM): "
        f"Limit 3, Used 3, Requested 1. Please try again in {retry_ms}ms."
    )
    error = {"message": said, "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    headers = {f"x-ratelimit-{name}": value for name, value in limits.items()}
    return {"error": error}, again | headers
