"""Limits are checked where they are made; an outcome is good only if the command said so."""

import math
from dataclasses import fields

import pytest

from expertmesh.agent.sandbox.policy import Ending, Limits, Outcome


@pytest.mark.parametrize("field", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_a_limit_that_limits_nothing_or_all_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"Limits.{field} is {value}"):
        Limits(**{field: value})


@pytest.mark.parametrize("ending", Ending)
@pytest.mark.parametrize("exit_code", [0, 1, None])
def test_only_an_exit_with_code_0_is_good(ending: Ending, exit_code: int | None) -> None:
    outcome = Outcome(ending, exit_code, "", "", 0.1, clipped=False)
    assert outcome.ok is (ending is Ending.EXITED and exit_code == 0)
