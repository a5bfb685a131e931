"""Tells what a piece of work cost: calls, tokens, money, time and failures, in a local log."""

from instrument._config import configure
from instrument.clients import install, uninstall
from instrument.errors import ConfigurationError, InstrumentError, InstrumentWarning
from instrument.log import UsageLog
from instrument.logger import UsageLogger, correlate_sessions
from instrument.operation import Operation, SessionStats, Usage
from instrument.propagation import propagate
from instrument.running import current_operation
from instrument.session import Session, current_session, session
from instrument.tracked import track, tracked

__all__ = [
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
    "install",
    "propagate",
    "session",
    "track",
    "tracked",
    "uninstall",
]
