"""Timestamps and ids are put together by hand, and as if they were not."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from instrument._clock import format_timestamp, new_id

NANOSECONDS = st.integers(0, 4_000_000_000 * 10**9)


@given(NANOSECONDS, st.integers(-2 * 10**9, 2 * 10**9))
def test_a_timestamp_is_written_as_datetime_writes_it(unix_ns: int, later_ns: int) -> None:
    for moment_ns in (unix_ns, max(0, unix_ns + later_ns)):
        exact = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=moment_ns // 1000)
        expected = exact.isoformat(timespec="microseconds").replace("+00:00", "Z")
        assert format_timestamp(moment_ns) == expected


def test_ids_are_16_hex_digits_counted_up_and_no_two_are_alike() -> None:
    ids = [new_id() for _ in range(1_000)]
    numbers = [int(each, 16) for each in ids]
    assert {len(each) for each in ids} == {16}
    assert numbers == list(range(numbers[0], numbers[0] + 1_000))


def test_threads_that_draw_ids_at_once_draw_none_twice() -> None:
    drawn: list[str] = []

    def draw() -> None:
        drawn.extend([new_id() for _ in range(20_000)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawn)) == len(drawn) == 80_000
