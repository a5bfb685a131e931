"""No record is lost for what it holds."""

from __future__ import annotations

import enum
import json
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instrument import Operation, current_operation, track, tracked
from instrument._clean import jsonable, plain_copy
from instrument.testing import capture

pytestmark = pytest.mark.usefixtures("fresh_warnings")


def recorded(**metadata: Any) -> Any:
    """Record one operation with that metadata; return the metadata that is read back."""
    with capture() as operations:
        with track("block", service="s") as block:
            block.metadata.update(metadata)
        (found,) = operations
    return found.metadata


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Chatty:
    @tracked(service="s")
    def __repr__(self) -> str:
        return "chatty"


class Text(str):
    def __str__(self) -> str:
        raise RuntimeError("no str")

    def isascii(self) -> bool:
        raise RuntimeError("no isascii")


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


Point = namedtuple("Point", "x y")
CLEANED: list[tuple[Any, Any]] = [
    ("\ud800", "\ufffd"),
    ("a\udfffb", "a\ufffdb"),
    (math.nan, "nan"),
    (-math.inf, "-inf"),
    (2**63 - 1, 2**63 - 1),
    (2**64, "18446744073709551616"),
    (-(2**70), "-1180591620717411303424"),
    (b"\xff", r"b'\xff'"),
    ({1}, "{1}"),
    (date(2026, 11, 24), "datetime.date(2026, 11, 24)"),
    ((1, (2,)), [1, [2]]),
    ({"\ud800": 1, 2: 3, None: 4, (5,): 6}, {"\ufffd": 1, "2": 3, "None": 4, "(5,)": 6}),
    (Broken(), "<Broken whose repr fails>"),
    (Chatty(), "chatty"),
    (bytearray(1000), repr(bytearray(1000))[:200]),
    (Text("text"), "text"),
    (Colour.RED, "red"),
    ({Colour.RED: Level.HIGH}, {"red": 3}),
    (Counter("aab"), {"a": 2, "b": 1}),
    (OrderedDict(b=1), {"b": 1}),
    (defaultdict(list, a=[1]), {"a": [1]}),
    (Point(1, 2), [1, 2]),
    (10**5000, "<int whose repr fails>"),
]


@pytest.mark.parametrize(("value", "expected"), CLEANED, ids=lambda value: type(value).__name__)
def test_metadata_is_kept_as_json_holds_it_and_else_by_its_repr(value: Any, expected: Any) -> None:
    assert recorded(value=value) == {"value": expected}


def cycle() -> Any:
    ring: list[Any] = []
    ring.extend([ring, ring, {"again": ring}])
    return ring


def doublings() -> Any:
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    return value


def tree() -> Any:
    root: dict[str, Any] = {"parent": None}
    level = [root]
    for _ in range(6):
        for each in level:
            each["children"] = [{"parent": each} for _ in range(3)]
        level = [child for each in level for child in each["children"]]
    return root


@pytest.mark.parametrize("make", [cycle, doublings, tree])
def test_what_has_no_end_is_cut_and_the_record_is_kept(make: Callable[[], Any]) -> None:
    assert len(json.dumps(recorded(value=make()))) < 5_000_000
    with capture() as operations:
        tracked(service="s", metadata={"value": make()})(lambda: None)()
    assert [list(each.metadata) for each in operations] == [["value"]]


def test_ten_megabytes_of_text_are_one_line() -> None:
    assert recorded(value="é" * 5_000_000) == {"value": "é" * 5_000_000}


any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=())), any_json))
def test_any_metadata_is_exactly_one_line_that_reads_back(metadata: dict[str, Any]) -> None:
    with capture() as operations:
        with track("block", service="s", metadata=metadata):
            pass
        (segment,) = (operations.log_dir / "journal").iterdir()
        lines = segment.read_bytes().splitlines(keepends=True)
        written = [json.loads(line)["metadata"] for line in lines if b'"type"' not in line[:9]]
        assert [each.metadata for each in operations] == written
    assert all(line.endswith(b"\n") for line in lines)


