"""What the program and its environment ask for: arguments, then environment, then defaults."""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import platformdirs
from msgspec import Struct
from msgspec.structs import replace

from instrument import _clock
from instrument._clock import Clock, Ids
from instrument._guard import belongs_to_program
from instrument._hostnames import plain_host
from instrument.budget import Budget
from instrument.errors import ConfigurationError, ConfigurationTypeError, reject_unknown

__all__ = [
    "Settings",
    "as_path",
    "configure",
    "disabled_by_environment",
    "settings",
    "user_directory",
]

Durability = Literal["call", "fsync"]
Redact = Callable[[str, Any], Any]


class Settings(Struct, frozen=True, kw_only=True):
    """The settings in force.

    `fallback` says that `log_dir` replaces one that cannot be written, `complaints` what in the
    environment could not be used.
    """

    log_dir: Path
    enabled: bool
    durability: Durability
    session_timeout_seconds: float
    error_messages: bool
    redact: Redact | None
    propagate_to: tuple[str, ...] | None
    max_bytes: int
    prices: dict[str, dict[str, float]] | None = None
    budgets: dict[str, Budget] | None = None
    fallback: bool = False
    complaints: tuple[str, ...] = ()
    clock: Clock = time
    ids: Ids = _clock


class Place(NamedTuple):
    """What holds until a block ends, whatever `configure` says meanwhile."""

    log_dir: Path
    clock: Clock
    ids: Ids


def configure(
    *,
    log_dir: str | os.PathLike[str] | None = None,
    enabled: bool | None = None,
    durability: Durability | None = None,
    session_timeout_seconds: float | None = None,
    error_messages: bool | None = None,
    redact: Redact | None = None,
    propagate_threads: bool | None = None,
    propagate_to: Iterable[str] | None = None,
    max_bytes: int | None = None,
    prices: Mapping[str, Mapping[str, float]] | None = None,
    budgets: Mapping[str, Budget] | None = None,
    **unknown: object,
) -> None:
    """Set what is given, from the next operation on; `None` leaves a setting as it is.

    - `log_dir`: where the log is kept (environment: `INSTRUMENT_DIR`).
    - `enabled`: whether anything is written.
    - `durability`: `call` hands a record to the kernel before the tracked call returns, so that a
      kill loses nothing; `fsync` survives a power cut (environment: `INSTRUMENT_DURABILITY`).
    - `session_timeout_seconds`: how long the ambient session lives without activity; 3600.
    - `error_messages`: whether messages of exceptions are recorded, cut at 500 characters.
    - `redact`: a callable `(field, value) -> value or None` that sees `error_message` and each
      metadata value before they are recorded.
    - `propagate_threads`: whether threads, pools and processes carry the session of whoever
      starts them or gives them work, and processes these settings, but for those that they were
      told themselves; on. What that patches is restored when it is switched off.
    - `propagate_to`: the hosts to which HTTP and gRPC clients carry the session, as patterns:
      `["*.internal", "localhost"]`; by default loopback and private addresses.
    - `max_bytes`: the log size beyond which one warning is given; 2 GiB.
    - `prices`: what models cost that no price list has, in US dollars per million tokens:
      `{"my-model": {"input": 0.5, "output": 1.5}}`; also `cache_read`, `cache_write`,
      `cache_write_1h` and `reasoning` (environment: `INSTRUMENT_PRICES`, a file with the same as
      JSON). They come before list prices, and count when the log is read.
    - `budgets`: budgets over everything in the log, by name:
      `{"daily": Budget(usd=20, per="day")}`; they hold for all processes that name them so, and
      begin with what the log has of the period already. `{}` is none.

    Raises `ConfigurationError` (a `ValueError`; for wrong types also a `TypeError`).
    """
    given = {
        "log_dir": log_dir,
        "enabled": enabled,
        "durability": durability,
        "session_timeout_seconds": session_timeout_seconds,
        "error_messages": error_messages,
        "redact": redact,
        "propagate_threads": propagate_threads,
        "propagate_to": propagate_to,
        "max_bytes": max_bytes,
        "prices": prices,
        "budgets": budgets,
        **unknown,
    }
    checked = _checked(given)
    _given.update(checked)
    _note_told_here(checked)
    _put(None)


