"""I2A: imagined rollouts beside loops, where gradients go, what each stage trains, exact resume, ablations."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn import functional as F

from lit_mbrl.algorithms import I2A
from lit_mbrl.data import OnPolicy
from lit_mbrl.envs import EnvConfig, Spec
from lit_mbrl.models import CopyModel, FrameModelConfig, imagine_frames, to_planes
from lit_mbrl.networks import GridEncoder, RolloutEncoder
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit

SMALL: dict[str, Any] = {
    "depth": 3,
    "encoder": GridEncoder(convolutions=[4], units=8),
    "frame_model": FrameModelConfig(channels=4, wide=2, narrow=2, blocks=1, kernel=3),
    "rollout_channels": 3,
    "encoding": 4,
    "units": 8,
    "policy_channels": 2,
    "model_free_frames": 20,
    "data_frames": 30,
    "model_steps": 4,
    "model_batch_size": 8,
}
SPEC = Spec("made up", 7 * 5 * 6, 5, discrete=True, observation_shape=(7, 5, 6))


def make(**options: Any) -> I2A:
    torch.manual_seed(0)
    algorithm = I2A(**(SMALL | options))
    algorithm.configure(SPEC)
    for parameter in algorithm.parameters():  # far from what they are at the start
        torch.nn.init.normal_(parameter, std=0.4)
    return algorithm


def make_games(**options: Any) -> OnPolicy:
    """Rollouts of 2 x 5 frames of the smallest Sokoban."""
    kwargs = {"size": 5, "boxes": 1, "observation": "symbolic"} | options.pop("kwargs", {})
    config = EnvConfig("lit_mbrl/Sokoban-v0", num_envs=2, max_episode_steps=9, kwargs=kwargs)
    sizes = {"total_frames": 80, "epoch_frames": 40, "rollout_steps": 5, "num_epochs": 1, "batch_size": 10}
    return OnPolicy(config, **(sizes | {"eval_episodes": 2} | options))


def images(count: int) -> Tensor:
    return (to_planes(torch.randint(7, (count, 5, 6)), 7) * 255).to(torch.uint8)


# ------------------------------------------------------------------ imagination
def test_one_batch_of_rollouts_is_a_loop_over_frames_actions_and_steps() -> None:
    algorithm = make()
    algorithm.model = FrameModelConfig(channels=8, wide=4, narrow=4, kernel=3).build(7, 5, algorithm.rewards)
    torch.nn.init.normal_(algorithm.model.reward.weight, std=20.0)  # rewards that differ
    cells, gumbel = algorithm.cells(images(4)), -torch.empty(2, 4, 5, 5).exponential_().log()
    found = imagine_frames(algorithm.model, algorithm.rollout_policy, cells, 7, gumbel)
    assert found.frames.shape == (4, 5, 3, 5, 6) and found.frames.dtype == torch.uint8
    different = set()
    for n in range(4):
        for first in range(5):
            frame, action = cells[n], first
            for t in range(3):
                if t:
                    logits = algorithm.rollout_policy(to_planes(frame[None], 7))[0]
                    action = int((logits + gumbel[t - 1, n, first]).argmax())
                predicted = algorithm.model(to_planes(frame[None], 7), torch.tensor([action]))
                frame, reward = predicted.frame[0].argmax(0), int(predicted.reward[0].argmax())
                assert torch.equal(found.frames[n, first, t], frame.to(torch.uint8))
                assert (found.rewards[n, first, t], found.actions[n, first, t]) == (reward, action)
                different.add((action, reward))
    assert len(different) > 5  # it is no model that says the same always


def test_rollouts_draw_from_the_rollout_policy() -> None:
    algorithm = make(depth=2)
    torch.nn.init.zeros_(algorithm.rollout_policy[-1].weight)
    algorithm.rollout_policy[-1].bias.data = torch.tensor([0.5, 0.2, 0.1, 0.15, 0.05]).log()
    actions = algorithm.imagine(images(1).expand(4000, -1, -1, -1)).actions
    assert torch.equal(actions[:, :, 0], torch.arange(5).expand(4000, 5))
    share = actions[:, :, 1].flatten().bincount(minlength=5) / 20_000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.2, 0.1, 0.15, 0.05]), atol=0.015, rtol=0)


@torch.no_grad()
def test_the_encoder_reads_backwards() -> None:
    torch.manual_seed(0)
    net = RolloutEncoder(planes=3, rewards=2, height=4, width=5, channels=3, units=6)
    frames = to_planes(torch.randint(3, (2, 4, 4, 5)), 3)
    rewards = F.one_hot(torch.randint(2, (2, 4)), 2).float()
    found = net(frames, rewards)
    for n in range(2):
        hidden = cell = torch.zeros(1, 3, 4, 5)
        for t in (3, 2, 1, 0):
            maps = net.frame(frames[n, t][None])
            gates = net.lstm.input(maps) + net.lstm.state(hidden) + net.lstm.numbers(rewards[n, t])[None, :, None, None]
            write, keep, show, new = gates.split(3, 1)
            cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
            hidden = show.sigmoid() * cell.tanh()
        torch.testing.assert_close(found[n], net.last(hidden.flatten()).relu())
    assert not torch.allclose(found, net(frames.flip(1), rewards.flip(1)))


@pytest.mark.parametrize("path", [True, False])
def test_features_are_encodings_in_the_order_of_actions_beside_the_path(path: bool) -> None:
    algorithm = make(model_free_path=path)
    observation = images(3)
    rollouts = algorithm.imagine(observation)
    found = algorithm.features(observation, rollouts.frames, rollouts.rewards)
    for n in range(3):
        parts = [
            algorithm.encoder.rollouts(to_planes(frames[None], 7), F.one_hot(rewards[None].long(), 5).float())[0]
            for frames, rewards in zip(rollouts.frames[n], rollouts.rewards[n], strict=True)
        ]
        parts += [algorithm.encoder.path(observation[n])] if path else []
        torch.testing.assert_close(found[n], algorithm.encoder.merge(torch.cat(parts)).relu())


# ------------------------------------------------------------------ gradients
def rollout_batch(algorithm: I2A) -> TensorDict:
    algorithm.imagines.fill_(True)
    observation = images(6)
    rollouts = algorithm.imagine(observation)
    frames = {"observation": observation, "action": torch.randint(5, (6,)), "value": torch.zeros(6, 1)}
    frames |= {"advantage": torch.randn(6, 1)}
    return TensorDict(frames | {"imagined_frames": rollouts.frames, "imagined_rewards": rollouts.rewards}, [6])


def test_the_loss_s_gradient_reaches_the_encoder_and_never_the_model() -> None:
    algorithm = make()
    loss, policy = algorithm.imagination_loss(rollout_batch(algorithm))
    loss.backward()
    touched = {name.split(".")[0] for name, p in algorithm.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"encoder", "actor", "critic"}
    encoder = {name for name, p in algorithm.encoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.split(".")[0] for name in encoder} == {"rollouts", "path", "merge"}
    assert "rollouts.frame.0.weight" in encoder and "rollouts.lstm.numbers.weight" in encoder
    assert not policy.requires_grad


def test_distillation_moves_the_rollout_policy_to_the_agent_s_and_nothing_else() -> None:
    algorithm = make()
    batch = rollout_batch(algorithm)
    policy = torch.randn(6, 5).log_softmax(-1)
    update = next(update for update in algorithm.update_list if update.name == "rollout_policy")
    optimizer = update.optimizer()
    for _ in range(3000):
        optimizer.zero_grad()
        update.loss(batch, policy).backward()
        optimizer.step()
    touched = {name.split(".")[0] for name, p in algorithm.named_parameters() if p.grad is not None}
    assert touched == {"rollout_policy"}
    cells = algorithm.cells(batch["observation"])
    student = algorithm.rollout_policy(to_planes(cells, 7)).log_softmax(-1)
    divergence = (policy.exp() * (policy - student)).sum(-1)
    assert divergence.max() < 0.05


# ------------------------------------------------------------------ runs
class Taken(I2A):
    """Notes updates and the stages' starts."""

    def build(self, spec: Any) -> None:
        super().build(spec)
        self.taken: list[tuple[int, str]] = []
        self.started: list[str] = []

    def start_stage(self, data: Any, name: str) -> None:
        self.started.append(f"{name} {data.env_steps} {data.train_steps}")
        super().start_stage(data, name)

    def gradient_step(self, update: Any, *args: Any) -> Tensor:
        self.taken.append((self.train_steps, update.name))
        return super().gradient_step(update, *args)


