"""A budget that a test has used up: what is said of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from _pytest.outcomes import Failed  # pytest.fail.Exception, by a name that has a type

from instrument._price_list import is_available
from instrument._stats import total_tokens
from instrument.operation import Operation
from instrument.pytest_plugin.limits import Limits
from instrument.pytest_plugin.spending import Spent

__all__ = ["BudgetExceeded", "check"]

_ROWS = 20


class BudgetExceeded(Failed):
    """Fails a test that used more than its budget; the message has a table of what used it."""

    __module__ = "builtins"  # as those of pytest: its summary shows the name alone


def check(limits: Limits, spent: Spent) -> None:
    """Raise `BudgetExceeded` if this is more than is allowed, or may be."""
    faults = [*_exceeded(limits, spent), *_unpriced(limits, spent)]
    if faults:
        raise BudgetExceeded("\n".join([*faults, "", *_table(spent.operations)]), pytrace=False)


def _exceeded(limits: Limits, spent: Spent) -> Iterator[str]:
    stats = spent.stats
    used: list[tuple[str, float, float | None]] = [
        ("{:,} tokens", stats.total_tokens, limits.tokens),
        ("${:,.6f}", stats.cost_usd or 0.0, limits.usd),
        ("{:,.3f} s in tracked calls", spent.seconds, limits.seconds),
        ("{:,} operations", stats.operation_count, limits.operations),
    ]
    for form, amount, limit in used:
        if limit is not None and amount > limit:
            allowed = form.format(limit).partition(" ")[0]
            yield f"used {form.format(amount)}, of a budget of {allowed}"


def _unpriced(limits: Limits, spent: Spent) -> Iterator[str]:
    if limits.usd is None:
        return
    for model in sorted({each.model or "" for each in spent.unpriced}):
        if not model:
            cure = "name it with @tracked(model=...), or say the cost with set_usage(cost_usd=...)"
            yield f"the budget in usd cannot be checked: a model without a name used tokens; {cure}"
            continue
        cure = f"configure(prices={{{model!r}: {{'input': ..., 'output': ...}}}})"
        if not is_available():
            cure = f"pip install 'instrument-kit[prices]', or {cure}"
        yield f"the budget in usd cannot be checked: no price is known for {model!r}; {cure}"


def _table(operations: Sequence[Operation]) -> list[str]:
    groups: dict[tuple[str, str, str], list[Operation]] = defaultdict(list)
    for each in operations:
        groups[each.service, each.operation, each.model or ""].append(each)
    rows = [_row(key, group) for key, group in list(groups.items())[:_ROWS]]
    if len(groups) > _ROWS:
        rows.append(("", "", "", "", f"and {len(groups) - _ROWS} more"))
    return _aligned([("calls", "tokens", "usd", "seconds", "what"), *rows])


def _row(key: tuple[str, str, str], group: list[Operation]) -> tuple[str, ...]:
    tokens, usd = _known(map(total_tokens, group)), _known(each.cost_usd for each in group)
    return (
        f"{len(group):,}",
        "-" if tokens is None else f"{tokens:,.0f}",
        "-" if usd is None else f"{usd:,.6f}",
        f"{math.fsum(each.duration_seconds for each in group):,.3f}",
        " ".join(filter(None, key)),
    )


def _known(amounts: Iterable[float | None]) -> float | None:
    known = [each for each in amounts if each is not None]
    return math.fsum(known) if known else None


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([*map(str.rjust, row[:-1], widths), row[-1]]).rstrip() for row in rows]
