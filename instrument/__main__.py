"""Run the command `instrument` as `python -m instrument`."""

from __future__ import annotations

from instrument.cli import main

if __name__ == "__main__":
    main()
