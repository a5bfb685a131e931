"""What the command-line tools `claude`, `codex`, `gemini` and `qwen` print as JSON.

A run is one reading, whatever number of models and turns it took. Messages come one by one and
are repeated by the result at the end, which counts; without one, as after a kill, they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from instrument.usage import tool_counts as counted
from instrument.usage import tool_endings as endings
from instrument.usage.adding import summed_details
from instrument.usage.anthropic import details_of
from instrument.usage.fields import (
    NOTHING,
    USAGE_DETAILS,
    fields_of,
    first,
    part,
    text,
    usage_details,
)
from instrument.usage.reading import Fields, FieldsMerge, Reader, Reading, StreamClass
from instrument.usage.tool_counts import Counts
from instrument.usage.tool_endings import Verdict

__all__ = ["CLASSES", "STREAMS", "matches", "new_merge", "read", "streams"]

_MAX_MESSAGES = 10_000
_CLOUDS = {"bedrock": "aws.bedrock", "vertex": "gcp.vertex_ai"}
_ERROR_EVENT = frozenset({"message", "severity", "timestamp", "type"})
_OF_SUMS = ("largest_input_tokens", "responses")
_RESULT = ("is_error", "modelUsage", "subtype", "total_cost_usd")


def matches(fields: Fields) -> bool:
    """Tell whether this is the last that a tool prints: a result, or the end of a turn."""
    kind = fields.get("type")
    if kind == "result":
        return any(name in fields for name in _RESULT) or ("status" in fields and "stats" in fields)
    if kind == "turn.completed":
        return part(fields, "usage") is not None
    if kind == "turn.failed":
        return "error" in fields
    if kind is not None:
        return False
    return _is_gemini(fields) or ("total_cost_usd" in fields and "num_turns" in fields)


def read(fields: Fields) -> Reading | None:
    """Read a whole result."""
    merge = _Merge()
    merge.add(fields)
    return merge.reading()


def streams(fields: Fields) -> bool:
    """Tell whether this is one of the messages that a run consists of."""
    kind = fields.get("type")
    if kind == "thread.started":
        return "thread_id" in fields
    if kind == "error":
        return _ERROR_EVENT.issuperset(fields) and text(fields.get("message")) is not None
    if kind == "assistant":
        return part(fields, "message") is not None and _has_session(fields)
    if kind in ("init", "system", "stream_event"):
        return _has_session(fields)
    if kind is None and "parent_tool_use_id" in fields:
        return "model" in fields and "content" in fields
    return matches(fields)


def new_merge(*, sdk: bool) -> FieldsMerge:
    """Return a merge for the messages of one run."""
    return _Merge()


class _Merge:
    """What is known of a run.

    `_messages` holds model and usage of each response by its id, `_turns` the counts of turns and
    results that add up, `_models` those of each model, which grow. `_writing` is the response
    whose events come, by the tool call that it runs in.
    """

    __slots__ = (
        "_complaint",
        "_conversation",
        "_cost",
        "_ids",
        "_inclusive",
        "_messages",
        "_model",
        "_models",
        "_provider",
        "_requests",
        "_results",
        "_source",
        "_turns",
        "_verdict",
        "_writing",
    )

    def __init__(self) -> None:
        self._conversation: str | None = None
        self._provider: str | None = None
        self._model: str | None = None
        self._messages: dict[Any, dict[str, Any]] = {}
        self._writing: dict[Any, Any] = {}
        self._turns: list[Counts] = []
        self._results: list[Fields] = []
        self._requests: int | None = None
        self._models: dict[str, Counts] = {}
        self._cost: Any = None
        self._ids: list[str | None] = []
        self._inclusive = False
        self._verdict: Verdict | None = None
        self._complaint: str | None = None
        self._source: Any = None

    def add(self, fields: Fields) -> bool:
        """Take one message in; `False` if it begins another run."""
        kind = fields.get("type")
        handle = _HANDLERS.get(kind) if type(kind) is str else None
        if handle is not None:
            return handle(self, fields)
        if kind is None and "parent_tool_use_id" in fields:
            return self._message(fields, fields.get("message_id"), fields)
        return self._document(fields) if _is_gemini(fields) else self.result(fields)

    def reading(self) -> Reading | None:
        """Return the run so far; `None` if nothing was said."""
        if self._conversation is None and not self._has_said():
            return None
        models = self._models or self._models_of_messages()
        counts = self._counts(models)
        names = tuple(models) or ((self._model,) if self._model else ())
        details: dict[str, Any] = {}
        if self._conversation is not None:
            details["conversation_id"] = self._conversation
        if len(names) > 1:
            details["models"] = {name: models[name].known() for name in names}
        details |= self._priced() or {}
        return Reading(
            *counts[:6],
            self._cost,
            names[0] if len(names) == 1 else None,
            self._response_id(counts),
            self._named_provider(names),
            "invoke_agent",
            *self._outcome(),
            None if self._cost is None else "provider",
            self._source,
            details or None,
        )

    def begin(self, fields: Fields) -> bool:
        """Take in the first message of a run."""
        if self._is_another(fields):
            return False
        self._conversation = _session(fields) or self._conversation
        self._model = text(fields.get("model")) or self._model
        if "qwen_code_version" in fields:
            self._inclusive = True
        elif "claude_code_version" in fields:
            self._provider = "anthropic"
        elif fields.get("type") == "init":
            self._provider = "gcp.gemini"
        elif fields.get("type") == "thread.started":
            self._provider = "openai"
        return True

    def assistant(self, fields: Fields) -> bool:
        """Take in a response, or a part of one."""
        message = part(fields, "message") or NOTHING
        return self._message(fields, message.get("id"), message)

    def event(self, fields: Fields) -> bool:
        """Take in what the provider's stream says of a response."""
        if self._is_another(fields):
            return False
        event, place = part(fields, "event") or NOTHING, text(fields.get("parent_tool_use_id"))
        if event.get("type") == "message_start":
            message = part(event, "message") or NOTHING
            self._writing[place] = message.get("id")
            self._note(message.get("id"), message)
        elif event.get("type") == "message_delta":
            self._note(self._writing.get(place), event)
        return True

    def result(self, fields: Fields) -> bool:
        """Take in the end of a run of Claude, Qwen or, in a stream, Gemini."""
        if "stats" in fields and "status" in fields and "is_error" not in fields:
            return self._gemini_result(fields)
        usage = part(fields, "usage") or NOTHING
        inclusive = self._inclusive or counted.is_inclusive(usage)
        models = counted.by_model(_models(fields), inclusive=inclusive)
        cost = fields.get("total_cost_usd")
        if self._is_another(fields) or self._is_another_result(models, cost):
            return False
        identity = text(fields.get("uuid"))
        if identity is None or identity not in self._ids:
            self._ids.append(identity)
            self._turns += [counted.of_message(usage, inclusive=inclusive)] if usage else []
            self._results += [usage] if usage else []
        self._inclusive = inclusive
        self._conversation = _session(fields) or self._conversation
        self._models, self._cost = models or self._models, first(cost, self._cost)
        self._source = fields.get("usage")
        if not inclusive and ("total_cost_usd" in fields or _are_claude(models)):
            self._provider = _cloud(_models(fields)) or "anthropic"
        self._verdict = endings.of_result(fields)
        return True

    def turn(self, fields: Fields) -> bool:
        """Take in the end of a turn of Codex."""
        usage = part(fields, "usage") or NOTHING
        self._provider, self._source = "openai", fields.get("usage")
        self._turns.append(counted.of_turn(usage))
        self._verdict = endings.FINE
        return True

    def failed_turn(self, fields: Fields) -> bool:
        """Take in that a turn of Codex failed."""
        self._provider, self._source = "openai", self._source or fields.get("error")
        self._verdict = ("error", *endings.turn_failure(fields.get("error")))
        return True

    def complaint(self, fields: Fields) -> bool:
        """Take in an error that need not be the end: a tool tries again."""
        self._complaint = text(fields.get("message"))
        return True

    def _document(self, fields: Fields) -> bool:
        """Take in the one object that Gemini prints."""
        if self._has_said():
            return False
        stats = part(fields, "stats") or NOTHING
        self._conversation, self._provider = _session(fields), "gcp.gemini"
        self._models = counted.by_model(stats.get("models"))
        self._requests = counted.requests_of(stats.get("models"))
        self._source = fields.get("stats")
        self._verdict = endings.of_gemini(fields.get("error"))
        return True

    def _gemini_result(self, fields: Fields) -> bool:
        if self._verdict is not None:
            return False
        stats = part(fields, "stats") or NOTHING
        self._provider, self._source = "gcp.gemini", fields.get("stats")
        self._turns.append(counted.of_gemini_stats(stats))
        self._models = counted.by_model(stats.get("models"))
        self._verdict = endings.of_gemini(fields.get("error"))
        if self._verdict == endings.FINE and fields.get("status") != "success":
            self._verdict = ("error", "error", self._complaint)
        return True

    def _message(self, fields: Fields, identity: Any, message: Fields) -> bool:
        if self._is_another(fields):
            return False
        self._conversation = _session(fields) or self._conversation
        self._note(identity, message)
        return True

    def _note(self, identity: Any, message: Fields) -> None:
        """Keep what is not null of a response's usage, which may come several times."""
        key = text(identity)
        usage = part(message, "usage") or NOTHING
        if key not in self._messages:
            if not usage or len(self._messages) >= _MAX_MESSAGES:
                return
            self._messages[key] = {}
        known = self._messages[key]
        known.update((name, value) for name, value in usage.items() if value is not None)
        known["model"] = text(message.get("model")) or known.get("model")
        self._source = self._source if self._verdict else message.get("usage")

    def _has_said(self) -> bool:
        return self._verdict is not None or bool(self._turns or self._messages)

    def _is_another(self, fields: Fields) -> bool:
        """Tell whether this belongs to another session, or to another run after the end."""
        session = _session(fields)
        known = self._conversation
        if session is not None and known is not None and session != known:
            return True
        return self._verdict is not None and known is not None and session is None

    def _is_another_result(self, models: dict[str, Counts], cost: Any) -> bool:
        """Tell whether what only grows within a run is less than before."""
        if self._verdict is None:
            return False
        before = self._cost
        if type(before) in (int, float) and type(cost) in (int, float) and cost < before:
            return True
        return counted.has_shrunk(self._models, models)

    def _models_of_messages(self) -> dict[str, Counts]:
        """Return the counts of each model as its responses say them."""
        found: dict[str, list[Counts]] = {}
        for usage in self._messages.values():
            name = usage["model"]
            # what Claude Code makes up itself names no model
            if name is not None and not name.startswith("<"):
                found.setdefault(name, []).append(self._count(usage))
        return {name: counted.summed(several) for name, several in found.items()}

    def _count(self, usage: dict[str, Any]) -> Counts:
        inclusive = self._inclusive or counted.is_inclusive(usage)
        return counted.of_message(usage, inclusive=inclusive)

    def _counts(self, models: dict[str, Counts]) -> Counts:
        """Return the sum over all models, unless turns and results say more."""
        if not self._turns and not self._models:
            return counted.summed(map(self._count, self._messages.values()))
        if not self._turns:
            return counted.summed(models.values())
        turns = counted.summed(self._turns)
        if not self._models or turns.total_tokens is not None:
            return turns
        whole = counted.summed(models.values())
        return turns if counted.has_shrunk({"": turns}, {"": whole}) else whole

    def _priced(self) -> dict[str, Any] | None:
        """Return what of the usage a price depends on beside the counts."""
        if self._requests is not None:
            return usage_details(responses=self._requests)
        if not self._turns and not self._models:
            said = self._messages.values()
            return summed_details([_response(usage, self._count(usage)) for usage in said])
        found = summed_details([_response(usage, Counts()) for usage in self._results]) or {}
        known = found.get(USAGE_DETAILS) or {}
        priced = {name: known[name] for name in known if name not in _OF_SUMS}
        return {USAGE_DETAILS: priced} if priced else None

    def _response_id(self, counts: Counts) -> str | None:
        """Return the id of the only response, if it is all that was counted, or of the result."""
        if len(self._messages) == 1 and None not in self._messages:
            ((identity, usage),) = self._messages.items()
            if self._count(usage).input_tokens == counts.input_tokens:
                return str(identity)
        return self._ids[0] if len(self._ids) == 1 else None

    def _named_provider(self, names: tuple[str, ...]) -> str | None:
        """Return who answered; Qwen's tool talks to many, and is believed for Qwen's models."""
        if self._provider is not None:
            return self._provider
        if self._inclusive:
            is_qwen = bool(names) and all(name.lower().startswith("qwen") for name in names)
            return "qwen" if is_qwen else None
        return "anthropic" if _are_claude(names) else None

    def _outcome(self) -> Verdict:
        if self._verdict is not None:
            return self._verdict
        if self._complaint is not None:
            return "error", endings.code_in(self._complaint) or "error", self._complaint
        return endings.FINE


