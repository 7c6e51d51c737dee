"""World Models: stages, exact resume in each of them, discrete actions, dreams, and options that do not fit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_mbrl.algorithms import WorldModels
from lit_mbrl.data import SequenceReplay
from lit_mbrl.envs import EnvConfig, PixelConfig, Spec
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit

TINY: dict[str, Any] = {
    **{"depth": 2, "latent": 4, "hidden": 6, "mixtures": 2, "vae_steps": 3, "vae_batch_size": 4, "rnn_steps": 3},
    **{"generations": 4, "population": 4, "episodes": 2, "dream_steps": 5, "controller_envs": 3, "epochs_per_stage": 2},
}


def make(env: str = "Pendulum-v1") -> SequenceReplay:
    config = EnvConfig(env, max_episode_steps=8, num_envs=2, pixels=PixelConfig())
    sizes = {"total_frames": 40, "epoch_frames": 20, "learning_starts": 2, "frames_per_batch": 2, "batch_size": 3}
    return SequenceReplay(config, sequence_length=5, eval_episodes=2, storage="memory", short_episodes="pad", **sizes)


def test_the_controller_is_as_large_as_in_the_paper_s_table() -> None:
    algorithm = WorldModels()
    algorithm.configure(Spec("made up", 3 * 64 * 64, 3, observation_shape=(3, 64, 64)))
    assert sum(parameter.numel() for parameter in algorithm.controller.parameters()) == 867


def test_each_stage_trains_its_own_part() -> None:
    before: dict[str, dict[str, torch.Tensor]] = {}

    class Watched(WorldModels):
        def start_stage(self, data: Any, name: str) -> None:
            before[name] = {key: value.clone() for key, value in self.state_dict().items()}

    algorithm = Watched(**TINY)
    fit(algorithm, make())
    before["end"] = algorithm.state_dict()
    names = list(before)
    assert names == ["collect", "vae", "rnn", "controller", "end"]
    for stage, following in pairwise(names):
        first, second = before[stage], before[following]
        moved = {key.split(".")[0] for key in first if not torch.equal(first[key], second[key])}
        expected = {stage} - {"collect"}
        assert moved - {"controller_env_steps", "acting"} == expected
    assert int(algorithm.controller_env_steps) == 4 * 4 * 2 * 8


@pytest.mark.parametrize("options", [{}, {"train_in": "dream", "reward": True}])
@pytest.mark.parametrize("at", [1, 3, 7, 10])
def test_a_run_resumes_exactly_in_every_stage(tmp_path: Path, at: int, options: dict[str, Any]) -> None:
    whole, data = WorldModels(**TINY, **options), make()
    fit(whole, data)
    with pytest.raises(Stop):
        fit(WorldModels(**TINY, **options), make(), SaveAndStop(tmp_path / "cut.ckpt", at))
    rest, rest_data = WorldModels(**TINY, **options), make()
    fit(rest, rest_data, seed=1, ckpt_path=tmp_path / "cut.ckpt")
    first, second = everything(whole, data), everything(rest, rest_data)
    assert first.keys() == second.keys()
    assert not [key for key in first if not torch.equal(first[key], second[key])]


@pytest.mark.parametrize("policy", ["random", "random_networks"])
def test_discrete_actions_and_a_dream_of_being_alive(policy: Any) -> None:
    algorithm = WorldModels(**TINY, train_in="dream", termination=True, collect_policy=policy, use_h=False)
    fit(algorithm, make("CartPole-v1"))
    assert int(algorithm.controller_env_steps) == 0
    losses = algorithm.trainer.optimizers[2].state_dict()["state"][0]["told"]
    assert losses.shape == (4, 4) and bool(((losses >= -5) & (losses <= -1)).all())


def test_dreams_that_all_have_one_return_are_refused() -> None:
    spec = Spec("made up", 3 * 64 * 64, 3, max_episode_steps=5, observation_shape=(3, 64, 64))
    with pytest.raises(OptionError, match=r"model.termination=False: expected true \(or model.reward\)"):
        WorldModels(train_in="dream").check(spec)


def test_strips_show_the_real_images_codes_and_a_dream() -> None:
    algorithm, data = WorldModels(**TINY), make()
    fit(algorithm, data)
    sequence = data.eval_episode
    rows = algorithm.reconstruct(sequence, 3)
    assert all(image.shape == sequence["observation"].shape for image in rows.values())
    assert torch.equal(rows["reconstruction"][:, :3], rows["imagined"][:, :3])
