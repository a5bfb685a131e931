"""Measures what questions to a log cost, side by side with what else could be asked.

python benchmarks/query.py [--operations N ...] [--keep DIR] [--quick] [--json]

Each side answers in one process of its own that lives throughout, after imports and one answer
that does not count; ours is shown, because we remember of files what a question came to. The
sides take turns, and the files are in the page cache. The commands are fresh processes. `--keep`
makes the logs in DIR, or uses those it finds there.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from _logs import write_log
from _measure import median, options, percentile, python, show, table, verdict, versions

from instrument.operation import OperationLine

OURS, FIRST, ORIGINAL = "instrument", "its first answer", "original logger"
DUCKDB, DUCKDB_TOLD = "DuckDB", "DuckDB, told the columns"
SESSION, LONGEST, LATEST = "one session", "the longest session", "latest 50 sessions"
GROUPS, P95, HOUR = "by service and day", "p95 by model", "last hour"
SHOW, STATS, HELP, NOTHING = "show @last", "stats @last", "--help", "(Python alone)"
LATEST_COUNT = 50
USUAL_SESSION = 200

GOAL_SECONDS = {SESSION: 0.2, LATEST: 1.5, GROUPS: 1.5, P95: 1.5, HOUR: 1.5}
GOAL_OPERATIONS = 1_000_000
GOAL_MILLISECONDS = {SHOW: (100_000, 400.0), HELP: (None, 150.0)}

Answer = dict[Any, tuple[int, Any]]  # by group: how many finished operations, and a figure


class Facts(NamedTuple):
    """The log, and what the queries name of it."""

    log_dir: str
    session_id: str
    longest_id: str
    since: datetime


def facts_of(log_dir: Path) -> Facts:
    """Choose a session near 200 operations that has no children, and the hour before the end.

    The hour is that of the log and not of the clock, so that a log that was kept has one.
    """
    sizes: Counter[str] = Counter()
    parents, latest = set(), ""
    for line in _original_lines(log_dir):
        sizes[line["session_id"]] += 1
        parents.add(line.get("parent_session_id"))
        latest = max(latest, line["timestamp"])
    alone = [each for each in sizes if each not in parents]
    usual = min(alone, key=lambda each: (abs(sizes[each] - USUAL_SESSION), each))
    longest = max(alone, key=lambda each: (sizes[each], each))
    return Facts(str(log_dir), usual, longest, datetime.fromisoformat(latest) - timedelta(hours=1))


def _ours(facts: Facts) -> dict[str, Callable[[], Answer]]:
    from instrument import UsageLog

    log = UsageLog(facts.log_dir)

    def one_session(session_id: str) -> Answer:
        report = log.report(session_id)
        stats = report.stats
        assert stats.operation_count == len(report.operations)
        return {session_id: (_finished(stats), stats.total_tokens)}

    def latest() -> Answer:
        found = log.sessions(limit=LATEST_COUNT)
        return {each.session_id: (_finished(each), each.total_tokens) for each in found}

    def groups() -> Answer:
        found = log.summary(by=("service", "day"))
        return {(row.service, str(row.day)): (_finished(row), row.total_tokens) for row in found}

    def p95() -> Answer:
        found = log.summary(by=("model",))
        return _rounded([(row.model, _finished(row), row.p95_seconds) for row in found])

    def hour() -> Answer:
        found = log.operations(since=facts.since)
        finished = [each for each in found if each.outcome != "interrupted"]
        return {HOUR: (len(finished), sum(each.tokens or 0 for each in finished))}

    return _questions(facts, one_session, latest, groups, p95, hour)


def _finished(stats: Any) -> int:
    # the other sides do not know of operations that began and were interrupted
    count: int = stats.operation_count - stats.interrupted_count
    return count


def _duckdb_told(facts: Facts) -> dict[str, Callable[[], Answer]]:
    return _duckdb(facts, f", columns={{{_columns()}}}")


def _columns() -> str:
    types = {"str": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN"}
    found = {
        name: types.get(told.split(" |")[0], "JSON")
        for name, told in OperationLine.__annotations__.items()
    }
    found |= {"timestamp": "TIMESTAMP", "type": "VARCHAR"}
    return ", ".join(f"'{name}': '{kind}'" for name, kind in found.items())


def _duckdb(facts: Facts, told: str = "") -> dict[str, Callable[[], Answer]]:
    import duckdb

    lines = f"read_json('{facts.log_dir}/journal/*.jsonl', format='newline_delimited'{told})"
    operations = f"(select * from {lines} where type is null)"

    def ask(query: str) -> list[Any]:
        with duckdb.connect() as connection:
            return connection.execute(query).fetchall()

    def one_session(session_id: str) -> Answer:
        with duckdb.connect() as connection:
            connection.execute(
                f"create table found as from {operations} where session_id = ?", [session_id]
            )
            rows = connection.execute("from found order by timestamp").fetchall()
            told = connection.execute(
                "select count(*), sum(tokens), sum(duration_seconds), count_if(not success),"
                " quantile_cont(duration_seconds, [0.5, 0.95, 0.99]) from found"
            ).fetchone()
        assert told is not None
        assert told[0] == len(rows)
        return {session_id: (told[0], told[1])}

    def latest() -> Answer:
        return _rows(
            ask(
                "select session_id, count_if(type is null), coalesce(sum(tokens), 0),"
                " count_if(not success), sum(duration_seconds), min(timestamp),"
                " quantile_cont(duration_seconds, [0.5, 0.95, 0.99])"
                f" from {lines} group by session_id order by max(timestamp) desc, session_id desc"
                f" limit {LATEST_COUNT}"
            )
        )

    def hour() -> Answer:
        since = facts.since.replace(tzinfo=None)
        found = ask(f"select tokens, * from {operations} where timestamp >= '{since}'")
        return {HOUR: (len(found), sum(row[0] or 0 for row in found))}

    return _questions(
        facts,
        one_session,
        latest,
        lambda: _rows(ask(_GROUPS.format(operations))),
        lambda: _rounded(ask(_P95.format(operations))),
        hour,
    )


_GROUPS = (
    "select (service, strftime(timestamp, '%Y-%m-%d')), count(*), coalesce(sum(tokens), 0)"
    " from {} group by 1"
)
_P95 = "select model, count(*), quantile_cont(duration_seconds, 0.95) from {} group by 1"


def _rows(found: list[Any]) -> Answer:
    return {row[0]: (row[1], row[2]) for row in found}


def _rounded(found: list[Any]) -> Answer:
    # an interrupted operation's model is not known, so that None has other durations for us
    return {model: (count, round(p95, 6)) for model, count, p95 in found if model is not None}


def _original(facts: Facts) -> dict[str, Callable[[], Answer]]:
    """Do as the original logger: read whole files, decode every line, filter in Python."""
    log_dir = Path(facts.log_dir)

    def one_session(session_id: str) -> Answer:
        found = [line for line in _original_lines(log_dir) if line["session_id"] == session_id]
        return {session_id: (len(found), _tokens(found))}

    def latest() -> Answer:
        at: dict[str, str] = {}
        counts: Counter[str] = Counter()  # ten million decoded lines would not fit into memory
        tokens: Counter[str] = Counter()
        for line in _every_line(log_dir):
            session_id = line["session_id"]
            at[session_id] = max(line["timestamp"], at.get(session_id, ""))
            if "type" not in line:
                counts[session_id] += 1
                tokens[session_id] += line.get("tokens", 0)
        newest = sorted(at, key=lambda each: (at[each], each), reverse=True)[:LATEST_COUNT]
        return {each: (counts[each], tokens[each]) for each in newest}

    def groups() -> Answer:
        counts: Counter[Any] = Counter()
        tokens: Counter[Any] = Counter()
        for line in _original_lines(log_dir):
            key = line["service"], line["timestamp"][:10]
            counts[key] += 1
            tokens[key] += line.get("tokens", 0)
        return {key: (counts[key], tokens[key]) for key in counts}

    def p95() -> Answer:
        durations: dict[Any, list[float]] = defaultdict(list)
        for line in _original_lines(log_dir):
            durations[line.get("model")].append(line["duration_seconds"])
        rows = [(model, len(all_), percentile(all_, 0.95)) for model, all_ in durations.items()]
        return _rounded(rows)

    def hour() -> Answer:
        found = [
            line
            for line in _original_lines(log_dir)
            if datetime.fromisoformat(line["timestamp"]) >= facts.since
        ]
        return {HOUR: (len(found), _tokens(found))}

    return _questions(facts, one_session, latest, groups, p95, hour)


def _original_lines(log_dir: Path) -> Iterator[dict[str, Any]]:
    # its format has no lines but operations, so that it would not have to look
    return (line for line in _every_line(log_dir) if "type" not in line)


def _every_line(log_dir: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((log_dir / "journal").iterdir()):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _tokens(lines: list[dict[str, Any]]) -> int:
    return sum(line.get("tokens", 0) for line in lines)


def _questions(
    facts: Facts,
    one_session: Callable[[str], Answer],
    latest: Callable[[], Answer],
    groups: Callable[[], Answer],
    p95: Callable[[], Answer],
    hour: Callable[[], Answer],
) -> dict[str, Callable[[], Answer]]:
    return {
        SESSION: lambda: one_session(facts.session_id),
        LONGEST: lambda: one_session(facts.longest_id),
        LATEST: latest,
        GROUPS: groups,
        P95: p95,
        HOUR: hour,
    }


SIDES = {OURS: _ours, DUCKDB: _duckdb, DUCKDB_TOLD: _duckdb_told, ORIGINAL: _original}
QUERIES = (SESSION, LONGEST, LATEST, GROUPS, P95, HOUR)


def ask_side(side: str, facts: Facts, query: str) -> tuple[Answer, float, float]:
    """Answer in this process; return the answer, and the seconds it took, elapsed and of CPU."""
    return timed(SIDES[side](facts)[query])


def timed(question: Callable[[], Answer]) -> tuple[Answer, float, float]:
    """Answer; return the answer, and the seconds it took, elapsed and of CPU."""
    began, spent = time.perf_counter(), time.process_time()
    answer = question()
    return answer, time.perf_counter() - began, time.process_time() - spent


def query_figures(facts: Facts, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return for each query and side the median seconds, after a look whether all agree."""
    with ExitStack() as stack:
        workers = {
            side: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
            for side in SIDES
        }

        def ask(side: str, query: str) -> tuple[Answer, float, float]:
            return workers[side].submit(ask_side, side, facts, query).result()

        found = {}
        for query in QUERIES:
            first = {side: ask(side, query) for side in SIDES}
            _agree(query, {side: answer for side, (answer, *_) in first.items()})
            taken: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
            for number in range(rounds):
                for side in sorted(SIDES, reverse=number % 2 == 1):
                    taken[side].append(ask(side, query)[1:])
            found[query] = {side: _medians(one) for side, one in taken.items()}
            found[query][FIRST] = _medians([first[OURS][1:]])
    return found


