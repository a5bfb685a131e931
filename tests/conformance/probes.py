"""The one list of probes that the tests and the benchmark run."""

from __future__ import annotations

from . import (
    arguments,
    async_generators,
    callables,
    classes,
    contexts,
    coroutines,
    exceptions,
    frameworks,
    generators,
    introspection,
    outcomes,
    records,
    results,
    streams,
)
from .subject import PROBES, Bare, OutOfTime, Probe, Record, Subject, perform

__all__ = ["MODULES", "PROBES", "Bare", "OutOfTime", "Probe", "Record", "Subject", "perform"]

MODULES = (
    introspection,
    arguments,
    results,
    exceptions,
    coroutines,
    generators,
    async_generators,
    contexts,
    callables,
    classes,
    frameworks,
    streams,
    records,
    outcomes,
)
