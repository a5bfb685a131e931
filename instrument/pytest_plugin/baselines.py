"""What a run came to, as a file that is committed: `<rootdir>/.instrument/baselines/<name>.json`.

One line for each number, in a stable order, and nothing about the machine or the hour, so that
a change of one test is a small diff and changes of two tests merge. Counts and money are those of
the latest saved run. Times are samples, one for each repeat, newest last, at most `KEPT_SAMPLES`:
runs saved under one name add to them, unless the test now makes another number of calls.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from instrument._stats import percentile
from instrument.pytest_plugin.figures import OUTCOMES, TestFigures

__all__ = [
    "COUNTS",
    "TIMES",
    "Baseline",
    "BaselineError",
    "Entry",
    "baseline_of",
    "dumps",
    "loads",
    "merged",
    "path_of",
]

COUNTS = ("tokens", "input_tokens", "output_tokens", "usd", "operations", "errors")
"""What is compared exactly; `None` where a call did not report it, or has no price."""

TIMES = ("seconds", "p50", "p95", "p99")
"""What is compared by medians: seconds inside of tracked calls, and percentiles of one call."""

KEPT_SAMPLES = 20
VERSION = 1
COMPLETE = frozenset({"passed", "xfailed", "xpassed"})
"""Outcomes of tests that ran to their end, whose numbers can be compared."""

_FORMAT = "instrument-baseline"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_REPEAT = re.compile(
    r"(?P<before>.*)(?P<joint>[\[-])(?P<step>[0-9]+)-(?P<count>[0-9]+)\]", re.DOTALL
)
_DIGITS = 4  # of a time: a ten-thousandth is less than what any two runs have in common


class BaselineError(ValueError):
    """A baseline that cannot be used: says which, why and what to do."""


@dataclass(frozen=True)
class Entry:
    """What one test came to. `times` has, for each of `TIMES`, a sample for each repeat."""

    outcome: str
    counts: Mapping[str, float | None] = field(default_factory=dict)
    times: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return self.outcome in COMPLETE


Baseline = Mapping[str, Entry]
"""The tests by node id. Those that passed without a tracked call are not in its file."""


def path_of(rootdir: Path, name: str) -> Path:
    """Return the file of the baseline `name`; raises `BaselineError` for what is no name."""
    if not _NAME.fullmatch(name):
        raise BaselineError(
            f"{name!r} is no name of a baseline: use up to 100 of A-Z, a-z, 0-9, '_', '-' and '.', "
            "and no '.' or '-' in front"
        )
    return rootdir / ".instrument" / "baselines" / f"{name}.json"


def baseline_of(tests: Iterable[TestFigures], *, repeats: int | None = None) -> dict[str, Entry]:
    """Return what a run came to.

    `repeats` says that pytest-repeat is there, and its `--count`: then `test[2-3]` is the second
    repeat of `test`.
    """
    groups: dict[str, list[TestFigures]] = {}
    listed = list(tests)
    names = {each.node_id: each.node_id for each in listed}
    if repeats is not None:
        names |= _repeated(names, repeats)
    for each in listed:
        groups.setdefault(names[each.node_id], []).append(each)
    entries = {name: _entry(group) for name, group in groups.items()}
    return dict(sorted(entries.items()))


def merged(before: Baseline, run: Baseline, gone: Collection[str] = ()) -> dict[str, Entry]:
    """Return what to save after a run: its numbers, and the samples of runs before.

    A test that did not pass keeps what is known of it; those that are `gone` are dropped.
    """
    kept = {name: each for name, each in before.items() if name not in gone}
    now = {name: _added(kept.get(name), each) for name, each in run.items()}
    return {name: each for name, each in sorted((kept | now).items()) if _is_kept(each)}


def dumps(baseline: Baseline) -> str:
    """Return the text of a baseline's file."""
    head = f'{{\n"format": "{_FORMAT}",\n"version": {VERSION},\n"tests": {{'
    tests = ",".join(f"\n{_text(name)}: {_block(each)}" for name, each in sorted(baseline.items()))
    return f"{head}{tests}\n}}\n}}\n"


