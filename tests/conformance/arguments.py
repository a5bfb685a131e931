"""Probes: arguments arrive as they were given, and wrong ones are refused as before."""

from __future__ import annotations

from typing import Any

from .errors import raised
from .subject import Subject, behaviour

# Keywords that some decorator of the field, or ours, takes for itself.
NAMES_OF_OTHERS = {
    "service": 1,
    "operation": 2,
    "usage": 3,
    "config": 4,
    "name": 5,
    "session": 6,
    "langfuse_trace_id": 7,
    "langfuse_parent_observation_id": 8,
    "langsmith_extra": 9,
    "function": 10,
    "fn": 11,
    "wrapped": 12,
    "args": 13,
    "kwargs": 14,
}


@behaviour()
def keyword_arguments_are_neither_added_nor_taken(subject: Subject) -> None:
    def received(**given: Any) -> dict[str, Any]:
        return given

    assert subject.decorate(received)(**NAMES_OF_OTHERS) == NAMES_OF_OTHERS


@behaviour()
async def keyword_arguments_of_coroutines_are_neither_added_nor_taken(subject: Subject) -> None:
    async def received(**given: Any) -> dict[str, Any]:
        return given

    assert await subject.decorate(received)(**NAMES_OF_OTHERS) == NAMES_OF_OTHERS


@behaviour()
def self_and_cls_are_ordinary_names(subject: Subject) -> None:
    def received(self: int, cls: int) -> tuple[int, int]:
        return self, cls

    assert subject.decorate(received)(self=1, cls=2) == (1, 2)


@behaviour()
def every_kind_of_parameter_binds(subject: Subject) -> None:
    def received(a: int, /, b: int, *rest: int, c: int = 4, **more: int) -> Any:
        return a, b, rest, c, more

    decorated = subject.decorate(received)
    assert decorated(1, 2, 3, c=5, d=6) == (1, 2, (3,), 5, {"d": 6})
    assert decorated(1, b=2, a=3) == (1, 2, (), 4, {"a": 3})


@behaviour()
def arguments_are_the_same_objects(subject: Subject) -> None:
    def received(*rest: Any, **more: Any) -> tuple[Any, ...]:
        return (*rest, *more.values())

    given = [[], {}, object(), (value for value in ())]
    returned = subject.decorate(received)(*given[:2], third=given[2], fourth=given[3])
    assert all(one is other for one, other in zip(returned, given, strict=True))


@behaviour()
def arguments_are_never_looked_at(subject: Subject) -> None:
    class Untouchable:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"{name} of an argument was read")

        __repr__ = __str__ = __eq__ = __bool__ = __hash__ = __iter__ = __len__ = __getattribute__

    received: list[Any] = []

    def keep(value: Any) -> None:
        received.append(value)

    given = Untouchable()
    subject.decorate(keep)(given)
    assert received.pop() is given


@behaviour()
def wrong_arguments_raise_the_same_error(subject: Subject) -> None:
    def needs_two(first: int, second: int) -> int:
        return first + second

    for wrong in ((), (1,), (1, 2, 3)):
        error, bare_error = raised(subject.decorate(needs_two), *wrong), raised(needs_two, *wrong)
        assert repr(error) == repr(bare_error)


@behaviour()
def mutable_default_is_shared_between_calls(subject: Subject) -> None:
    def remember(value: int, seen: list[int] = []) -> list[int]:  # noqa: B006 - it is the point
        seen.append(value)
        return seen

    decorated = subject.decorate(remember)
    decorated(1)
    assert decorated(2) == [1, 2]