def _agree(query: str, answers: dict[str, Answer]) -> None:
    expected = answers[ORIGINAL]
    for side, answer in answers.items():
        assert answer == expected, f"{query}: {side} differs: {_differences(answer, expected)}"


def _differences(one: Answer, other: Answer) -> list[Any]:
    keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
    return [(key, one.get(key), other.get(key)) for key in keys[:5]]


def _medians(taken: list[tuple[float, float]]) -> dict[str, float]:
    elapsed, cpu = zip(*taken, strict=True)
    return {"elapsed": median(elapsed), "cpu": median(cpu)}


def command_figures(log_dir: Path, runs: int) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of whole processes, in turns."""
    commands = {
        NOTHING: ("-c", "pass"),
        HELP: ("-m", "instrument", "--help"),
        SHOW: ("-m", "instrument", "show", "@last"),
        STATS: ("-m", "instrument", "stats", "@last"),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(-1, runs):
        for name, arguments in commands.items():
            spent = _command_milliseconds(arguments, log_dir)
            if number >= 0:  # the round before the first warms up
                taken[name].append(spent)
    return {name: _medians(one) for name, one in taken.items()}


def _command_milliseconds(arguments: tuple[str, ...], log_dir: Path) -> tuple[float, float]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = python(*arguments, INSTRUMENT_DIR=str(log_dir))
    elapsed, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * elapsed, 1000 * cpu


def measure(sizes: list[int], places: Path, *, quick: bool) -> dict[str, Any]:
    return {str(size): _measure_size(size, places / f"log{size}", quick=quick) for size in sizes}


def _measure_size(size: int, log_dir: Path, *, quick: bool) -> dict[str, Any]:
    if not log_dir.exists():
        write_log(log_dir, operations=size)
    rounds = 1 if quick else 3 if size > 100_000 else 5
    return {
        "seconds": query_figures(facts_of(log_dir), rounds),
        "milliseconds": command_figures(log_dir, 2 if quick else 9),
    }


def report(result: dict[str, Any]) -> str:
    parts = [_size_report(int(size), found) for size, found in result.items()]
    return "\n".join([*parts, versions("instrument-kit", "duckdb", "msgspec")])


def _size_report(size: int, found: dict[str, Any]) -> str:
    sides = [OURS, FIRST, *(each for each in SIDES if each != OURS)]
    header = [f"{size:,} operations: seconds (CPU)", *sides, "goal"]
    rows = [
        [query, *(_cell(one[side], 3) for side in sides), _goal(size, query)]
        for query, one in found["seconds"].items()
    ]
    commands = [
        [name, _cell(one, 0), _goal(size, name)] for name, one in found["milliseconds"].items()
    ]
    lines = [
        table(header, rows),
        "",
        table([f"{size:,} operations: ms of a process (CPU)", "instrument", "goal"], commands),
        "",
        *_verdicts(size, found),
        "",
    ]
    return "\n".join(lines)


def _cell(figures: dict[str, float], digits: int) -> str:
    return f"{figures['elapsed']:.{digits}f} ({figures['cpu']:.{digits}f})"


def _goal(size: int, name: str) -> str:
    limit, unit = _limit(size, name)
    return "" if limit is None else f"{limit:g} {unit}"


def _limit(size: int, name: str) -> tuple[float | None, str]:
    """Return what a query or command may take at this size, where there is a goal for it."""
    if name in GOAL_SECONDS:
        return (GOAL_SECONDS[name] if size == GOAL_OPERATIONS else None), "s"
    at_size, limit = GOAL_MILLISECONDS.get(name, (0, 0.0))
    return (limit if at_size in (None, size) else None), "ms"


def _verdicts(size: int, found: dict[str, Any]) -> Iterator[str]:
    taken = {query: one[OURS]["elapsed"] for query, one in found["seconds"].items()}
    taken |= {name: one["elapsed"] for name, one in found["milliseconds"].items()}
    for name, elapsed in taken.items():
        limit, unit = _limit(size, name)
        if limit is not None:
            claim = f"{size:,}: {name} takes {elapsed:.3g} {unit}, at most {limit:g}"
            yield verdict(claim, holds=elapsed <= limit)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--operations", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make logs there, or use them")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(asked.operations, asked.keep or Path(temporary), quick=asked.quick)
    show(result, report(result), as_json=asked.json)


if __name__ == "__main__":
    main()
