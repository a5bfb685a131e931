"""What goes wrong while a session is carried along is ours alone."""

from __future__ import annotations

from types import TracebackType

from instrument._guard import belongs_to_program
from instrument.recorder import warn_once

__all__ = ["harmless"]


class Harmless:
    """Swallows what is raised inside, and says so once; what a signal handler raises goes on."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # the headers are the program's, and so may be the code behind them
        if not isinstance(error, Exception) or belongs_to_program(error, in_callback=True):
            return False
        warn_once("propagation", f"a session was not carried along: {error!r}")
        return True


harmless = Harmless()
