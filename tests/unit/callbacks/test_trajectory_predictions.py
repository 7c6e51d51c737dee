"""Pictures of trajectories: what is predicted, where the pictures go, and that training does not notice."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import pytest
import torch
from tensordict import TensorDict

from lit_mbrl.algorithms import SAC
from lit_mbrl.callbacks import TrajectoryPredictions
from lit_mbrl.callbacks.trajectory_predictions import draw_trajectories
from lit_mbrl.planners.propagation import TrajectorySampler
from lit_mbrl.utils.errors import OptionError
from tests.helpers.planning import contradicting, make_pets
from tests.helpers.runs import everything, fit, make_data


def test_a_picture_per_evaluation_and_no_other_difference(tmp_path: Path) -> None:
    found = []
    for callbacks in ([], [TrajectoryPredictions(horizon=4)]):
        algorithm, data = make_pets(), make_data()
        fit(algorithm, data, *callbacks, default_root_dir=tmp_path)
        found.append(everything(algorithm, data))
    assert sorted(path.name for path in (tmp_path / "trajectories").iterdir()) == ["40.png", "60.png"]
    assert all(torch.equal(found[0][key].float(), found[1][key].float()) for key in found[0])


def test_some_evaluations_only(tmp_path: Path) -> None:
    fit(make_pets(), make_data(), TrajectoryPredictions(every=2, horizon=4), default_root_dir=tmp_path)
    assert [path.name for path in (tmp_path / "trajectories").iterdir()] == ["60.png"]


def test_predictions_begin_at_every_horizon_and_take_the_actions_that_were_taken() -> None:
    """A model whose two members go up and down by 1: the spread after H steps is known."""
    algorithm = make_pets(num_members=2, particles=2)
    algorithm.sampler = TrajectorySampler(contradicting(1e-5), "TSinf", 2)
    observation = torch.arange(10.0).view(10, 1) * 10
    episode = TensorDict({"observation": observation, "action": torch.zeros(10, 1)}, [10])
    predicted = TrajectoryPredictions(horizon=4, length=10).predict(algorithm, episode)
    assert list(predicted) == [0, 4]
    for start, particles in predicted.items():
        up = 10.0 * start + torch.arange(5.0)
        torch.testing.assert_close(particles[0, :, 0], up, atol=1e-3, rtol=0)
        torch.testing.assert_close(particles[1, :, 0], 20.0 * start - up, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [1, 3, 12])
def test_the_picture_has_lines_and_bands(size: int, tmp_path: Path) -> None:
    reality = torch.randn(31, size).cumsum(0)
    particles = reality[:11].expand(5, -1, -1) + torch.randn(5, 11, size)
    draw_trajectories(reality, {0: particles, 20: particles}, tmp_path / "picture.png")
    picture = matplotlib.image.imread(tmp_path / "picture.png")[..., :3]
    blue = (picture[..., 2] > picture[..., 0] + 0.2).mean()
    black = (picture.max(-1) < 0.2).mean()
    assert 0.002 < blue < 0.5 and 0.002 < black < 0.3


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--trainer.callbacks.length=3: expected at least horizon=25"):
        TrajectoryPredictions(length=3)
    with pytest.raises(OptionError, match="--trainer.callbacks=TrajectoryPredictions: expected an algorithm with a"):
        fit(SAC(hidden_sizes=[8]), make_data(), TrajectoryPredictions(horizon=4), default_root_dir=tmp_path)
