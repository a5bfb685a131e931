"""The same without pytest, for `python -m unittest`: a log, a clock and ids of their own."""

# ruff: noqa: PT009 - what unittest has of its own is shown here

from __future__ import annotations

import os
import unittest
from pathlib import Path

import geography
import vcr

from instrument import session, tracked
from instrument.testing import CountingIds, FakeClock, capture

TOKENS = int(os.environ.get("GEOGRAPHY_TOKENS", "2000"))  # a budget, which a test lowers


class Geography(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.operations = self.enterContext(capture(clock=self.clock, ids=CountingIds()))
        cassette = Path(__file__).with_name("cassettes") / "chat.yaml"
        self.enterContext(vcr.use_cassette(str(cassette), record_mode="none"))

    def test_an_answer_stays_within_its_budget(self) -> None:
        with session("question") as work:
            geography.with_sdk("Portugal")
        self.assertLessEqual(work.stats().total_tokens, TOKENS)

    def test_the_call_is_inside_of_what_the_program_did(self) -> None:
        geography.with_sdk("Portugal")
        outer, inner = self.operations
        self.assertEqual((outer.operation, outer.operation_id), ("with_sdk", "0000000000000001"))
        self.assertEqual((inner.operation, inner.parent_id), ("chat", "0000000000000001"))

    def test_waiting_takes_the_time_that_it_says(self) -> None:
        wait = tracked(service="geography", operation="wait")(self.clock.tick)
        with session("patience") as work:
            for seconds in (1, 2, 30):
                wait(seconds)
        said = "3 operations, tokens not reported, 100.0 % success, 33.0 s"
        self.assertEqual(str(work.stats()), said)


if __name__ == "__main__":
    unittest.main()
