"""`inject`, `extract` and the hosts they are for: what W3C's rules allow, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from email.message import Message
from http.client import HTTPMessage
from itertools import cycle
from typing import Any
from wsgiref.headers import Headers as WsgiHeaders

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from instrument import (
    ConfigurationError,
    configure,
    current_operation,
    current_session,
    extract,
    inject,
    session,
    track,
    tracked,
)
from instrument.propagation.hosts import is_trusted
from instrument.testing import CapturedOperations, capture

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~:-"
HEX = "0123456789abcdef"


@pytest.fixture(autouse=True, scope="module")
def captured() -> Iterator[CapturedOperations]:
    """A log for the whole module, because hypothesis runs a test many times."""
    with capture() as operations:
        yield operations


def many(examples: int) -> Any:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=checks
    )


Found = tuple[str, str | None, str | None]


def found(headers: Any) -> Found | None:
    """Return the session, parent operation and trace that `headers` carry."""
    with extract(headers) as entered:
        if entered is None:
            return None
        with track("inside", service="s") as operation:
            return operation.session_id, operation.parent_id, entered.trace_id


def is_valid(carried: Found | None) -> bool:
    if carried is None:
        return True
    session_id, *ids = carried
    return (
        1 <= len(session_id) <= 128
        and set(session_id) <= set(ALPHABET)
        and all(
            each is None or (len(each) == length and set(each) <= set(HEX) and set(each) != {"0"})
            for each, length in zip(ids, (16, 32), strict=True)
        )
    )


REAL = [
    TRACEPARENT,
    f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like",
    "session.id=session_1790000000_0123abcd",
    "session.id=work,userId=alice,serverNode=DF%2028,isProduction=false",
    "sentry-environment=prod,sentry-public_key=0123456789abcdef,session.id=a%2Db%3Ac",
    "key1=value1;property1;property2, key2 = value2, session.id = work ;ttl=3",
]
HOSTILE = [
    "",
    "session.id=a%0d%0aSet-Cookie:x",
    "session.id=work\r\nX: y",
    "session.id=%00,session.id=work\0",
    "session.id=%2561",
    "session.id=%ff%fe,session.id=%e2%80%8b",
    "session.id=\N{ARABIC-INDIC DIGIT ONE}\N{FULLWIDTH DIGIT ONE}",
    "session.id=a,session.id=b,session.id=%61",
    "session.id=" + "a" * 129,
    "a=1," * 3000 + "session.id=work",
    "session.id=../../etc/passwd",
    TRACEPARENT.upper(),
    "ff" + TRACEPARENT[2:],
    f"00-{'0' * 32}-{PARENT}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    TRACEPARENT.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
    "x" * 100_000,
]
CUTS = "\0\r\n\t ,;=%-\x7f\xe9fF0\N{ARABIC-INDIC DIGIT ZERO}"


def made(script: bytes) -> str:
    """Return a header in which characters are put in, taken out and changed, as the script says."""
    header = BASES[script[0] % len(BASES)]
    for place, what in zip(script[2 : 2 + script[1] % 4], script[5:], strict=False):
        at = place % (len(header) + 1)
        header = header[:at] + CUTS[what % len(CUTS)] * (what % 3 != 0) + header[at + what % 2 :]
    return header


BASES = [*REAL * 3, *HOSTILE]
# hypothesis takes milliseconds for each thing it makes: so it makes 50 headers at a time
BATCH = 50
batches = st.binary(min_size=8 * BATCH, max_size=8 * BATCH).map(
    lambda script: [made(script[at : at + 8]) for at in range(0, len(script), 8)]
)
FORMS: list[Any] = [
    lambda trace, baggage: {"traceparent": trace, "baggage": baggage},
    lambda trace, baggage: {"TraceParent": trace, "Baggage": baggage, "X": "1"},
    lambda trace, baggage: [("BAGGAGE", baggage), ("baggage", trace), ("traceparent", trace)],
    lambda trace, baggage: {"baggage": [baggage, trace], "traceparent": (trace,)},
    lambda trace, baggage: iter([(b"baggage", baggage.encode()), (b"traceparent", trace.encode())]),
]


@many(140)
@given(batches, batches)
def test_no_invalid_id_is_accepted(traces: list[str], baggages: list[str]) -> None:
    before = current_session().id
    for form, trace, baggage in zip(cycle(FORMS), traces, baggages, strict=False):
        assert is_valid(found(form(trace, baggage)))
        assert current_session().id == before


texts = st.text(max_size=40)
values = texts | st.binary(max_size=40) | st.none() | st.floats() | st.lists(texts, max_size=3)
names = st.sampled_from(["traceparent", b"baggage", "Baggage", "x" * 7]) | values


@many(100)
@given(st.lists(st.tuples(names, values), max_size=4), st.sampled_from([list, iter, tuple]))
def test_random_pairs_carry_nothing_invalid(pairs: Any, kind: Any) -> None:
    assert is_valid(found(kind(pairs)))


@many(100)
@given(st.recursive(names, lambda inner: st.lists(inner, max_size=4), max_leaves=6))
def test_what_are_hardly_headers_carry_nothing_or_are_refused(headers: Any) -> None:
    with contextlib.suppress(ConfigurationError):
        assert is_valid(found(headers))


def is_ours(member: str) -> bool:
    return member.partition("=")[0].strip(" \t") == "session.id"


@many(30)
@given(batches)
def test_foreign_baggage_is_kept_byte_for_byte(batch: list[str]) -> None:
    for before in batch:
        with session(id="work"):
            after = inject({"baggage": before})["baggage"]
        foreign = [each for each in before.split(",") if not is_ours(each)]
        expected = [*foreign, "session.id=work"]
        assert after == before or after.split(",") == expected or not any(foreign)
        assert len(after) <= 8192 or after == before


session_ids = st.lists(st.text(ALPHABET, min_size=1, max_size=128), min_size=10, max_size=20)
MEMBERS = ["a=1", " b = 2 ;p;q=3 ", "c=%2C%00", "d=", "e=\t~", "session.idx=1"]


@many(100)
@given(session_ids, st.lists(st.sampled_from(MEMBERS), max_size=4))
def test_what_inject_writes_extract_reads(ids: list[str], foreign: list[str]) -> None:
    for name, session_id in zip(cycle(["baggage", "BAGGAGE"]), ids, strict=False):
        headers = {name: ",".join(foreign)} if foreign else {}
        with session(id=session_id), track("parent", service="s") as parent:
            inject(headers)
        carried = found(headers)
        assert carried is not None
        assert carried[:2] == (session_id, parent.id)


# after the test suite of W3C Trace Context
VALID = [
    TRACEPARENT,
    f" \t{TRACEPARENT} ",
    f"00-{TRACE}-{PARENT}-ff",
    f"01-{TRACE}-{PARENT}-01",
    f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like",
    f"fe-{TRACE}-{PARENT}-01-",
]
INVALID = [
    "",
    f"ff-{TRACE}-{PARENT}-01",
    f"00-{TRACE}-{PARENT}-01-what-the-future-will-be-like",
    f"00-{TRACE}-{PARENT}-01-",
    f"cc-{TRACE}-{PARENT}-01.what",
    f"cc-{TRACE}-{PARENT}-0100",
    f"0-{TRACE}-{PARENT}-01",
    f"000-{TRACE}-{PARENT}-01",
    f".0-{TRACE}-{PARENT}-01",
    f"00-{TRACE.upper()}-{PARENT}-01",
    f"00-{TRACE}-{PARENT.upper()}-01",
    f"00-{TRACE}-{PARENT}-0A",
    f"00-{'0' * 32}-{PARENT}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE[1:]}-{PARENT}-01",
    f"00-{TRACE}0-{PARENT}-01",
    f"00-{TRACE}-{PARENT}0-01",
    f"00-.{TRACE[1:]}-{PARENT}-01",
    f"00-{TRACE}-{PARENT}",
    f"00-{TRACE}-{PARENT}-01\n",
    f"00-{TRACE}-{PARENT[:-1]}٣-01",
    f"{TRACEPARENT},{TRACEPARENT}",
    "00-" + TRACE,
]


@pytest.mark.parametrize("traceparent", VALID)
def test_a_valid_traceparent_names_the_parent(traceparent: str) -> None:
    headers = {"traceparent": traceparent, "baggage": "session.id=work"}
    assert found(headers) == ("work", PARENT, TRACE)


@pytest.mark.parametrize("traceparent", INVALID)
def test_an_invalid_traceparent_is_as_if_it_were_not_there(traceparent: str) -> None:
    headers = {"traceparent": traceparent, "baggage": "session.id=work"}
    assert found(headers) == ("work", None, None)


@pytest.mark.parametrize("traceparent", INVALID)
def test_an_invalid_traceparent_is_replaced(
    traceparent: str, capture_operations: CapturedOperations
) -> None:
    with session():
        headers = inject({"traceparent": traceparent})
        assert headers["traceparent"] == inject()["traceparent"]


def test_two_traceparents_are_none() -> None:
    twice = [("traceparent", TRACEPARENT), ("Traceparent", TRACEPARENT)]
    assert found([*twice, ("baggage", "session.id=work")]) == ("work", None, None)


BAGGAGE = {
    "session.id=work": "work",
    " \tsession.id\t=\twork ": "work",
    "session.id=work;ttl=3;secret": "work",
    "a=1,session.id=work,b=%2C": "work",
    "session.id=w%6Frk": "work",
    "session.id=%77%6f%72%6b": "work",
    "session.id=first,session.id=second": "first",
    ",,session.id=work": "work",
    "Session.Id=work": None,
    "xsession.id=work": None,
    "a=session.id=work": None,
    "a=1;session.id=work": None,
    "session.id": None,
    "session.id=": None,
    "session.id==work": None,
    'session.id="work"': None,
    "session.id=a b": None,
    "session.id=a%20b": None,
    "session.id=%2577ork": None,
    "session.id=%": None,
    "session.id=work%0d%0aX:y": None,
    "session.id=work%00": None,
    "session.id=work\r\nX: y": None,
    "session.id=work\0": None,
    "session.id=work\x7f": None,
    "session.id=wörk": None,
    "session.id=w%C3%B6rk": None,
    "session.id=%D9%A1": None,
    "session.id=work,a=ö": None,
    "session.id=" + "a" * 128: "a" * 128,
    "session.id=" + "a" * 129: None,
    "session.id=work,a=" + "b" * (8192 - 18): "work",
    "session.id=work,a=" + "b" * (8192 - 17): None,
}


@pytest.mark.parametrize("baggage", BAGGAGE, ids=lambda text: ascii(text[:40]))
def test_baggage_is_read_as_w3c_says(baggage: str) -> None:
    carried = found({"baggage": baggage})
    assert (carried[0] if carried else None) == BAGGAGE[baggage]


WRITTEN = [("Traceparent", TRACEPARENT), ("X", "1"), ("Baggage", "session.id=work")]


def message(pairs: Any, kind: type[Message] = Message) -> Message:
    made = kind()
    for name, value in pairs:
        made[name] = value
    return made


def starlette_headers(pairs: Any) -> Any:
    from starlette.datastructures import MutableHeaders

    return MutableHeaders(raw=[(name.lower().encode(), value.encode()) for name, value in pairs])


def multidict(pairs: Any) -> Any:
    return pytest.importorskip("multidict").CIMultiDict(pairs)


KINDS: dict[str, Any] = {
    "dict": dict,
    "httpx": httpx.Headers,
    "requests": lambda pairs: CaseInsensitiveDict(pairs),
    "starlette": starlette_headers,
    "email": message,
    "http.client": lambda pairs: message(pairs, HTTPMessage),
    "wsgiref": lambda pairs: WsgiHeaders(list(pairs)),
    "aiohttp": multidict,
}
READ_ONLY: dict[str, Any] = {
    "pairs": list,
    "tuple": tuple,
    "generator": iter,
    "bytes": lambda pairs: [(name.encode(), value.encode()) for name, value in pairs],
    "lists": lambda pairs: {name: [value] for name, value in pairs},
    "upper": lambda pairs: {name.upper(): value for name, value in pairs},
    "other keys": lambda pairs: {1: 2, None: None, (): (), **dict(pairs)},
}


@pytest.mark.parametrize("kind", KINDS | READ_ONLY)
def test_every_kind_of_headers_is_read(kind: str) -> None:
    carried = found((KINDS | READ_ONLY)[kind](WRITTEN))
    assert carried == ("work", PARENT, TRACE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mapping_is_written_to(kind: str) -> None:
    headers = KINDS[kind]([("X", "1"), ("Baggage", "a=1; p ,b=%2C")])
    with session(id="work"), track("parent", service="s") as parent:
        assert inject(headers) is headers
    carried = found(headers)
    assert carried is not None
    assert carried[:2] == ("work", parent.id)
    baggages = [value for name, value in headers.items() if name.lower() == "baggage"]
    assert baggages == ["a=1; p ,b=%2C,session.id=work"]


@pytest.mark.parametrize("kind", ["email", "http.client", "starlette", "wsgiref", "aiohttp"])
def test_several_lines_of_baggage_become_one(kind: str) -> None:
    headers = KINDS[kind]([("Baggage", "a=1"), ("X", "1"), ("baggage", "session.id=old,b=2")])
    with session(id="work"):
        inject(headers)
    baggages = [value for name, value in headers.items() if name.lower() == "baggage"]
    assert baggages == ["a=1,b=2,session.id=work"]


def test_a_dict_with_the_name_twice_becomes_one_as_well() -> None:
    with session(id="work"):
        headers = inject({"Baggage": "session.id=old", "baggage": "a=1"})
    assert {name: headers[name] for name in headers if name != "traceparent"} == {
        "baggage": "a=1,session.id=work"
    }


def test_headers_of_bytes_stay_bytes() -> None:
    headers: Any = {b"Baggage": b"a=1", b"traceparent": TRACEPARENT.encode()}
    with session(id="work"):
        inject(headers)
    assert headers == {
        b"Baggage": b"a=1,session.id=work",
        b"traceparent": TRACEPARENT.encode(),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_reused_headers_name_the_operation_of_the_moment(kind: str) -> None:
    headers = KINDS[kind]([("X", "1")])
    with session(id="first"), track("first", service="s"):
        inject(headers)
    with session(id="second"), track("second", service="s") as second:
        inject(headers)
        carried = found(headers)
    assert carried is not None
    assert carried[:2] == ("second", second.id)
    names = sorted(name.lower() for name, _ in headers.items())
    assert names == ["baggage", "traceparent", "x"]


@pytest.mark.parametrize("baggage", ["a=1", "session.idx=1", "session.id=a b"])
def test_a_traceparent_without_a_session_is_somebodys_who_traces_and_stays(baggage: str) -> None:
    with session(id="work"):
        headers = inject({"Traceparent": TRACEPARENT, "baggage": baggage})
    assert headers["Traceparent"] == TRACEPARENT
    assert "traceparent" not in headers


LIMITS = [
    (179, "a=1", True),
    (180, "a=1", False),
    (1, "a=" + "1" * (8192 - 2 - 16), True),
    (1, "a=" + "1" * (8192 - 2 - 15), False),
]


@pytest.mark.parametrize(("count", "member", "fits"), LIMITS)
def test_the_limits_of_w3c_hold(count: int, member: str, fits: bool) -> None:
    baggage = ",".join([member] * count)
    with session(id="work"):
        headers = inject({"baggage": baggage})
    assert headers["baggage"] == (f"{baggage},session.id=work" if fits else baggage)
    assert ("traceparent" in headers) is fits


@pytest.mark.parametrize("value", ["a=1\r\nX: y", "a=\0", "a=ö", None, 5, ["a=1"], {"a": 1}])
def test_what_is_no_baggage_is_left_alone(value: Any) -> None:
    with session(id="work"):
        assert inject({"baggage": value}) == {"baggage": value}


class Raising(Mapping[str, str]):
    """A mapping of which one method raises."""

    def __init__(self, method: str, error: BaseException) -> None:
        self.raises = method, error

    def __getattribute__(self, name: str) -> Any:
        method, error = object.__getattribute__(self, "raises")
        if name == method:
            raise error
        return object.__getattribute__(self, name)

    def __getitem__(self, name: str) -> str:
        return self.__getattribute__("value") or "session.id=work"

    def __iter__(self) -> Iterator[str]:
        return iter(["traceparent", self.__getattribute__("name") or "baggage"])

    def __len__(self) -> int:
        return 2

    name = value = ""


@pytest.mark.parametrize("method", ["items", "name", "value"])
@pytest.mark.parametrize("error", [KeyError, StopIteration, RecursionError, UnicodeError, OSError])
def test_a_mapping_that_raises_carries_nothing(method: str, error: type[Exception]) -> None:
    assert found(Raising("", KeyError())) == ("work", None, None)
    assert found(Raising(method, error())) is None


def test_what_a_signal_handler_raises_meanwhile_goes_to_the_program() -> None:
    def handler(number: int, frame: Any) -> None:
        raise TimeoutError("handled")

    def pairs() -> Iterator[tuple[str, str]]:
        signal.raise_signal(signal.SIGUSR1)
        yield "baggage", "session.id=work"

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(TimeoutError, match="handled"):
            extract(pairs())
    finally:
        signal.signal(signal.SIGUSR1, before)


class Text(str):
    """A str that is not what it seems, as templates' are."""

    def strip(self, *characters: Any) -> Any:
        return self

    def __str__(self) -> str:
        return "<b>"


