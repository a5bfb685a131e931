"""Signatures of functions whose annotations are not evaluated yet (from Python 3.14 on)."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

__all__ = ["LateSignature"]


class LateSignature(inspect.Signature):
    """The signature of a function, worked out whenever it is asked for."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def parameters(self) -> MappingProxyType[str, inspect.Parameter]:
        return self._now().parameters

    @property
    def return_annotation(self) -> Any:
        return self._now().return_annotation

    def replace(self, **changes: Any) -> Any:
        return self._now().replace(**changes)

    __replace__: Any = replace

    def __reduce__(self) -> Any:
        return LateSignature, (self._function,)

    def __setstate__(self, state: Any) -> None:
        """Nothing is left to be set."""

    def _now(self) -> inspect.Signature:
        try:
            return inspect.signature(self._function)
        except NameError:
            if sys.version_info >= (3, 14):
                from annotationlib import Format

                return inspect.signature(self._function, annotation_format=Format.FORWARDREF)
            raise
