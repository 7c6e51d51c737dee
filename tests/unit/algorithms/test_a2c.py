"""A2C: updates beside a plain implementation, with Stable-Baselines3's choices, too, and what its runs promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.distributions import Categorical, Normal

from lit_mbrl.algorithms import A2C
from lit_mbrl.envs import Spec
from lit_mbrl.networks import ImpalaEncoder
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_rollouts

N, T, OBSERVATION, ACTIONS = 3, 4, 5, 2
GAMMA, LR, ALPHA, EPS, VALUE, ENTROPY, NORM = 0.9, 0.01, 0.95, 1e-3, 0.7, 0.05, 0.4
ONCE = {"num_epochs": 1, "batch_size": 20}  # the whole rollout of `make_rollouts`


def make(discrete: bool, **options: Any) -> A2C:
    torch.manual_seed(0)
    algorithm = A2C(
        hidden_sizes=[6],
        gamma=GAMMA,
        lr=LR,
        alpha=ALPHA,
        eps=EPS,
        value_coeff=VALUE,
        entropy_coeff=ENTROPY,
        max_grad_norm=NORM,
        init_log_std=-0.3,
        **options,
    )
    algorithm.configure(Spec("made up", OBSERVATION, ACTIONS, discrete=discrete))
    algorithm.double()
    for parameter in algorithm.actor.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return algorithm


def make_frames(discrete: bool, seed: int) -> TensorDict:
    """A rollout `[N, T]` in float64 in which an episode terminates, one is truncated, and one goes on."""
    torch.manual_seed(seed)
    action = torch.randint(ACTIONS, (N, T)) if discrete else torch.randn(N, T, ACTIONS, dtype=torch.float64)
    terminated, truncated = (torch.zeros(N, T, 1, dtype=torch.bool) for _ in range(2))
    terminated[0, 1], truncated[1, 2] = True, True
    observation, following = torch.randn(2, N, T, OBSERVATION, dtype=torch.float64)
    following[:, :-1] = torch.where((terminated | truncated)[:, :-1], following[:, :-1], observation[:, 1:])
    after = {"observation": following, "reward": torch.randn(N, T, 1, dtype=torch.float64)}
    after |= {"terminated": terminated, "truncated": truncated}
    return TensorDict({"observation": observation, "action": action, "next": after}, [N, T])


class Plain:
    """The same algorithm frame by frame, on copies of the weights."""

    def __init__(self, algorithm: A2C, discrete: bool) -> None:
        self.discrete = discrete
        self.weights = {n: p.detach().clone().requires_grad_() for n, p in algorithm.named_parameters()}
        self.squares = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}

    def network(self, name: str, x: Tensor) -> Tensor:
        layers = sorted({key.rsplit(".", 1)[0] for key in self.weights if key.startswith(f"{name}.")})
        for i, layer in enumerate(layers):
            x = self.weights[f"{layer}.weight"] @ x + self.weights[f"{layer}.bias"]
            x = x.tanh() if i < len(layers) - 1 else x
        return x

    def policy(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy."""
        if self.discrete:
            found = Categorical(logits=self.network("actor.logits", x))
            return found.log_prob(u), found.entropy()
        normal = Normal(self.network("actor.mean", x), self.weights["actor.log_std"].exp())
        return normal.log_prob(u).sum(), normal.entropy().sum()

    def step(self, frames: TensorDict, torch_rmsprop: bool) -> None:
        following, losses = frames["next"], []
        for n in range(N):
            for t in range(T):
                # The n-step return: rewards to the rollout's or the episode's end, then the value.
                returns, discount, k = 0.0, 1.0, t
                while True:
                    returns += discount * following["reward"][n, k].item()
                    discount *= GAMMA
                    ended = following["terminated"][n, k] or following["truncated"][n, k]
                    if ended or k == T - 1:
                        break
                    k += 1
                if not following["terminated"][n, k]:
                    returns += discount * self.network("critic", following["observation"][n, k]).item()
                value = self.network("critic", frames["observation"][n, t])
                log_prob, entropy = self.policy(frames["observation"][n, t], frames["action"][n, t])
                advantage = returns - value.item()
                losses.append(-log_prob * advantage + VALUE * (returns - value) ** 2 - ENTROPY * entropy)
        weights = list(self.weights.values())
        gradients = torch.autograd.grad(sum(losses) / (N * T), weights)  # type: ignore[arg-type]
        norm = sum(float(g.square().sum()) for g in gradients) ** 0.5
        for (name, weight), g in zip(self.weights.items(), gradients, strict=True):
            g = g * min(1.0, NORM / norm)
            square = self.squares[name].mul_(ALPHA).add_((1 - ALPHA) * g * g)
            root = square.sqrt() + EPS if torch_rmsprop else (square + EPS).sqrt()
            weight.data -= LR * g / root


