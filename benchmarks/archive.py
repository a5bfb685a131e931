"""Measures compaction, and what questions to an archive cost, side by side with other ways.

python benchmarks/archive.py [--operations N ...] [--keep DIR] [--without SIDE ...] [--quick]

A log of N operations is compacted but for the newest 50,000, by a process that has one processor,
where the system can tell it so. Then each side answers in a process of its own, which lives
throughout: ours after imports and one answer that is not timed. Both find files in the page cache.
SQLite has the operations in one table, indexed by session and by start; DuckDB and the original
logger's way read the JSON Lines that the archive was made of. `--keep` makes the logs in DIR, or
uses those it finds there.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import query
from _logs import write_log
from _measure import median, options, python, show, table, verdict, versions
from query import DUCKDB, LATEST_COUNT, ORIGINAL, OURS, Answer, Facts, facts_of

SQLITE = "SQLite, indexed"
SESSION, STATS, LATEST = "one session's operations", "its stats", "latest 50 sessions"
GROUPS, P95, HOUR = "by service and day", "p95 by model", "last hour, as Arrow"
IN_JOURNAL = 50_000
GOAL_OPERATIONS = 10_000_000
GOALS_MS = {SESSION: 60, STATS: 40, LATEST: 30, GROUPS: 50, P95: 700, HOUR: 60}
MOST_MB, MOST_BYTES, LEAST_PER_SECOND, MOST_COMMAND_MS = 400, 45, 100_000, 500
MOST_GROWTH = 2


class Places(NamedTuple):
    """Where a log is as JSON Lines, in the archive and in SQLite, and what is asked of it."""

    facts: Facts
    archived: str
    database: str


def make(size: int, place: Path, *, with_sqlite: bool) -> Places:
    """Make a log of so many operations, its archived copy, and a database of it if it is asked."""
    lines, archived, database = place / "lines", place / "archived", place / "operations.sqlite"
    if not lines.exists():
        write_log(lines, operations=size)
        _cut_newest(lines, min(IN_JOURNAL, size // 2))
    if not archived.exists():
        (archived / "journal").mkdir(parents=True)
        for path in (lines / "journal").iterdir():
            os.link(path, archived / "journal" / path.name)
    if with_sqlite and not database.exists():
        _fill(database, lines)
    return Places(_facts(lines, place / "facts.json"), str(archived), str(database))


def _facts(lines: Path, kept: Path) -> Facts:
    """Choose what is asked for, once for a log that is kept: that takes minutes."""
    if not kept.exists():
        found = facts_of(lines)
        kept.write_text(json.dumps([*found[:3], found.since.isoformat()]), encoding="utf-8")
    log_dir, session_id, longest_id, since = json.loads(kept.read_text(encoding="utf-8"))
    return Facts(log_dir, session_id, longest_id, datetime.fromisoformat(since))


def _cut_newest(log_dir: Path, count: int) -> None:
    """Put the newest lines into a segment of their own, which is the one being written to.

    Shortly after midnight they are out of more files than the last.
    """
    paths = sorted((log_dir / "journal").iterdir(), reverse=True)
    newest: list[bytes] = []
    for path in paths:
        lines = path.read_bytes().splitlines(keepends=True)
        cut = max(0, len(lines) - (count - len(newest)))
        path.write_bytes(b"".join(lines[:cut]))
        newest = lines[cut:] + newest
        if len(newest) == count:
            break
    last = paths[0]
    day, host, number = last.stem[:10], last.stem[11:-5], int(last.stem[-4:])
    following = last.with_name(f"{day}-{host}-{number + 1:04d}.jsonl")
    following.write_bytes(b"".join(newest))


def _fill(path: Path, log_dir: Path) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with sqlite3.connect(unfinished) as connection:
        names = "timestamp, session_id, service, model, duration_seconds, tokens, success, line"
        connection.execute(f"create table operations ({names})")
        connection.executemany(
            "insert into operations values (?, ?, ?, ?, ?, ?, ?, ?)", _rows_of(log_dir)
        )
        connection.execute("create index by_session on operations (session_id)")
        connection.execute("create index by_start on operations (timestamp)")
    unfinished.replace(path)


def _rows_of(log_dir: Path) -> Iterator[tuple[Any, ...]]:
    for path in sorted((log_dir / "journal").iterdir()):
        with path.open(encoding="utf-8") as file:
            for text in file:
                line = json.loads(text)
                if "type" not in line:
                    yield (
                        line["timestamp"],
                        line["session_id"],
                        line["service"],
                        line.get("model"),
                        line["duration_seconds"],
                        line.get("tokens"),
                        line["success"],
                        text,
                    )


COMPACT = """
import json, os, resource, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from instrument import UsageLog
for name in os.listdir(sys.argv[1] + "/journal"):
    with open(sys.argv[1] + "/journal/" + name, "rb") as file:
        while file.read(2**20):
            pass
