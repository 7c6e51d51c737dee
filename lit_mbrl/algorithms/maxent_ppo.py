"""PPO and the entropy of its policy, each objective a class: as a bonus, as a part of the reward, or as both.

"On-Policy Maximum Entropy Deep Reinforcement Learning" (a report without a number; sections 3 and 4), on PPO's clipped
objective (arXiv 1707.06347v2). With `H_t` the entropy of the policy at `s_t` at its present parameters, `r` the ratio
of the policies and `A(0)` the generalised advantages without entropy:

| class | objective | advantage in clip and return |
|---|---|---|
| `PPO` | clip - value | `A_t(0)` |
| `EntropyBonusPPO` | `L^REG`: clip - value + c <H> | `A_t(0)` |
| `MaxEntPPO` | `L^MAX`, one-step: clip - value | `A_t(0) + beta H_t` |
| `MaxEntBonusPPO` | the combined agent: clip - value + c <H> | `A_t(0) + beta H_t` |
| `FullMaxEntPPO` | `L^MAX`: clip - value | `A_t(0) + beta sum_{i>=t} (gamma lambda)^{i-t} H_i` |

A bonus raises the entropy at the states that are visited; as a part of the reward it also makes the policy visit states
in which it has a high entropy. The entropy in the advantage is differentiated: the policy's gradient is
`<A(beta) grad r + r grad A(beta)>`, the second part also where the ratio is cut off. The return
`R_t(beta) = A_t(beta) + V_old(s_t)` is the value's target and a constant in its loss.

What the report leaves open, and how it is read here:

- `beta H` is in the units of the reward, as in `r + beta H`. Where advantages are standardised, those with the entropy
  are: with the mean and the standard deviation of `A(beta)` in the minibatch. The report's equations have no
  standardisation; its code, made from OpenAI's baselines, must have one.
- These two are constants (`entropy_statistics: constant`). Differentiated (`differentiated`), as they would be in a
  graph that standardises inside of it, the mean takes the entropy's gradient away: at `r = 1` the sum over the
  minibatch of `grad (H_t - <H>)` is 0, and entropy acts by the ratios alone. The report's best coefficients, 30 times
  larger here than for the bonus, and its lower entropies are what one would expect of that.
- A truncated episode and the end of a rollout end the sum of entropies; the bootstrapped value, trained on returns with
  entropy, stands for the rest.
- `A_{t+1}(0)` in the one-step advantage is made of values that have learned returns with entropy, as printed.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.algorithms.ppo import PPO
from lit_mbrl.errors import require
from lit_mbrl.losses import max_entropy_advantage, standardized
from lit_mbrl.returns import discounted_sums


class EntropyBonusPPO(PPO):
    """`L^REG`: PPO with an entropy bonus (eq. 9 of arXiv 1707.06347v2).

    `callbacks.EntropyAnnealing` with `attribute: bonus_coeff` moves the coefficient.

    Args:
        bonus_coeff: c, weight of the mean entropy; the report's best on FruitBot is 0.01.
        **kwargs: of `PPO`.
    """

    paper = "Schulman et al. 2017, arXiv 1707.06347, eq. 9"
    coefficients: tuple[str, ...] = ("bonus_coeff",)

    def __init__(self, bonus_coeff: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _register(self, "bonus_coeff", bonus_coeff)

    def bonus(self, entropy: Tensor) -> Tensor:
        """`c <H>`."""
        self.record("policy/bonus_coeff", self.bonus_coeff)
        return self.bonus_coeff * entropy.mean()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        _keep_options(self, self.coefficients, checkpoint)


class MaxEntPPO(PPO):
    """`L^MAX` with the one-step approximation of section 4: the first step of each advantage is paid for entropy.

    `callbacks.EntropyAnnealing` with `attribute: entropy_coeff` moves the coefficient.

    Args:
        entropy_coeff: beta, reward per nat of entropy; the report's best on FruitBot is 0.3.
        entropy_statistics: whether the mean and the standard deviation that standardise the advantages pass the
            entropy's gradient (`"differentiated"`) or not (`"constant"`).
        **kwargs: of `PPO`.
    """

    paper = "On-Policy Maximum Entropy Deep Reinforcement Learning"
    coefficients: tuple[str, ...] = ("entropy_coeff",)

    def __init__(
        self,
        entropy_coeff: float = 0.3,
        entropy_statistics: Literal["constant", "differentiated"] = "constant",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _register(self, "entropy_coeff", entropy_coeff)
        self.entropy_statistics = entropy_statistics

    def advantage(self, batch: TensorDictBase, entropy: Tensor) -> Tensor:
        """`A_t(beta)`, differentiable in the entropy."""
        self.record("policy/entropy_coeff", self.entropy_coeff)
        return max_entropy_advantage(batch["advantage"], entropy, self.entropy_coeff)

    def standardize(self, advantage: Tensor) -> Tensor:
        return standardized(advantage, differentiable=self.entropy_statistics == "differentiated")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        _keep_options(self, self.coefficients, checkpoint)


class MaxEntBonusPPO(MaxEntPPO):
    """The combined agent of section 5: one-step `L^MAX` and the entropy bonus of `L^REG`.

    Args:
        bonus_coeff: c, see `EntropyBonusPPO`.
        **kwargs: of `MaxEntPPO` and `PPO`.
    """

    paper = "On-Policy Maximum Entropy Deep Reinforcement Learning"
    coefficients = ("entropy_coeff", "bonus_coeff")

    def __init__(self, bonus_coeff: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _register(self, "bonus_coeff", bonus_coeff)

    bonus = EntropyBonusPPO.bonus


class FullMaxEntPPO(MaxEntPPO):
    """`L^MAX` of section 3, every later entropy of the rollout in each advantage, with its gradient.

    A minibatch needs the policy at all states of the rollout, forward and backward: about
    `data.rollout_steps * data.env.num_envs / data.batch_size` times the work of `MaxEntPPO`, for small problems.

    Args:
        **kwargs: of `MaxEntPPO` and `PPO`.
    """

    paper = "On-Policy Maximum Entropy Deep Reinforcement Learning"

    def prepare_rollout(self, frames: TensorDictBase) -> TensorDictBase:
        """See `PPO.prepare_rollout`; `"done"` `[T, N, 1]` is kept, too."""
        rollout = super().prepare_rollout(frames)
        following = frames["next"]
        rollout["done"] = (following["terminated"] | following["truncated"]).transpose(0, 1).to(self.device)
        return rollout

    def minibatch(self, rollout: TensorDictBase, index: Tensor) -> TensorDictBase:
        """The rows at `index` `[B]`; and below `"rollout"`, `[N, T]`, what the entropies of all states take."""
        rows = dict(super().minibatch(rollout, index).items())
        whole = {key: rollout[key].transpose(0, 1) for key in ("observation", "done")}
        return TensorDict(rows | {"index": index, "rollout": whole}, [])

    def advantage(self, batch: TensorDictBase, entropy: Tensor) -> Tensor:
        """`A_t(beta)`, differentiable in the entropies of the rest of the episode."""
        done, observation = batch["rollout", "done"], batch["rollout", "observation"]
        entropies = self.actor.entropy(self.encoder(observation.flatten(0, 1))).view_as(done)  # [N, T, 1]
        sums = discounted_sums(entropies, done, self.gamma * self.lmbda)
        return super().advantage(batch, sums.transpose(0, 1).flatten(0, 1).index_select(0, batch["index"]))


def _register(algorithm: PPO, name: str, value: float) -> None:
    """A coefficient: a buffer, so that a callback can move it and a compiled round reads it."""
    require(value >= 0, f"model.{name}", value, "a number >= 0")
    algorithm.register_buffer(name, torch.tensor(float(value)))


def _keep_options(algorithm: PPO, names: tuple[str, ...], checkpoint: dict[str, Any]) -> None:
    """Lets the configured coefficients go before those of a checkpoint: they are options and no results."""
    for name in names:
        checkpoint["state_dict"][name] = getattr(algorithm, name).clone()
