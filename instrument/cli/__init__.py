"""The command line: each command is one call of the query layer and one rendering."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command in `sys.argv` and exit: 0 fine, 1 a finding, 2 the user's mistake."""
    # click stays unloaded for those who import a single module of this package
    from instrument.cli.interrupts import EXIT_CODE, clean_up_when_ended, end_as_asked
    from instrument.cli.shell import run

    if "run" not in sys.argv[1:]:  # which passes environment and signals on to a program
        # the price list loads pydantic, and that whatever has registered a plugin of it
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        clean_up_when_ended()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open to the end
    code = run(sys.argv[1:])
    if code == EXIT_CODE:
        end_as_asked()
    sys.exit(code)
