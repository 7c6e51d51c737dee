"""Pictures of costs: what they show, when they are drawn, and that training does not notice."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from lit_mbrl.algorithms import PILCO, SAC
from lit_mbrl.callbacks import CostPredictions
from lit_mbrl.callbacks.cost_predictions import draw_costs
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import everything, fit, make_data


def make_pilco() -> PILCO:
    options = {"horizon": 4, "num_basis": 4, "policy_iterations": 2, "model_iterations": 3, "first_restarts": 1}
    return PILCO(initial_std=[0.1] * 4, **options)


def test_a_picture_per_evaluation_and_no_other_difference(tmp_path: Path) -> None:
    found = []
    for callbacks in ([], [CostPredictions()]):
        algorithm, data = make_pilco(), make_data(env="pets/CartPole")
        fit(algorithm, data, *callbacks, default_root_dir=tmp_path)
        found.append(everything(algorithm, data))
    assert sorted(path.name for path in (tmp_path / "costs").iterdir()) == ["40.png", "60.png"]
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_some_evaluations_only(tmp_path: Path) -> None:
    data = make_data(env="pets/CartPole")
    fit(make_pilco(), data, CostPredictions(every=2), default_root_dir=tmp_path)
    assert [path.name for path in (tmp_path / "costs").iterdir()] == ["60.png"]


def test_the_tube_is_as_wide_as_the_model_is_uncertain(tmp_path: Path) -> None:
    mean, areas = torch.linspace(1.0, 0.2, 20), []
    for std in (0.02, 0.1):
        draw_costs(mean, torch.full((20,), std), [mean + 0.1, mean - 0.1], tmp_path / "picture.png")
        picture = matplotlib.image.imread(tmp_path / "picture.png")[..., :3]
        areas.append(float(((picture[..., 2] > picture[..., 0] + 0.1) & (picture[..., 2] > 0.8)).mean()))
    assert np.isclose(areas[1] / areas[0], 5.0, rtol=0.5)
    black = (picture.max(-1) < 0.6).mean()
    assert 0.002 < black < 0.2


def test_other_algorithms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--trainer.callbacks=CostPredictions: expected an algorithm that predicts"):
        fit(SAC(hidden_sizes=[8]), make_data(), CostPredictions(), default_root_dir=tmp_path)