def test_the_session_id_is_plain_text() -> None:
    with extract({"Baggage": Text("session.id=work")}) as entered:
        assert entered is not None
        assert type(entered.id) is str
        assert entered.id == "work"


@pytest.mark.parametrize("headers", [5, "baggage", b"baggage", 1.5, object()])
def test_what_can_be_no_headers_is_told_at_once(headers: Any) -> None:
    with pytest.raises(ConfigurationError, match="use a mapping, or pairs of names and values"):
        extract(headers)
    with pytest.raises(ConfigurationError, match="use a mutable mapping"):
        inject(headers)


@pytest.mark.parametrize("headers", [None, {}, [], (), [(1, 2, 3)], [1], [None], ["baggage"]])
def test_headers_without_a_session_change_nothing(headers: Any) -> None:
    with session(id="outer"), extract(headers) as entered:
        assert entered is None
        assert current_session().id == "outer"


def test_pairs_are_not_written_to() -> None:
    with pytest.raises(ConfigurationError, match="use a mutable mapping"):
        inject([("baggage", "a=1")])  # type: ignore[arg-type]


HEADERS = {"traceparent": TRACEPARENT, "baggage": "session.id=work"}


def test_it_may_be_entered_again_inside_itself() -> None:
    arriving = extract(HEADERS)
    with session(id="outer"):
        with arriving, session(id="inner"), arriving:
            assert current_session().id == "work"
        assert current_session().id == "outer"
    with arriving:
        assert current_session().id == "work"


