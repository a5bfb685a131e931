"""Carry the current session and operation to where they would not go by themselves."""

from instrument.propagation.bound import propagate
from instrument.propagation.headers import extract, inject

__all__ = ["extract", "inject", "propagate"]
