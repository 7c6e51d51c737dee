"""Images of imagined rollouts: what is compared, that training does not notice, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from torch import Tensor

from lit_mbrl.algorithms import A2C, I2A
from lit_mbrl.callbacks import ImaginedRollouts
from lit_mbrl.callbacks.imagined_rollouts import Outcome, save_rollouts
from lit_mbrl.networks import GridEncoder
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import everything, fit
from tests.unit.algorithms.test_i2a import SMALL, make_games


def test_an_image_per_evaluation_that_imagines_and_no_other_difference(tmp_path: Path) -> None:
    found = []
    for callbacks in ([], [ImaginedRollouts(steps=2)]):
        algorithm, data = I2A(**SMALL), make_games()
        fit(algorithm, data, *callbacks, default_root_dir=tmp_path)
        found.append(everything(algorithm, data))
    assert [path.name for path in (tmp_path / "imagination").iterdir()] == ["80.png"]
    assert not [key for key in found[0] if not torch.equal(found[0][key], found[1][key])]


class Knows(torch.nn.Module):
    """A model that is right: it plays the game itself, on copies that stand where the frames came from."""

    def __init__(self, data: Any, callback: ImaginedRollouts, module: Any) -> None:
        super().__init__()
        _, state = callback._state_of_an_episode(data, module, data.evaluation_seed)
        self.env = data.make_env(5)
        self.env.reset()
        self.env.set_env_state([state] * 5)
        self.cells, self.rewards = module.cells, torch.tensor(module.rewards)

    def step(self, planes: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        following = self.env.step(self.env.rand_action().set("action", action))["next"]
        reward = (following["reward"] - self.rewards).abs().argmin(-1)
        return self.cells(following["observation"]), reward.to(torch.uint8)


def test_what_happens_is_what_a_model_without_faults_imagines() -> None:
    algorithm, data = I2A(**SMALL), make_games()
    fit(algorithm, data)
    callback = ImaginedRollouts(steps=0)
    algorithm.model = Knows(data, callback, algorithm)
    start, imagined, happened = callback.compare(data, algorithm)
    assert start.shape == (5, 5) and imagined.frames.shape == (5, 3, 5, 5)
    going_on = happened.there
    assert going_on[:, 0].all()
    assert torch.equal(imagined.frames[going_on], happened.frames[going_on])
    torch.testing.assert_close(imagined.rewards[going_on], happened.rewards[going_on])
    assert not torch.equal(happened.frames[1, 0], happened.frames[3, 0])  # other actions, other frames


def test_faults_are_framed_in_red(tmp_path: Path) -> None:
    torch.manual_seed(0)
    frames, rewards = torch.randint(7, (2, 3, 4, 4), dtype=torch.uint8), torch.full((2, 3), -0.1)
    there = torch.ones(2, 3, dtype=torch.bool)
    right = Outcome(frames, rewards, there)
    wrong = Outcome((frames + 1) % 7, rewards, there)
    reds = []
    for imagined in (right, wrong):
        save_rollouts(frames[0, 0], imagined, right, None, tmp_path / "rollouts.png")
        picture = matplotlib.image.imread(tmp_path / "rollouts.png")[..., :3]
        red = torch.tensor([0xD0 / 255, 0.0, 0.0])
        reds.append(int(((torch.from_numpy(picture) - red).abs() < 0.01).all(-1).sum()))
    assert reds[0] == 0 and reds[1] > 1000


def test_only_what_imagines_and_can_be_restored_has_images(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = A2C(encoder=GridEncoder(convolutions=[2], units=4))
    with pytest.raises(OptionError, match=r"--trainer.callbacks=ImaginedRollouts: expected an algorithm that imagines"):
        fit(agent, make_games(), ImaginedRollouts())
    monkeypatch.setattr("lit_mbrl.envs.vector.VectorEnv.get_env_state", lambda self: None)
    with pytest.raises(OptionError, match=r"--trainer.callbacks=ImaginedRollouts: expected an environment whose state"):
        fit(I2A(**SMALL), make_games(), ImaginedRollouts())
