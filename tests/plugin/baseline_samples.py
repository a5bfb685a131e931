"""Entries of baselines and figures of tests, made by hand and at random."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from instrument.pytest_plugin.baselines import COUNTS, TIMES, Entry
from instrument.pytest_plugin.figures import OUTCOMES, TestFigures

USED: dict[str, Any] = {
    "tokens": 15,
    "input_tokens": 10,
    "output_tokens": 5,
    "usd": 0.001,
    "operations": 1,
    "errors": 0,
}


def entry(*seconds: float, outcome: str = "passed", **counts: Any) -> Entry:
    """Return an entry with one call in each repeat, which took so long."""
    return Entry(outcome, {**USED, **counts}, dict.fromkeys(TIMES, seconds or (1.0,)))


def figures(node_id: str = "t.py::test", *durations: float, **more: Any) -> TestFigures:
    """Return the figures of a test with calls that took so long, one after the other."""
    known = {
        "outcome": "passed",
        "operations": len(durations),
        "tokens": 15,
        "input_tokens": 10,
        "output_tokens": 5,
        "usd": 0.001,
        "durations": durations,
        "seconds": sum(durations),
    }
    return TestFigures(node_id=node_id, **{**known, **more})


counts = st.none() | st.integers(0, 10**12) | st.floats(0, 1e9)
samples = st.lists(st.floats(0, 1e6), min_size=1, max_size=5).map(tuple)
entries = st.builds(
    Entry,
    st.just("passed"),
    st.fixed_dictionaries(dict.fromkeys(COUNTS, counts)),
    st.fixed_dictionaries(dict.fromkeys(TIMES, samples)),
) | st.sampled_from(OUTCOMES[1:4]).map(Entry)
baselines = st.dictionaries(st.text(max_size=120), entries, max_size=4)
