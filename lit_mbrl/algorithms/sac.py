"""Soft actor-critic.

Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications" (arXiv 1812.05905v2), in the notation of Amos et
al. 2021 (arXiv 2008.12775v3, "SVG"), whose model-free half it is: critic SVG eq. 4-6, actor eq. 7, temperature eq. 8.

Readings and departures:

- The critic minimises the sum of both members' mean squared residuals, without SAC's factor 1/2 (as SVG eq. 4).
- The temperature's loss takes the log-probabilities that the actor's loss of the same training step has drawn, from the
  actor before its step: the expectation of eq. 8 over the same distribution, without a second forward pass.
- `alpha = exp(log_alpha)` keeps the temperature positive; Adam descends in `log_alpha`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.losses import q_loss, soft_policy_loss, soft_q_target, soft_value, temperature_loss
from lit_mbrl.networks import QEnsemble, TanhGaussianActor, orthogonal_
from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, Rule, Sizes


@options
class SAC(Algorithm):
    """Twin critics, a tanh-Gaussian actor and an adaptive temperature.

    Needs `lit_mbrl.callbacks.SoftTargetUpdate`; `lit_mbrl.callbacks.EntropyAnnealing` may move the target entropy (SVG
    eq. 14).
    """

    paper = "Haarnoja et al. 2018, arXiv 1812.05905"
    takes_relabelled = True
    fixed_on_resume = (*Algorithm.fixed_on_resume, "init_alpha", "orthogonal_init")

    hidden_sizes: Sizes = (256, 256)
    """Hidden layers of the actor and of each critic."""
    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    actor_lr: PositiveFloat = 3e-4
    """Adam's learning rate of the actor."""
    critic_lr: PositiveFloat = 3e-4
    """Adam's learning rate of both critics."""
    alpha_lr: PositiveFloat = 3e-4
    """Adam's learning rate of the temperature."""
    init_alpha: NonNegativeFloat = 1.0
    """Temperature at the start; 0 (with `learn_alpha=False`) removes the entropy altogether."""
    learn_alpha: bool = True
    """Adapt the temperature so that the policy's entropy meets `target_entropy`."""
    target_entropy: float | Literal["auto"] = "auto"
    """In nats; `"auto"` is minus the number of action dimensions."""
    log_std_bounds: Annotated[tuple[float, float], Rule("a lower and a higher bound", lambda b: b[0] < b[1])] = (
        -5.0,
        2.0,
    )
    """Range of the Gaussian's log standard deviation."""
    log_std_squash: Literal["tanh", "clamp"] = "tanh"
    """Bounding of the log standard deviation to its range, `"tanh"` (smooth) or `"clamp"`."""
    orthogonal_init: bool = False
    """Orthogonal weights and zero biases for the MLPs that act and value (and, in SAC-SVG, for the dynamics' encoder
    and decoder), as SVG's public code; otherwise torch's default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = "a number > 0 while model.learn_alpha is true"
        require(self.init_alpha > 0 or not self.learn_alpha, "model.init_alpha", self.init_alpha, positive)
        # A parameter in the logarithm; a constant temperature may be 0, whose logarithm has no gradient to follow.
        log_alpha = torch.tensor(math.log(self.init_alpha) if self.init_alpha > 0 else -math.inf)
        self.log_alpha = nn.Parameter(log_alpha, requires_grad=self.learn_alpha)
        self.init_target_entropy = take(self, "target_entropy")
        self.register_buffer("target_entropy", torch.tensor(math.nan))

    def build(self, spec: Any) -> None:
        self.action_dim = spec.action_dim
        self.actor = TanhGaussianActor(
            spec.observation_dim, spec.action_dim, self.hidden_sizes, self.log_std_bounds, self.log_std_squash
        )
        self.critic = self.make_critic(spec)
        if self.orthogonal_init:
            orthogonal_(self.actor)
            orthogonal_(self.critic)
        self.critic_target = copy.deepcopy(self.critic)
        automatic = self.init_target_entropy == "auto"
        self.target_entropy.fill_(-float(spec.action_dim) if automatic else float(self.init_target_entropy))

    def make_critic(self, spec: Any) -> Any:
        """The critics: a module of observation `[..., O]` and action `[..., A]` to values `[E, ..., 1]`."""
        return QEnsemble(spec.observation_dim, spec.action_dim, self.hidden_sizes, num=2)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the configured `target_entropy`, which is an option and not a result."""
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"]["target_entropy"] = self.target_entropy.clone()

    def updates(self) -> Iterator[Update]:
        """Critic, actor, temperature: Algorithm 1 of arXiv 1812.05905."""
        yield self.critic_update()
        yield self.actor_update()
        if self.learn_alpha:
            yield self.alpha_update()

    def critic_update(self) -> Update:
        return Update("critic", self.critic, self.critic_loss, self.critic_lr)

    def actor_update(self) -> Update:
        return Update("actor", self.actor, self.actor_loss, self.actor_lr, gives=("log_prob",))

    def alpha_update(self) -> Update:
        return Update("alpha", self.log_alpha, self.alpha_loss, self.alpha_lr, takes=("log_prob",))

    def targets(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        yield self.critic, self.critic_target

    @property
    def alpha(self) -> Tensor:
        """The temperature, a scalar."""
        return self.log_alpha.exp()

    # ------------------------------------------------------------------ acting
    def act(self, observation: Tensor) -> Tensor:
        return self.actor.mode(observation)

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        return self.actor.action(observation, self.noise(*observation.shape[:-1]))

    def noise(self, *shape: int) -> Tensor:
        """Standard normal noise `[*shape, A]` for the reparameterised policy."""
        return torch.randn(*shape, self.action_dim, device=self.device, dtype=self.log_alpha.dtype)

    def sample_policy(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Actions `[..., A]` and log-probabilities `[..., 1]`, differentiable in the actor's parameters."""
        return self.actor.sample(observation, self.noise(*observation.shape[:-1]))

    # ------------------------------------------------------------------ losses
    def soft_value_target(self, observation: Tensor) -> Tensor:
        """Target network's soft value `[B, 1]` (SVG eq. 6), a constant."""
        with torch.no_grad():
            action, log_prob = self.sample_policy(observation)
            return soft_value(self.critic_target(observation, action), log_prob, self.alpha)

    def critic_loss(self, batch: TensorDictBase) -> Tensor:
        """Soft Bellman residual of both critics (SVG eq. 4-5)."""
        following = batch["next"]
        value = self.soft_value_target(following["observation"])
        target = soft_q_target(following["reward"], following["terminated"], value, self.gamma)
        q = self.critic(batch["observation"], batch["action"])
        self.record("q/mean", q.mean)
        self.record("q/target", target.mean)
        return self.apply_importance_weights(q_loss(q, target), batch).mean((1, 2)).sum()

    def apply_importance_weights(self, loss: Tensor, batch: TensorDictBase) -> Tensor:
        """The critics' losses `[E, B, 1]` as they enter the mean; here as they are."""
        return loss

    def actor_loss(self, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
        """SAC's policy objective (SVG eq. 7), and the log-probabilities `[B, 1]` of its actions, constants."""
        action, log_prob = self.sample_policy(batch["observation"])
        q = self.critic(batch["observation"], action)
        self.record_policy(log_prob)
        return soft_policy_loss(q, log_prob, self.alpha).mean(), log_prob.detach()

    def record_policy(self, log_prob: Tensor) -> None:
        """Records entropy, its target and the temperature."""
        self.record("policy/entropy", lambda: -log_prob.mean())
        self.record("policy/target_entropy", self.target_entropy)
        self.record("policy/alpha", lambda: self.alpha)

    def alpha_loss(self, batch: TensorDictBase, log_prob: Tensor) -> Tensor:
        """Temperature (SVG eq. 8) at the `log_prob` `[B, 1]` of the actor's loss."""
        return temperature_loss(self.alpha, log_prob, self.target_entropy).mean()
