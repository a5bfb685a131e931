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
    methods,
    outcomes,
    records,
    results,
    streams,
)
from .subject import Bare, OutOfTime, Probe, Record, Subject, perform, registered

__all__ = ["PROBES", "Bare", "OutOfTime", "Probe", "Record", "Subject", "perform"]

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
    methods,
    classes,
    frameworks,
    streams,
    records,
    outcomes,
)

PROBES = [
    probe for module in MODULES for probe in registered if probe.run.__module__ == module.__name__
]
