"""Acting in rollouts and evaluating them: what policy-gradient algorithms on fresh rollouts share.

`N` environments, `T` steps of a rollout, `B` frames of a minibatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from lit_mbrl.networks import CategoricalActor, GaussianActor, GridEncoder, ImpalaEncoder, RewardNormalizer
from lit_mbrl.returns import generalized_advantages
from lit_mbrl.training.algorithm import Algorithm
from lit_mbrl.utils.errors import require

_ROWS = 1024  # frames that are evaluated at a time after a rollout


def make_actor(
    spec: Any, features: int, hidden: Sequence[int], init_log_std: float
) -> GaussianActor | CategoricalActor:
    """Makes the policy for an environment's kind of actions (`envs.Spec`)."""
    if spec.discrete:
        return CategoricalActor(features, spec.action_dim, hidden)
    return GaussianActor(features, spec.action_dim, hidden, init_log_std)


class RolloutAgent(Algorithm):
    """A stochastic policy and a value, whose advantages are computed once for each rollout.

    Attributes:
        encoder: layers that policy and value share; `nn.Identity` if there are none.
        actor: the policy on features.
        critic: the value `[..., 1]` of features.
        gamma: discount.
        lmbda: lambda of the generalised advantages.
        reward_normalizer: divides rewards; None: they stay as they are.
        encoder_options: of images, the encoder that was asked for.
    """

    learns_from = "rollouts"
    continuous_actions = False  # discrete ones, too

    encoder: nn.Module
    actor: GaussianActor | CategoricalActor
    critic: nn.Module
    gamma: float
    lmbda: float
    reward_normalizer: RewardNormalizer | None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.encoder_options: ImpalaEncoder | GridEncoder | None = None

    # ------------------------------------------------------------------ construction
    def make_encoder(self, spec: Any) -> tuple[nn.Module, int]:
        """Makes the layers that policy and value share, and counts their features; none for vectors."""
        if not spec.pixels:
            return nn.Identity(), spec.observation_dim
        network = (self.encoder_options or ImpalaEncoder()).build(spec.observation_shape)
        return network, network.features

    def check(self, spec: Any) -> None:
        """See `Algorithm.check`; vectors need no encoder."""
        super().check(spec)
        right = f"null: the observations of {spec.name} are no images"
        require(self.encoder_options is None or spec.pixels, "model.encoder", self.encoder_options, right)

    def lower_lr(self, lr: float) -> None:
        """Lets the learning rate fall linearly, with each rollout, from `lr` to 0 at `data.total_frames`."""
        data = self.trainer.datamodule
        self.trainer.optimizers[0].param_groups[0]["lr"] = lr * (1.0 - data.rollout_start / data.total_frames)

    # ------------------------------------------------------------------ acting
    def act(self, observation: Tensor) -> Tensor:
        with self._precision():
            return self.actor.mode(self.encoder(observation))

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        with self._precision():
            return self.actor.sample(self.encoder(observation))

    def evaluate(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability of an action, entropy of the policy, and value, `[B, 1]` each."""
        features = self.encoder(observation)
        return *self.actor.log_prob_entropy(features, action), self.critic(features)

    def evaluate_frames(self, frames: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The same of frames of a rollout, with their `further_inputs`."""
        return self.evaluate(frames["observation"], frames["action"])

    def value(self, observation: Tensor) -> Tensor:
        """Value of observations, `[B, 1]`."""
        return self.critic(self.encoder(observation))

    # ------------------------------------------------------------------ a rollout
    @torch.no_grad()
    def prepare_rollout(self, frames: TensorDictBase) -> TensorDictBase:
        """Values and advantages of a fresh rollout `[N, T]`, raw, by the policy and the statistics that have acted.

        Returns:
            `[T, N]`: `observation` (normalised), `action`, and of that policy `log_prob`, `value` and `advantage`,
            `[T, N, 1]` each.
        """
        frames = frames.to(self.device)
        following = frames["next"]
        terminated = following["terminated"]
        done = terminated | following["truncated"]
        reward = following["reward"]
        if self.reward_normalizer is not None:
            reward = self.reward_normalizer(reward, done)
        # In the order of time: [T, N, ...], as they lie in memory.
        observation, action = (x.transpose(0, 1) for x in (self.normalize(frames["observation"]), frames["action"]))
        rollout = {"observation": observation, "action": action} | self.further_inputs(observation)
        log_prob, value = self._evaluate_rollout(rollout)
        values = value.transpose(0, 1)
        next_value = self._next_values(values, following["observation"], terminated, done)
        advantage = generalized_advantages(reward, values, next_value, terminated, done, self.gamma, self.lmbda)
        rollout |= {"log_prob": log_prob, "value": value, "advantage": advantage.transpose(0, 1)}
        return TensorDict(rollout, observation.shape[:2], device=self.device)

    def further_inputs(self, observation: Tensor) -> dict[str, Tensor]:
        """Returns what else policy and value have seen of a fresh rollout `[T, N]`; here nothing."""
        return {}

    def _evaluate_rollout(self, rollout: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        parts = []
        names, columns = list(rollout), [value.flatten(0, 1).split(_ROWS) for value in rollout.values()]
        with self._precision():
            for rows in zip(*columns, strict=True):
                log_prob, _, value = self.evaluate_frames(dict(zip(names, rows, strict=True)))
                parts.append((log_prob, value))
        size = rollout["observation"].shape[:2]
        log_probs, values = (torch.cat(part).view(*size, 1) for part in zip(*parts, strict=True))
        return log_probs, values

    def _next_values(self, values: Tensor, following: Tensor, terminated: Tensor, done: Tensor) -> Tensor:
        """`V` of the true successors, `[N, T, 1]`: the next row's, or evaluated where an episode or rollout ends."""
        next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
        apart = done.clone()
        apart[:, -1] = True
        apart = (apart & ~terminated).squeeze(-1)
        with self._precision():
            parts = [self.value(x) for x in self.normalize(following[apart]).split(_ROWS)]
        next_values[apart] = torch.cat(parts) if parts else next_values[apart]
        return next_values

    def _precision(self) -> Any:
        """The trainer's precision, as the losses have it: a ratio shall not compare two roundings."""
        return nullcontext() if self._trainer is None else self.trainer.precision_plugin.forward_context()

    def restart_episodes(self, envs: Iterable[int]) -> None:
        if self.reward_normalizer is not None:
            self.reward_normalizer.restart(envs)

    def minibatch(self, rollout: TensorDictBase, index: Tensor) -> TensorDictBase:
        """The rows of a prepared rollout `[T, N]` at `index` `[B]`, each in 0 ... T N - 1; `[B]`."""
        rows = {key: value.flatten(0, 1).index_select(0, index) for key, value in rollout.items()}
        return TensorDict(rows, index.shape)

    def prepare_batch(self, batch: TensorDictBase) -> TensorDictBase:
        """The batch itself: a rollout's observations are normalised once."""
        return batch