@pytest.mark.parametrize("fine_tune", [False, True])
def test_stages_train_what_they_should(fine_tune: bool) -> None:
    algorithm, data = Taken(**SMALL, fine_tune=fine_tune), make_games()
    weights: list[dict[str, Tensor]] = []
    original = algorithm.start_stage

    def start_stage(data: Any, name: str) -> None:
        weights.append({key: value.clone() for key, value in algorithm.state_dict().items()})
        original(data, name)

    algorithm.start_stage = start_stage
    fit(algorithm, data)
    assert algorithm.started == ["model_free 0 0", "data 20 2", "model 50 6", "i2a 50 9"]
    expected = [(step, "model_free") for step in (1, 2)] + [(step, "model") for step in range(6, 10)]
    names = ["model"] * fine_tune + ["i2a", "rollout_policy"]
    assert algorithm.taken == expected + [(step, name) for step in (10, 11, 12) for name in names]
    weights.append(dict(algorithm.state_dict()))
    trained = [
        {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} - {"imagines"}
        for before, after in pairwise(weights)
    ]
    last = {"encoder", "actor", "critic", "rollout_policy"} | ({"model"} if fine_tune else set())
    assert trained == [{"model_free"}, set(), {"model"}, last]
    assert len(data.buffers["frames"]) == (30 if fine_tune else 0)


