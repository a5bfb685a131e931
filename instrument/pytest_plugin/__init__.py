"""The pytest plugin: the fixture `capture_operations`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from instrument.testing import CapturedOperations

__all__ = ["capture_operations"]


@pytest.fixture
def capture_operations() -> Iterator[CapturedOperations]:
    """The operations of this test, in a log of its own: nothing reaches the real one."""
    from instrument.testing import capture  # loaded by the tests that use it alone

    with capture() as captured:
        yield captured
