"""Tells what a piece of work cost: calls, tokens, money, time and failures, in a local log."""

import importlib
import typing

from instrument._config import configure
from instrument.budget import Budget, BudgetExceeded
from instrument.errors import ConfigurationError, InstrumentError, InstrumentWarning
from instrument.operation import Operation, SessionStats, Usage
from instrument.propagation import extract, inject, propagate
from instrument.running import current_operation
from instrument.session import Session, current_session, session
from instrument.tracked import track, tracked

if typing.TYPE_CHECKING:
    from instrument.clients import install, uninstall
    from instrument.log import UsageLog
    from instrument.logger import UsageLogger, correlate_sessions

__all__ = [
    "Budget",
    "BudgetExceeded",
    "ConfigurationError",
    "InstrumentError",
    "InstrumentWarning",
    "Operation",
    "Session",
    "SessionStats",
    "Usage",
    "UsageLog",
    "UsageLogger",
    "configure",
    "correlate_sessions",
    "current_operation",
    "current_session",
    "extract",
    "inject",
    "install",
    "propagate",
    "session",
    "track",
    "tracked",
    "uninstall",
]

# what a program needs that only records is imported at once; these double its time
_ON_FIRST_USE = {
    "UsageLog": "log",
    "UsageLogger": "logger",
    "correlate_sessions": "logger",
    "install": "clients",
    "uninstall": "clients",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_ON_FIRST_USE[name]}")
    found = globals()[name] = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
