"""Fixtures for all tests."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import settings

pytest_plugins = ["pytester"]

# how long an example takes is the machine's matter; the rest is as hypothesis found it
settings.register_profile("untimed", parent=settings(), deadline=None)
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Keep what tests record, and what price lists say, apart from the user's own log and cache."""
    directory = tempfile.TemporaryDirectory(prefix="instrument-tests-", ignore_cleanup_errors=True)
    os.environ["XDG_CACHE_HOME"] = os.path.join(directory.name, "cache")
    os.environ["XDG_STATE_HOME"] = os.path.join(directory.name, "state")
    config.add_cleanup(directory.cleanup)


@pytest.fixture
def fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is warned about once in a process is warned about in this test."""
    monkeypatch.setattr("instrument.recorder._warned", set())
