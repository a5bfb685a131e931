"""What may be decorated beside functions, how it is named, and decorating twice."""

from __future__ import annotations

import abc
import copy
import enum
import functools
import multiprocessing
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from responses import named, only, parents

from instrument import ConfigurationError, tracked
from instrument.testing import CapturedOperations


def names(operations: CapturedOperations) -> list[str]:
    return [each.operation.rpartition("<locals>.")[2] for each in operations]


class Base:
    def inherited(self) -> None: ...


@tracked(service="s")
class Client(Base):
    class Nested:
        def ask(self) -> None: ...

    def ask(self) -> None: ...

    def __call__(self) -> None: ...

    def __len__(self) -> int:
        return 1

    def _hidden(self) -> None: ...

    @classmethod
    def make(cls) -> Client:
        return cls()

    @staticmethod
    def help() -> None: ...

    @property
    def name(self) -> str:
        return "name"


@tracked(service="s")
@functools.lru_cache
def cached(number: int) -> int:
    return 2 * number


def double(number: int) -> int:
    return 2 * number


twice_three = tracked(service="s", usage=lambda result: result)(functools.partial(double, 3))


def test_a_classs_own_public_methods_and_call_are_tracked_and_nothing_else(
    capture_operations: CapturedOperations,
) -> None:
    client = Client.make()
    client.ask(), client(), client.help()
    client.inherited(), len(client), client._hidden(), client.name, client.Nested().ask()
    assert names(capture_operations) == [
        "Client.make",
        "Client.ask",
        "Client.__call__",
        "Client.help",
    ]


def test_a_given_operation_is_the_prefix_of_a_classs_methods(
    capture_operations: CapturedOperations,
) -> None:
    class Local:
        def ask(self) -> None: ...

    tracked(service="s", operation="api")(Local)().ask()
    assert names(capture_operations) == ["api.ask"]


def test_an_overridden_method_calls_the_tracked_one_it_overrides(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s")
    class Special(Client):
        def ask(self) -> None:
            super().ask()

    Special().ask()
    assert parents(capture_operations) == {"Special.ask": None, "Client.ask": "Special.ask"}


def test_the_name_is_what_stands_after_the_last_locals(
    capture_operations: CapturedOperations,
) -> None:
    class Local:
        @tracked(service="s")
        def ask(self) -> None: ...

    Local().ask()
    assert only(capture_operations).operation == "Local.ask"


def test_decorating_again_for_the_same_operation_takes_the_place_of_the_first(
    capture_operations: CapturedOperations,
) -> None:
    def ask() -> None: ...

    for number in range(3):  # as when a notebook's cell is run again
        ask = tracked(service="s", metadata={"run": number})(ask)
    ask()
    assert only(capture_operations).metadata == {"run": 2}


def test_decorating_a_class_or_a_bound_method_again_records_once(
    capture_operations: CapturedOperations,
) -> None:
    class Local:
        def ask(self) -> None: ...

    tracked(service="s")(tracked(service="s")(Local))
    local: Any = Local()
    local.ask()
    local.ask = tracked(service="s")(local.ask)
    local.ask = tracked(service="s")(local.ask)
    local.ask()
    assert names(capture_operations) == ["Local.ask", "Local.ask"]


def test_another_service_around_a_tracked_function_is_an_operation_of_its_own(
    capture_operations: CapturedOperations,
) -> None:
    inner = tracked(service="inner", operation="a")(lambda: None)
    tracked(service="outer", operation="b")(inner)()
    assert [each.service for each in capture_operations] == ["outer", "inner"]
    assert parents(capture_operations) == {"b": None, "a": "b"}


def test_a_partialmethod_is_tracked_as_the_method_inside(
    capture_operations: CapturedOperations,
) -> None:
    class Local:
        def ask(self, *given: int) -> Any:
            return self, given

        ask_one = tracked(service="s")(functools.partialmethod(ask, 1))

    local = Local()
    assert local.ask_one(2) == (local, (1, 2))
    assert names(capture_operations) == ["Local.ask"]


def test_a_property_is_refused_with_the_cure() -> None:
    with pytest.raises(ConfigurationError, match=r"put @tracked\(...\) below @property"):
        tracked(service="s")(property(lambda self: 1))


def test_descriptors_of_other_classes_stay_what_they_are(
    capture_operations: CapturedOperations,
) -> None:
    class Marked(classmethod):  # type: ignore[type-arg]
        def __init__(self, function: Any, flag: bool) -> None:
            super().__init__(function)
            self.flag = flag

    of_class = classmethod(property(lambda cls: 7))  # type: ignore[arg-type]

    class Either(classmethod):  # type: ignore[type-arg]
        __slots__ = ("retries",)

        def __init__(self, function: Any) -> None:
            super().__init__(function)
            self.function = function
            self.retries = 3

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return functools.partial(self.function, owner if instance is None else instance)

    told = staticmethod(lambda: 3)
    told.tag = "x"  # type: ignore[attr-defined]

    @tracked(service="s")
    class Client:
        limit = of_class
        ask = Marked(lambda cls: cls, True)
        tell = told
        either = Either(lambda both: both)

    assert vars(Client)["limit"] is of_class
    assert (Client.ask(), Client.tell()) == (Client, 3)
    assert (vars(Client)["ask"].flag, vars(Client)["tell"].tag) == (True, "x")
    assert type(vars(Client)["ask"]) is Marked
    client = Client()
    assert (Client.either(), client.either()) == (Client, client)
    assert vars(Client)["either"].retries == 3
    assert len(capture_operations) == 4


def test_what_pydantic_adds_to_a_model_is_not_tracked(
    capture_operations: CapturedOperations,
) -> None:
    pydantic = pytest.importorskip("pydantic")

    @tracked(service="s")
    class Client(pydantic.BaseModel):  # type: ignore[misc]
        _secret: int = 0

        def ask(self) -> int:
            return self._secret

    assert Client().ask() == 0
    assert names(capture_operations) == ["Client.ask"]


def test_an_abstract_method_stays_abstract(capture_operations: CapturedOperations) -> None:
    class Abstract(abc.ABC):
        @tracked(service="s")
        @abc.abstractmethod
        def ask(self) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        Abstract()  # type: ignore[abstract]


@pytest.mark.parametrize("target", [cached, twice_three], ids=["cached", "partial"])
def test_what_stands_in_a_module_is_pickled_by_its_place(target: Any) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(target, protocol)) is target


