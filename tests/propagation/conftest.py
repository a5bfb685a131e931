"""Fixtures for what needs a server of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis_child import redis_server


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    with redis_server() as port:
        yield port