def settings() -> Settings:
    """Return the settings in force; the environment is read at the first call."""
    global _current
    found = _current
    if found is None:
        found = _resolve(_given, os.environ)
        for place in _places:
            found = replace(found, **place._asdict(), fallback=False)
        _current = found
    return found


@contextmanager
def override(
    *, log_dir: Path, clock: Clock | None = None, ids: Ids | None = None, **changes: Any
) -> Iterator[None]:
    """Put other settings in force for the whole process until the block ends.

    `log_dir` holds until then, whatever `configure` says meanwhile, and so do a `clock` and `ids`.
    """
    around = _place()
    place = Place(log_dir, clock or around.clock, ids or around.ids)
    checked = _checked(changes)
    before, given, told_in = settings(), dict(_given), dict(_told_in)
    _given.update(checked)
    _places.append(place)
    _note_told_here(["log_dir", *checked])
    _put(None)
    try:
        yield
    finally:
        if place in _places:  # not in a fork that was given work for another log
            _places.remove(place)
        for now, earlier in ((_given, given), (_told_in, told_in)):
            now.clear()
            now.update(earlier)
        _put(before)


def told() -> dict[str, Any]:
    """Return what was asked for: by the program, or where this process got its work from."""
    return {**_given, "log_dir": _places[-1].log_dir} if _places else dict(_given)


def hand_on(asked: Mapping[str, Any], *, at_start: bool = False) -> None:
    """Go on with what was asked for where this process got its work from, but for what it was told.

    What a fork inherits, this process was not told. `at_start` it was told nothing but by its main
    module, which told the parent the same before: of that, only where the log is counts more here.
    """
    pid = os.getpid()
    here = {name for name, told_in in _told_in.items() if told_in == pid}
    if at_start:
        here -= asked.keys() - {"log_dir"}
    if "log_dir" not in here:
        _places.clear()
    for name in _given.keys() - here:
        del _given[name]
    for name in _told_in.keys() - here:
        del _told_in[name]
    _given.update({name: value for name, value in asked.items() if name not in here})
    _put(None)


def _note_told_here(names: Iterable[str]) -> None:
    _told_in.update(dict.fromkeys(names, os.getpid()))


def propagates_threads() -> bool:
    """Tell whether threads shall carry the session of whoever starts them."""
    is_off = disabled_by_environment() and not _given.get("enabled")
    return not is_off and bool(_given.get("propagate_threads", True))


def on_change(callback: Callable[[], None]) -> None:
    """Have `callback` called whenever other settings come into force, and now if some have.

    Modules that follow them are loaded on first use, which may be after `configure`.
    """
    _listeners.append(callback)
    if _has_changed:
        callback()


def disabled_by_environment() -> bool:
    """Tell whether `INSTRUMENT_DISABLED` switches everything off."""
    return os.environ.get("INSTRUMENT_DISABLED", "").lower() in ("1", "true", "yes", "on")


def now() -> datetime:
    """Return the moment by the clock in force: aware, in UTC."""
    return datetime.fromtimestamp(clock.time_ns() / 1e9, UTC)


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    reject_unknown("configure", {each: given[each] for each in set(given) - set(_ACCEPTED)}, _NAMES)
    return {
        name: _ACCEPTED[name](name, value) for name, value in given.items() if value is not None
    }


def _put(found: Settings | None) -> None:
    global _current, _has_changed, clock, ids
    _current, _has_changed = found, True
    clock, ids = _place()[1:]
    for listener in _listeners:
        listener()


def _place() -> Place:
    return _places[-1] if _places else _USUAL


