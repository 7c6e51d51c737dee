"""Entropy schedules: SVG eq. 14 and its relatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
from lightning.pytorch import Callback

from lit_mbrl.algorithms import SAC, TD3
from lit_mbrl.callbacks import EntropyAnnealing
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, fit, make_data


@pytest.mark.parametrize("exponent", [1 / 64, 1.0, 32.0])
def test_power_form_is_eq_14(exponent: float) -> None:
    schedule = EntropyAnnealing(-2.0, -16.0, 1000, exponent=exponent)
    for t in (0, 1, 250, 999, 1000):
        assert schedule.value(t) == pytest.approx((-2.0 - -16.0) * (1 - t / 1000) ** exponent + -16.0)
    assert schedule.value(0) == -2.0
    assert schedule.value(1000) == schedule.value(5000) == -16.0


def test_linear_and_exponential_forms() -> None:
    linear = EntropyAnnealing(1.0, -3.0, 100, form="linear", exponent=7.0)
    assert [linear.value(t) for t in (0, 25, 50, 100, 200)] == pytest.approx([1.0, 0.0, -1.0, -3.0, -3.0])
    for sign in (1.0, -1.0):
        exponential = EntropyAnnealing(sign * 0.2, sign * 1e-4, 100, form="exponential")
        values = [exponential.value(t) for t in (0, 50, 100, 200)]
        assert values == pytest.approx([sign * 0.2, sign * math.sqrt(0.2 * 1e-4), sign * 1e-4, sign * 1e-4])


class Targets(Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.seen.append((pl_module.env_steps, float(pl_module.target_entropy)))


def test_a_run_follows_the_curve_and_so_does_a_resumed_and_a_shorter_one(tmp_path: Any) -> None:
    def schedule() -> EntropyAnnealing:
        return EntropyAnnealing(1.0, -3.0, 1000, exponent=0.5)

    whole, resumed, shorter = Targets(), Targets(), Targets()
    fit(SAC(hidden_sizes=[8, 8]), make_data(), schedule(), whole)
    with pytest.raises(Stop):
        fit(SAC(hidden_sizes=[8, 8]), make_data(), schedule(), SaveAndStop(tmp_path / "run.ckpt", 9))
    fit(SAC(hidden_sizes=[8, 8]), make_data(), schedule(), resumed, ckpt_path=tmp_path / "run.ckpt")
    fit(SAC(hidden_sizes=[8, 8]), make_data(total_frames=40), schedule(), shorter)
    expected = [(t, pytest.approx(4.0 * (1 - t / 1000) ** 0.5 - 3.0)) for t in range(25, 61)]
    assert whole.seen == expected
    assert resumed.seen == expected[9:]
    assert shorter.seen == expected[:16]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"schedule_steps": 0}, "schedule_steps"),
        ({"exponent": 0.0}, "exponent"),
        ({"form": "exponential", "initial": 1.0, "final": -1.0}, "final"),
        ({"form": "exponential", "final": 0.0}, "final"),
    ],
)
def test_wrong_options_are_named(options: dict, named: str) -> None:
    with pytest.raises(OptionError, match=f"callbacks.{named}="):
        EntropyAnnealing(**({"initial": 1.0, "final": 0.5, "schedule_steps": 10} | options))


def test_an_algorithm_without_the_attribute_is_refused() -> None:
    with pytest.raises(OptionError, match=r"attribute=target_entropy: expected a scalar of TD3"):
        fit(TD3(hidden_sizes=[8, 8]), make_data(), EntropyAnnealing(1.0, 0.0, 10))


@pytest.mark.parametrize("form", ["power", "linear", "exponential"])
def test_no_final_value_means_a_constant(form: str) -> None:
    schedule = EntropyAnnealing(initial=-2.0, final=None, schedule_steps=10, form=form, exponent=4.0)
    assert [schedule.value(step) for step in (0, 3, 10, 99)] == pytest.approx([-2.0] * 4)