@given(st.text(st.characters(exclude_categories=()), min_size=1).filter(str.strip))
def test_any_name_reads_back_with_its_lone_surrogates_replaced(name: str) -> None:
    with capture() as operations, track(name, service=name, model=name):
        pass
    (found,) = operations
    whole = "".join("\ufffd" if "\ud800" <= each <= "\udfff" else each for each in name)
    assert (found.service, found.operation, found.model) == (whole, whole, whole)


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")


MESSAGES: list[tuple[BaseException, str]] = [
    (MuteError(), "<MuteError whose str fails>"),
    (ValueError("\ud800"), "\ufffd"),
    (ValueError("x" * 10_000_000), "x" * 500),
    (ValueError(Text("text")), "<ValueError whose str fails>"),
    (KeyError(Broken()), "<KeyError whose str fails>"),
]


def failed(error: BaseException) -> Operation:
    """Record one operation that ends with that error."""

    @tracked(service="s")
    def fail() -> None:
        raise error

    with capture() as operations:
        with pytest.raises(type(error)):
            fail()
        (found,) = operations
    return found


@pytest.mark.parametrize(("error", "message"), MESSAGES, ids=range(len(MESSAGES)))
def test_whatever_an_exception_says_its_operation_is_recorded(
    error: BaseException, message: str
) -> None:
    found = failed(error)
    assert (found.error_type, found.error_message) == (type(error).__qualname__, message)


def raising(field: str, value: Any) -> Any:
    raise RuntimeError("cannot redact")


REDACTED: list[tuple[Callable[[str, Any], Any], str | None, dict[str, Any]]] = [
    (lambda field, value: value, "message", {"key": "value"}),
    (lambda field, value: None, None, {}),
    (lambda field, value: f"{field}!", "error_message!", {"key": "key!"}),
    (lambda field, value: 5, "5", {"key": 5}),
    (
        lambda field, value: Broken(),
        "<Broken whose repr fails>",
        {"key": "<Broken whose repr fails>"},
    ),
    (lambda field, value: Text("text"), "text", {"key": "text"}),
    (lambda field, value: "\ud800" * 600, "\ufffd" * 500, {"key": "\ufffd" * 600}),
]


@pytest.mark.parametrize(("redact", "message", "metadata"), REDACTED, ids=range(len(REDACTED)))
def test_what_redact_returns_is_recorded(
    redact: Callable[[str, Any], Any], message: str | None, metadata: dict[str, Any]
) -> None:
    with capture(redact=redact) as operations:
        with track("block", service="s", metadata={"key": "value"}) as block:
            block.fail("message")
        assert [(each.error_message, each.metadata) for each in operations] == [(message, metadata)]


def test_a_redact_that_fails_drops_the_values_and_not_the_record() -> None:
    call = tracked(service="s", metadata={"key": "secret"})(raising)
    warned = pytest.warns(match="redact= raised RuntimeError")
    with capture(redact=raising) as operations, warned, pytest.raises(RuntimeError):
        call("", "")
    assert [(each.error_message, each.metadata) for each in operations] == [(None, {})]


def test_messages_are_left_out_when_they_are_not_wanted() -> None:
    with capture(error_messages=False) as operations, track("block", service="s") as block:
        block.fail("secret")
    assert [(each.error_type, each.error_message) for each in operations] == [("failed", None)]


def test_metadata_given_when_decorating_is_copied_for_each_call() -> None:
    shared: dict[str, Any] = {"tags": ["a"]}

    @tracked(service="s", metadata=shared)
    def call() -> None:
        operation = current_operation()
        assert operation is not None
        operation.metadata["tags"].append("b")

    with capture() as operations:
        call()
        call()
    assert [each.metadata for each in operations] == [{"tags": ["a", "b"]}] * 2
    assert shared == {"tags": ["a"]}


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([*Colour, *Level])
)


@given(st.dictionaries(st.text(max_size=3) | st.integers(), VALUES, max_size=4))
def test_a_plain_copy_is_what_is_recorded_or_there_is_none(metadata: dict[Any, Any]) -> None:
    copy = plain_copy(metadata)
    if copy is not None:
        assert repr(copy) == repr(jsonable(metadata))
        assert copy is not metadata
