"""MVE's critic loss against an explicit loop."""

from __future__ import annotations

import torch

from lit_mbrl.algorithms import MVE
from lit_mbrl.envs import Spec
from tests.helpers.frames import SMALL, make_frames


def test_critic_loss_is_the_td_k_sum() -> None:
    mve = MVE(critic_horizon=3, horizon=0, gamma=0.9, init_alpha=0.4, **SMALL)
    mve.configure(Spec("made up", 3, 2))
    frames = make_frames(7)
    torch.manual_seed(11)
    loss = mve.critic_loss(frames)

    torch.manual_seed(11)
    path = mve.imagine(frames["next", "observation"], 3)
    alpha, gamma = 0.4, 0.9
    q_last = mve.critic_target(path.observation[:, 3], path.action[:, 3]).amin(0)
    value = q_last - alpha * path.log_prob[:, 3]
    targets = []
    for t in (2, 1, 0):
        y = path.reward[:, t] + gamma * (1 - path.termination_prob[:, t]) * value
        targets.insert(0, y)
        value = y - alpha * path.log_prob[:, t]
    alive = 1.0 - frames["next", "terminated"].float()
    first = frames["next", "reward"] + gamma * alive * value
    total = 0.0
    for member in mve.critic.members:
        q = member(torch.cat([frames["observation"], frames["action"]], -1))
        terms = [(q - first.detach()) ** 2]
        weight = alive
        for t in range(3):
            inputs = torch.cat([path.observation[:, t], path.action[:, t]], -1).detach()
            terms.append(weight.detach() * (member(inputs) - targets[t].detach()) ** 2)
            weight = weight * (1 - path.termination_prob[:, t])
        total = total + torch.stack(terms).mean()
    torch.testing.assert_close(loss, total)
