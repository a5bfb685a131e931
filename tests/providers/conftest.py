"""Fixtures for the tests that run the providers' own SDKs."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def swept_at_last() -> Iterator[None]:
    """Drop the clients and event loops that the SDKs left open, before other tests do."""
    yield
    _sweep()


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """Do the same after each test, in a fraction of the time, with what the test itself made."""
    gc.freeze()
    yield
    _sweep()
    gc.unfreeze()


def _sweep() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
