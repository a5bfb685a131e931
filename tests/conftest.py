"""Fixtures for all tests."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is warned about once in a process is warned about in this test."""
    monkeypatch.setattr("instrument.recorder._warned", set())
