"""NAF's equations: the maximum, the loss's gradient, the target, exploration; what it imagines, and the fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_mbrl.algorithms import NAF
from lit_mbrl.data.buffers.transitions import Replay
from lit_mbrl.envs import Spec
from lit_mbrl.losses import quadratic_advantage
from lit_mbrl.networks.exploration import OrnsteinUhlenbeckNoise
from tests.helpers.frames import make_frames


def build(spec: Spec | None = None, **options: Any) -> NAF:
    algorithm = NAF(**({"hidden_sizes": [16]} | options))
    algorithm.configure(spec or Spec("made up", 3, 2, max_episode_steps=20))
    return algorithm


def doubles(frames: TensorDict) -> TensorDict:
    """The same with numbers in float64; flags stay flags."""
    return frames.apply(lambda x: x.double() if x.is_floating_point() else x)


def action_value(algorithm: NAF, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    value, mean, factor = algorithm.critic(observation)
    return value + quadratic_advantage(action, mean, factor)


# ---------------------------------------------------------------------- the action-value
def test_maximum_and_value_are_those_of_a_search_over_actions() -> None:
    torch.manual_seed(0)
    algorithm = build().double()
    for observation in 3 * torch.randn(5, 1, 3, dtype=torch.float64):
        low, high = torch.full((2,), -1.0).double(), torch.full((2,), 1.0).double()
        for _ in range(12):  # a grid that closes in on its best point
            axes = [torch.linspace(float(a), float(b), 21, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
            grid = torch.cartesian_prod(*axes)
            q = action_value(algorithm, observation.expand(len(grid), 3), grid)
            best, width = grid[q.argmax()], (high - low) / 5
            low, high = (best - width).clamp(-1, 1), (best + width).clamp(-1, 1)
        torch.testing.assert_close(algorithm.act(observation)[0], best, rtol=0, atol=1e-4)
        torch.testing.assert_close(algorithm.critic.value(observation)[0], q.max(0).values, rtol=0, atol=1e-6)
        assert (q <= algorithm.critic.value(observation) + 1e-12).all()


class Outputs(torch.nn.Module):
    """In the place of the networks: value, mean and factor that are parameters, and a target's value."""

    def __init__(self, rows: int, size: int) -> None:
        super().__init__()
        factor = torch.randn(rows, size, size).tril(-1) + torch.diag_embed(torch.rand(rows, size) + 0.5)
        self.parts = torch.nn.ParameterList([torch.randn(rows, 1), 0.5 * torch.randn(rows, size), factor])

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.parts)


def test_gradient_of_the_loss_against_the_closed_form_in_float64() -> None:
    torch.manual_seed(0)
    algorithm, batch = build(gamma=0.9), doubles(make_frames(6))
    algorithm.critic, algorithm.value_target = Outputs(6, 2).double(), algorithm.value_target.double()
    algorithm.critic_loss(batch).backward()
    value, mean, factor = (part.detach() for part in algorithm.critic.parts)
    for row in range(6):
        reward, over = batch["next", "reward"][row], batch["next", "terminated"][row]
        after = algorithm.value_target(batch["next", "observation"][row]).detach()
        y = reward if over else reward + 0.9 * after
        apart, lower = batch["action"][row] - mean[row], factor[row]
        precision = lower @ lower.T
        error = 2.0 * (value[row] - 0.5 * apart @ precision @ apart - y) / 6
        by_hand = (error, error * (precision @ apart), -error * torch.outer(apart, apart) @ lower)
        for part, expected in zip(algorithm.critic.parts, by_hand, strict=True):
            torch.testing.assert_close(part.grad[row], expected)
    assert not any(p.grad is not None for p in algorithm.value_target.parameters())


def test_gradient_of_the_networks_against_differences() -> None:
    torch.manual_seed(0)
    algorithm, batch = build().double(), doubles(make_frames(6))
    algorithm.critic_loss(batch).backward()
    for parameter in algorithm.critic.parameters():
        index = parameter.grad.abs().argmax()
        flat, found = parameter.data.view(-1), parameter.grad.view(-1)[index]
        before, losses = flat[index].clone(), []
        for shift in (1e-6, -1e-6):
            flat[index] = before + shift
            losses.append(float(algorithm.critic_loss(batch).detach()))
        flat[index] = before
        torch.testing.assert_close(found, torch.tensor((losses[0] - losses[1]) / 2e-6).double(), rtol=1e-5, atol=1e-7)


