"""Ensembles of one-step models: PETS' and MBPO's probabilistic one, and the deterministic one of ME-TRPO and STEVE.

    x_t, u_t --scale--> member i --> mean_i, log var_i  of  [x_{t+1} - x_t, r_t]
    x_{t+1}, r_t = [x_t, 0] + mean_i + exp(log var_i / 2) noise        i: an elite, drawn anew per sample and step

MBPO is Janner et al. 2019 (arXiv 1906.08253v3), PETS Chua et al. 2018 (arXiv 1805.12114v2). What the papers leave to
their code is the code's choice here: initialisation, input scaler, bounds of the log-variance that all members share,
decay per layer, targets in the task's units.

Legend: `E` members, `K` elites, `B` batch, `O` observation, `A` action, `D = O + 1` predicted numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from lit_mbrl.losses.ensemble import bound_penalty, bounded_log_variance, ensemble_squared_error, gaussian_nll
from lit_mbrl.models.base import Step, TerminationRule
from lit_mbrl.models.recurrent import TerminationModel
from lit_mbrl.networks.ensemble import Activation, EnsembleMLP

Propagation = Literal["sample", "mean"]


class EnsembleDynamics(nn.Module):
    """`E` networks that predict the change of the observation and the reward, with their scaler, bounds and elites.

    | buffer | shape | |
    |---|---|---|
    | `input_mean`, `input_std` | `[O + A]` | of the data of the last fit; 0 and 1 before any |
    | `target_mean`, `target_std` | `[D]` | likewise of what is predicted, with `scale_targets` only |
    | `elites` | `[K]` | the members with the least hold-out error of the last fit; the first K before any |

    Args:
        members: number `E` of networks.
        elites: number `K` of those that predict.
        hidden_sizes: hidden layers of each network.
        activation: between them.
        probabilistic: predict a variance as well.
        weight_decay: of each layer, the last one included.
        inputs: numbers that the networks read, where `features` gives others than observation and action.
        outputs: numbers `D` that they predict, where `targets` gives others.
        scale_targets: let deterministic networks predict in standard deviations of the data, and count errors in them.
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    elites: Tensor

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        members: int = 7,
        elites: int = 5,
        hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        activation: Activation = "swish",
        probabilistic: bool = True,
        weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        inputs: int | None = None,
        outputs: int | None = None,
        scale_targets: bool = False,
    ) -> None:
        super().__init__()
        inputs, self.outputs = inputs or observation_dim + action_dim, outputs or observation_dim + 1
        self.members, self.probabilistic, self.weight_decay = members, probabilistic, tuple(weight_decay)
        width = 2 * self.outputs if probabilistic else self.outputs
        self.networks = EnsembleMLP(members, inputs, hidden_sizes, width, activation)
        if probabilistic:
            self.max_log_var = nn.Parameter(torch.full((self.outputs,), 0.5))
            self.min_log_var = nn.Parameter(torch.full((self.outputs,), -10.0))
        self.register_buffer("input_mean", torch.zeros(inputs))
        self.register_buffer("input_std", torch.ones(inputs))
        self.register_buffer("elites", torch.arange(elites))
        self.scale_targets = scale_targets
        if scale_targets:
            assert not probabilistic, "variances and their bounds are in the task's units"
            self.register_buffer("target_mean", torch.zeros(self.outputs))
            self.register_buffer("target_std", torch.ones(self.outputs))

    def features(self, observation: Tensor, action: Tensor) -> Tensor:
        """Computes what the networks read, before it is scaled, `[..., O + A]`."""
        return torch.cat([observation, action], dim=-1)

    def targets(self, frames: TensorDictBase) -> Tensor:
        """Computes what the networks shall predict, `[..., D]`."""
        return targets(frames)

    def scale(self, observation: Tensor, action: Tensor) -> Tensor:
        """Computes the networks' input, `[..., O + A]`."""
        return (self.features(observation, action) - self.input_mean) / self.input_std

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """The networks' output to mean and log-variance `[..., D]`; no log-variance if deterministic."""
        if not self.probabilistic:
            return output * self.target_std + self.target_mean if self.scale_targets else output, None
        mean, raw = output.chunk(2, dim=-1)
        return mean, bounded_log_variance(raw, self.min_log_var, self.max_log_var)

    def forward(
        self, observation: Tensor, action: Tensor, members: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance of `[change of the observation, reward]`, `[E, B, D]`.

        Args:
            observation: shared by the members, `[B, O]`, or each its own, `[E, B, O]`.
            action: likewise.
            members: indices `[K]` of the members asked; None: all.
        """
        return self.split(self.networks(self.scale(observation, action), members))

    # ------------------------------------------------------------------ learning
    def loss(self, frames: TensorDictBase) -> Tensor:
        """Each member's loss `[E]` on its own frames `[E, B]`; their sum is MBPO's, decay and bounds included."""
        return self.data_loss(frames) + self.networks.l2(self.weight_decay)

    def data_loss(self, frames: TensorDictBase) -> Tensor:
        """Each member's loss `[E]` on its own frames `[E, B]` without weight decay.

        Gaussian likelihood with the penalty of the shared bounds in equal parts, or squared error.
        """
        mean, log_var = self(frames["observation"], frames["action"])
        target = self.targets(frames)
        if log_var is None:
            return self._squared_error(mean, target)
        loss = gaussian_nll(mean, log_var, target).mean((1, 2))
        return loss + bound_penalty(self.min_log_var, self.max_log_var) / self.members

    def bootstrapped_loss(self, frames: TensorDictBase) -> Tensor:
        """The members' summed loss, a scalar, each on its own resample, with replacement, of the frames `[B, T]`."""
        frames = frames.flatten()
        drawn = torch.randint(len(frames), (self.members, len(frames)), device=frames["action"].device)
        return self.loss(frames[drawn]).sum()

    def error(self, frames: TensorDictBase) -> Tensor:
        """Each member's mean squared error `[E]` on the same frames, of any batch shape."""
        frames = frames.flatten()
        mean, _ = self(frames["observation"], frames["action"])
        return self._squared_error(mean, self.targets(frames).expand_as(mean))

    def _squared_error(self, mean: Tensor, target: Tensor) -> Tensor:
        """Each member's mean `[E]` over frames and dimensions of `[E, B, D]`."""
        if self.scale_targets:
            mean, target = mean / self.target_std, target / self.target_std
        return ensemble_squared_error(mean, target).mean((1, 2))

    @torch.no_grad()
    def fit_scaler(self, frames: TensorDictBase) -> None:
        """Takes means and standard deviations from these frames; what never varies is divided by 1."""
        _take_scale(self.features(frames["observation"], frames["action"]), self.input_mean, self.input_std)
        if self.scale_targets:
            _take_scale(self.targets(frames), self.target_mean, self.target_std)

    @torch.no_grad()
    def set_elites(self, errors: Tensor) -> None:
        """The members with the least of these errors `[E]` predict from now on."""
        self.elites.copy_(errors.argsort()[: len(self.elites)])

    # ------------------------------------------------------------------ predicting
    def predict(self, observation: Tensor, action: Tensor, choice: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance `[B, D]` of the elite that each sample names.

        Eagerly each sample goes through its own elite only. A trace needs the same shapes whatever was drawn, and so
        asks all elites and picks; both give the same numbers.

        Args:
            choice: positions `[B]` in `elites`.
        """
        inputs = self.scale(observation, action)
        if get_proxy_mode() is not None or torch.compiler.is_compiling():
            output = self.networks(inputs, self.elites)  # [K, B, .]
            picked = output.gather(0, choice.reshape(1, -1, 1).expand(1, -1, output.shape[-1])).squeeze(0)
            return self.split(picked)
        order = choice.argsort()
        counts = torch.bincount(choice, minlength=len(self.elites)).tolist()
        output = self.networks.grouped(inputs[order], counts, self.elites.tolist())
        return self.split(torch.zeros_like(output).index_copy(0, order, output))


def _take_scale(values: Tensor, mean: Tensor, std: Tensor) -> None:
    """Writes mean and standard deviation of values `[..., D]`; 1 for what never varies."""
    values = values.flatten(0, -2)
    found = values.std(0, correction=0)
    mean.copy_(values.mean(0))
    std.copy_(torch.where(found < 1e-12, torch.ones_like(found), found))


def targets(frames: TensorDictBase) -> Tensor:
    """Computes the networks' targets: `[x_{t+1} - x_t, r_t]`, `[..., D]`."""
    change = frames["next", "observation"] - frames["observation"]
    return torch.cat([change, frames["next", "reward"]], dim=-1)


def default_decays(layers: int) -> tuple[float, ...]:
    """MBPO's weight decay of five layers; for other depths the same from both ends, the middle one filling up."""
    five = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
    if layers <= 5:
        return five[: layers - 1] + five[-1:]
    return five[:2] + (7.5e-5,) * (layers - 3) + five[-1:]


class EnsembleWorldModel(nn.Module):
    """`EnsembleDynamics` and a termination as one `WorldModel`; the state is the observation `[B, O]`.

    Every step draws an elite for each sample, and its noise: reparameterised, so that gradient flows to observation,
    action and networks.

    Args:
        termination: the known rule, on the next observation; None: `termination_model` learns it.
        termination_model: the learned head on `(x_t, u_t)`; None where there is a rule.
        propagation: `"sample"` adds the predicted noise to the elite's mean, `"mean"` does not.
    """

    def __init__(
        self,
        dynamics: EnsembleDynamics,
        rule: TerminationRule | None,
        termination_model: TerminationModel | None,
        propagation: Propagation = "sample",
    ) -> None:
        super().__init__()
        assert (rule is None) != (termination_model is None), "either a known termination or a learned one"
        self.dynamics, self.rule, self.termination_model = dynamics, rule, termination_model
        self.propagation = propagation

    def initial(self, observation: Tensor) -> Tensor:
        """`[B, O]`."""
        return observation

    def observation(self, state: Tensor) -> Tensor:
        """`[B, O]`."""
        return state

    def step(self, state: Tensor, action: Tensor) -> Step[Tensor]:
        """One step with `action [B, A]` in a random elite."""
        choice = torch.randint(len(self.dynamics.elites), (len(state),), device=state.device)
        mean, log_var = self.dynamics.predict(state, action, choice)
        if log_var is not None and self.propagation == "sample":
            mean = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        observation, reward = state + mean[:, :-1], mean[:, -1:]
        if self.termination_model is not None:
            return Step(observation, reward, self.termination_model(state, action))
        assert self.rule is not None
        with torch.no_grad():
            over = self.rule(state, action, observation)
            return Step(observation, reward, torch.where(over, torch.inf, -torch.inf).to(observation.dtype))

    def termination_logit(self, state: Tensor, action: Tensor) -> Tensor:
        """`[B, 1]`: the learned logit, or inf or -inf by the rule, a constant, about a step that is drawn for it."""
        if self.termination_model is not None:
            return self.termination_model(state, action)
        return self.step(state, action).termination_logit

    def unroll(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Open-loop prediction from `[B, O]` with actions `[B, T, A]`: `[B, T, O]`; a step is the elites' mean."""
        predictions = []
        for action in actions.unbind(1):
            mean, _ = self.dynamics(observation, action, self.dynamics.elites)  # [K, B, D]
            observation = observation + mean[..., :-1].mean(0)
            predictions.append(observation)
        return torch.stack(predictions, dim=1)
