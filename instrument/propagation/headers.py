"""`inject` and `extract`: the session in the headers of a request or a message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from instrument import carrier, context
from instrument._guard import belongs_to_program
from instrument.carrier import Carried
from instrument.context import Entered, Scope, enclosing, enter_session
from instrument.errors import ConfigurationTypeError
from instrument.recorder import Muted, recorder, swallow
from instrument.session import Session, carried_here, headers_of, leave_anywhere

__all__ = ["extract", "inject"]

Headers = Mapping[Any, Any] | Iterable[tuple[Any, Any]]

_LENGTHS = frozenset(map(len, carrier.HEADERS))
_HEADERS = "a mapping, or pairs of names and values"


def inject(headers: MutableMapping[str, str] | None = None) -> MutableMapping[str, str]:
    """Write the current session and operation into `headers`, or a new dict, and return it.

    They are W3C `traceparent` and `baggage: session.id=...`. Other members of the baggage are kept
    as they are; baggage that breaks the limits of W3C with ours (8,192 bytes, 180 members) is left
    alone. A `traceparent` beside a session is of an earlier `inject`, here or elsewhere, and is
    replaced, and so is one that is none; one without a session is somebody's who traces, and stays.

    Raises `ConfigurationError` if nothing can be written into `headers`.
    """
    if headers is None:
        return headers_of(carried_here())
    if type(headers) is dict and _has_none(headers):
        headers.update(headers_of(carried_here()))
        return headers
    if not hasattr(headers, "__setitem__") or not hasattr(headers, "items"):
        raise ConfigurationTypeError("inject: headers", headers, "a mutable mapping")
    carried = carried_here()
    found = _found_among(headers.items())
    there = found["baggage"]
    if there and not all(isinstance(value, (str, bytes)) for _, value in there):
        return headers
    before = _joined(there)
    baggage = carrier.with_session(before, carried.session_id)
    if baggage is not None:
        _put(headers, "baggage", there, baggage)
        traced = found["traceparent"]
        is_foreign = traced and not carrier.has_session(before)
        if not (is_foreign and carrier.names_trace(_joined(traced))):
            _put(headers, "traceparent", traced, headers_of(carried)["traceparent"])
    return headers


def _has_none(headers: dict[str, str]) -> bool:
    """Tell, if it can be told quickly, that none of our names is there in any case."""
    try:
        return _LENGTHS.isdisjoint(map(len, headers))
    except TypeError:  # a name that is no text
        return False


def _put(
    headers: MutableMapping[Any, Any], name: str, there: list[tuple[Any, Any]], value: str
) -> None:
    """Write a header in the place of those that are there, under their name, text or bytes."""
    written: Any = there[-1][0] if there else name
    # where setting one value would leave the others there
    if len(there) > 1 or (there and hasattr(headers, "replace_header")):
        for found, _ in there:
            if found in headers:
                del headers[found]
    headers[written] = value.encode("ascii") if isinstance(written, bytes) else value


class extract:  # noqa: N801 - it is used like a function
    """Enter the session that `headers` carry: `with extract(request.headers):`.

    Takes a mapping or pairs, in upper or lower case, text or bytes; `None` is what a message
    without headers has. Works with `async with`. Where there is no session, or no valid one, it
    changes nothing. Gives the `Session`, or `None`. It may be entered again. Raises
    `ConfigurationError` for what can be no headers.
    """

    __slots__ = ("_carried", "_entered")

    def __init__(self, headers: Headers | None) -> None:
        self._entered: list[Scope] = []
        if type(headers) is dict:
            baggage, traceparent = headers.get("baggage"), headers.get("traceparent")
            if type(baggage) is str and type(traceparent) is str:
                self._carried = carrier.from_headers(traceparent, baggage)
                return
        self._carried = None if headers is None else _carried_by(headers)

    def __enter__(self) -> Session | None:
        carried, outer = self._carried, context.scope.get()
        if carried is None or type(outer) is Muted:
            return None
        try:
            recorder()  # from now on, threads carry what is current
        except Exception as error:
            swallow(error)
        # what is not ours to trust opens no budget, and leaves none that is around
        gate = None if outer is None else outer.session.gate
        session = Session(carried.session_id, trace_id=carried.trace_id, around=gate)
        entry = Entered(session, outer, None, carried.parent_id)
        try:
            self._entered.append(entry)
            enter_session(entry)
        except BaseException:  # a signal handler's: then nobody leaves it
            self._leave(entry)
            raise
        return session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        entry = None
        try:
            entry = self._innermost()
            self._leave(entry)
        except BaseException:  # as above
            self._leave(entry or self._innermost())
            raise

    def _innermost(self) -> Scope | None:
        """Return what is to be left; `None` if nothing was entered, or somebody else left it."""
        entered, current = self._entered, context.scope.get()
        if current in entered:
            return current
        return enclosing(entered.__contains__) or (entered[-1] if entered else None)

    def _leave(self, entry: Scope | None) -> None:
        if entry is None:
            return
        leave_anywhere(entry)
        with suppress(ValueError):
            self._entered.remove(entry)

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
        return _carried_among(_pairs_of(headers))
    except Exception as error:  # whatever such headers do, they carry nothing
        if isinstance(error, ConfigurationTypeError) or belongs_to_program(error, in_callback=True):
            raise
        return None


def _pairs_of(headers: Headers) -> Iterable[tuple[Any, Any]]:
    # not of a Mapping alone: neither email's nor wsgiref's headers are one
    items = getattr(headers, "items", None)
    if items is not None:
        pairs: Iterable[tuple[Any, Any]] = items()
        return pairs
    if isinstance(headers, (str, bytes)) or not hasattr(type(headers), "__iter__"):
        raise ConfigurationTypeError("extract: headers", headers, _HEADERS)
    return headers


def _carried_among(pairs: Iterable[tuple[Any, Any]]) -> Carried | None:
    found = _found_among(pairs)
    # two of them are none (W3C Trace Context, 3.2)
    traceparents = found["traceparent"]
    traceparent = _joined(traceparents) if len(traceparents) == 1 else None
    return carrier.from_headers(traceparent, _joined(found["baggage"]))


def _found_among(pairs: Iterable[tuple[Any, Any]]) -> dict[str, list[tuple[Any, Any]]]:
    """Return the pairs of each of our names, whatever their case."""
    found: dict[str, list[tuple[Any, Any]]] = {name: [] for name in carrier.HEADERS}
    for name, value in pairs:
        if isinstance(name, (str, bytes)) and len(name) in _LENGTHS:
            same = found.get(_text(name).lower())
            if same is not None:
                same.append((name, value))
    return found


def _joined(found: list[tuple[Any, Any]]) -> str:
    """Return the value; several lines of baggage are one list."""
    values: list[str] = []
    for _, value in found:
        values += map(_text, value if isinstance(value, (list, tuple)) else [value])
    return ",".join(values)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    # of a subclass's, the plain text
    return str.__str__(value) if isinstance(value, str) else ""
