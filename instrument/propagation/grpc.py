"""gRPC: clients send the session along, servers go on in the one that arrives.

    grpc.intercept_channel(channel, SessionClientInterceptor())
    grpc.server(pool, interceptors=[SessionServerInterceptor()])
    grpc.aio.insecure_channel(target, interceptors=async_client_interceptors())
    grpc.aio.server(interceptors=[AsyncSessionServerInterceptor()])

A channel leads to one place: whoever intercepts it says that this one may know of the session.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from functools import partial, update_wrapper
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any

import grpc
import grpc.aio

from instrument.carrier import HEADERS
from instrument.context import Scope
from instrument.propagation._arriving import Parts, Stepwise, entry_in, inside
from instrument.propagation._harmless import harmless
from instrument.propagation.headers import inject
from instrument.wrappers import in_scope

__all__ = [
    "AsyncSessionServerInterceptor",
    "SessionClientInterceptor",
    "SessionServerInterceptor",
    "async_client_interceptors",
]


class SessionClientInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends the session that is current at each call along, for calls of all four kinds."""

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return continuation(_with_session(client_call_details), request)

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return continuation(_with_session(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(_with_session(client_call_details), request_iterator)

    def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(_with_session(client_call_details), request_iterator)


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


def async_client_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """Return what a `grpc.aio` channel needs to send the session along: one for each kind."""
    return [_AsyncUnaryUnary(), _AsyncUnaryStream(), _AsyncStreamUnary(), _AsyncStreamStream()]


class _AsyncUnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(_with_session(client_call_details), request)


class _AsyncUnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(_with_session(client_call_details), request)


class _AsyncStreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(_with_session(client_call_details), request_iterator)


class _AsyncStreamStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(_with_session(client_call_details), request_iterator)


def _with_session(details: Any) -> Any:
    """Return the details of a call with the session in its metadata."""
    with harmless:
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
    return details


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
