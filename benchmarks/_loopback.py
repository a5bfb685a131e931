"""Answers every request on 127.0.0.1 until its standard input ends; prints its address first.

python benchmarks/_loopback.py DELAY_SECONDS
"""

from __future__ import annotations

import sys

from _measure import TESTS

sys.path.insert(0, str(TESTS))

from conformance.loopback import answering


def main() -> None:
    with answering(b"{}", delay_seconds=float(sys.argv[1])) as address:
        print(address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
