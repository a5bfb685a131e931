"""Answers every request on 127.0.0.1 until its standard input ends; prints its address first."""

from __future__ import annotations

import sys

from _measure import TESTS

sys.path.insert(0, str(TESTS))

from conformance.loopback import answering


def main() -> None:
    with answering(b"{}") as address:
        print(address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
