"""Runs the probes of `tests/conformance` over bare code, ours and the peers that are installed.

python benchmarks/conformance.py [--summary] [--without-peers] [--json]

Prints how many probes of each group are passed, then one row for each probe that somebody fails;
with `--summary`, the README's table. Every subject runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import _peers
from _measure import TESTS, options, python, show, table, versions

sys.path.insert(0, str(TESTS))

from conformance.probes import PROBES, Bare, Probe, Record, Subject, perform

BARE, OURS = "bare", "instrument"
SUBJECTS = [BARE, OURS, *_peers.DISTRIBUTIONS]
PASSED = "ok"
SUMMARY = {
    "exceptions, coroutines, contexts": ("exceptions", "coroutines", "contexts"),
    "generators, sync and async": ("generators", "async generators"),
    "callables, methods, classes": ("callables", "methods", "classes"),
    "introspection, arguments, results, frameworks, streams": (
        "introspection",
        "arguments",
        "results",
        "frameworks",
        "streams",
    ),
}

Verdicts = dict[str, str]


class Peer:
    """A library that makes OpenTelemetry spans, as a subject."""

    def __init__(self, name: str) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.name = name
        self.exporter = InMemorySpanExporter()
        self.processor = SimpleSpanProcessor(self.exporter)
        self._decorate = _peers.set_up(name, self.exporter, self.processor)

    def decorate(self, target: Any) -> Any:
        return self._decorate(target)

    def current(self) -> object | None:
        from opentelemetry import trace

        context = trace.get_current_span().get_span_context()
        return context.span_id if context.is_valid else None

    def records(self) -> list[Record]:
        _peers.flush(self.name, self.processor)
        spans = self.exporter.get_finished_spans()
        return [_record(span) for span in spans if not _is_pending(span)]

    def forget(self) -> None:
        self.records()
        self.exporter.clear()


def _is_pending(span: Any) -> bool:
    return span.attributes.get("logfire.span_type") == "pending_span"


def _record(span: Any) -> Record:
    seconds = (span.end_time - span.start_time) / 1e9
    return Record(
        name=span.name,
        id=str(span.context.span_id),
        parent_id=str(span.parent.span_id) if span.parent else None,
        outcome="error" if span.status.status_code.name == "ERROR" else "ok",
        duration_seconds=seconds,
        charged_seconds=seconds,
    )


def verdict(probe: Probe, subject: Subject) -> str:
    """Return `ok`, or what the probe raised in one line."""
    try:
        perform(probe, subject)
    except BaseException as error:  # a probe that fails may raise anything, KeyboardInterrupt too
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return PASSED


def verdicts(name: str) -> Verdicts:
    """Run every probe that applies to the subject and whose packages are installed."""
    probes = [probe for probe in PROBES if not probe.missing()]
    if name == BARE:
        return {probe.name: verdict(probe, Bare()) for probe in probes if not probe.reads_records}
    if name == OURS:
        return {probe.name: _our_verdict(probe) for probe in probes}
    peer = Peer(name)
    return {probe.name: _peer_verdict(probe, peer) for probe in probes}


def _our_verdict(probe: Probe) -> str:
    from conformance.ours import Ours

    from instrument.testing import capture

    with capture() as operations:
        return verdict(probe, Ours(operations))


def _peer_verdict(probe: Probe, peer: Peer) -> str:
    peer.forget()
    return verdict(probe, peer)


def verdicts_in_a_process_of_its_own(name: str) -> Verdicts:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "verdicts.json")
        done = python(__file__, "--subject", name, "--into", str(path))
        if not path.exists():
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        return json.loads(path.read_text())


def summary(results: dict[str, Verdicts]) -> str:
    """Render the scores of a few groups taken together, as the README shows them."""
    return _table(results, SUMMARY)


def scores(results: dict[str, Verdicts]) -> str:
    """Render the scores of each group of probes."""
    return _table(results, {probe.group: (probe.group,) for probe in PROBES})


def _table(results: dict[str, Verdicts], titles: dict[str, tuple[str, ...]]) -> str:
    """Render a row for each title, the totals and the versions."""
    rows = [
        [title, *_scores(results, [probe for probe in PROBES if probe.group in groups])]
        for title, groups in titles.items()
    ]
    totals = [
        [f"**{title}**", *_scores(results, [p for p in PROBES if p.reads_records is told])]
        for title, told in (("behaviour in all", False), ("records in all", True))
    ]
    told = versions("instrument-kit", *_peers.DISTRIBUTIONS.values())
    lines = [table(["probes on", *results], rows + totals), "", told, *_left_out(list(results))]
    return "\n".join(lines)


def _scores(results: dict[str, Verdicts], probes: list[Probe]) -> list[str]:
    return [_score(outcome, probes) for outcome in results.values()]


def _score(outcome: Verdicts, probes: list[Probe]) -> str:
    run = [outcome[probe.name] for probe in probes if probe.name in outcome]
    return f"{run.count(PASSED)} of {len(run)}" if run else "-"


def failures(results: dict[str, Verdicts]) -> str:
    """Render the probes that somebody fails."""
    rows = [
        [probe.name.replace("_", " "), *(_cell(outcome, probe) for outcome in results.values())]
        for probe in PROBES
        if any(outcome.get(probe.name, PASSED) != PASSED for outcome in results.values())
    ]
    return table(["probe", *results], rows)


def _cell(outcome: Verdicts, probe: Probe) -> str:
    if probe.name not in outcome:
        return "-"
    return PASSED if outcome[probe.name] == PASSED else "**fails**"


def _left_out(names: list[str]) -> list[str]:
    absent = [name for name in SUBJECTS if name not in names]
    unmet = [f"{probe.name} ({', '.join(probe.missing())})" for probe in PROBES if probe.missing()]
    return [
        *([f"Not installed: {', '.join(absent)}."] if absent else []),
        *([f"Probes not run: {', '.join(unmet)}."] if unmet else []),
    ]


def main() -> None:
    parser = options(__doc__, can_be_quick=False)
    parser.add_argument("--summary", action="store_true", help="print the README's table")
    parser.add_argument("--without-peers", action="store_true", help="bare code and ours alone")
    parser.add_argument("--subject", choices=SUBJECTS, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.subject:
        asked.into.write_text(json.dumps(verdicts(asked.subject)))
        return
    peers = [] if asked.without_peers else _peers.installed()
    results = {name: verdicts_in_a_process_of_its_own(name) for name in [BARE, OURS, *peers]}
    tables = [summary(results)] if asked.summary else [scores(results), failures(results)]
    show(results, "\n\n".join(tables), as_json=asked.json)


if __name__ == "__main__":
    main()
