"""Undecorated code passes every probe on behaviour, and ours passes every probe."""

from __future__ import annotations

import pytest

from instrument.testing import capture

from .ours import Ours
from .probes import PROBES, Bare, Probe, Subject, perform

BEHAVIOUR = [probe for probe in PROBES if not probe.reads_records]


def named(probes: list[Probe]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("probe", [pytest.param(p, id=p.name) for p in probes])


def perform_or_skip(probe: Probe, subject: Subject) -> None:
    if missing := probe.missing():
        pytest.skip(f"not installed: {', '.join(missing)}")
    perform(probe, subject)


@named(BEHAVIOUR)
def test_undecorated_code_behaves(probe: Probe) -> None:
    perform_or_skip(probe, Bare())


@named(PROBES)
def test_decorated_code_behaves_and_is_recorded(probe: Probe) -> None:
    with capture() as operations:
        perform_or_skip(probe, Ours(operations))


def test_every_probe_has_a_name_of_its_own() -> None:
    assert len({probe.name for probe in PROBES}) == len(PROBES)
