"""What a usage reader finds in a result, and how the chunks of a stream add up to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from msgspec.structs import replace

from instrument.operation import Usage

__all__ = [
    "ITSELF",
    "Family",
    "Fields",
    "FieldsMerge",
    "Merge",
    "ProviderFamily",
    "Reader",
    "Reading",
    "Readings",
    "StreamClass",
]


class Reading(Usage, frozen=True, gc=False):
    """A `Usage`, and what else the response says of itself.

    `provider` and `kind` are OpenTelemetry's `gen_ai.provider.name` and `gen_ai.operation.name`.
    `outcome` is `error` or `cancelled` when the result says so, with `error_type` and
    `error_message`; otherwise `None`. Counts are as the provider gave them: the recorder drops
    impossible ones. `cost_source` is `provider` when the provider itself names the price.
    `source` is the object in the response that holds the counts, or the text that the response
    is: it tells apart responses without an id, and takes no part in equality. `details` is what
    else is worth recording, as metadata: usage that is no tokens (`images`, `audio_seconds`,
    `search_units`), and of a failure `http_status`, `error_code`, `request_id`. `hint` is what the
    program could do to have its usage known; it too takes no part in equality. `attempt` is how
    often the request was sent until this came of it, where the response shows it. `is_renamed`
    says that a library in between made the `response_id`: whoever read the response below knows
    it by another. `is_envelope` says that the response is around what the model answered, which
    the program takes out of it, and which may have an id of its own. `is_plain` says that the
    reader has seen that the counts are possible, the total known, and nothing else is told: no
    cost, outcome, details or attempt; it takes no part in equality.
    """

    provider: str | None = None
    kind: str | None = None
    outcome: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    cost_source: str | None = None
    source: Any = None
    details: dict[str, Any] | None = None
    hint: str | None = None
    attempt: int | None = None
    is_renamed: bool = False
    is_envelope: bool = False
    is_plain: bool = False

    def hinting(self, hint: str) -> Reading:
        """Return the same with a hint."""
        return replace(self, hint=hint)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reading):
            return NotImplemented
        return type(self) is type(other) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash((self.response_id, self.model, self.total_tokens, self.outcome))

    def _compared(self) -> tuple[Any, ...]:
        names = type(self).__struct_fields__
        return tuple(getattr(self, name) for name in names if name not in _APART)


_APART = ("source", "hint", "is_plain")


class Readings(Reading, frozen=True, gc=False):
    """The sum of several responses, and the reading of each one in `parts`.

    A count is the sum over the parts that report it, `None` when none does; any other field is
    what all parts agree on, else `None`: who answered, all that used something. A `response_id`
    stands in one part only.
    """

    parts: tuple[Reading, ...] = ()


Reader = Callable[[Any], "Reading | None"]

Fields = Mapping[str, Any]
"""A response, or a part of one, as its names and values: a dict, or an object's attributes."""


class Merge(Protocol):
    """Adds up the chunks of one stream in constant memory."""

    def add(self, chunk: Any) -> None:
        """Look at one chunk; one that says nothing is ignored."""

    def reading(self) -> Reading | None:
        """Return what was seen so far; `None` if nothing was.

        `Readings`, if the chunks came from more than one response.
        """


class FieldsMerge(Protocol):
    """Merges the chunks of one response on the provider's own fields."""

    def add(self, fields: Fields) -> bool:
        """Take one chunk in; `False`, and take nothing, if it begins another response."""

    def reading(self) -> Reading | None:
        """Return what was seen so far; `None` if nothing was."""


ITSELF = "__next__"


class StreamClass(NamedTuple):
    """How to follow instances of an SDK's stream class, or of its stream manager.

    A stream's every way of being read (`for`, `next`, helper methods, text iterators) takes its
    items from the iterator in its attribute `iterator`, which may be replaced. A manager gives
    the stream when it is entered and has no such attribute (`None`). A stream with none to be
    replaced is its own iterator (`ITSELF`), and may be read by `for` or by `async for`. `is_last`
    tells of an item that the stream fails with it, and gives no other.
    """

    iterator: str | None
    is_async: bool
    is_last: Callable[[Any], bool] | None = None


class Family(Protocol):
    """What a module for one provider's shapes offers."""

    CLASSES: Mapping[str, Reader]
    """SDK classes by name, for results whose class or base class is the SDK's."""

    STREAMS: Mapping[tuple[str, str], StreamClass]
    """Stream classes and managers by module and name."""


class ProviderFamily(Family, Protocol):
    """A family that is also recognised by the shape of a dict, JSON text or unknown object."""

    def matches(self, fields: Fields) -> bool:
        """Tell whether `read` knows this shape, by keys that only it has together."""

    def read(self, fields: Fields) -> Reading | None:
        """Read a whole response."""

    def streams(self, fields: Fields) -> bool:
        """Tell whether this is a chunk, an event or a whole response of this family."""

    def new_merge(self, *, sdk: bool) -> FieldsMerge:
        """Return a merge for the chunks of one response; `sdk`: they are the SDK's own objects."""
