"""DQN against a plain loop, and where its batches come from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from tensordict import TensorDict

from lit_mbrl.algorithms import DQN
from lit_mbrl.data import OffPolicy
from lit_mbrl.envs import EnvConfig, Spec
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SHORT, SaveAndStop, Stop, everything, fit, make_data

SPEC = Spec("made up", observation_dim=3, action_dim=4, discrete=True)


def make_dqn(**options: Any) -> DQN:
    algorithm = DQN(**({"hidden_sizes": [8]} | options))
    algorithm.configure(SPEC)
    return algorithm


def make_batch(count: int = 7) -> TensorDict:
    following = {
        "observation": torch.randn(count, 3),
        "reward": torch.randn(count, 1) * 3,
        "terminated": torch.rand(count, 1) < 0.4,
    }
    first = {"observation": torch.randn(count, 3), "action": torch.randint(4, (count,))}
    return TensorDict(first | {"next": following}, [count])


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("delta", [1.0, None])
def test_loss_equals_a_plain_loop(double: bool, delta: float | None) -> None:
    algorithm = make_dqn(double_q=double, huber_delta=delta, gamma=0.9).double()
    for parameter in algorithm.critic_target.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    batch = make_batch().apply(lambda value: value.double() if value.is_floating_point() else value)
    total = 0.0
    for row in batch:
        q = algorithm.critic(row["observation"])[row["action"]].item()
        after = row["next", "observation"]
        target_q = algorithm.critic_target(after)
        best = int((algorithm.critic(after) if double else target_q).argmax())
        target = row["next", "reward"].item()
        if not row["next", "terminated"].item():
            target += 0.9 * target_q[best].item()
        error = abs(q - target)
        total += 0.5 * error**2 if delta is None or error < delta else delta * (error - 0.5 * delta)
    torch.testing.assert_close(algorithm.critic_loss(batch).item(), total / len(batch))


def test_gradient_reaches_the_online_network_alone() -> None:
    algorithm = make_dqn(double_q=True)
    algorithm.critic_loss(make_batch()).backward()
    assert all(p.grad is not None for p in algorithm.critic.parameters())
    assert all(p.grad is None for p in algorithm.critic_target.parameters())


def test_importance_weights_weigh_the_rows() -> None:
    algorithm, batch = make_dqn(), make_batch(2)
    rows = [algorithm.critic_loss(batch[i : i + 1]) for i in range(2)]
    batch["weight"] = torch.tensor([[1.0], [0.25]])
    torch.testing.assert_close(algorithm.critic_loss(batch), (rows[0] + 0.25 * rows[1]) / 2)


def test_epsilon_falls_on_a_line_and_is_the_share_of_random_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, at = make_dqn(epsilon_start=0.8, epsilon_end=0.2, epsilon_steps=100), SimpleNamespace(env_steps=0)
    monkeypatch.setattr(DQN, "env_steps", property(lambda self: at.env_steps))
    for at.env_steps, expected in ((0, 0.8), (50, 0.5), (100, 0.2), (10_000, 0.2)):
        assert algorithm.epsilon == pytest.approx(expected)
    observation = torch.randn(1, 3).expand(20_000, 3)
    greedy = algorithm.act(observation)
    others = (algorithm.explore(observation, torch.zeros(20_000, 1, dtype=torch.bool)) != greedy).float().mean()
    assert float(others) == pytest.approx(0.2 * 3 / 4, abs=0.015)  # five standard deviations


def test_n_step_transitions_are_what_a_loop_over_the_replay_gives() -> None:
    torch.manual_seed(0)
    algorithm = DQN(hidden_sizes=[8], n_step=3, gamma=0.9)
    data = make_data("CartPole-v1", num_envs=2, max_episode_steps=15, capacity=40, frames_per_batch=2)
    fit(algorithm, data)
    replay = data.replay
    assert replay.written > replay.capacity  # around the end of the ring
    frames, slots = replay.frames(), torch.arange(len(replay))
    batch = algorithm.n_step_transitions(*replay.windows(slots, 3))
    seen = set()
    for slot in slots.tolist():
        number, total, steps = int(replay.numbers(torch.tensor(slot))), 0.0, 0
        while True:
            row = frames[int(replay.slots(number))]
            total += 0.9**steps * row["next", "reward"].item()
            steps += 1
            number += 2
            over = bool(row["next", "terminated"] | row["next", "truncated"])
            if steps == 3 or over or number >= replay.written:
                break
        seen.add(steps)
        torch.testing.assert_close(batch["next", "reward"][slot].item(), total)
        torch.testing.assert_close(batch["discount"][slot].item(), 0.9**steps)
        for key in ("observation", "terminated", "truncated"):
            assert torch.equal(batch["next", key][slot], row["next", key])
    assert seen == {1, 2, 3}


class Drawn(Callback):
    """Remembers what was drawn, and the priorities after each training step."""

    def __init__(self) -> None:
        self.masses: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        data = trainer.datamodule
        self.masses.append(data.buffers["priorities"].of(torch.arange(len(data.replay))))


def test_priorities_are_the_errors_after_the_step_and_the_highest_for_new_frames() -> None:
    checked = []

    class Checked(DQN):
        def update_priorities(self, priorities: Any, batch: Any) -> None:
            slots = self._slots
            new = slots[priorities.of(slots) == self.max_priority.pow(0.6)]
            super().update_priorities(priorities, batch)
            q, target = self.values_and_targets(batch)
            expected = ((target - q).abs().squeeze(-1) + 1e-6).pow(0.6)
            torch.testing.assert_close(priorities.of(slots), expected.detach())
            assert (batch["weight"] <= 1).all() and batch["weight"].max() == 1
            checked.append(len(new))

    drawn = Drawn()
    fit(Checked(hidden_sizes=[8], priority_exponent=0.6), make_data("CartPole-v1"), drawn)
    assert len(checked) == SHORT["total_frames"] - SHORT["learning_starts"] and sum(checked) > 0
    assert all((mass > 0).all() for mass in drawn.masses)


@pytest.mark.parametrize("options", [{}, {"n_step": 3, "priority_exponent": 0.6}])
def test_a_resumed_run_is_the_same_bit_for_bit(options: dict[str, Any], tmp_path: Path) -> None:
    def runs() -> tuple[DQN, OffPolicy]:
        return DQN(hidden_sizes=[8], **options), make_data("CartPole-v1")

    whole, whole_data = runs()
    fit(whole, whole_data)
    first, data = runs()
    with pytest.raises(Stop):
        fit(first, data, SaveAndStop(tmp_path / "model.ckpt", 11))
    second, second_data = runs()
    fit(second, second_data, ckpt_path=tmp_path / "model.ckpt", seed=1)
    expected, got = everything(whole, whole_data), everything(second, second_data)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name


def test_mistakes_are_one_line() -> None:
    with pytest.raises(OptionError, match="discrete actions, which DQN needs"):
        DQN().check(Spec("made up", observation_dim=3, action_dim=1))
    buffer = {"class_path": "torchrl.data.ReplayBuffer"}
    with pytest.raises(OptionError, match=r"data\.buffer"):
        DQN(n_step=2).check_data(OffPolicy(EnvConfig("CartPole-v1"), buffer=buffer))
    with pytest.raises(OptionError, match=r"data\.sampler"):
        DQN(priority_exponent=1).check_data(OffPolicy(EnvConfig("CartPole-v1"), sampler="torchrl.data.RandomSampler"))
