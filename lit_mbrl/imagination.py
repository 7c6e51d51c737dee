"""The differentiable rollout of a policy in a world model: everyone who imagines calls one of the two.

`imagine` is for models of observations, whose reward and termination belong to a state and an action (SVG: Amos et al.
2021, arXiv 2008.12775v3); `imagine_latent` for latent models, whose reward and termination belong to the state arrived
at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lit_mbrl.models.base import WorldModel
from lit_mbrl.models.latent import LatentWorldModel
from lit_mbrl.models.rssm import Latent

S = TypeVar("S")
Policy = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Rollout(NamedTuple):
    """An imagined rollout of `H` steps, batch first.

    | field | shape | entry `t` |
    |---|---|---|
    | `observation` | `[B, H+1, O]` | `x_t`; `x_0` is where imagination starts |
    | `action` | `[B, H+1, A]` | `u_t ~ pi(x_t)`; the last one is for the terminal value |
    | `log_prob` | `[B, H+1, 1]` | `log pi(u_t given x_t)` |
    | `reward` | `[B, H, 1]` | `r(x_t, u_t)` |
    | `termination_prob` | `[B, H, 1]` | `d(x_t, u_t)`, the probability of terminating after `(x_t, u_t)` |

    With `last_termination` there is `d(x_H, u_H)`, too, and `termination_prob` is `[B, H+1, 1]`.
    """

    observation: Tensor
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    termination_prob: Tensor


def imagine(
    policy: Policy,
    model: WorldModel[S] | None,
    observation: Float[Tensor, "B O"],
    noise: Float[Tensor, "B steps A"],
    last_termination: bool = False,
) -> Rollout:
    """Rolls `policy` out in `model` for `H = noise.shape[1] - 1` steps: the rollout inside SVG eq. 3 and 9.

        x_0 --policy(noise_0)--> u_0,  (x_1, r_0, d_0) = model(x_0, u_0)
        ...
        x_H --policy(noise_H)--> u_H   nothing more of the model, or d_H alone

    Gradient flows through policy, dynamics, reward and termination; none is stopped. `H = 0` never calls the model.

    Args:
        policy: `(observation [B, O], noise [B, A]) -> (action [B, A], log_prob [B, 1])`, reparameterised.
        model: any `WorldModel`; may be None where H = 0.
        observation: `x_0`.
        noise: standard normal, `noise[:, t]` is used for `u_t`.
        last_termination: ask the model for `d(x_H, u_H)` as well; H >= 1.
    """
    first, *later = noise.unbind(1)
    assert later or not last_termination, "a rollout of H = 0 steps asks nothing of the model"
    action, log_prob = policy(observation, first)
    if not later:
        empty = observation.new_zeros(observation.shape[0], 0, 1)
        return Rollout(observation.unsqueeze(1), action.unsqueeze(1), log_prob.unsqueeze(1), empty, empty)
    assert model is not None, "a rollout of H > 0 steps needs a model"
    state = model.initial(observation)
    observations, actions, log_probs = [observation], [action], [log_prob]
    rewards: list[Tensor] = []
    logits: list[Tensor] = []
    for step_noise in later:
        state, reward, logit = model.step(state, action)
        rewards.append(reward)
        logits.append(logit)
        observation = model.observation(state)
        action, log_prob = policy(observation, step_noise)
        observations.append(observation)
        actions.append(action)
        log_probs.append(log_prob)
    if last_termination:
        logits.append(model.termination_logit(state, action))
    return Rollout(
        torch.stack(observations, dim=1),
        torch.stack(actions, dim=1),
        torch.stack(log_probs, dim=1),
        torch.stack(rewards, dim=1),
        torch.stack(logits, dim=1).sigmoid(),
    )


class LatentRollout(NamedTuple):
    """A rollout of `H` steps in latent space, batch first.

    | field | shape | entry `t` |
    |---|---|---|
    | `feature` | `[N, H+1, F]` | of the state `s_t`; `s_0` is where imagination starts |
    | `action` | `[N, H, A]` | `a_t ~ pi(s_t)`, which leads to `s_{t+1}` |
    """

    feature: Tensor
    action: Tensor


def imagine_latent(
    policy: Callable[[Tensor], Tensor], model: LatentWorldModel, start: Latent, horizon: int
) -> LatentRollout:
    """Rolls `policy` out in the prior of a latent model: Dreamer's Algorithm 1 (arXiv 1912.01603v3).

        s_0 --policy--> a_0,  s_1 = model(s_0, a_0)  ...  s_H

    The policy sees each state without its gradient, so that the gradient of what follows reaches its parameters through
    the dynamics of the action alone. Reward, termination and value of all states are for the caller, in one pass.

    Args:
        policy: features `[N, F]` to actions `[N, A]`, reparameterised.
        start: `s_0`, `[N, ...]`.
        horizon: H.
    """
    latent, features, actions = start, [start.feature], []
    for _ in range(horizon):
        action = policy(features[-1].detach())
        latent = model.img_step(latent, action)
        features.append(latent.feature)
        actions.append(action)
    return LatentRollout(torch.stack(features, dim=1), torch.stack(actions, dim=1))
