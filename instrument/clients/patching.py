"""Puts tracked functions in the place of the SDKs' own, and takes them away again."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial, wraps
from types import MethodType, ModuleType
from typing import Any, NamedTuple

from instrument._kinds import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from instrument._processes import at_start
from instrument.clients.targets import SDKS, Target
from instrument.errors import ConfigurationError, ConfigurationTypeError
from instrument.recorder import swallow
from instrument.running import current_operation
from instrument.tracked import tracked_client

__all__ = ["install", "uninstall"]

_LARGEST = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxTokens", "num_predict")
_WITHIN = ("config", "inferenceConfig", "options")
_BEDROCK_CALLS = {
    "Converse": "converse",
    "ConverseStream": "converse_stream",
    "InvokeModel": "invoke_model",
    "InvokeModelWithResponseStream": "invoke_model_with_response_stream",
}


class _Patch(NamedTuple):
    """What stood where, before ours."""

    owner: Any
    name: str
    before: Any
    ours: Any


_lock = threading.RLock()
_patches: dict[str, list[_Patch]] = {}
_watched: set[tuple[str, str]] = set()


def install(*names: str) -> tuple[str, ...]:
    """Track the clients of these SDKs from now on, or from their import on; without names, all.

    Names are those of the SDKs' distributions: `openai`, `anthropic`, `google-genai`,
    `mistralai`, `cohere`, `ollama`, `boto3`, `litellm`, `groq`, `dashscope`. Returns the names in
    effect, those of earlier calls included. Clients that were made before are tracked too. Raises
    `ValueError` for an unknown name.
    """
    import wrapt  # it takes long to load

    with _lock:
        for name in _checked(names):
            _patches.setdefault(name, [])
            for module in dict.fromkeys(target.module for target in SDKS[name].targets):
                if (name, module) not in _watched:
                    _watched.add((name, module))
                    wrapt.when_imported(module)(partial(_patch, name))
                else:
                    _patch_if_imported(name, module)
        return _in_effect()


def uninstall(*names: str) -> tuple[str, ...]:
    """Put the SDKs' own functions back; without names, of all. Returns the names in effect."""
    with _lock:
        for name in _checked(names):
            for patch in reversed(_patches.pop(name, [])):
                # what somebody else has put there since stays, around ours
                if vars(patch.owner).get(patch.name) is patch.ours:
                    setattr(patch.owner, patch.name, patch.before)
        return _in_effect()


def _in_effect() -> tuple[str, ...]:
    names = tuple(_patches)
    at_start(_install_in_child, names)
    return names


def _install_in_child(names: tuple[str, ...]) -> None:
    try:
        if names:
            install(*names)
    except Exception as error:  # the program's process starts without
        swallow(error)


def _checked(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationTypeError("SDK", name, f"one of {', '.join(SDKS)}")
        if name not in SDKS:
            raise ConfigurationError("SDK", name, f"one of {', '.join(SDKS)}")
    return names or tuple(SDKS)


def _patch_if_imported(name: str, module: str) -> None:
    found = sys.modules.get(module)
    if found is not None:
        _patch(name, found)


def _patch(name: str, module: ModuleType) -> None:
    """Patch what an SDK has in a module that was imported; an SDK of another version has less."""
    with _lock:
        patches = _patches.get(name)
        if patches is None:
            return
        for target in SDKS[name].targets:
            if target.module == module.__name__:
                try:
                    _put(name, target, module, patches)
                except Exception as error:  # the import of an SDK must not fail because of us
                    swallow(error)


def _put(sdk: str, target: Target, module: ModuleType, patches: list[_Patch]) -> None:
    path, _, name = target.path.rpartition(".")
    owner: Any = getattr(module, path, None) if path else module
    before = None if owner is None else vars(owner).get(name, getattr(owner, name, None))
    if before is None or any(patch.owner is owner and patch.name == name for patch in patches):
        return
    ours = _ours(sdk, target, before)
    setattr(owner, name, ours)
    patches.append(_Patch(owner, name, before, ours))


def _ours(sdk: str, target: Target, before: Any) -> Any:
    service, note = SDKS[sdk].service, partial(_note, sdk, target.model)
    if target.module == "botocore.client":
        return _bedrock(service, before, note)
    if isinstance(before, MethodType):  # of an object that the module made
        return getattr(before.__self__, before.__name__)
    track = tracked_client(service, target.operation)
    if isinstance(before, (classmethod, staticmethod)):
        return track(type(before)(_noting(before.__func__, note)))
    return track(_noting(before, note))


def _bedrock(
    service: str, before: Callable[..., Any], note: Callable[[Any], None]
) -> Callable[..., Any]:
    """Return a `_make_api_call` that tracks those of bedrock-runtime."""

    def noted(self: Any, operation_name: str, api_params: Any) -> Any:
        note(api_params)
        return before(self, operation_name, api_params)

    calls = {
        name: tracked_client(service, operation)(noted)
        for name, operation in _BEDROCK_CALLS.items()
    }

    @wraps(before)
    def _make_api_call(self: Any, operation_name: str, api_params: Any) -> Any:
        call = calls.get(operation_name)
        if call is None or self.meta.service_model.service_name != "bedrock-runtime":
            call = before
        return call(self, operation_name, api_params)

    return _make_api_call


def _noting(function: Callable[..., Any], note: Callable[[Any], None]) -> Callable[..., Any]:
    """Return a function of the same kind that notes what the request says."""
    if isasyncgenfunction(function):

        async def noting_chunks(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            note(kwargs)
            chunks = function(*args, **kwargs)
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                await chunks.aclose()

        return wraps(function)(noting_chunks)
    if iscoroutinefunction(function):

        async def noting_awaited(*args: Any, **kwargs: Any) -> Any:
            note(kwargs)
            return await function(*args, **kwargs)

        return wraps(function)(noting_awaited)
    if isgeneratorfunction(function):

        def noting_items(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            note(kwargs)
            return (yield from function(*args, **kwargs))

        return wraps(function)(noting_items)

    def noting(*args: Any, **kwargs: Any) -> Any:
        note(kwargs)
        return function(*args, **kwargs)

    return wraps(function)(noting)


def _note(sdk: str, model: str, request: Any) -> None:
    """Tell the operation what the request names as `model`, and what else matters.

    Clients keep methods that they were given, also when the SDK is not to be tracked any more.
    """
    operation = current_operation()
    if operation is None:
        return
    if sdk not in _patches:
        operation.drop()
        return
    if not isinstance(request, dict):
        return
    named = request.get(model)
    operation.requested(
        named if isinstance(named, str) else None,
        _allowed(request) if operation.is_gated else 0,
    )


def _allowed(request: dict[str, Any]) -> int:
    """Return how many tokens a request lets the response have, 0 if it does not say."""
    for place in (request, *map(request.get, _WITHIN)):
        for name in _LARGEST:
            found = place.get(name) if isinstance(place, dict) else getattr(place, name, None)
            if type(found) is int and found > 0:
                return found
    return 0