def test_target_against_a_loop() -> None:
    torch.manual_seed(0)
    algorithm, batch = build(gamma=0.7), make_frames(40)
    with torch.no_grad():  # a network that is not the target
        for parameter in algorithm.critic.value.parameters():
            parameter.add_(torch.randn_like(parameter))
        targets = []
        for row in range(40):
            y = batch["next", "reward"][row].clone()
            if not batch["next", "terminated"][row]:
                y += 0.7 * algorithm.value_target(batch["next", "observation"][row])
            targets.append(y)
        q = action_value(algorithm, batch["observation"], batch["action"])
        torch.testing.assert_close(algorithm.critic_loss(batch), (q - torch.stack(targets)).square().mean())
    assert 0 < batch["next", "terminated"].sum() < 40


# ---------------------------------------------------------------------- exploration
def drawn_noise(algorithm: NAF, env_steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    """200 000 noises at one observation, and the covariance `P^-1` there."""
    monkeypatch.setattr(NAF, "env_steps", env_steps)
    with torch.no_grad():
        algorithm.critic.factor.net[-1].bias.copy_(torch.tensor([0.3, -0.2, 0.6]))
        observation = torch.tensor([[0.3, -0.5, 0.2]]).expand(200_000, 3)
        noise = algorithm.explore(observation, torch.ones(200_000, 1, dtype=torch.bool)) - algorithm.act(observation)
        _, _, factor = algorithm.critic(observation[0])
    return noise, torch.linalg.inv(factor @ factor.T)


def test_exploration_by_precision_has_its_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    noise, inverse = drawn_noise(build(exploration="precision", precision_scale=0.01), 0, monkeypatch)
    torch.testing.assert_close(noise.T.cov(), 0.01 * inverse, rtol=0.03, atol=1e-4)
    assert noise.mean(0).abs().max() < 1e-3
    assert abs(float(inverse[0, 1])) > 0.1  # the actions' noises are correlated


def test_without_a_scale_its_mean_variance_is_that_of_sigma(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    algorithm = build(exploration="precision", exploration_sigma=0.05)
    noise, inverse = drawn_noise(algorithm, 0, monkeypatch)
    covariance = noise.T.cov()
    torch.testing.assert_close(covariance.trace() / 2, torch.tensor(0.05**2), rtol=0.02, atol=0)
    torch.testing.assert_close(covariance / covariance.trace(), inverse / inverse.trace(), rtol=0.03, atol=5e-3)


def test_until_it_starts_it_is_independent_of_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    options = {"exploration": "precision", "exploration_sigma": 0.05, "precision_starts": 100}
    noise, _ = drawn_noise(build(**options), 99, monkeypatch)
    torch.testing.assert_close(noise.T.cov(), 0.05**2 * torch.eye(2), rtol=0.02, atol=5e-5)
    noise, inverse = drawn_noise(build(**options), 100, monkeypatch)
    assert float(noise.T.cov()[0, 1] * inverse[0, 1]) > 0 and noise.T.cov()[0, 1].abs() > 3e-4


def test_increments_enter_the_ornstein_uhlenbeck_process() -> None:
    noise, zero = OrnsteinUhlenbeckNoise(0.3, theta=0.25), torch.zeros(2, 2)
    begins = torch.zeros(2, 1, dtype=torch.bool)
    first, second = 0.1 * torch.rand(2, 2), 0.1 * torch.rand(2, 2)
    torch.testing.assert_close(noise(zero, begins, first), first)
    torch.testing.assert_close(noise(zero, begins, second), 0.75 * first + second)


# ---------------------------------------------------------------------- imagination
IMAGINING = {"rollout_length": 4, "exploration_sigma": 0.0, "episodes_per_fit": 6}


def linear_dynamics(algorithm: NAF) -> None:
    """Fills the dynamics with systems that differ from step to step and from mode to mode, without noise."""
    dynamics = algorithm.dynamics
    for part, scale in ((dynamics.state, 0.5), (dynamics.action, 1.0), (dynamics.offset, 1.0)):
        part.copy_(scale * torch.randn_like(part))


def quadratic_reward(x: torch.Tensor, u: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x * y).sum(-1, keepdim=True) - u.square().sum(-1, keepdim=True)


@pytest.mark.parametrize("reward", ["known", "learned"])
@pytest.mark.parametrize("normalize", [False, True])
def test_imagined_rollouts_against_explicit_stepping(reward: str, normalize: bool) -> None:
    torch.manual_seed(0)
    spec = Spec("made up", 3, 2, max_episode_steps=20, reward=quadratic_reward)
    algorithm = build(spec, initial_modes=2, reward=reward, normalize_observations=normalize, **IMAGINING)
    algorithm._trainer = None
    linear_dynamics(algorithm)
    if normalize:
        algorithm.normalizer.update(2 + 3 * torch.randn(100, 3))
    start, step, mode = torch.randn(5, 3), torch.tensor([0, 3, 9, 17, 18]), torch.tensor([0, 1, 0, 1, 1])
    steps = list(algorithm.imagine(start, step, mode))
    assert len(steps) == 4
    parts = algorithm.dynamics
    for row in range(5):
        x = start[row]
        for k, frames in enumerate(steps):
            m, t = mode[row], min(int(step[row]) + k, 19)  # beyond the last step its dynamics go on
            with torch.no_grad():
                u = algorithm.critic.mean(algorithm.normalize(x))
            y = parts.state[m, t] @ x + parts.action[m, t] @ u + parts.offset[m, t]
            paid = quadratic_reward(x, u, y[:3]) if reward == "known" else y[3:]
            found = (frames["observation"], frames["action"], frames["next", "observation"], frames["next", "reward"])
            for part, expected in zip(found, (x, u, y[:3], paid), strict=True):
                torch.testing.assert_close(part[row], expected, rtol=1e-4, atol=1e-4)
            assert not frames["next", "terminated"][row]
            x = y[:3]


def test_a_rollout_ends_with_its_termination() -> None:
    def beyond_three(x: torch.Tensor, u: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y[..., :1] > 3.0

    spec = Spec("made up", 3, 2, max_episode_steps=20, reward=quadratic_reward, terminated=beyond_three)
    algorithm = build(spec, **IMAGINING)
    algorithm.dynamics.state.copy_(torch.eye(3))
    algorithm.dynamics.offset.fill_(1.0)  # each step adds one
    start = torch.tensor([[-9.0, 0.0, 0.0], [1.5, 0.0, 0.0], [0.5, 0.0, 0.0]])
    zeros = torch.zeros(3, dtype=torch.long)
    steps = list(algorithm.imagine(start, zeros, zeros))
    assert [frames["observation"][:, 0].tolist() for frames in steps] == [
        [-9.0, 1.5, 0.5],
        [-8.0, 2.5, 1.5],
        [-7.0, 2.5],
        [-6.0],
    ]
    over = [frames["next", "terminated"].squeeze(-1).tolist() for frames in steps]
    assert over == [[False, False, False], [False, True, False], [False, True], [False]]


def test_numbers_that_are_not_finite_are_no_transitions() -> None:
    algorithm = build(Spec("made up", 3, 2, max_episode_steps=20, reward=quadratic_reward), **IMAGINING)
    algorithm.dynamics.state.copy_(torch.eye(3))
    start, zeros = torch.tensor([[1.0, 0.0, 0.0], [torch.inf, 0.0, 0.0]]), torch.zeros(2, dtype=torch.long)
    assert [len(frames) for frames in algorithm.imagine(start, zeros, zeros)] == [1, 1, 1, 1]
    assert list(algorithm.imagine(start[1:], zeros[1:], zeros[1:])) == []


def test_a_rollout_ends_before_it_leaves_the_range_of_the_fit() -> None:
    spec = Spec("made up", 3, 2, max_episode_steps=20, reward=quadratic_reward)
    algorithm = build(spec, range_margin=0.25, **IMAGINING)
    algorithm.dynamics.state.copy_(torch.eye(3))
    algorithm.dynamics.offset.fill_(1.0)  # each step adds one
    algorithm.dynamics.range.copy_(torch.tensor([[0.0, -9.0, -9.0], [4.0, 9.0, 9.0]]))  # the first number's goes to 5
    start, zeros = torch.tensor([[0.0, 0.0, 0.0], [2.5, 0.0, 0.0], [-3.0, 0.0, 0.0]]), torch.zeros(3, dtype=torch.long)
    found = [frames["next", "observation"][:, 0].tolist() for frames in algorithm.imagine(start, zeros, zeros)]
    assert found == [[1.0, 3.5], [2.0, 4.5], [3.0], [4.0]]  # the third's first step ends below -1


def test_imagined_actions_have_the_exploration_s_noise() -> None:
    torch.manual_seed(0)
    options = IMAGINING | {"exploration_sigma": 0.05, "ou_theta": 0.5, "rollout_length": 2}
    algorithm = build(Spec("made up", 3, 2, max_episode_steps=20, reward=quadratic_reward), **options)
    zeros = torch.zeros(100_000, dtype=torch.long)
    first, second = algorithm.imagine(torch.zeros(100_000, 3), zeros, zeros)  # the dynamics stay at 0
    noise = [frames["action"] - algorithm.act(frames["observation"]).detach() for frames in (first, second)]
    for found, variance in zip(noise, (0.0025, 1.25 * 0.0025), strict=True):
        torch.testing.assert_close(found.var(0), torch.full((2,), variance), rtol=0.03, atol=0)
    assert abs(float((noise[0] * noise[1]).mean()) / 0.00125 - 1) < 0.03


# ---------------------------------------------------------------------- the fit
def step_frames(x: torch.Tensor, u: torch.Tensor, y: torch.Tensor, reward: torch.Tensor, over: bool) -> TensorDict:
    """A frame `[num_envs, 1]` of environments side by side."""
    flags = {"terminated": torch.full((len(x), 1), over), "truncated": torch.zeros(len(x), 1, dtype=torch.bool)}
    frame = {"observation": x, "action": u, "next": {"observation": y, "reward": reward, **flags}}
    return TensorDict(frame, [len(x)]).unsqueeze(1)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_linear_system_is_recovered_from_the_replay(num_envs: int) -> None:
    torch.manual_seed(0)
    a, b, c = 0.4 * torch.randn(7, 4, 3), torch.randn(7, 4, 2), torch.randn(7, 4)  # the fourth number is the reward
    replay = Replay(10_000, num_envs)
    for length in [7, 3, *[7] * 10, 5, 7]:  # the first two are older than twelve episodes
        x = torch.randn(num_envs, 3)
        for t in range(length):
            u = torch.rand(num_envs, 2) * 2 - 1
            y = x @ a[t].T + u @ b[t].T + c[t]
            replay.extend(step_frames(x, u, y[:, :3], y[:, 3:], t == length - 1))
            x = y[:, :3]
    algorithm = build(rollout_length=2, episodes_per_fit=12, model_window=0, model_ridge=1e-10)
    algorithm.fit_dynamics(replay)
    parts = algorithm.dynamics
    for found, true in ((parts.state, a), (parts.action, b), (parts.offset, c)):
        torch.testing.assert_close(found[0, :7], true, rtol=2e-3, atol=2e-3)
    assert parts.noise.abs().max() < 1e-3
    assert sorted(algorithm.fitted[:, 1].tolist()) == ([5] + [7] * 11 if num_envs == 1 else [5] * 3 + [7] * 9)


def test_rollouts_start_at_the_steps_of_the_episodes_that_were_fitted() -> None:
    torch.manual_seed(0)
    replay = Replay(10_000, 2)
    for episode, length in enumerate([4, 6, 5]):
        for t in range(length):
            x = torch.tensor([[10.0 * episode + env, float(t), 0.0] for env in range(2)])
            following = x + torch.tensor([0.0, 1.0, 0.0])  # the second number is the step
            replay.extend(step_frames(x, torch.rand(2, 2), following, x[:, :1], t == length - 1))
    algorithm = build(rollout_length=2, episodes_per_fit=3, initial_modes=3)
    algorithm.fit_dynamics(replay)
    observation, step, mode = algorithm.draw_starts(replay, 3_000)
    assert torch.equal(observation[:, 1], step.float())
    drawn = {(float(x), int(t)) for x, t in zip(observation[:, 0], step, strict=True)}
    assert drawn == {*((11.0, t) for t in range(6)), *((float(x), t) for x in (20, 21) for t in range(5))}
    groups = {float(x): int(m) for x, m in zip(observation[:, 0], mode, strict=True)}
    assert sorted(groups.values()) == [0, 1, 2]
    counts = torch.stack([(observation[:, 0] == x).sum() for x in (11, 20, 21)]).float() / 3_000
    torch.testing.assert_close(counts, torch.tensor([6, 5, 5]) / 16, rtol=0, atol=0.04)  # five standard deviations
