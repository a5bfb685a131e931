"""gRPC: clients send the session along, servers go on in the one that arrives.

    grpc.intercept_channel(grpc.insecure_channel(target), SessionClientInterceptor(target))
    grpc.server(pool, interceptors=[SessionServerInterceptor()])
    grpc.aio.insecure_channel(target, interceptors=async_client_interceptors(target))
    grpc.aio.server(interceptors=[AsyncSessionServerInterceptor()])

gRPC does not tell a client's interceptor where its channel leads, so it is given the target.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from functools import partial, update_wrapper
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from instrument.carrier import HEADERS
from instrument.context import Scope
from instrument.errors import ConfigurationTypeError
from instrument.propagation._arriving import Parts, Stepwise, entry_in, inside
from instrument.propagation._harmless import harmless
from instrument.propagation.headers import inject
from instrument.propagation.hosts import is_trusted
from instrument.wrappers import in_scope

__all__ = [
    "AsyncSessionServerInterceptor",
    "SessionClientInterceptor",
    "SessionServerInterceptor",
    "async_client_interceptors",
]


class _Sending:
    """Sends the session along where `configure(propagate_to=...)` allows the channel's target."""

    def __init__(self, target: str) -> None:
        if not isinstance(target, str):
            raise ConfigurationTypeError("target", target, "that of the channel, as text")
        self._hosts = _hosts_of(target)

    def _sent(self, details: Any) -> Any:
        with harmless:
            if all(map(is_trusted, self._hosts)):
                return _with_session(details)
        return details


class SessionClientInterceptor(
    _Sending,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends the session that is current at each call along, for calls of all four kinds.

    `target` is that of the channel. The session goes along if `configure(propagate_to=...)` allows
    the host in it, or each address; a Unix socket is this machine. Raises `ConfigurationError` for
    what is no text.
    """

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return continuation(self._sent(client_call_details), request)

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return continuation(self._sent(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(self._sent(client_call_details), request_iterator)

    def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(self._sent(client_call_details), request_iterator)


class SessionServerInterceptor(grpc.ServerInterceptor):
    """Runs each call in the session that arrives with it, streams step by step."""

    def intercept_service(
        self, continuation: Callable[..., Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = continuation(handler_call_details)
        return _in_session(handler, handler_call_details.invocation_metadata)


class AsyncSessionServerInterceptor(grpc.aio.ServerInterceptor):
    """The same for a `grpc.aio` server."""

    async def intercept_service(
        self,
        continuation: Callable[..., Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        return _in_session(handler, handler_call_details.invocation_metadata)


def async_client_interceptors(target: str) -> list[grpc.aio.ClientInterceptor]:
    """Return the same for a `grpc.aio` channel: one for each kind of call."""
    kinds = _AsyncUnaryUnary, _AsyncUnaryStream, _AsyncStreamUnary, _AsyncStreamStream
    return [kind(target) for kind in kinds]


class _AsyncUnaryUnary(_Sending, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(self._sent(client_call_details), request)


class _AsyncUnaryStream(_Sending, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(self._sent(client_call_details), request)


class _AsyncStreamUnary(_Sending, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(self._sent(client_call_details), request_iterator)


class _AsyncStreamStream(_Sending, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(self._sent(client_call_details), request_iterator)


def _with_session(details: Any) -> Any:
    """Return the details of a call with the session in its metadata."""
    pairs = list(details.metadata or ())
    headers = {
        name: ",".join(value for key, value in pairs if key == name)
        for name in HEADERS
        if name in dict(pairs)
    }
    inject(headers)
    metadata = [*(pair for pair in pairs if pair[0] not in HEADERS), *headers.items()]
    is_async = isinstance(details, grpc.aio.ClientCallDetails)
    return _replaced(details, grpc.aio.Metadata(*metadata) if is_async else metadata)


def _hosts_of(target: str) -> list[str | None]:
    """Return the hosts in a channel's target (gRPC Name Resolution): one, or one an address."""
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return ["localhost"]
    if rest.startswith("//"):
        rest = rest[2:].partition("/")[2]  # behind who resolves the name
    elif scheme not in ("dns", "ipv4", "ipv6"):
        rest = target
    return [_host_in(each) for each in rest.split(",")]


def _host_in(address: str) -> str | None:
    try:
        return urlsplit(f"//{address}").hostname
    except ValueError:
        return None


def _replaced(details: Any, metadata: Any) -> Any:
    if hasattr(details, "_replace"):
        return details._replace(metadata=metadata)
    replaced = copy.copy(details)  # made by another interceptor
    replaced.metadata = metadata
    return replaced


def _in_session(handler: Any, metadata: Any) -> Any:
    """Return the handler of a call, bound to the session in the call's metadata."""
    with harmless:
        scope = None if handler is None else inside(metadata or ())
        if scope is not None:
            kinds = handler.request_streaming, handler.response_streaming
            kind = "_".join("stream" if each else "unary" for each in kinds)
            return getattr(grpc, f"{kind}_rpc_method_handler")(
                _bound(getattr(handler, kind), scope, handler.response_streaming),
                handler.request_deserializer,
                handler.response_serializer,
            )
    return handler


def _bound(behavior: Callable[..., Any], scope: Scope, is_stream: bool) -> Callable[..., Any]:
    is_async = iscoroutinefunction(behavior) or isasyncgenfunction(behavior)
    if is_stream and not is_async:
        bound: Callable[..., Any] = partial(_parts, behavior, scope)
    else:
        bound = in_scope(behavior, entry_in(scope))
    return update_wrapper(bound, behavior)


def _parts(behavior: Callable[..., Any], scope: Scope, *arguments: Any) -> Parts:
    steps = Stepwise(scope)
    return Parts(steps.run(behavior, *arguments), steps)
