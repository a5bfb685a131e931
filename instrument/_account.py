"""What this process recorded in each log and what it could not, and what recording cost it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Account", "account_of", "accounts", "forget", "internal_error", "internal_error_count"]

SAMPLES_KEPT = 512


class Account:
    """What came of the operations that this process recorded in one log directory.

    Of the `dropped_count` that could not be written, the log has not been told of `untold_count`
    yet; `reason` is what went wrong last. `costs_ns` are the latest samples of the time from an
    operation's end to its line being written.
    """

    # a `Struct` takes eight times as long to count
    __slots__ = ("costs_ns", "dropped_count", "reason", "recorded_count", "untold_count")

    def __init__(self) -> None:
        self.recorded_count: int = 0
        self.dropped_count: int = 0
        self.untold_count: int = 0
        self.reason: str = ""
        self.costs_ns: list[int] = []

    def sample(self, cost_ns: int) -> None:
        self.costs_ns.append(cost_ns)
        del self.costs_ns[:-SAMPLES_KEPT]


def account_of(log_dir: Path) -> Account:
    """Return this process's account with a log directory."""
    return _accounts.setdefault(log_dir, Account())


def accounts() -> dict[Path, Account]:
    """Return those with all the directories that this process has recorded in."""
    return _accounts.copy()


def internal_error() -> None:
    """Count an exception of our own, which cost a record."""
    global _internal_errors
    _internal_errors += 1


def internal_error_count() -> int:
    return _internal_errors


def forget() -> None:
    """Start from nothing: in a forked child all this is the parent's."""
    global _internal_errors
    _accounts.clear()
    _internal_errors = 0


_accounts: dict[Path, Account] = {}
_internal_errors = 0
