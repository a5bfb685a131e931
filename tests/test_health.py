"""What the library says of itself: what it recorded, lost and cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from child import run
from log_writing import START, at, write
from msgspec.structs import replace

from instrument._account import Account
from instrument.journal import Journal
from instrument.log import UsageLog
from instrument.operation import Health

LINE = b'{"timestamp":"2026-11-22T12:00:00.000000Z"}\n'
SECOND_NS = 1_000_000_000


def journal(log_dir: Path, account: Account) -> Journal:
    return Journal(
        log_dir,
        fsync=False,
        max_bytes=1000,
        report=lambda what, where: None,
        grown=lambda size: None,
        account=account,
    )


def test_a_log_that_nobody_writes_to_has_nothing_to_say(tmp_path: Path) -> None:
    # of this process are those that other tests make on purpose
    assert replace(UsageLog(tmp_path).health(), internal_error_count=0) == Health()


def test_operations_of_this_process_are_counted_and_no_other_lines(tmp_path: Path) -> None:
    program = """
        from instrument import UsageLogger
        with session("work"): ask()
        for n in range(10): ask()
        UsageLogger("s").log_usage("logged")
        UsageLogger("s", log_dir=os.environ["INSTRUMENT_DIR"] + "/other").log_usage("logged")
        print(UsageLog().health().recorded_count)
        child = os.fork()
        if child: os.waitpid(child, 0)
        else: print(UsageLog().health().recorded_count); ask()
        print(UsageLog().health().recorded_count, flush=True)
        """
    output, errors = run(program, tmp_path)
    assert (output.split(), errors) == (["12", "0", "1", "12"], "")


def test_however_its_path_is_written_it_is_the_same_log(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "log")
    program = f"""
        ask()
        os.chdir({str(tmp_path)!r})
        print([UsageLog(each).health().recorded_count for each in ("log", "link", "other")])
        print(UsageLog("log", "link", "other").health().recorded_count)
        """
    assert run(program, tmp_path / "log") == ("[1, 1, 0]\n1", "")


def test_what_all_processes_dropped_is_in_the_log(tmp_path: Path) -> None:
    for number, count in enumerate([3, 4, -1, "5", True, None, 10**13]):
        line = {"type": "dropped", "timestamp": at(number), "count": count, "reason": f"r{number}"}
        write(tmp_path, line)
    write(tmp_path, b'{"type":"dropped","timestamp":"2026-11-20T11:00:00Z","reason":\xff}\n')
    found = UsageLog(tmp_path).health()
    assert (found.dropped_count, found.dropped_in_log_count) == (0, 7)
    assert (found.last_dropped_at, found.last_dropped_reason) == (
        START + timedelta(seconds=6),
        "r6",
    )


def test_a_defect_of_ours_is_counted_apart(tmp_path: Path) -> None:
    program = """
        from instrument.recorder import lost_count, swallow
        warnings.simplefilter("ignore")
        ask()
        swallow(ValueError("ours"))
        health = UsageLog().health()
        print(health.recorded_count, health.dropped_count, health.internal_error_count)
        print(lost_count())
        """
    assert run(program, tmp_path) == ("1 0 1\n1", "")


def test_a_process_that_records_nothing_has_no_cost(tmp_path: Path) -> None:
    output, _ = run("print(UsageLog().health().recording_p50_seconds)", tmp_path)
    assert output == "None"


def test_what_a_record_costs_is_sampled_once_a_second(tmp_path: Path) -> None:
    program = """
        from instrument._account import accounts
        for n in range(3):
            for again in range(100): ask()
            same_second()
        health = UsageLog().health()
        print(0 < health.recording_p50_seconds <= health.recording_p99_seconds < 0.1)
        print(*(len(each.costs_ns) for each in accounts().values()))
        """
    output, errors = run(program, tmp_path)
    assert (output, errors) == ("True\n3", "")


def test_neither_the_look_nor_what_is_no_operation_is_sampled(tmp_path: Path) -> None:
    account = Account()
    writer = journal(tmp_path, account)
    samples = []
    for line, now_ns in [
        (LINE, 0),  # looks
        (b'{"type":"session"}\n', 1),
        (LINE, 2),
        (LINE, 3),
        (LINE, SECOND_NS),  # looks
        (LINE, SECOND_NS + 1),
    ]:
        writer.append(line, now_ns)
        samples.append(len(account.costs_ns))
    assert samples == [0, 0, 1, 1, 1, 2]


def test_the_latest_512_samples_are_kept() -> None:
    account = Account()
    for cost in range(1_000):
        account.sample(cost)
    assert account.costs_ns == list(range(488, 1_000))


@pytest.mark.parametrize("reason", [5, None])
def test_a_reason_that_is_no_text_is_unknown(reason: object, tmp_path: Path) -> None:
    now = datetime.now(UTC).isoformat()
    write(tmp_path, {"type": "dropped", "timestamp": now, "count": 1, "reason": reason})
    assert UsageLog(tmp_path).health().last_dropped_reason is None
