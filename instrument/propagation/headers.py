"""`inject` and `extract`: the session in the headers of a request or a message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from types import TracebackType
from typing import Any

from instrument import carrier, context
from instrument.carrier import Carried
from instrument.context import Scope, enclosing, leave
from instrument.errors import ConfigurationTypeError
from instrument.recorder import Muted
from instrument.session import Session, carried_here

__all__ = ["extract", "inject"]

Headers = Mapping[Any, Any] | Iterable[tuple[Any, Any]]

_LENGTHS = (len("baggage"), len("traceparent"))
_HEADERS = "a mapping, or pairs of names and values"


def inject(headers: MutableMapping[str, str] | None = None) -> MutableMapping[str, str]:
    """Write the current session and operation into `headers`, or a new dict, and return it.

    They are W3C `traceparent` and `baggage: session.id=...`. Other members of the baggage are kept
    as they are; baggage that breaks the limits of W3C with ours (8,192 bytes, 180 members) is left
    alone. A `traceparent` that is there already is somebody's who traces, and stays.

    Raises `ConfigurationError` if nothing can be written into `headers`.
    """
    if headers is None:
        return carrier.to_headers(carried_here())
    if not hasattr(headers, "__setitem__"):
        raise ConfigurationTypeError("inject: headers", headers, "a mutable mapping")
    carried = carried_here()
    names = {name.lower(): name for name in headers if isinstance(name, str)}
    name = names.get("baggage", "baggage")
    baggage = carrier.with_session(headers.get(name), carried.session_id)
    if baggage is not None:
        headers[name] = baggage
        if "traceparent" not in names:
            headers["traceparent"] = carrier.to_headers(carried)["traceparent"]
    return headers


class extract:  # noqa: N801 - it is used like a function
    """Enter the session that `headers` carry: `with extract(request.headers):`.

    Takes a mapping or pairs, in upper or lower case, text or bytes; works with `async with`. Where
    there is no session, or no valid one, it changes nothing. Gives the `Session`, or `None`. It
    may be entered again. Raises `ConfigurationError` for what are no headers at all.
    """

    def __init__(self, headers: Headers) -> None:
        if isinstance(headers, (str, bytes)) or not hasattr(type(headers), "__iter__"):
            raise ConfigurationTypeError("extract: headers", headers, _HEADERS)
        self._carried = _carried_by(headers)
        self._entered: list[Scope] = []

    def __enter__(self) -> Session | None:
        carried, outer = self._carried, context.scope.get()
        if carried is None or isinstance(outer, Muted):
            return None
        session = Session(carried.session_id, trace_id=carried.trace_id)
        entry = Scope(session, outer, None, carried.parent_id)
        self._entered.append(entry)
        context.scope.set(entry)
        return session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._entered:
            return
        entry = enclosing(self._entered.__contains__) or self._entered[-1]
        self._entered.remove(entry)
        leave(entry)

    async def __aenter__(self) -> Session | None:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


def _carried_by(headers: Headers) -> Carried | None:
    try:
        if type(headers) is dict:
            baggage = headers.get("baggage")
            if type(baggage) is str:
                traceparent = headers.get("traceparent")
                return carrier.from_headers(_text(traceparent), baggage)
        return _carried_among(headers.items() if isinstance(headers, Mapping) else headers)
    except Exception:  # whatever such headers do, they carry nothing
        return None


def _carried_among(pairs: Iterable[tuple[Any, Any]]) -> Carried | None:
    traceparents: list[str] = []
    baggages: list[str] = []
    found = {"traceparent": traceparents, "baggage": baggages}
    for name, value in pairs:
        if len(name) in _LENGTHS and (values := found.get(_text(name).lower())) is not None:
            values += map(_text, value if isinstance(value, (list, tuple)) else [value])
    # two of them are none (W3C Trace Context, 3.2); lines of baggage are one list
    traceparent = traceparents[0] if len(traceparents) == 1 else None
    return carrier.from_headers(traceparent, ",".join(baggages)) if baggages else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""
