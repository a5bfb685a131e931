"""The test that runs and its phase, as operations inside of which tracked calls are made."""

from __future__ import annotations

import os
from time import perf_counter_ns, time_ns
from typing import Any

from instrument import context
from instrument._clock import new_id
from instrument.context import Scope
from instrument.pytest_plugin.outcomes import Ended, verdict_of
from instrument.recorder import Recorder
from instrument.running import RunningOperation, Site
from instrument.usage.reading import Reading

__all__ = ["SERVICE", "Stage"]

SERVICE = "pytest"
_PARENT = "INSTRUMENT_PARENT_ID"


class Stage:
    """What is current while tests run: `entry`, the run's session as it was entered.

    Event loops, threads and fixtures keep contexts from the time of other tests. So one object
    stands for whatever phase is running, in all of them: `entry` has it as its parent, and what it
    is called changes.
    """

    def __init__(self, entry: Scope, recorder: Recorder) -> None:
        self._entry = entry
        self._recorder = recorder
        self._outer, self._outer_id = entry.parent, entry.parent_id
        self._sites = {when: Site(SERVICE, when) for when in ("setup", "call", "teardown")}
        self._test: RunningOperation | None = None
        self._phase = self._operation(self._sites["setup"], None)
        self._phase.done = True

    @property
    def begun_ns(self) -> int:
        """When the latest phase began."""
        return self._phase.begun_ns

    def begin_test(self, node_id: str) -> str:
        """Begin the operation of a test, and return its id."""
        self._test = self._operation(Site(SERVICE, node_id), self._outer)
        self._test.parent_id = self._test.parent_id or self._outer_id
        if context.beside is not None:
            context.beside.began(self._test)
        self._test.announce()
        return self._test.id

    def begin(self, when: str) -> str:
        """Have a phase of the test be what tracked calls are made in; return its id."""
        phase, site, test = self._phase, self._sites[when], self._test
        phase.site, phase.parent = site, test
        phase.parent_id = None if test is None else test.id
        phase.id, phase.claims, phase.noted, phase.model = new_id(), {}, None, None
        phase.given = phase.added = phase.failure = None
        phase.announced, phase.done = None, False
        phase.trace_id = None if test is None else test.trace_id
        phase.started_ns, phase.begun_ns = time_ns(), perf_counter_ns()
        # so that what is called in it is known to be the test's even if it never ends
        if site.slow or when == "call":
            phase.announce()
        os.environ[_PARENT] = phase.id
        self._entry.parent = phase
        return phase.id

    def end(self, ended: Ended, now_ns: int) -> None:
        """End the phase."""
        if ended.word != "passed":
            self._phase.metadata["outcome"] = ended.word
        self._phase.ended(now_ns, None, verdict_of(ended))

    def end_test(self, ended: Ended, now_ns: int, attempt: int | None, **told: Any) -> None:
        """End the test; `told` is what its metadata says beside the outcome."""
        test = self._leave()
        if test is None:
            return
        known = {name: value for name, value in told.items() if value is not None}
        test.metadata = {"outcome": ended.word, **known}
        said = None if attempt is None else Reading(attempt=attempt)
        test.ended(now_ns, said, verdict_of(ended))

    def raised(self, error: BaseException) -> None:
        """End phase and test with what ends the whole run."""
        test = self._leave()
        for each in (self._phase, test):
            if each is not None and not each.done:
                each.raised(error)

    def _leave(self) -> RunningOperation | None:
        self._entry.parent = self._outer
        if self._outer_id is None:
            os.environ.pop(_PARENT, None)
        else:
            os.environ[_PARENT] = self._outer_id
        test, self._test = self._test, None
        return test

    def _operation(self, site: Site, parent: RunningOperation | None) -> RunningOperation:
        session = self._entry.session
        return RunningOperation(
            session,
            None,
            parent,
            None if parent is None else parent.id,
            False,
            site,
            session.trace_id,
            self._recorder,
            new_id(),
            time_ns(),
            perf_counter_ns(),
            {},
        )
