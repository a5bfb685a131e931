"""The exceptions and the warning that users meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

__all__ = [
    "ArchiveError",
    "ConfigurationError",
    "FormatError",
    "InstrumentError",
    "InstrumentWarning",
    "ManifestError",
    "MissingDependencyError",
    "QueryError",
]


class InstrumentError(Exception):
    """Base class of every exception that this package raises on purpose.

    They go from process to process, whatever they were made of.
    """

    def __reduce__(self) -> Any:
        return _again, (type(self), self.args, {**self._state(), **self._in_place()})

    def __copy__(self) -> Any:
        return _again(type(self), self.args, self._state())

    def __deepcopy__(self, memo: object) -> Any:
        return self.__copy__()

    def _state(self) -> dict[str, Any]:
        """Return its attributes."""
        return dict(vars(self))

    def _in_place(self) -> dict[str, Any]:
        """Return what goes to another process in the place of what cannot."""
        return {}


class ConfigurationError(InstrumentError, ValueError):
    """A value given to the package that it cannot use.

    `name`, `value` and `accepted` carry what the message says.
    """

    def __init__(self, name: str, value: object, accepted: str) -> None:
        super().__init__(f"{name}={_shown(value)}: use {accepted}")
        self.name = name
        self.value = value
        self.accepted = accepted

    def _in_place(self) -> dict[str, Any]:
        import pickle  # whoever reduces an exception has mostly loaded it

        try:
            pickle.dumps(self.value)
        except Exception:  # whatever its own methods raise
            return {"value": _shown(self.value)}
        return {}


class ConfigurationTypeError(ConfigurationError, TypeError):
    """The same for a value of a wrong type, so that `except TypeError` works too."""


class QueryError(InstrumentError, ValueError):
    """A query that the database cannot answer; the message is its own."""


class ArchiveError(InstrumentError):
    """The archive of a log cannot be read, or cannot be changed now; the message says why."""


class ManifestError(ArchiveError):
    """The manifest of an archive is lost or damaged; `path` is where it should be."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path} {what}. `instrument doctor --fix` makes it anew from the files beside it"
        )
        self.path = path


class DamagedFileError(ArchiveError):
    """A file of the archive is cut short, or no Parquet; `path` is its place."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is damaged: put it back from a backup. Or `instrument doctor --fix` sets it"
            " aside; its operations are lost then"
        )
        self.path = path


class MissingFileError(ArchiveError):
    """A file that the archive cannot be changed without has been deleted; `path` is its place."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is gone: put it back from a backup. Or `instrument doctor --fix` makes it anew"
            " from the operations in the archive; what it knew of others is lost then"
        )
        self.path = path


class FormatError(InstrumentError):
    """The log was written by a version whose records this one does not understand."""


class MissingDependencyError(InstrumentError, ImportError):
    """An optional library is not installed; the message says how to install it."""

    def __init__(self, module: str, what: str) -> None:
        super().__init__(f"{what} needs {module}: pip install {module}", name=module)

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "name": self.name, "msg": self.msg}


class InstrumentWarning(UserWarning):
    """Something could not be recorded; the message names the place and the cure."""


def _again(
    cls: type[InstrumentError], args: tuple[Any, ...], state: dict[str, Any]
) -> InstrumentError:
    again = cls.__new__(cls, *args)
    for name, value in state.items():
        setattr(again, name, value)
    return again


def reject_unknown(function: str, unknown: dict[str, object], accepted: str) -> None:
    """Raise for keyword arguments that `function` does not take."""
    for name, value in unknown.items():
        raise ConfigurationTypeError(f"{function}(): unknown argument {name}", value, accepted)


def reject_type(name: str, value: object, accepted: str) -> NoReturn:
    raise ConfigurationTypeError(name, value, accepted)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # a broken __repr__ must not hide what the user did wrong
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 200 else text[:197] + "..."