def test_many_threads_may_enter_it_at_once() -> None:
    arriving, seen = extract(HEADERS), []

    def enter() -> None:
        for _ in range(200):
            with arriving:
                seen.append(current_session().id)
            seen.append(current_operation())

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {"work", None}


async def test_it_works_with_async_with() -> None:
    async with extract(HEADERS) as entered:
        assert entered is current_session()
    assert current_session().id != "work"


async def test_it_may_be_left_in_another_task() -> None:
    arriving = extract(HEADERS)
    with session(id="outer"):
        await asyncio.create_task(entering(arriving))
        assert current_session().id == "outer"
        arriving.__exit__(None, None, None)
        arriving.__exit__(None, None, None)
        assert current_session().id == "outer"


async def entering(arriving: extract) -> None:
    arriving.__enter__()
    assert current_session().id == "work"


def test_the_first_request_of_a_process_reaches_its_threads() -> None:
    seen: list[str] = []
    with extract(HEADERS):
        thread = threading.Thread(target=lambda: seen.append(current_session().id))
        thread.start()
        thread.join()
    assert seen == ["work"]


def test_callbacks_of_ours_stay_unrecorded_inside_of_it(captured: CapturedOperations) -> None:
    def usage(result: Any) -> None:
        with extract(HEADERS) as entered, track("in a callback", service="s"):
            assert entered is None

    tracked(service="s", operation="called", usage=usage)(lambda: 1)()
    names = {each.operation for each in captured}
    assert "called" in names
    assert "in a callback" not in names


