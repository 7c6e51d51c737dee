"""TRPO: an update beside a plain implementation with dense matrices, and what its runs promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from tensordict import TensorDict
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from torch.func import functional_call

from lit_mbrl.algorithms import TRPO
from lit_mbrl.envs import Spec
from lit_mbrl.training import fast_path
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_rollouts

N, T, OBSERVATION, ACTIONS = 3, 6, 4, 2
GAMMA, LMBDA, MAX_KL, DAMPING = 0.9, 0.8, 0.02, 0.03


def make_frames(discrete: bool) -> TensorDict:
    """A rollout `[N, T]` with the ends of episodes of both kinds, in float64."""
    torch.manual_seed(1)
    action = torch.randint(ACTIONS, (N, T)) if discrete else torch.randn(N, T, ACTIONS, dtype=torch.float64)
    terminated, truncated = (torch.zeros(N, T, 1, dtype=torch.bool) for _ in range(2))
    terminated[0, 2], truncated[1, 3], terminated[2, 5] = True, True, True
    observation, following = torch.randn(2, N, T, OBSERVATION, dtype=torch.float64)
    # The successor is the next frame's observation, where the episode goes on.
    following[:, :-1] = torch.where((terminated | truncated)[:, :-1], following[:, :-1], observation[:, 1:])
    rewards = torch.randn(N, T, 1, dtype=torch.float64)
    after = {"observation": following, "reward": rewards, "terminated": terminated, "truncated": truncated}
    return TensorDict({"observation": observation, "action": action, "next": after}, [N, T])


def make(discrete: bool, **options: Any) -> TRPO:
    torch.manual_seed(0)
    algorithm = TRPO(
        hidden_sizes=[5], gamma=GAMMA, lmbda=LMBDA, max_kl=MAX_KL, damping=DAMPING, cg_iterations=300, **options
    ).double()
    algorithm.configure(Spec("made up", OBSERVATION, ACTIONS, discrete=discrete))
    algorithm.double()
    for parameter in algorithm.actor.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return algorithm


def plain_advantages(frames: TensorDict, value: Callable[[Tensor], Tensor]) -> Tensor:
    """The sum over later errors, frame by frame, `[N, T]`."""
    following = frames["next"]
    advantage = torch.zeros(N, T, dtype=torch.float64)
    for n in range(N):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                ended = bool(following["terminated"][n, k])
                target = following["reward"][n, k] + (0 if ended else GAMMA * value(following["observation"][n, k]))
                advantage[n, t] += weight * (target - value(frames["observation"][n, k])).item()
                weight *= GAMMA * LMBDA
                if ended or following["truncated"][n, k]:
                    break
    return advantage


def plain_step(algorithm: TRPO, frames: TensorDict, discrete: bool) -> tuple[Tensor, int]:
    """The policy's parameters after a step with a dense Fisher matrix and a direct solve, and the tries it took."""
    actor, names = algorithm.actor, [name for name, _ in algorithm.actor.named_parameters()]
    parameters = list(actor.parameters())
    observation, action = frames["observation"].flatten(0, 1), frames["action"].flatten(0, 1)

    def policy(vector: Tensor) -> Any:
        pieces = vector.split([parameter.numel() for parameter in parameters])
        weights = {name: x.view_as(p) for name, x, p in zip(names, pieces, parameters, strict=True)}
        network = {name.partition(".")[2]: x for name, x in weights.items() if "." in name}
        if discrete:
            return Categorical(logits=functional_call(actor.logits, network, (observation,)))
        return Independent(Normal(functional_call(actor.mean, network, (observation,)), weights["log_std"].exp()), 1)

    start = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    advantage = plain_advantages(frames, algorithm.critic).flatten()
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    old = policy(start)

    def surrogate(vector: Tensor) -> Tensor:
        return ((policy(vector).log_prob(action) - old.log_prob(action)).exp() * advantage).mean()

    def divergence(vector: Tensor) -> Tensor:
        return kl_divergence(old, policy(vector)).mean()

    gradient = torch.autograd.functional.jacobian(surrogate, start)
    matrix = torch.autograd.functional.hessian(divergence, start) + DAMPING * torch.eye(len(start))
    direction = torch.linalg.solve(matrix, gradient)
    full = (2 * MAX_KL / (direction @ matrix @ direction)).sqrt() * direction
    for tries in range(10):
        new = start + 0.8**tries * full
        if surrogate(new) > surrogate(start) and divergence(new) <= MAX_KL:
            return new, tries + 1
    return start, 10


