"""SAC-SVG(H): soft actor-critic whose actor ascends an H-step value expansion through a learned model.

Amos et al. 2021, "On the model-based stochastic value gradient for continuous reinforcement learning" (arXiv
2008.12775v3, "SVG"). The actor minimises eq. 9, the critic stays model-free (eq. 4-6), the temperature follows eq. 8,
and a deterministic recurrent model (section 4.2) learns the dynamics (eq. 10), the reward (eq. 11) and the
termination (eq. 12-13). The order of a training step is Algorithm 1's. Another model takes its place by `world_model`,
such as an ensemble, which the paper's section 4.2 names as the alternative.

Readings and departures (`variant="reference"` and the other options named here give the public code's choice):

- The horizon counts model steps, as eq. 3: H = 0 is SAC, and H steps take H + 1 actions. Table 4 of the paper and the
  public code count the actions, one more (table 4's best horizon is always table 2's plus one; section 5's "H = 2" for
  the MBPO tasks is 3 in the code).
- Eq. 3 is undiscounted and has no terminations. We discount, and weigh the reward, the entropy and the terminal value
  of step t by the probability of being alive before it. The code masks a reward by the step's own termination too, and
  the terminal value by that of `(x_H, u_H)`, does not mask entropies, and divides by the number of actions.
- Eq. 10 lets the gradient run through the whole unrolled prediction. The code stops it at each predicted observation,
  but not in the hidden state (`detach_model_state`), and clips the norm of the gradient to 1 (`model_max_grad_norm`).
  Its loss is the mean over steps and features where eq. 10 has their sum: a bound of 1 there is H times O here.
- Sequences may end with a transition that ends its episode, because the replay keeps the observation that follows it.
  The code, which does not, leaves every such transition out of the dynamics' data.
- The code trains its first 10 000 steps on SAC's actor objective (`warmup_steps`); the paper does not mention it.
- The code updates in the order dynamics, critic, actor, temperature, reward, termination; Algorithm 1 has the actor
  first and the dynamics last.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import fields
from typing import Any, Literal

from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.algorithms.sac import SAC
from lit_mbrl.imagination import Rollout, imagine
from lit_mbrl.losses import value_gradient_loss
from lit_mbrl.models import ModelLoss, RecurrentConfig, WorldModelFactory, open_loop_errors
from lit_mbrl.returns import survival, value_expansion, value_expansion_reference
from lit_mbrl.training.algorithm import SequenceBatchSpec, Update
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import NonNegativeInt, PositiveFloat, PositiveInt

# Of the recurrent model, by the names that they have in its configuration.
_RECURRENT_OPTIONS = {
    "model_hidden_size": "hidden_size",
    "model_layers": "layers",
    "decoder_layers": "decoder_layers",
    "gru_layers": "gru_layers",
    "model_lr": "lr",
    "detach_model_state": "detach_state",
    "model_max_grad_norm": "max_grad_norm",
    "balance_terminations": "balance_terminations",
}


@options
class SACSVG(SAC):
    """SAC with the model-based actor of SVG(H)."""

    paper = "Amos et al. 2021, arXiv 2008.12775"

    horizon: NonNegativeInt = 2
    """Model steps H of the actor's value expansion; 0 is SAC."""
    variant: Literal["paper", "reference"] = "paper"
    """Masks of the value expansion, `"paper"` or `"reference"` (see the head of `sac_svg.py`)."""
    terminal_value: bool = True
    """End the expansion with the critic's soft value. Without it the actor follows the pure model-based policy gradient
    of H rewards, and no critic is trained."""
    warmup_steps: NonNegativeInt = 0
    """Environment steps during which the actor's objective is SAC's."""
    model_hidden_size: PositiveInt = 512
    """Width of encoder, GRU and decoder, and of the hidden layers of reward and termination."""
    model_layers: NonNegativeInt = 2
    """Hidden layers of encoder, reward and termination."""
    decoder_layers: NonNegativeInt = 2
    """Hidden layers of the decoder (the code: 0)."""
    gru_layers: PositiveInt = 2
    """Stacked GRU layers."""
    model_lr: PositiveFloat = 1e-3
    """Adam's learning rate of dynamics, reward and termination."""
    model_updates: PositiveInt = 4
    """Dynamics updates per training step, each on its own batch."""
    detach_model_state: bool = False
    """Stop the dynamics' gradient at each predicted observation (the code's choice)."""
    model_max_grad_norm: PositiveFloat | None = None
    """Clip the dynamics' gradient to this norm."""
    balance_terminations: bool = False
    """Weigh terminations in eq. 13 by their rarity in the batch (the code's choice)."""
    world_model: WorldModelFactory | None = None
    """Another model than SVG's, with options of its own (`models.EnsembleConfig`); null: the recurrent one, with the
    options above."""

    def __post_init__(self) -> None:
        super().__post_init__()
        horizon, warmup, with_critic = self.horizon, self.warmup_steps, self.terminal_value
        require(with_critic or horizon > 0, "model.horizon", horizon, "at least 1 without model.terminal_value")
        no_critic = "0 without model.terminal_value: there is no critic to warm up on"
        require(with_critic or not warmup, "model.warmup_steps", warmup, no_critic)
        world_model = take(self, "world_model")
        if world_model is None:
            given = {name: getattr(self, option) for option, name in _RECURRENT_OPTIONS.items()}
            world_model = RecurrentConfig(orthogonal_init=self.orthogonal_init, **given)
        else:
            right = "left out beside model.world_model, which has options of its own"
            for each in fields(self):
                value = getattr(self, each.name, None)
                require(
                    each.name not in _RECURRENT_OPTIONS or value == each.default, f"model.{each.name}", value, right
                )
            world_model.check_rounds()
        self.world_model_factory = world_model
        self._sampling: SequenceBatchSpec | None = None  # asked for in every training step

    @property
    def model_horizon(self) -> int:
        """The longest rollout that anyone asks of the model, and so the length of the sequences it learns from."""
        return self.horizon

    def build(self, spec: Any) -> None:
        super().build(spec)
        if self.model_horizon == 0:
            return
        self.world_model = self.world_model_factory.build(
            spec.observation_dim, spec.action_dim, self.termination_rule()
        )

    def updates(self) -> Iterator[Update]:
        """Actor, temperature, critic, reward, termination, then the dynamics: SVG Algorithm 1."""
        yield self.actor_update()
        if self.learn_alpha:
            yield self.alpha_update()
        if self.terminal_value:
            yield self.critic_update()
        if self.model_horizon > 0:
            for objective in self._objectives():
                yield Update(
                    objective.name,
                    objective.modules,
                    objective.loss,
                    objective.lr,
                    objective.batch,
                    repeat=self.model_updates if objective.repeat else 1,
                    max_grad_norm=objective.max_grad_norm,
                )

    def _objectives(self) -> list[ModelLoss]:
        return self.world_model_factory.objectives(self.world_model)

    def targets(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        if self.terminal_value:
            yield from super().targets()

    def sampling(self) -> SequenceBatchSpec:
        if self.model_horizon == 0:
            return SequenceBatchSpec()
        if self._sampling is None:
            lengths = [o.length or self.model_horizon for o in self._objectives() if o.batch == "sequences"]
            self._sampling = SequenceBatchSpec(max(lengths), self.model_updates) if lengths else SequenceBatchSpec()
        return self._sampling

    def model_rollouts(self, batch_size: int) -> int:
        return 0 if self.horizon == 0 or self.actor_warmup else batch_size

    # ------------------------------------------------------------------ losses
    @property
    def actor_warmup(self) -> bool:
        """Returns whether the actor's objective is still SAC's."""
        return self.warmup_steps > 0 and self.env_steps < self.warmup_steps

    def compile_key(self) -> Hashable:
        return ("actor_warmup", self.actor_warmup)

    def imagine(self, observation: Tensor, horizon: int, last_termination: bool = False) -> Rollout:
        """Rolls the policy out in the world model for `horizon` steps from `[B, O]`: see `imagination.imagine`."""
        noise = self.noise(observation.shape[0], horizon + 1)
        return imagine(self.actor.sample, self.world_model, observation, noise, last_termination)

    def actor_loss(self, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Minus the H-step soft value (SVG eq. 9), differentiated through policy, model and critic.

        Second are the log-probabilities `[B, 1]` at the replayed states, which eq. 8 is about.
        """
        if self.actor_warmup or self.horizon == 0:
            return super().actor_loss(batch)
        code = self.variant == "reference"
        imagined = self.imagine(batch["observation"], self.horizon, last_termination=code and self.terminal_value)
        log_prob = imagined.log_prob[:, 0]
        self.record_policy(log_prob)
        q = None
        if self.terminal_value:
            q = self.critic(imagined.observation[:, -1], imagined.action[:, -1]).amin(0)
        if code:
            expand, ends = value_expansion_reference, imagined.termination_prob
        else:
            expand, ends = value_expansion, survival(imagined.termination_prob)
        value = expand(imagined.reward, imagined.log_prob, q, self.alpha, self.gamma, ends)
        return value_gradient_loss(value).mean(), log_prob.detach()

    # ------------------------------------------------------------------ evaluation
    def episode_metrics(self, episodes: TensorDictBase) -> dict[str, Tensor]:
        """Errors of the model's predictions over fresh evaluation episodes: `models.open_loop_errors`."""
        return {} if self.model_horizon == 0 else open_loop_errors(self.world_model, episodes, self.model_horizon)
