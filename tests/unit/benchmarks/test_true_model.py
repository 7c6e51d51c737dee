from __future__ import annotations

import gymnasium
import torch

from benchmarks.studies.true_model import TrueMVEDDPG, TruePendulum, TrueSTEVE
from lit_mbrl.envs import Spec
from tests.helpers.frames import make_frames


def test_the_true_model_is_the_environment() -> None:
    env = gymnasium.make("Pendulum-v1").unwrapped
    observation, _ = env.reset(seed=0)
    actions = torch.rand(1, 50, 1) * 2 - 1
    predicted = TruePendulum().unroll(torch.tensor(observation).unsqueeze(0), actions)
    state = torch.tensor(observation).unsqueeze(0)
    for t, action in enumerate(actions[0]):
        step = TruePendulum().step(state, action.unsqueeze(0))
        observation, reward, *_ = env.step(2.0 * action.numpy())
        state = torch.tensor(observation).unsqueeze(0)
        torch.testing.assert_close(step.reward.item(), float(reward), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(predicted[0, t], state[0], atol=1e-3, rtol=1e-3)


def test_both_learn_with_it_but_it_learns_nothing() -> None:
    for kind in (TrueSTEVE, TrueMVEDDPG):
        algorithm = kind(horizon=2, hidden_sizes=[8])
        algorithm.configure(Spec("Pendulum-v1", 3, 1))
        assert [update.name for update in algorithm.update_list] == ["critic", "actor"]
        frames = make_frames(8, observation_dim=3, action_dim=1)
        assert torch.isfinite(algorithm.critic_loss(frames))