began, spent = time.perf_counter(), time.process_time()
done = UsageLog(sys.argv[1]).compact()
print(json.dumps({
    "operations": done.operations,
    "bytes": done.bytes_after,
    "elapsed": time.perf_counter() - began,
    "cpu": time.process_time() - spent,
    "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def compaction_figures(archived: str) -> dict[str, float]:
    """Compact what is not yet; how many operations, bytes, seconds and megabytes that took."""
    done = python("-c", COMPACT, archived)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    files = Path(archived, "archive").rglob("*.parquet")
    found["bytes"] = sum(each.stat().st_size for each in files)
    return found


def _ours(places: Places) -> dict[str, Callable[[], Answer]]:
    from instrument import UsageLog

    log, facts = UsageLog(places.archived), places.facts

    def session() -> Answer:
        found = [each for each in log.operations(facts.session_id) if each.outcome != "interrupted"]
        return {facts.session_id: (len(found), sum(each.tokens or 0 for each in found))}

    def stats() -> Answer:
        found = log.stats(facts.session_id)
        return {found.session_id: (found.operation_count, found.total_tokens)}

    def hour() -> Answer:
        import pyarrow.compute as pc

        found = log.to_arrow(since=facts.since)
        found = found.filter(pc.not_equal(found["outcome"], "interrupted"))
        return {query.HOUR: (found.num_rows, pc.sum(found["tokens"]).as_py() or 0)}

    others = query._ours(facts._replace(log_dir=places.archived))
    return _questions(session, stats, others, hour)


def _others(side: str) -> Callable[[Places], dict[str, Callable[[], Answer]]]:
    def ask(places: Places) -> dict[str, Callable[[], Answer]]:
        found = query.SIDES[side](places.facts)
        return _questions(found[query.SESSION], found[query.SESSION], found, found[query.HOUR])

    return ask


def _sqlite(places: Places) -> dict[str, Callable[[], Answer]]:
    facts = places.facts

    def rows(text: str, *params: object) -> list[tuple[Any, ...]]:
        with sqlite3.connect(places.database) as connection:
            return connection.execute(text, params).fetchall()

    def session() -> Answer:
        found = rows(
            "select tokens, line from operations where session_id = ? order by timestamp",
            facts.session_id,
        )
        decoded = [json.loads(line) for _, line in found]
        return {facts.session_id: (len(decoded), sum(tokens or 0 for tokens, _ in found))}

    def latest() -> Answer:
        # operations alone, so that it may differ where a session was entered for nothing
        found = rows(
            "select session_id, count(*), coalesce(sum(tokens), 0) from operations"
            " where session_id in (select session_id from operations group by session_id"
            " order by max(timestamp) desc, session_id desc limit ?) group by session_id",
            LATEST_COUNT,
        )
        return {name: (count, tokens) for name, count, tokens in found}

    def groups() -> Answer:
        found = rows(
            "select service, substr(timestamp, 1, 10), count(*), coalesce(sum(tokens), 0)"
            " from operations group by 1, 2"
        )
        return {(service, day): (count, tokens) for service, day, count, tokens in found}

    def p95() -> Answer:
        durations: dict[Any, list[float]] = {}
        for model, seconds in rows("select model, duration_seconds from operations"):
            durations.setdefault(model, []).append(seconds)
        found = [
            (model, len(each), query.percentile(each, 0.95)) for model, each in durations.items()
        ]
        return query._rounded(found)

    def hour() -> Answer:
        since = facts.since.isoformat().replace("+00:00", "Z")
        found = rows("select tokens, line from operations where timestamp >= ?", since)
        return {query.HOUR: (len(found), sum(tokens or 0 for tokens, _ in found))}

    others = {query.LATEST: latest, query.GROUPS: groups, query.P95: p95}
    return _questions(session, session, others, hour)


def _questions(
    session: Callable[[], Answer],
    stats: Callable[[], Answer],
    others: dict[str, Callable[[], Answer]],
    hour: Callable[[], Answer],
) -> dict[str, Callable[[], Answer]]:
    return {
        SESSION: session,
        STATS: stats,
        LATEST: others[query.LATEST],
        GROUPS: others[query.GROUPS],
        P95: others[query.P95],
        HOUR: hour,
    }


SIDES: dict[str, Callable[[Places], dict[str, Callable[[], Answer]]]] = {
    OURS: _ours,
    SQLITE: _sqlite,
    DUCKDB: _others(DUCKDB),
    ORIGINAL: _others(ORIGINAL),
}


def ask_side(side: str, places: Places, name: str) -> tuple[Answer, float, float]:
    """Answer in this process; return the answer, and its milliseconds, elapsed and of CPU."""
    return query.timed(SIDES[side](places)[name])


def resident_mb() -> float:
    return query.resource.getrusage(query.resource.RUSAGE_SELF).ru_maxrss / 1024


def query_figures(places: Places, sides: list[str], rounds: int) -> dict[str, Any]:
    """Return for each query and side the median milliseconds, after a look whether all agree."""
    with ExitStack() as stack:
        workers = {
            side: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
            for side in sides
        }
        found: dict[str, Any] = {}
        for name in GOALS_MS:
            first = {
                side: workers[side].submit(ask_side, side, places, name).result() for side in sides
            }
            _agree(name, {side: one[0] for side, one in first.items()})
            # what may take minutes is asked once
            taken = {side: [one[1:]] for side, one in first.items() if side != OURS}
            ours = (workers[OURS].submit(ask_side, OURS, places, name) for _ in range(rounds))
            taken[OURS] = [one.result()[1:] for one in ours]
            found[name] = {side: query._medians(taken[side]) for side in sides}
        memory = workers[OURS].submit(resident_mb).result()
    return {"seconds": found, "resident_mb": memory}


def _agree(name: str, answers: dict[str, Answer]) -> None:
    if name == LATEST:
        answers = {side: each for side, each in answers.items() if side != SQLITE}
    expected = answers[OURS]
    for side, answer in answers.items():
        assert answer == expected, f"{name}: {side}: {query._differences(answer, expected)}"


def measure(sizes: list[int], place: Path, *, without: list[str], quick: bool) -> dict[str, Any]:
    found = {}
    for size in sizes:
        here = place / f"archive{size}"
        here.mkdir(parents=True, exist_ok=True)
        sides = [side for side in SIDES if side not in without]
        places = make(size, here, with_sqlite=SQLITE in sides)
        compacted = compaction_figures(places.archived)
        found[str(size)] = {
            "compaction": compacted,
            "queries": query_figures(places, sides, 3 if quick else 9),
            "command_ms": _command_ms(places, 3 if quick else 9),
        }
    return found


def _command_ms(places: Places, runs: int) -> float:
    command = ("-m", "instrument", "show", places.facts.session_id, "--dir", places.archived)
    return median([query._command_milliseconds(command, Path())[0] for _ in range(runs + 1)][1:])


def report(result: dict[str, Any]) -> str:
    parts = []
    for size, found in result.items():
        sides = list(next(iter(found["queries"]["seconds"].values())))
        rows = [
            [name, *(_cell(one[side]) for side in sides), f"{GOALS_MS[name]} ms"]
            for name, one in found["queries"]["seconds"].items()
        ]
        parts += [table([f"{int(size):,} operations: ms (CPU)", *sides, "goal"], rows), ""]
        parts += [*_verdicts(int(size), found), ""]
    if len(result) > 1:
        small, large = (one["queries"]["seconds"][SESSION][OURS] for one in result.values())
        growth = large["elapsed"] / small["elapsed"]
        claim = (
            f"one session's answer grows by {growth:.1f} between the two (at most {MOST_GROWTH})"
        )
        parts += [verdict(claim, holds=growth <= MOST_GROWTH), ""]
    return "\n".join([*parts, versions("instrument-kit", "duckdb", "msgspec", "pyarrow")])


def _cell(figures: dict[str, float]) -> str:
    return f"{1000 * figures['elapsed']:.0f} ({1000 * figures['cpu']:.0f})"


def _verdicts(size: int, found: dict[str, Any]) -> Iterator[str]:
    compaction, queries = found["compaction"], found["queries"]
    if compaction["operations"]:
        rate = compaction["operations"] / compaction["elapsed"]
        yield verdict(
            f"compaction on one processor {rate:,.0f} operations a second"
            f" (at least {LEAST_PER_SECOND:,})",
            holds=rate >= LEAST_PER_SECOND,
        )
        memory = compaction["resident_mb"]
        yield verdict(f"it needs {memory:.0f} MB (at most 500)", holds=memory <= 500)
    each = compaction["bytes"] / (size - min(IN_JOURNAL, size // 2))
    yield verdict(f"{each:.1f} bytes an operation (at most {MOST_BYTES})", holds=each <= MOST_BYTES)
    if size != GOAL_OPERATIONS:
        return
    for name, one in queries["seconds"].items():
        taken = 1000 * one[OURS]["elapsed"]
        yield verdict(
            f"{name} {taken:.0f} ms (at most {GOALS_MS[name]})", holds=taken <= GOALS_MS[name]
        )
    memory = queries["resident_mb"]
    yield verdict(f"resident memory {memory:.0f} MB (at most {MOST_MB})", holds=memory <= MOST_MB)
    taken = found["command_ms"]
    claim = f"`instrument show SESSION` {taken:.0f} ms (at most {MOST_COMMAND_MS})"
    yield verdict(claim, holds=taken <= MOST_COMMAND_MS)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--operations", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--keep", type=Path, help="where the logs are, or are to be made")
    parser.add_argument("--without", nargs="*", default=[], choices=[SQLITE, DUCKDB, ORIGINAL])
    asked = parser.parse_args()
    with ExitStack() as stack:
        place = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        result = measure(asked.operations, place, without=asked.without, quick=asked.quick)
    show(result, report(result), as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