def _response(usage: Fields, counts: Counts) -> Reading:
    return Reading(*counts[:6], details=details_of(usage))


def _is_gemini(fields: Fields) -> bool:
    """Tell whether this is the object that `gemini -o json` prints."""
    if "type" in fields or "object" in fields:
        return False
    models = part(part(fields, "stats") or NOTHING, "models")
    if models is not None:
        return "session_id" in fields or "response" in fields or "tools" in fields["stats"]
    error = part(fields, "error")
    return "session_id" in fields and error is not None and text(error.get("message")) is not None


def _has_session(fields: Fields) -> bool:
    return "session_id" in fields or "parent_tool_use_id" in fields


def _session(fields: Fields) -> str | None:
    return text(fields.get("session_id")) or text(fields.get("thread_id"))


def _models(fields: Fields) -> Any:
    stats = part(fields, "stats") or NOTHING
    return first(fields.get("modelUsage"), fields.get("model_usage"), stats.get("models"))


def _are_claude(names: Iterable[str]) -> bool:
    several = tuple(names)
    return bool(several) and all("claude" in name.lower() for name in several)


def _cloud(models: Any) -> str | None:
    """Return the cloud that all models ran in, if the tool names one."""
    by_name = dict.values(models) if isinstance(models, dict) else ()
    entries = [fields_of(entry) or NOTHING for entry in by_name]
    clouds = {text(entry.get("provider")) for entry in entries}
    return _CLOUDS.get(clouds.pop() or "") if len(clouds) == 1 else None


_HANDLERS: dict[str, Callable[[_Merge, Fields], bool]] = {
    "assistant": _Merge.assistant,
    "error": _Merge.complaint,
    "init": _Merge.begin,
    "result": _Merge.result,
    "stream_event": _Merge.event,
    "system": _Merge.begin,
    "thread.started": _Merge.begin,
    "turn.completed": _Merge.turn,
    "turn.failed": _Merge.failed_turn,
}

CLASSES: dict[str, Reader] = {}

STREAMS: dict[tuple[str, str], StreamClass] = {}