def test_what_is_pickled_by_a_name_goes_to_a_spawned_process() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert (pool.submit(cached, 1).result(), pool.submit(twice_three).result()) == (2, 6)


def test_a_proxy_of_what_another_name_stands_for_is_pickled_around_it() -> None:
    tracked_len = tracked(service="s")(len)
    again = pickle.loads(pickle.dumps(tracked_len))
    assert (again is len, again.__wrapped__ is len, again("abc")) == (False, True, 3)


@pytest.mark.parametrize("method", [str.upper, "a".__add__], ids=type)
def test_a_proxy_of_a_builtin_types_method_is_pickled_if_that_is(method: Any) -> None:
    again = pickle.loads(pickle.dumps(tracked(service="s")(method)))
    assert again("b") == method("b")


def test_a_partial_whose_callback_has_no_place_says_what_cannot_be_pickled() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError), match="<lambda>"):
        pickle.dumps(tracked(service="s", usage=lambda result: 1)(functools.partial(double, 3)))


def test_what_copies_as_itself_does_so_when_it_is_tracked() -> None:
    assert copy.copy(cached) is cached
    assert copy.deepcopy(cached) is cached
    assert copy.copy(twice_three) is not twice_three


def test_a_tracked_partial_shows_itself_as_the_partial() -> None:
    assert repr(twice_three) == repr(functools.partial(double, 3))


def test_enums_slots_and_dataclasses_may_be_decorated(
    capture_operations: CapturedOperations,
) -> None:
    @tracked(service="s")
    class Color(enum.Enum):
        RED = 1

        def ask(self) -> int:
            return self.value

    @tracked(service="s")
    @dataclass(slots=True, frozen=True)
    class Point:
        x: int

        def ask(self) -> int:
            return self.x

    assert (Color.RED.ask(), Point(2).ask(), list(Color)) == (1, 2, [Color.RED])
    assert names(capture_operations) == ["Color.ask", "Point.ask"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"service": ""}, "service='': use text that is not empty"),
        ({"service": 5}, "service=5: use text that is not empty"),
        ({"operation": ""}, "operation=''"),
        ({"model": 5}, "model=5: use text or None"),
        ({"usage": 5}, "usage=5: use a callable"),
        ({"success": "yes"}, "success='yes': use a callable"),
        ({"metadata": [1]}, "metadata=[1]: use a mapping"),
        ({"metadata": {5: 1}}, "metadata key=5: use text"),
        ({"stream": 1}, "stream=1: use True or False"),
        ({"servise": "s"}, "unknown argument servise='s'"),
    ],
)
def test_what_tracked_cannot_use_is_told_when_decorating(wrong: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        tracked(**{"service": "s", **wrong})


@pytest.mark.parametrize("misplaced", [len, "openai"])
def test_tracked_without_keywords_names_the_cure(misplaced: Any) -> None:
    with pytest.raises(TypeError, match="'service'"):
        tracked(misplaced)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=re.escape("use keywords: tracked(service=...)")):
        tracked(misplaced, service="s")


def test_what_cannot_be_called_is_refused_when_decorating() -> None:
    with pytest.raises(ConfigurationError, match="what is decorated=5: use a function"):
        tracked(service="s")(5)


def test_class_and_static_methods_are_tracked_on_either_side_of_their_decorator(
    capture_operations: CapturedOperations,
) -> None:
    class Local:
        outside = tracked(service="s", operation="outside")(classmethod(lambda cls: cls))

        @staticmethod
        @tracked(service="s", operation="inside")
        def inside() -> int:
            return 1

    assert (Local.outside(), Local.inside()) == (Local, 1)
    assert named(capture_operations, "outside") != named(capture_operations, "inside")
