from __future__ import annotations

import copy
import inspect
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest

from instrument import tracked
from instrument._signature import LateSignature


def sample(first: int, *rest: str, named: bool = False) -> float:
    return 1.0


def test_a_late_signature_says_and_does_what_the_functions_own_does() -> None:
    late, own = LateSignature(sample), inspect.signature(sample)
    assert late == own
    assert str(late) == str(own)
    assert late.bind(1, "a", named=True).arguments == own.bind(1, "a", named=True).arguments
    assert str(late.replace(return_annotation="str")) == str(own.replace(return_annotation="str"))
    assert pickle.loads(pickle.dumps(late)) == copy.deepcopy(late) == own
    with pytest.raises(TypeError, match="missing a required argument: 'first'"):
        late.bind()


@pytest.mark.parametrize("argspec_of", [inspect.getfullargspec, inspect.signature])
def test_who_does_not_follow_wrappers_sees_the_arguments_too(
    argspec_of: Callable[[Any], Any],
) -> None:
    assert argspec_of(tracked(service="s")(sample)) == argspec_of(sample)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python 3.14 has annotations that wait")
def test_annotations_are_not_evaluated_before_somebody_asks() -> None:
    names: dict[str, Any] = {"tracked": tracked}
    program = "@tracked(service='s')\ndef ask(one: Later) -> Later: pass"
    exec(compile(program, "program", "exec", dont_inherit=True), names)
    (one,) = inspect.signature(names["ask"]).parameters.values()
    assert one.annotation.__forward_arg__ == "Later"
    names["Later"] = int
    assert str(inspect.signature(names["ask"])) == "(one: int) -> int"