TRUSTED = """
localhost LOCALHOST localhost. api.localhost
127.0.0.1 127.255.0.1 10.1.2.3 172.16.0.1 172.31.255.255 192.168.0.1 127.0.0.1.
::1 [::1] ::ffff:127.0.0.1 ::ffff:10.0.0.1 fd00::1 fc00::1 fe80::1 fe80::1%eth0 [fe80::1%25eth0]
"""
UNTRUSTED = """
example.com localhost.example.com notlocalhost internal
8.8.8.8 172.15.0.1 172.32.0.1 192.169.0.1 11.0.0.1 100.64.0.1
0.0.0.0 :: 169.254.169.254 ::ffff:169.254.169.254 192.0.2.1 198.18.0.1 240.0.0.1 255.255.255.255
127.1 2130706433 0177.0.0.1 0x7f.0.0.1 127.0.0.01 127.0.0.1%.example.com 127.0.0.1:80
::ffff:8.8.8.8 2001:4860:4860::8888 64:ff9b::7f00:1 2002:7f00:1:: 2001:db8::1 ff02::1 ::127.0.0.1
10.0.0.1.example.com ١٢٧.0.0.1 localhost\0.example.com
"""


@pytest.mark.parametrize("host", [*TRUSTED.split(), "\N{FULLWIDTH LATIN SMALL LETTER L}ocalhost"])
def test_this_machine_and_private_networks_are_trusted(host: str) -> None:
    assert is_trusted(host)