@pytest.mark.parametrize("at", [1, 4, 7, 9, 10, 11])
def test_a_run_resumes_exactly_in_every_stage(tmp_path: Path, at: int) -> None:
    whole, data = I2A(**SMALL), make_games()
    fit(whole, data)
    with pytest.raises(Stop):
        fit(I2A(**SMALL), make_games(), SaveAndStop(tmp_path / "cut.ckpt", at))
    rest, rest_data = I2A(**SMALL), make_games()
    fit(rest, rest_data, seed=1, ckpt_path=tmp_path / "cut.ckpt")
    first, second = everything(whole, data), everything(rest, rest_data)
    assert first.keys() == second.keys()
    assert not [key for key in first if not torch.equal(first[key], second[key])]


def test_the_gradient_step_sees_the_rollouts_that_were_acted_on() -> None:
    algorithm, data = I2A(**SMALL), make_games()
    drawn: list[Tensor] = []
    original = algorithm.imagine

    def imagine(observation: Tensor) -> Any:
        rollouts = original(observation)
        drawn.append(rollouts.frames)
        return rollouts

    algorithm.imagine = imagine
    collect = data.collect

    def collected() -> None:
        drawn.clear()
        collect()
        if algorithm.imagines:  # five steps, and the value of what follows on them
            assert len(drawn) == 6 and torch.equal(data.rollout["imagined_frames"], torch.stack(drawn[:5]))
            rows = algorithm.minibatch(data.rollout, torch.arange(10))
            features = algorithm.features(*(rows[k] for k in ("observation", "imagined_frames", "imagined_rewards")))
            torch.testing.assert_close(features, data.rollout["features"].flatten(0, 1))
            torch.testing.assert_close(algorithm.critic(features), rows["value"])

    data.collect = collected
    fit(algorithm, data)
    assert bool(algorithm.imagines)


def test_rollouts_are_imagined_anew_after_a_restart() -> None:
    algorithm = make()
    algorithm.imagines.fill_(True)
    algorithm._seen = []
    seen = [images(2), images(2)]
    for observation in seen:
        algorithm.explore(observation, torch.zeros(2, 1, dtype=torch.bool))
    other = torch.stack([seen[0], images(2)])
    found = algorithm.further_inputs(other)
    assert found["imagined_frames"].shape == (2, 2, 5, 3, 5, 6) and found["features"].shape == (2, 2, 8)
    assert algorithm._seen is None


def test_copies_imagine_nothing_and_take_no_model() -> None:
    algorithm, data = Taken(**SMALL, environment_model="copy"), make_games()
    fit(algorithm, data)
    assert algorithm.started == ["i2a 0 0"] and data.env_steps == 80 and data.buffers == {}
    assert {name for _, name in algorithm.taken} == {"i2a", "rollout_policy"}
    assert isinstance(algorithm.model, CopyModel) and not any(
        "model." in name for name, _ in algorithm.named_parameters() if name.startswith("model.")
    )
    frames = algorithm.imagine(data.rollout["observation"][0]).frames
    cells = algorithm.cells(data.rollout["observation"][0])
    assert torch.equal(frames, cells[:, None, None].expand_as(frames))


def test_colours_are_classes_by_a_palette() -> None:
    colours = [
        (0, 0, 0),
        (243, 248, 238),
        (254, 126, 125),
        (254, 95, 56),
        (142, 121, 56),
        (160, 212, 56),
        (219, 212, 56),
    ]
    algorithm, data = I2A(**SMALL, palette=colours), make_games(kwargs={"observation": "rgb"})
    fit(algorithm, data)
    assert algorithm.classes == 7 and bool(algorithm.imagines)
    with pytest.raises(
        OptionError, match=r"--model.palette=.*: expected the classes of all pixels, as of \[\d+, \d+, \d+\]"
    ):
        fit(I2A(**SMALL, palette=colours[:4]), make_games(kwargs={"observation": "rgb"}))


@pytest.mark.parametrize(
    ("options", "games", "message"),
    [
        ({"rewards": (0.0, 10.9)}, {}, r"--model.rewards=\[0.0, 10.9\]: expected all rewards, -0.1 among them"),
        ({"model_free_frames": 15}, {}, r"--model.model_free_frames=15: expected a multiple of 10, the frames of a"),
        ({"data_frames": 60}, {}, r"--data.total_frames=80: expected a multiple of 10.*more than 80, which"),
        ({}, {"total_frames": 85}, r"--data.total_frames=85: expected a multiple of 10"),
        ({"fine_tune": True, "environment_model": "copy"}, {}, r"--model.fine_tune=True: expected false with"),
        (
            {"palette": [(0, 0, 0), (1, 1, 1)]},
            {},
            r"--model.palette=.*: expected null: the images of .* have 7 channels",
        ),
        ({"rewards": (1.0, 1.0)}, {}, r"--model.rewards=\[1.0, 1.0\]: expected different numbers"),
    ],
)
def test_what_does_not_fit_is_told(options: dict[str, Any], games: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        fit(I2A(**(SMALL | options)), make_games(**games))


def test_continuous_actions_are_refused() -> None:
    with pytest.raises(OptionError, match=r"--data.env.name=made up: expected an environment with discrete actions"):
        I2A().check(Spec("made up", 7 * 5 * 5, 2, observation_shape=(7, 5, 5)))