class Stand:
    """In the place of Lightning around single gradient steps."""

    def __init__(self, algorithm: TRPO, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[str, float] = {}
        monkeypatch.setattr(type(algorithm), "train_steps", 1)
        monkeypatch.setattr(algorithm, "uses_fast_path", True)
        monkeypatch.setattr(type(algorithm), "trainer", None)
        monkeypatch.setattr(fast_path, "count_steps", lambda trainer, steps: None)
        monkeypatch.setattr(algorithm, "note", self.found.update)


@pytest.mark.parametrize("discrete", [False, True])
def test_an_update_is_the_plain_one_s(discrete: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, frames = make(discrete), make_frames(discrete)
    stand = Stand(algorithm, monkeypatch)
    expected, tries = plain_step(algorithm, frames, discrete)
    rollout = algorithm.prepare_rollout(frames)
    advantage = plain_advantages(frames, algorithm.critic)
    torch.testing.assert_close(rollout["advantage"].squeeze(-1).T, advantage)
    policy, value = algorithm.update_list
    algorithm.gradient_step(policy, LightningOptimizer(policy.optimizer()), rollout.flatten(0, 1), {})
    found = torch.cat([parameter.detach().reshape(-1) for parameter in algorithm.actor.parameters()])
    # Conjugate gradient stops at a residual of 1e-5 of the gradient; the step is about 0.1 long.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (stand.found["policy/line_search_steps"], stand.found["policy/accepted"]) == (tries, 1)
    assert 0 < stand.found["policy/kl"] <= MAX_KL

    # The value is the mean squared error of `A + V`, by Adam.
    target = (advantage + algorithm.critic(frames["observation"]).squeeze(-1)).detach()
    ((algorithm.critic(frames["observation"]).squeeze(-1) - target) ** 2).mean().backward()
    gradients = [parameter.grad for parameter in algorithm.critic.parameters()]
    loss = value.loss(rollout.flatten(0, 1))
    torch.testing.assert_close(torch.autograd.grad(loss, value.parameters()), tuple(gradients))


class Steps(Callback):
    """Which of policy and value every training step has moved, and what was noted of the policy's."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []
        self.found: list[dict[str, float]] = []
        self.divergences: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: TRPO, *args: Any) -> None:
        self._before = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_train_batch_end(self, trainer: Any, pl_module: TRPO, outputs: Any, batch: Any, index: int) -> None:
        after = pl_module.state_dict()
        different = {name.partition(".")[0] for name, old in self._before.items() if not torch.equal(old, after[name])}
        self.moved.append(different)
        if batch["rollout"] is not None:
            self.found.append(pl_module._notes.copy())
            with torch.no_grad():
                self.divergences.append(pl_module.divergence(batch["rollout"]).item())


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_the_policy_moves_once_in_a_rollout_and_within_its_bound(env: str) -> None:
    steps, data = Steps(), make_rollouts(env, total_frames=200)
    trainer = fit(TRPO(hidden_sizes=[8], max_kl=0.05, value_lr=0.01), data, steps, log_every_n_steps=1000)
    first = [index for index, moved in enumerate(steps.moved) if "actor" in moved]
    assert set(first) <= set(range(0, 100, 10)) and len(first) >= 8  # ten rollouts of ten training steps
    assert all("critic" in moved for moved in steps.moved)
    assert trainer.global_step == 110
    assert len(steps.divergences) == 10 and all(0 <= kl <= 0.05 for kl in steps.divergences)
    for found, kl in zip(steps.found, steps.divergences, strict=True):
        assert found["policy/kl"] == pytest.approx(kl, rel=1e-3, abs=1e-7) and found["policy/entropy"] > 0
        assert found["policy/improvement"] > 0 or not found["policy/accepted"]


@pytest.mark.parametrize("stop", [10, 13])
def test_resumes_exactly(stop: int, tmp_path: Path) -> None:
    """At the end of a rollout, and in its middle, with statistics, scaled rewards and another seed."""

    def trpo() -> TRPO:
        return TRPO(hidden_sizes=[8], normalize_observations=True, scale_rewards=True)

    whole_data, whole, path = make_rollouts("Pendulum-v1"), trpo(), tmp_path / "a.ckpt"
    fit(whole, whole_data)
    with pytest.raises(Stop):
        fit(trpo(), make_rollouts("Pendulum-v1"), SaveAndStop(path, stop))
    resumed, data = trpo(), make_rollouts("Pendulum-v1")
    fit(resumed, data, ckpt_path=path, seed=999)
    ours, theirs = everything(resumed, data), everything(whole, whole_data)
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(ours[key].float(), theirs[key].float())] == []


def test_half_precision_finds_steps() -> None:
    """A line search that compared weights cast before it moved them would find none."""
    steps = Steps()
    fit(TRPO(hidden_sizes=[8]), make_rollouts(total_frames=200), steps, precision="bf16-mixed")
    assert sum(found["policy/accepted"] for found in steps.found) >= 8


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("max_kl", 0.0, "a number > 0"),
        ("damping", -1.0, "a number >= 0"),
        ("cg_iterations", 0, "an integer > 0"),
        ("line_search_shrink", 1.0, "a number > 0 and < 1"),
        ("line_search_tries", 0, "an integer > 0"),
        ("value_lr", -1e-3, "a number > 0"),
        ("gamma", 1.5, "a number between 0 and 1"),
    ],
)
def test_options_out_of_range_are_one_line(option: str, value: float, expected: str) -> None:
    with pytest.raises(OptionError, match=f"model.{option}={value}: expected {expected}"):
        TRPO(**{option: value})