@pytest.mark.parametrize("host", [*UNTRUSTED.split(), "", None, " localhost", "a..b", "ü" * 100])
def test_nobody_else_is(host: str | None) -> None:
    assert not is_trusted(host)


PATTERNS = [
    (["*.internal"], "a.b.internal A.INTERNAL. x.internal", "internal internal.com xinternal"),
    (["API.Example.com."], "api.example.com api.example.com.", "example.com xapi.example.com"),
    (["*"], "example.com 8.8.8.8 ::1", ""),
    (["10.1.*"], "10.1.2.3", "10.2.1.1 localhost"),
    (["fd00:*", "::1"], "fd00::1 [::1]", "fe80::1"),
    (["*.bücher.de"], "a.bücher.de a.xn--bcher-kva.de A.BÜCHER.de", "a.bucher.de"),
    (["straße.de"], "straße.de STRAßE.de xn--strae-oqa.de", "strasse.de"),
    (["xn--strae-oqa.de"], "straße.de", "strasse.de"),
    (["[::1]", "FD00:0::1"], "::1 [::1] 0:0:0:0:0:0:0:1 fd00::0:1", "::2 localhost"),
    (["0:0:0:0:0:0:0:1"], "::1 [::1]", "::"),
    ([], "", "localhost 127.0.0.1"),
    (("a?.de" for _ in "1"), "ab.de", "a.de abc.de"),
]


@pytest.mark.parametrize(("patterns", "trusted", "untrusted"), PATTERNS)
def test_patterns_take_the_place_of_the_default(
    patterns: Any, trusted: str, untrusted: str
) -> None:
    with capture(propagate_to=patterns):
        assert [host for host in trusted.split() if not is_trusted(host)] == []
        assert [host for host in untrusted.split() if is_trusted(host)] == []


REFUSED = ["localhost", b"x", 5, [5], [b"x"], [""], ["http://x"], ["x:80"], ["a/b"], ["[::1]:80"]]


@pytest.mark.parametrize("value", [*REFUSED, ["10.0.0.0/8"], ["a b"], ["me@x"], ["bü*.de"], [None]])
def test_patterns_that_never_match_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="patterns of host names"):
        configure(propagate_to=value)


def test_without_the_package_idna_only_names_in_ascii_are_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "idna", None)
    with pytest.raises(ConfigurationError, match="the form in ASCII"):
        configure(propagate_to=["straße.internal"])
    with capture(propagate_to=["xn--strae-oqa.internal", "*.de"]):
        assert is_trusted("xn--strae-oqa.internal")
        assert is_trusted("bücher.de")
        assert not is_trusted("straße.internal")