def loads(text: str, where: str) -> dict[str, Entry]:
    """Return what `dumps` was given; raises `BaselineError`, which names `where`."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise _corrupt(where, f"it is no JSON: {error}") from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise _corrupt(where, f'it has no "format": "{_FORMAT}"')
    version = found.get("version")
    if type(version) is int and version > VERSION:
        raise BaselineError(
            f"the baseline {where} has format {version}, and this version of instrument reads "
            f"{VERSION}: update instrument-kit, or save the baseline again"
        )
    tests = found.get("tests")
    if type(version) is not int or version != VERSION or not isinstance(tests, dict):
        raise _corrupt(where, f'it has no "version": {VERSION} with "tests"')
    return {name: _read(name, each, where) for name, each in sorted(tests.items())}


def _repeated(node_ids: Iterable[str], count: int) -> dict[str, str]:
    """Return the test behind each repeat: of `count`, or of a set that is complete."""
    steps: dict[tuple[str, int], dict[int, str]] = {}
    for node_id in node_ids:
        found = _REPEAT.fullmatch(node_id)
        if found is not None:
            base = found["before"] + ("]" if found["joint"] == "-" else "")
            steps.setdefault((base, int(found["count"])), {})[int(found["step"])] = node_id
    return {
        node_id: base
        for (base, of), found_steps in steps.items()
        if of > 1 and (of == count or set(found_steps) == set(range(1, of + 1)))
        for node_id in found_steps.values()
    }


def _entry(repeats: list[TestFigures]) -> Entry:
    worst = max(repeats, key=lambda each: (each.outcome not in COMPLETE, each.outcome))
    if worst.outcome not in COMPLETE:
        return Entry(worst.outcome)
    counts = {name: _middle([_count(each, name) for each in repeats]) for name in COUNTS}
    latest = repeats[-KEPT_SAMPLES:]
    times = {name: tuple(_time(each, name) for each in latest) for name in TIMES}
    return Entry(worst.outcome, counts, times if counts["operations"] else {})


def _count(test: TestFigures, name: str) -> float | None:
    known: float | None
    if name == "errors":
        known = test.error_count
    elif name == "usd":
        known = None if test.unpriced_models or test.usd is None else round(test.usd, 9)
    else:
        known = getattr(test, name)
    return known if test.operations else 0


def _time(test: TestFigures, name: str) -> float:
    if name == "seconds":
        return _rounded(test.seconds)
    return _rounded(percentile(sorted(test.durations), int(name[1:]) / 100) or 0.0)


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.{_DIGITS}g}")


def _middle(values: list[float | None]) -> float | None:
    """Return the median, of two the upper one: what a repeat really came to."""
    known = sorted(each for each in values if each is not None)
    return known[len(known) // 2] if len(known) == len(values) else None


def _is_kept(entry: Entry) -> bool:
    return not entry.is_complete or bool(entry.counts["operations"])


def _added(before: Entry | None, now: Entry) -> Entry:
    if before is None or not before.counts:
        return now
    if not now.is_complete:
        return before
    if any(before.counts[name] != now.counts[name] for name in ("operations", "errors")):
        return now
    times = {name: (*before.times.get(name, ()), *now.times[name]) for name in now.times}
    return replace(now, times={name: each[-KEPT_SAMPLES:] for name, each in times.items()})


def _block(entry: Entry) -> str:
    lines = {"outcome": entry.outcome, **entry.counts, **{n: [*v] for n, v in entry.times.items()}}
    return (
        "{" + ",".join(f"\n {_text(name)}: {_text(value)}" for name, value in lines.items()) + "\n}"
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f")  # 0.0000625, and not 6.25e-05
    return json.dumps(value)


def _read(name: str, found: Any, where: str) -> Entry:
    if not isinstance(found, dict) or found.get("outcome") not in OUTCOMES:
        raise _corrupt(where, f"{name} has no outcome of {', '.join(OUTCOMES)}")
    if found["outcome"] not in COMPLETE:
        return Entry(found["outcome"])
    for metric in COUNTS:
        if metric not in found or not _is_count(found[metric]):
            raise _corrupt(where, f"{metric} of {name} is no number")
    for metric in TIMES:
        samples = found.get(metric, [])
        if not isinstance(samples, list) or not all(map(_is_number, samples)):
            raise _corrupt(where, f"{metric} of {name} is no list of seconds")
    counts = {metric: found[metric] for metric in COUNTS}
    times = {metric: tuple(map(float, found[metric])) for metric in TIMES if metric in found}
    return Entry(found["outcome"], counts, times)


def _is_count(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value < math.inf


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _corrupt(where: str, why: str) -> BaselineError:
    return BaselineError(
        f"the baseline {where} cannot be read: {why}. Take it from version control again, or "
        "save it anew with --instrument-save"
    )
