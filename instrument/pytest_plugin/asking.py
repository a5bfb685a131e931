"""Whether a test asks for our fixture `usage`."""

from __future__ import annotations

from typing import Any

__all__ = ["uses_ours"]


def uses_ours(item: Any) -> bool:
    """Tell whether a test has our `usage`, and no parameter or fixture of its own of that name."""
    if "usage" not in getattr(item, "fixturenames", ()):
        return False
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "usage" in callspec.params:
        return False
    known = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    found = known.get("usage")
    return not found or getattr(found[-1].func, "__module__", "") == "instrument.pytest_plugin"
