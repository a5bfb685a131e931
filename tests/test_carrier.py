"""The text that carries a session to another process."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instrument import session
from instrument.carrier import (
    Carried,
    from_environment,
    is_session_id,
    outer_trace,
    to_environment,
)

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~:-"
HEX = "0123456789abcdef"
session_ids = st.text(ALPHABET, min_size=1, max_size=128)
operation_ids = st.text(HEX, min_size=16, max_size=16).filter(lambda each: set(each) != {"0"})
trace_ids = st.text(HEX, min_size=32, max_size=32).filter(lambda each: set(each) != {"0"})


@given(st.builds(Carried, session_ids, st.none() | operation_ids, trace_ids))
def test_what_a_child_reads_is_what_its_parent_wrote(carried: Carried) -> None:
    assert from_environment(to_environment(carried, "/log")) == carried


@given(session_ids)
def test_a_session_without_a_trace_gets_the_same_one_every_time(session_id: str) -> None:
    first, second = (from_environment(to_environment(Carried(session_id), "/log")) for _ in "12")
    assert first is not None
    assert first == second
    assert (first.session_id, first.parent_id) == (session_id, None)


@given(st.text(max_size=130) | session_ids | st.binary() | st.none() | st.integers())
def test_a_session_id_is_1_to_128_characters_of_the_alphabet(value: object) -> None:
    expected = isinstance(value, str) and 1 <= len(value) <= 128 and set(value) <= set(ALPHABET)
    assert is_session_id(value) is expected


@given(st.dictionaries(st.sampled_from(sorted(to_environment(Carried("a"), "/log"))), st.text()))
def test_any_environment_is_read_or_refused_by_name(environment: dict[str, str]) -> None:
    given_id = environment.get("INSTRUMENT_SESSION_ID", "")
    if given_id and not is_session_id(given_id):
        with pytest.raises(ValueError, match=re.escape(given_id)):
            from_environment(environment)
    else:
        carried = from_environment(environment)
        assert (carried.session_id if carried else "") == given_id


def test_no_variable_of_an_outer_process_shows_through() -> None:
    inherited = to_environment(Carried("outer", "a" * 16), "/log")
    inner = from_environment(inherited | to_environment(Carried("inner"), "/log"))
    assert inner is not None
    assert (inner.session_id, inner.parent_id) == ("inner", None)


TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-00"


def test_baggage_of_others_stays_and_so_does_whether_a_trace_is_sampled() -> None:
    around = {"BAGGAGE": "a=1,session.id=old", "TRACEPARENT": TRACEPARENT}
    found = to_environment(Carried("work", "c" * 16, "a" * 32), "/log", around)
    assert found["BAGGAGE"] == "a=1,session.id=work"
    assert found["TRACEPARENT"] == f"00-{'a' * 32}-{'c' * 16}-00"
    broken = to_environment(Carried("work"), "/log", {"BAGGAGE": "ö", "TRACEPARENT": TRACEPARENT})
    assert broken["BAGGAGE"] == "ö"
    assert broken["TRACEPARENT"].endswith("-01")


def test_an_outer_trace_is_who_started_this_process_unless_that_was_one_of_ours() -> None:
    assert outer_trace({"TRACEPARENT": TRACEPARENT}) == ("b" * 16, "a" * 32)
    for environment in (
        {},
        {"TRACEPARENT": "00-a-b-01"},
        {"TRACEPARENT": TRACEPARENT, "INSTRUMENT_SESSION_ID": "work"},
    ):
        assert outer_trace(environment) == (None, None)


def test_headers_are_those_of_w3c() -> None:
    headers = session(id="work-1").headers()
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", headers["traceparent"])
    assert headers["baggage"] == "session.id=work-1"