def _resolve(given: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    variables, complaints = _variables(environment)
    log_dir, fallback = _log_dir(given.get("log_dir") or variables.get("log_dir"))
    return Settings(
        complaints=complaints,
        log_dir=log_dir,
        fallback=fallback,
        enabled=given.get("enabled", not disabled_by_environment()),
        durability=given.get("durability") or variables.get("durability", "call"),
        session_timeout_seconds=given.get("session_timeout_seconds", 3600.0),
        error_messages=given.get("error_messages", True),
        redact=given.get("redact"),
        propagate_to=given.get("propagate_to"),
        max_bytes=given.get("max_bytes", 2 * 1024**3),
        prices=given.get("prices") or variables.get("prices"),
        budgets=given.get("budgets"),
    )


def _variables(environment: Mapping[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what the environment sets, and what is wrong with what it sets in vain."""
    found: dict[str, Any] = {}
    complaints = []
    for variable, name in _VARIABLES.items():
        value = environment.get(variable)
        if not value:
            continue
        try:
            found[name] = _ACCEPTED[name](variable, value)
        except ConfigurationError as error:
            complaints.append(str(error))
    return found, tuple(complaints)


def _log_dir(asked: Path | None) -> tuple[Path, bool]:
    if asked is not None:
        return asked, False
    usual = user_directory(platformdirs.user_state_dir)
    if usual is not None and _can_be_written(usual):
        return usual, False
    return _temporary_directory() / f"instrument-{os.getuid()}", True


def user_directory(find: Callable[..., str]) -> Path | None:
    """Return this user's directory of a kind, as platformdirs finds it; `None`: there is none."""
    try:
        found = Path(find("instrument", appauthor=False))
    except RuntimeError as error:  # a user without a home directory
        if belongs_to_program(error, in_callback=True):
            raise
        return None
    # a relative one would depend on where the program stands
    return found if found.is_absolute() else None


def _temporary_directory() -> Path:
    # not tempfile's, which loads every compression library and writes to find out
    found = Path(os.environ.get("TMPDIR") or "/tmp")
    return found if found.is_absolute() else Path("/tmp")


def _can_be_written(directory: Path) -> bool:
    for place in (directory, *directory.parents):
        try:
            mode = place.stat().st_mode
        except OSError as error:
            if belongs_to_program(error):
                raise
            continue
        return stat.S_ISDIR(mode) and os.access(place, os.W_OK | os.X_OK)
    return False


def as_path(name: str, value: Any) -> Path:
    """Return the absolute path that a user names; raises `ConfigurationError`."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise ConfigurationTypeError(name, value, "a path as text or a pathlib.Path")
    text = os.fspath(value)
    try:
        if not text or b"\0" in os.fsencode(text):
            raise ConfigurationError(name, value, "the path of a directory")
        return Path(text).expanduser().absolute()
    except (UnicodeError, RuntimeError, FileNotFoundError) as error:
        # no such character or user, or the working directory is gone
        raise ConfigurationError(name, value, "the absolute path of a directory") from error


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationTypeError(name, value, "True or False")
    return value


def _one_of_durabilities(name: str, value: Any) -> Durability:
    if not isinstance(value, str):
        raise ConfigurationTypeError(name, value, "'call' or 'fsync'")
    if value == "call":
        return "call"
    if value == "fsync":
        return "fsync"
    raise ConfigurationError(name, value, "'call' or 'fsync'")


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationTypeError(name, value, "a number of seconds above 0")
    if not 0 < value <= _LONGEST_SECONDS:
        raise ConfigurationError(name, value, "a number of seconds above 0")
    return float(value)


def _callable(name: str, value: Any) -> Redact:
    if not callable(value):
        raise ConfigurationTypeError(name, value, "a callable (field, value) -> value or None")
    redact: Redact = value
    return redact


def _host_patterns(name: str, value: Any) -> tuple[str, ...]:
    accepted = "patterns of host names: ['*.internal', 'localhost']"
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigurationTypeError(name, value, accepted)
    patterns = tuple(value)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ConfigurationTypeError(name, pattern, accepted)
        if not pattern or (set(pattern) & set(":/ @") and not _is_address(pattern)):
            raise ConfigurationError(name, pattern, f"{accepted}, without scheme, port or path")
        if not plain_host(pattern).isascii():
            cure = f"{accepted}, or the form in ASCII (xn--...), as without the package idna"
            raise ConfigurationError(name, pattern, cure)
    return tuple(map(plain_host, patterns))


def _is_address(pattern: str) -> bool:
    bare = pattern[1:-1] if pattern[:1] + pattern[-1:] == "[]" else pattern
    return ":" in bare and set(bare.lower()) <= set("0123456789abcdef:.*")


def _bytes(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationTypeError(name, value, "a number of bytes above 0")
    if value <= 0:
        raise ConfigurationError(name, value, "a number of bytes above 0")
    return value


def _prices(name: str, value: Any) -> dict[str, dict[str, float]]:
    if isinstance(value, str) and name in _VARIABLES:
        value = _prices_in(name, value)
    if not isinstance(value, Mapping):
        raise ConfigurationTypeError(name, value, _PRICES)
    return {_model(name, model): _rates(name, rates) for model, rates in value.items()}


def _prices_in(name: str, path: str) -> Any:
    try:
        return msgspec.json.decode(Path(path).expanduser().read_bytes())
    except (OSError, ValueError, RuntimeError) as error:
        if belongs_to_program(error, in_callback=True):
            raise
        raise ConfigurationError(name, path, f"a file with {_PRICES} as JSON ({error})") from None


def _model(name: str, model: Any) -> str:
    if not isinstance(model, str) or not model:
        raise ConfigurationTypeError(f"{name}: model", model, "the name of a model")
    return model


def _rates(name: str, rates: Any) -> dict[str, float]:
    if not isinstance(rates, Mapping) or not rates or set(rates) - set(RATES):
        raise ConfigurationTypeError(name, rates, _PRICES)
    for rate in rates.values():
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < math.inf:
            raise ConfigurationError(name, rate, "US dollars per million tokens, from 0")
    return {kind: float(rate) for kind, rate in rates.items()}


def _budgets(name: str, value: Any) -> dict[str, Budget]:
    accepted = "budgets by name: {'daily': Budget(usd=20, per='day')}"
    if not isinstance(value, Mapping):
        raise ConfigurationTypeError(name, value, accepted)
    for each, budget in value.items():
        if not isinstance(each, str) or not isinstance(budget, Budget):
            raise ConfigurationTypeError(name, {each: budget}, accepted)
        if not each.isprintable() or not 0 < len(each.encode()) <= _LONGEST_NAME:
            raise ConfigurationError(name, each, f"printable names of 1 to {_LONGEST_NAME} bytes")
    return dict(value)


RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")
_PRICES = f"models with any of {', '.join(RATES)}, in US dollars per million tokens"
_ACCEPTED: dict[str, Callable[[str, Any], Any]] = {
    "log_dir": as_path,
    "enabled": _boolean,
    "durability": _one_of_durabilities,
    "session_timeout_seconds": _seconds,
    "error_messages": _boolean,
    "redact": _callable,
    "propagate_threads": _boolean,
    "propagate_to": _host_patterns,
    "max_bytes": _bytes,
    "prices": _prices,
    "budgets": _budgets,
}
_LONGEST_NAME = 64
_NAMES = f"one of {', '.join(_ACCEPTED)}"
_VARIABLES = {
    "INSTRUMENT_DIR": "log_dir",
    "INSTRUMENT_DURABILITY": "durability",
    "INSTRUMENT_PRICES": "prices",
}
_LONGEST_SECONDS = 1e18
_given: dict[str, Any] = {}
_current: Settings | None = None
_places: list[Place] = []
_USUAL = Place(Path(), time, _clock)
clock: Clock = time
ids: Ids = _clock
_told_in: dict[str, int] = {}  # the process in which each setting was asked for
_listeners: list[Callable[[], None]] = []
_has_changed = False
