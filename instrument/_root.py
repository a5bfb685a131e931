"""What the package itself is: a module whose names are found when they are first used."""

from __future__ import annotations

from types import ModuleType
from typing import Any

__all__ = ["Root"]


class Root(ModuleType):
    """The package itself, some of whose names are those of its modules, too.

    What the import system puts there when it loads `instrument.session` does not take the place of
    the function `session`.
    """

    __all__: list[str]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in self.__all__:
            return
        super().__setattr__(name, value)
