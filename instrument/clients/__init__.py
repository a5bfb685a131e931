"""Tracking the clients of installed SDKs without touching the code that uses them."""

from instrument.clients.patching import install, uninstall

__all__ = ["install", "uninstall"]
