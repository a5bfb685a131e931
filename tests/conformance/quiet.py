"""Hears what a probe must not cause: log lines, warnings and exceptions that nobody could catch."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Collect what is said meanwhile, and fail at the end if it is anything at all."""
    heard: list[str] = []
    with listening(heard):
        yield heard
    assert heard == []


@contextmanager
def listening(heard: list[str]) -> Iterator[None]:
    """Append to `heard` every unraisable exception, log record from WARNING on, and warning."""
    ear, hook = _Ear(heard), sys.unraisablehook
    sys.unraisablehook = lambda unraisable: heard.append(repr(unraisable.exc_value))
    logging.getLogger().addHandler(ear)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        heard.extend(str(warning.message) for warning in caught)
    finally:
        logging.getLogger().removeHandler(ear)
        sys.unraisablehook = hook


class _Ear(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())
