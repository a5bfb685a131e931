"""Tells what a piece of work cost: calls, tokens, money, time and failures, in a local log."""

import importlib
import importlib.util
import sys
import typing

from instrument._root import Root as _Root

if typing.TYPE_CHECKING:
    from instrument._config import configure
    from instrument.budget import Budget, BudgetExceeded
    from instrument.clients import install, uninstall
    from instrument.errors import ConfigurationError, InstrumentError, InstrumentWarning
    from instrument.log import UsageLog
    from instrument.logger import UsageLogger, correlate_sessions
    from instrument.operation import Operation, SessionStats, Usage
    from instrument.propagation import extract, inject, propagate
    from instrument.running import current_operation
    from instrument.session import Session, current_session, session
    from instrument.tracked import track, tracked

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

# on first use, because pytest loads our plugin, and so this, in every run of whoever has us
_HOMES = {
    "Budget": "budget",
    "BudgetExceeded": "budget",
    "ConfigurationError": "errors",
    "InstrumentError": "errors",
    "InstrumentWarning": "errors",
    "Operation": "operation",
    "Session": "session",
    "SessionStats": "operation",
    "Usage": "operation",
    "UsageLog": "log",
    "UsageLogger": "logger",
    "configure": "_config",
    "correlate_sessions": "logger",
    "current_operation": "running",
    "current_session": "session",
    "extract": "propagation",
    "inject": "propagation",
    "install": "clients",
    "propagate": "propagation",
    "session": "session",
    "track": "tracked",
    "tracked": "tracked",
    "uninstall": "clients",
}


def __getattr__(name: str) -> typing.Any:
    if name in _HOMES:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
        found = globals()[name] = getattr(module, name)
        return found
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Root
