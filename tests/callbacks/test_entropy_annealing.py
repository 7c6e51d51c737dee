"""A schedule without an end is a constant, as the random search of SAC-SVG's appendix A.2 asks for."""

from __future__ import annotations

import pytest

from callbacks.entropy_annealing import EntropyAnnealing


@pytest.mark.parametrize("form", ["power", "linear", "exponential"])
def test_no_final_value_means_a_constant(form: str) -> None:
    schedule = EntropyAnnealing(initial=-2.0, final=None, schedule_steps=10, form=form, exponent=4.0)
    assert [schedule.value(step) for step in (0, 3, 10, 99)] == pytest.approx([-2.0] * 4)
