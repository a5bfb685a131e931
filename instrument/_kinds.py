"""What `inspect` says of a function, asked when something is decorated.

`inspect` takes a tenth of the time that the whole package takes to import, and whoever has
something to decorate has mostly loaded it already.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["isasyncgenfunction", "iscoroutinefunction", "isgeneratorfunction", "signature_of"]


def isasyncgenfunction(function: object) -> bool:
    import inspect

    return inspect.isasyncgenfunction(function)


def iscoroutinefunction(function: object) -> bool:
    import inspect

    return inspect.iscoroutinefunction(function)


def isgeneratorfunction(function: object) -> bool:
    import inspect

    return inspect.isgeneratorfunction(function)


def signature_of(function: Any) -> Any:
    """Return the `inspect.Signature`; raises `TypeError` or `ValueError` if there is none.

    From Python 3.14 on its annotations are evaluated when it is asked for them.
    """
    if sys.version_info >= (3, 14):
        from instrument._signature import LateSignature

        return LateSignature(function)
    import inspect

    return inspect.signature(function)
