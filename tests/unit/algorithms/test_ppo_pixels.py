"""PPO on pictures: the shared encoder, and evaluation with actions that are drawn from the policy."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lit_mbrl.algorithms import PPO, EntropyBonusPPO, MaxEntBonusPPO, MaxEntPPO
from lit_mbrl.data import OnPolicy
from lit_mbrl.envs import EnvConfig, Spec, VectorEnv
from lit_mbrl.networks import Impala, ImpalaEncoder
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import fit
from tests.helpers.toys import PICTURE, TOY

SMALL = ImpalaEncoder(features=8, channels=[2, 3])


def make_data(**options: Any) -> OnPolicy:
    """Two rollouts of eight steps of two copies, in minibatches of eight frames."""
    sizes = {"total_frames": 32, "epoch_frames": 16, "rollout_steps": 8, "num_epochs": 2, "batch_size": 8}
    return OnPolicy(EnvConfig(PICTURE, num_envs=2), **(sizes | {"eval_episodes": 2} | options))


@pytest.mark.parametrize("agent", [PPO, EntropyBonusPPO, MaxEntPPO, MaxEntBonusPPO])
def test_all_agents_learn_from_pictures(agent: type[PPO]) -> None:
    algorithm = agent(encoder=SMALL)
    data = make_data()
    trainer = fit(algorithm, data, precision="bf16-mixed")
    assert isinstance(algorithm.encoder, Impala)
    assert data.env_steps == 32 and data.train_steps == 8
    assert float(trainer.callback_metrics["eval/episode_length"]) == 5
    assert data.rollout["observation"].dtype == torch.uint8
    assert all(torch.isfinite(parameter).all() for parameter in algorithm.parameters())


def built(**options: Any) -> PPO:
    """An agent for Procgen's pictures and actions."""
    algorithm = PPO(encoder=SMALL, **options)
    algorithm.configure(Spec("game", 3 * 64 * 64, 15, discrete=True, observation_shape=(3, 64, 64)))
    return algorithm


def test_features_are_shared_and_learn_from_policy_and_value() -> None:
    torch.manual_seed(0)
    algorithm = built()
    pictures = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    log_prob, entropy, value = algorithm.evaluate(pictures, torch.randint(15, (6,)))
    assert log_prob.shape == entropy.shape == value.shape == (6, 1)
    encoder = list(algorithm.encoder.parameters())
    for part in (log_prob, value):
        assert all(gradient.any() for gradient in torch.autograd.grad(part.sum(), encoder, retain_graph=True))
    (update,) = algorithm.update_list
    assert {id(parameter) for parameter in update.parameters()} == {id(each) for each in algorithm.parameters()}


def test_heads_are_linear_and_begin_near_uniform_and_zero() -> None:
    torch.manual_seed(0)
    algorithm = built()
    sizes = [tuple(parameter.shape) for head in (algorithm.actor, algorithm.critic) for parameter in head.parameters()]
    assert sizes == [(15, 8), (15,), (1, 8), (1,)]
    pictures = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    _, entropy, _ = algorithm.evaluate(pictures, torch.zeros(6, dtype=torch.int64))
    assert torch.allclose(entropy, torch.tensor(15.0).log(), atol=1e-2)
    assert len(list(built(hidden_sizes=[4]).critic.parameters())) == 4


def test_the_paper_s_network_is_the_default() -> None:
    algorithm = PPO()
    algorithm.configure(Spec("game", 3 * 64 * 64, 15, discrete=True, observation_shape=(3, 64, 64)))
    assert sum(parameter.numel() for parameter in algorithm.parameters()) == 626_256


def test_an_encoder_is_for_pictures() -> None:
    with pytest.raises(OptionError, match=r"--model.encoder=.*: expected null: .* Toy are no images"):
        PPO(encoder=SMALL).check(Spec("Toy", 3, 1))
    PPO().check(Spec("Toy", 3, 1))
    PPO(encoder=SMALL).check(Spec("game", 192, 3, discrete=True, observation_shape=(3, 8, 8)))


# ---------------------------------------------------------------------- actions of evaluation
def played(algorithm: PPO, data: OnPolicy) -> torch.Tensor:
    """Actions `[K, T]` of evaluation episodes after a run."""
    env = VectorEnv(data.env, seed=5, num_envs=64)
    try:
        env.set_seed(5)
        return data.run_eval_episodes(env)["action"]
    finally:
        env.close()


def test_actions_of_evaluation_are_the_mode_or_drawn() -> None:
    """An untrained policy is nearly uniform over three actions."""
    found = {}
    for choice in ("mode", "sample"):
        data = make_data(eval_actions=choice)
        algorithm = PPO(encoder=SMALL, lr=1e-9)
        fit(algorithm, data)
        found[choice] = [played(algorithm, data) for _ in range(2)]
        state = torch.get_rng_state()
        assert torch.equal(*found[choice])  # the same seed, the same episodes
        data.evaluate()
        assert torch.equal(state, torch.get_rng_state())  # a run with evaluations is the run without
        data.teardown("fit")
    counts = torch.bincount(found["sample"][0].flatten(), minlength=3)
    assert counts.min() > 64 * 5 / 3 * 0.6  # by chance less likely than 1e-6
    assert not torch.equal(found["mode"][0], found["sample"][0])


def test_drawn_actions_stay_in_their_bounds() -> None:
    """A Gaussian policy's action is cut to [-1, 1] by the environment, in evaluation as in training."""
    sizes = {"total_frames": 16, "epoch_frames": 16, "rollout_steps": 8, "num_epochs": 1, "batch_size": 8}
    data = OnPolicy(EnvConfig(TOY, num_envs=2), **sizes, eval_episodes=4, eval_actions="sample")
    algorithm = PPO(hidden_sizes=[4], init_log_std=2.0)
    fit(algorithm, data)
    reward = data.evaluate()["next", "reward"]
    data.teardown("fit")
    assert reward.min() >= 0.0 and reward.max() <= 4.0  # the toy's reward is its action, in [0, 4]
