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
in which it has a high entropy. Section 4 has gradients flow through the estimates of advantage and return, and so they
do here. With `E_t` the entropy in them, `A(beta) = A(0) + beta E`, `R(beta) = A(beta) + V_old`:

- The objective's clipped part has the gradient `<A(beta) grad r + r beta grad E>`, the second term also where the ratio
  is cut off, with the cut ratio.
- Its value part, `-alpha <(V - R(beta))^2>` (`alpha`: `value_coeff`), has `2 alpha beta <(V - R(beta)) grad E>` beside
  the value's own gradient: where `V = V_old`, `-2 alpha beta <A(beta) grad E>`. At `r = 1` the two raise `E_t` with the
  weight `beta (1 - 2 alpha A_t(beta))`, less after an action that has turned out well, and with the other sign where
  the return is far above the value: rewards should be of a size that keeps `2 alpha A` near 1 (`scale_rewards`).
  `differentiate_returns: false` takes the return for a constant, as PPO's value loss does.

The report's equations have no standardisation of advantages; its code, made from OpenAI's baselines, must have one.
Of these `standardization` chooses, with the mean `m` and the standard deviation `s` of the minibatch:

| | the ratio's weight | its own gradient at `r = 1` |
|---|---|---|
| `before` | `(A(0) - m) / s + beta E`, `m` and `s` of `A(0)` | `beta <grad E>` |
| `after_constant` | `(A(beta) - m) / s`, `m` and `s` of `A(beta)`, constants | `beta / s <grad E>` |
| `after_differentiated` | the same, `m` and `s` differentiated | 0 |

- `before`, the default: baselines standardise `A(0)` outside of the graph (`ppo2/model.py`), and `beta E`, which takes
  the present policy, can be added inside of it only. Here `beta` is in units of standardised advantages per nat,
  whatever the rewards' scale is; in the return it is in the reward's.
- `after_constant` has the reward's units in both, and a large weight `beta / s` where advantages are small.
- `after_differentiated` leaves entropy to act by the ratios alone, since a common change of all `E` changes nothing.

What else the report leaves open, and how it is read here:

- A truncated episode and the end of a rollout end the sum of entropies; the bootstrapped value, trained on returns with
  entropy, stands for the rest.
- `A_{t+1}(0)` in the one-step advantage is made of values that have learned returns with entropy, as printed.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.algorithms.ppo import PPO
from lit_mbrl.losses import max_entropy_advantage, standardized
from lit_mbrl.returns import discounted_sums
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import NonNegativeFloat

Standardization = Literal["before", "after_constant", "after_differentiated"]


@options
class EntropyBonusPPO(PPO):
    """`L^REG`: PPO with an entropy bonus (eq. 9 of arXiv 1707.06347v2).

    `lit_mbrl.callbacks.EntropyAnnealing` with `attribute: bonus_coeff` moves the coefficient.
    """

    paper = "Schulman et al. 2017, arXiv 1707.06347, eq. 9"
    coefficients: ClassVar[tuple[str, ...]] = ("bonus_coeff",)

    bonus_coeff: NonNegativeFloat = 0.01
    """c, weight of the mean entropy; the report's best on FruitBot is 0.01."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _register(self)

    def entropy_bonus(self, entropy: Tensor) -> Tensor:
        """`c <H>`."""
        self.record("policy/bonus_coeff", self.bonus_coeff)
        return self.bonus_coeff * entropy.mean()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        _keep_options(self, self.coefficients, checkpoint)


@options
class MaxEntPPO(PPO):
    """`L^MAX` with the one-step approximation of section 4: the first step of each advantage is paid for entropy.

    `lit_mbrl.callbacks.EntropyAnnealing` with `attribute: entropy_coeff` moves the coefficient.
    """

    paper = "On-Policy Maximum Entropy Deep Reinforcement Learning"
    coefficients: ClassVar[tuple[str, ...]] = ("entropy_coeff",)

    entropy_coeff: NonNegativeFloat = 0.3
    """Beta, per nat of entropy; the report's best on FruitBot is 0.3."""
    standardization: Standardization = "before"
    """Standardisation of advantages with entropy: `before` the entropy is added, or after it with a mean
    and a standard deviation that are constants (`after_constant`) or pass a gradient (`after_differentiated`)."""
    differentiate_returns: bool = True
    """Let the gradient flow through the return in the value's loss, too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _register(self)

    def advantages_and_returns(self, batch: TensorDictBase, entropy: Tensor) -> tuple[Tensor, Tensor]:
        """`A_t(beta)`, standardised, and `R_t(beta)`, differentiable in the entropies."""
        self.record("policy/entropy_coeff", self.entropy_coeff)
        plain, paid = batch["advantage"], self.paid_entropy(batch, entropy)
        advantage = max_entropy_advantage(plain, paid, self.entropy_coeff)
        returns = advantage + batch["value"]
        if not self.differentiate_returns:
            returns = returns.detach()
        if self.standardize_advantages and self.standardization == "before":
            advantage = max_entropy_advantage(standardized(plain), paid, self.entropy_coeff)
        elif self.standardize_advantages:
            advantage = standardized(advantage, differentiable=self.standardization == "after_differentiated")
        return advantage, returns

    def paid_entropy(self, batch: TensorDictBase, entropy: Tensor) -> Tensor:
        """`E_t` `[B, 1]`, the entropy in the advantage; here that of the step itself."""
        return entropy

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        _keep_options(self, self.coefficients, checkpoint)


@options
class MaxEntBonusPPO(MaxEntPPO):
    """The combined agent of section 5: one-step `L^MAX` and the entropy bonus of `L^REG`."""

    paper = "On-Policy Maximum Entropy Deep Reinforcement Learning"
    coefficients = ("entropy_coeff", "bonus_coeff")

    bonus_coeff: NonNegativeFloat = 0.01
    """c, see `EntropyBonusPPO`."""

    entropy_bonus = EntropyBonusPPO.entropy_bonus


class FullMaxEntPPO(MaxEntPPO):
    """`L^MAX` of section 3, every later entropy of the rollout in each advantage, with its gradient.

    A minibatch needs the policy at all states of the rollout, forward and backward: about
    `data.rollout_steps * data.env.num_envs / data.batch_size` times the work of `MaxEntPPO`, for small problems.
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

    def paid_entropy(self, batch: TensorDictBase, entropy: Tensor) -> Tensor:
        """`E_t = sum_{i>=t} (gamma lambda)^{i-t} H_i` over the rest of the episode."""
        done, observation = batch["rollout", "done"], batch["rollout", "observation"]
        entropies = self.actor.entropy(self.encoder(observation.flatten(0, 1))).view_as(done)  # [N, T, 1]
        sums = discounted_sums(entropies, done, self.gamma * self.lmbda)
        return sums.transpose(0, 1).flatten(0, 1).index_select(0, batch["index"])


def _register(algorithm: EntropyBonusPPO | MaxEntPPO) -> None:
    """Makes buffers of the coefficients, so that a callback can move them and a compiled training step reads them."""
    for name in algorithm.coefficients:
        algorithm.register_buffer(name, torch.tensor(float(take(algorithm, name))))


def _keep_options(algorithm: PPO, names: tuple[str, ...], checkpoint: dict[str, Any]) -> None:
    """Lets the configured coefficients go before those of a checkpoint: they are options and no results."""
    for name in names:
        checkpoint["state_dict"][name] = getattr(algorithm, name).clone()