@pytest.mark.parametrize("torch_rmsprop", [False, True])
@pytest.mark.parametrize("discrete", [True, False])
def test_updates_are_the_plain_ones(discrete: bool, torch_rmsprop: bool) -> None:
    """With `torch_rmsprop` it is what Stable-Baselines3 does, benchmarks/studies/updates_against_sb3.py."""
    algorithm = make(discrete, torch_rmsprop=torch_rmsprop)
    (update,), (optimizer,) = algorithm.update_list, algorithm.configure_optimizers()
    plain = Plain(algorithm, discrete)
    for seed in range(3):
        frames = make_frames(discrete, seed)
        rollout = algorithm.prepare_rollout(frames)
        batch = algorithm.minibatch(rollout, torch.randperm(N * T))
        optimizer.zero_grad()
        update.loss(batch).backward(inputs=update.parameters())
        torch.nn.utils.clip_grad_norm_(update.parameters(), update.max_grad_norm or 0.0)
        optimizer.step()
        plain.step(frames, torch_rmsprop)
        for name, parameter in algorithm.named_parameters():
            torch.testing.assert_close(parameter.detach(), plain.weights[name].detach(), atol=1e-6, rtol=1e-5)


def test_values_and_advantages_are_constants_of_the_policy_s_loss() -> None:
    algorithm = make(True)
    batch = algorithm.minibatch(algorithm.prepare_rollout(make_frames(True, 0)), torch.arange(N * T))
    algorithm.value_coeff = 0.0
    algorithm.loss(batch).backward()
    assert all(p.grad is None or not p.grad.any() for p in algorithm.critic.parameters())
    assert all(p.grad is not None and p.grad.any() for p in algorithm.actor.parameters())


def test_runs_resume_exactly(tmp_path: Path) -> None:
    def run(**options: Any) -> dict[str, Tensor]:
        algorithm, data = A2C(hidden_sizes=[8], anneal_lr=True, normalize_observations=True), make_rollouts(**ONCE)
        fit(algorithm, data, **options)
        return everything(algorithm, data)

    whole = run()
    with pytest.raises(Stop):
        fit(
            A2C(hidden_sizes=[8], anneal_lr=True, normalize_observations=True),
            make_rollouts(**ONCE),
            SaveAndStop(tmp_path / "run.ckpt", 2),
        )
    resumed = run(ckpt_path=tmp_path / "run.ckpt", seed=1)
    assert whole.keys() == resumed.keys()
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []


def test_one_encoder_of_images_learns_from_policy_and_value() -> None:
    torch.manual_seed(0)
    algorithm = A2C(encoder=ImpalaEncoder(channels=[2], features=4))
    algorithm.configure(Spec("made up", 3 * 8 * 8, 3, discrete=True, observation_shape=(3, 8, 8)))
    (update,) = algorithm.update_list
    assert {id(p) for p in algorithm.encoder.parameters()} < {id(p) for p in update.parameters()}
    image = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)
    batch = TensorDict(
        {
            "observation": image,
            "action": torch.randint(3, (6,)),
            "value": torch.zeros(6, 1),
            "advantage": torch.randn(6, 1),
        },
        [6],
    )
    update.loss(batch).backward(inputs=update.parameters())
    assert all(p.grad is not None for p in update.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": 2}, r"--data.num_epochs=2: expected 1 with A2C"),
        ({"num_epochs": 1, "batch_size": 10}, r"--data.batch_size=10: expected 20 with A2C, the frames of a rollout"),
    ],
)
def test_a_rollout_is_used_once_and_whole(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_rollouts(**options).check_algorithm(A2C())


def test_vectors_need_no_encoder() -> None:
    with pytest.raises(OptionError, match=r"--model.encoder=.*: expected null"):
        fit(A2C(encoder=ImpalaEncoder()), make_rollouts(**ONCE))
