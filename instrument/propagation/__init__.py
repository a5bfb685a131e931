"""Carry the current session and operation to where they would not go by themselves."""

from instrument.propagation.bound import propagate

__all__ = ["propagate"]
