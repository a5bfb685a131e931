"""What exceptions and failed responses say beside their message: status, code, when to retry.

Nothing of the program runs here: only what instances and classes hold themselves is looked at,
past their properties and `__getattr__`, and only headers of a known kind are searched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec import MsgspecError
from msgspec.json import Decoder

from instrument import _config
from instrument.usage.retries import attempt_behind

__all__ = [
    "NO_OUTCOME",
    "Outcome",
    "attempt_of",
    "attempt_of_metadata",
    "attempt_of_request",
    "details_of",
    "details_of_response",
    "outcome_of",
]

_TOLD_BY = {
    "x-request-id": "request_id",
    "request-id": "request_id",
    "x-amzn-requestid": "request_id",
    "x-goog-request-id": "request_id",
    "apim-request-id": "request_id",
    "retry-after": "retry_after_seconds",
    "retry-after-ms": "retry_after_ms",
    "x-ratelimit-remaining-requests": "ratelimit_remaining_requests",
    "x-ratelimit-remaining-tokens": "ratelimit_remaining_tokens",
    "x-ratelimit-reset-requests": "ratelimit_reset_requests",
    "x-ratelimit-reset-tokens": "ratelimit_reset_tokens",
    "anthropic-ratelimit-requests-remaining": "ratelimit_remaining_requests",
    "anthropic-ratelimit-tokens-remaining": "ratelimit_remaining_tokens",
    "anthropic-ratelimit-requests-reset": "ratelimit_reset_requests",
    "anthropic-ratelimit-tokens-reset": "ratelimit_reset_tokens",
}
_TOLD_BY_REQUEST = {"x-stainless-retry-count": "retries"}
_CLASS_NAMES = ("status_code", "code", "error_code")
_VAGUE = frozenset({"error", "Error"})
_CODES = ("code", "status", "type")
_STORES = ("_store", "_container", "_metadata")
_MOST_HEADERS = 200
_MOST_CHARACTERS = 200
_MOST_BODY = 65_536
_MOST_SECONDS = 10**9
_MOST_ATTEMPTS = 10_000

_own_fields = BaseException.__dict__["__dict__"].__get__
_bases_of = type.__dict__["__mro__"].__get__
_module_of = type.__dict__["__module__"].__get__
_class_fields = type.__dict__["__dict__"].__get__
_json = Decoder()

Own = dict[str, Any]
_NONE: Own = {}


class Outcome(NamedTuple):
    """What is known of a failure, and which attempt it was."""

    details: dict[str, Any] | None
    attempt: int | None


NO_OUTCOME = Outcome(None, None)


def details_of(error: BaseException) -> dict[str, Any] | None:
    """Return what an exception knows, `None` if nothing.

    `http_status` (int), `error_code` (the provider's code, else its type), `request_id`,
    `retry_after_seconds`, `ratelimit_remaining_requests` and `_tokens`, and
    `ratelimit_reset_requests` and `_tokens` as given. Runs no code of the exception's class.
    """
    return outcome_of(error).details


def attempt_of(error: BaseException) -> int | None:
    """Return how often the request was sent until it failed so, where the exception shows it."""
    return outcome_of(error).attempt


def outcome_of(error: BaseException) -> Outcome:
    """Return both; what tenacity gave up on is looked at in its place."""
    own = _own_fields(error)
    if not own:
        tried = attempt_behind(error)
        return NO_OUTCOME if tried is None else Outcome(None, tried)
    last = own.get("last_attempt")
    tried = _attributes(last).get("attempt_number") if last is not None else None
    if type(tried) is int and 1 <= tried <= _MOST_ATTEMPTS:
        cause = _attributes(last).get("_exception")
        own = _own_fields(cause) if issubclass(type(cause), BaseException) else _NONE
        return Outcome(_details(cause, own) if own else None, tried)
    return Outcome(_details(error, own), attempt_behind(error) or _attempt(own))


def details_of_response(response: Any, status: int, code: str | None) -> dict[str, Any]:
    """Return the same of a response with that status and that code in its body."""
    own = _attributes(response)
    details: dict[str, Any] = {"http_status": status}
    if code is not None and code not in _VAGUE:
        details["error_code"] = code[:_MOST_CHARACTERS]
    _put_headers(details, _headers(own))
    return details


def _details(error: Any, own: Own) -> dict[str, Any] | None:
    response = own.get("response")
    if response is None:
        response = own.get("raw_response") or own.get("_response")
    answer = _NONE if response is None else _attributes(response)
    details: dict[str, Any] = {}
    status = _status(own, answer, error)
    if status is not None:
        details["http_status"] = status
    code = _code(own, answer, error)
    if code is not None:
        details["error_code"] = code
    request_id = _text(own.get("request_id"))
    if request_id is not None:
        details["request_id"] = request_id
    headers = _headers(answer)
    _put_headers(details, _headers(own) if headers is None else headers)
    if "retry_after_seconds" not in details:
        _put(details, "retry_after_seconds", _told_delay(own))
    return details or None


def _attributes(value: Any) -> Own:
    """Return what the instance itself holds, whatever its class makes of attributes."""
    if type(value) is dict:
        return value
    try:
        own = object.__getattribute__(value, "__dict__")
    except Exception:  # a class without one, or with a property of that name that fails
        return _NONE
    return own if type(own) is dict else _NONE


def _status(own: Own, answer: Own, error: Any) -> int | None:
    metadata = answer.get("ResponseMetadata")
    return (
        _as_status(own.get("status_code"))
        or _as_status(answer.get("status_code"))
        or _as_status(own.get("status"))
        or _as_status(answer.get("status"))
        or _as_status(own.get("code"))
        or _as_status(metadata.get("HTTPStatusCode") if type(metadata) is dict else None)
        or _as_status(_of_class(error, "status_code"))
        or _as_status(_of_class(error, "code"))
    )


def _as_status(value: Any) -> int | None:
    kind = type(value)
    if value is None or kind is bool or not issubclass(kind, int):
        return None
    number = int.__index__(value)
    return number if 100 <= number <= 599 else None


def _code(own: Own, answer: Own, error: Any) -> str | None:
    """Return the first name that an exception, its body or its response gives the error."""
    code = own.get("code")
    if type(code) is str and code and code not in _VAGUE:
        return code[:_MOST_CHARACTERS]
    for named in _named(own, answer):
        code = _text(named)
        if code is not None and code not in _VAGUE:
            return code
    return _status_name(own.get("_code")) or _status_name(_of_class(error, "grpc_status_code"))


def _named(own: Own, answer: Own) -> Iterator[Any]:
    status = own.get("status")
    if type(status) is str and not status.isdecimal():
        yield status
    yield own.get("type")
    told = answer.get("Error")
    yield told.get("Code") if type(told) is dict else None
    state = own.get("_state")
    if state is not None:
        yield _status_name(_attributes(state).get("code"))
    yield from _in_body(own.get("body"))
    if "body" not in own:
        yield from _in_body(answer.get("_content"))


def _in_body(body: Any) -> Iterator[Any]:
    if type(body) in (str, bytes) and 0 < len(body) < _MOST_BODY:
        try:
            body = _json.decode(body)
        except (ValueError, RecursionError, MsgspecError):
            return
    if type(body) is not dict:
        return
    inner = body.get("error")
    for fields in (inner, body):
        if type(fields) is dict:
            for name in _CODES:
                yield fields.get(name)


def _status_name(code: Any) -> str | None:
    """Return the name of gRPC's status, which is an enumeration's."""
    return None if code is None else _text(_attributes(code).get("_name_"))


def _of_class(error: Any, name: str) -> Any:
    for base in _bases_of(type(error)):
        if base is Exception:
            return None
        fields = _class_fields(base)
        if name in fields:
            return fields[name]
    return None


def _text(value: Any) -> str | None:
    if type(value) is str and value:
        return value[:_MOST_CHARACTERS]
    return None


def _headers(own: Own) -> Any:
    """Return an exception's or a response's headers, or what its protocol has in their place."""
    headers = own.get("headers")
    if headers is None:
        headers = own.get("_headers") or own.get("hdrs")
    if headers is None and "ResponseMetadata" in own:
        headers = _attributes(own["ResponseMetadata"]).get("HTTPHeaders")
    if headers is None:
        headers = own.get("_trailing_metadata")
    if headers is None and "_state" in own:
        headers = _attributes(own["_state"]).get("trailing_metadata")
    return headers


def _told(headers: Any, names: dict[str, str]) -> dict[str, Any]:
    """Pick from the headers of any HTTP client, from gRPC's metadata or from a dict."""
    kind = type(headers)
    own = _attributes(headers)
    listed = own.get("_list")
    if kind is not dict and type(listed) is list:
        return _picked(map(_as_texts, listed[:_MOST_HEADERS]), names)
    if kind is dict or str(_module_of(kind)).startswith("multidict"):
        return _picked(headers.items(), names)
    if kind is tuple or kind is list:
        return _picked(headers, names)
    for name in _STORES:
        store: Any = own.get(name)
        if issubclass(type(store), dict):
            return _picked(dict.items(store), names)
    return _picked(own.get("_headers"), names)


def _as_texts(entry: Any) -> Any:
    """Return name and value as text, which httpx, Starlette and Werkzeug have last in a tuple."""
    if type(entry) is not tuple:
        return entry
    return tuple(each.decode("latin-1") if type(each) is bytes else each for each in entry[-2:])


def _picked(pairs: Any, names: dict[str, str]) -> dict[str, Any]:
    """Pick from pairs of name and value, where a value may be a list of what was said."""
    found: dict[str, Any] = {}
    if not hasattr(type(pairs), "__iter__"):
        return found
    for _, pair in zip(range(_MOST_HEADERS), pairs, strict=False):
        if issubclass(type(pair), tuple) and len(pair) == 2 and issubclass(type(pair[0]), str):
            ours = names.get(str.lower(pair[0]))
            if ours is not None and ours not in found:
                value = pair[1]
                found[ours] = value[-1] if type(value) in (list, tuple) and value else value
    return found


def _put_headers(details: dict[str, Any], headers: Any) -> None:
    """Put what headers say into the details; those that the exception says itself stand."""
    if headers is None:
        return
    for ours, told in _told(headers, _TOLD_BY).items():
        value = _text(told)
        if value is None or ours in details:
            continue
        if ours == "retry_after_seconds":
            _put(details, ours, _retry_after(value))
        elif ours.startswith("ratelimit_remaining") and value.isdecimal() and len(value) < 16:
            details[ours] = int(value)
        else:
            details[ours] = value
    exact = _seconds(details.pop("retry_after_ms", None))
    if exact is not None:
        details["retry_after_seconds"] = exact / 1000


def _put(details: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        details[name] = value


def _retry_after(value: str) -> float | None:
    seconds = _seconds(value)
    return _until(value) if seconds is None else seconds


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds <= _MOST_SECONDS else None


def _until(date: str) -> float | None:
    from email.utils import parsedate_to_datetime  # not loaded otherwise, and rarely needed

    try:
        seconds = parsedate_to_datetime(date).timestamp() - _config.clock.time_ns() / 1e9
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return round(max(seconds, 0.0), 3) if seconds <= _MOST_SECONDS else None


def _told_delay(own: Own) -> float | None:
    """Return the delay that Google names in the details of its error, as `34s`."""
    error = own.get("details")
    error = error.get("error") if type(error) is dict else None
    listed = error.get("details") if type(error) is dict else None
    for entry in listed[:16] if type(listed) is list else ():
        delay = _text(entry.get("retryDelay")) if type(entry) is dict else None
        if delay is not None and delay.endswith("s"):
            return _seconds(delay[:-1])
    return None


def _attempt(own: Own) -> int | None:
    """Return the attempt that the SDKs of OpenAI and Anthropic write into their requests."""
    request = own.get("request") or own.get("_request")
    if request is None and own.get("response") is not None:
        answer = _attributes(own["response"])
        request = answer.get("_request")
        if request is None:
            return attempt_of_metadata(_attributes(answer.get("ResponseMetadata")))
    return None if request is None else attempt_of_request(request)


def attempt_of_request(request: Any) -> int | None:
    """Return which attempt a request was, where its headers say so."""
    headers = _attributes(request).get("headers")
    if headers is None:
        return None
    value = _text(_told(headers, _TOLD_BY_REQUEST).get("retries"))
    if value is None or not value.isdecimal() or len(value) > 5:
        return None
    return _possible_attempt(int(value) + 1)


def attempt_of_metadata(metadata: Any) -> int | None:
    """Return the attempt that AWS's clients tell in the `ResponseMetadata` of an answer."""
    retries = metadata.get("RetryAttempts")
    return _possible_attempt(retries + 1) if type(retries) is int else None


def _possible_attempt(number: int) -> int | None:
    """Leave out a first attempt: who calls the SDK may have tried before."""
    return number if 1 < number <= _MOST_ATTEMPTS else None
