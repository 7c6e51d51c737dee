"""A policy with a latent state that takes over in the middle of an episode knows what the episode was so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.algorithms import Dreamer, PlaNet
from lit_mbrl.data import SequenceReplay
from lit_mbrl.data.buffers.episodes import EpisodeReplay
from lit_mbrl.envs import EnvConfig
from lit_mbrl.models import TimeOrder
from lit_mbrl.models.rssm import RSSM
from lit_mbrl.planners import CEM
from lit_mbrl.training.latent_agent import LatentAgent
from tests.helpers.latents import DREAMERS, SMALL, A, build
from tests.helpers.runs import SaveAndStop, Stop, everything, fit
from tests.unit.data.test_worker_death import kill_before

PLANNER = CEM(horizon=2, num_candidates=4, num_elites=2, iterations=1)
AGENTS = {**DREAMERS, "planet": lambda **options: PlaNet(planner=PLANNER, **options)}
RUN: dict[str, Any] = {
    "total_frames": 60,
    "epoch_frames": 20,
    "learning_starts": 24,
    "frames_per_batch": 4,
    "utd_ratio": 0.25,
    "batch_size": 3,
    "sequence_length": 4,
    "eval_episodes": 1,
    "storage": "memory",
    "pretrain_steps": 5,
}


@pytest.fixture
def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Posterior means for draws, so that nothing depends on the order of draws."""
    monkeypatch.setattr(RSSM, "noise", lambda self, *shape: torch.zeros(*shape, self.stoch))


def filtered(algorithm: LatentAgent, observation: Tensor, action: Tensor) -> Tensor:
    """State after an episode `[T, O]`, by the pass that the model is trained with; entry t of the actions led to t."""
    model = algorithm.world_model
    latent = model.observe(model.encode(observation.unsqueeze(0)), action.unsqueeze(0)).latent
    return torch.cat([latent.deter[0, -1], latent.stoch[0, -1]])


def steps(num: int, count: int, ends: dict[int, int]) -> TensorDict:
    """Random steps `[num, count]`; `ends` names the last step of an episode by its environment."""
    seen = torch.randn(num, count + 1, 3)
    over = torch.zeros(num, count, 1, dtype=torch.bool)
    for env, t in ends.items():
        over[env, t] = True
    following = {"observation": seen[:, 1:], "reward": torch.zeros(num, count, 1), "terminated": over}
    following["truncated"] = torch.zeros_like(over)
    action = torch.rand(num, count, A) * 2 - 1
    return TensorDict({"observation": seen[:, :-1], "action": action, "next": following}, [num, count])


@pytest.mark.usefixtures("no_noise")
@pytest.mark.parametrize("time_order", get_args(TimeOrder))
@pytest.mark.parametrize("name", AGENTS)
def test_state_is_that_of_an_agent_which_has_filtered_the_episode(name: str, time_order: TimeOrder) -> None:
    """Of four environments three are at step 9, 6 and 1 of an episode, and one is about to begin."""
    torch.manual_seed(0)
    cls, options = (PlaNet, {"planner": PLANNER}) if name == "planet" else (AGENTS[name], {})
    algorithm = build(cls, time_order=time_order, **options)
    replay = EpisodeReplay(algorithm.spec, 100, 4)
    taken = steps(4, 9, {1: 2, 2: 7, 3: 8})
    replay.extend(taken)
    newest, is_init = taken["next", "observation"][:, -1].clone(), torch.tensor([[False], [False], [False], [True]])
    newest[3] = torch.randn(3)
    algorithm.catch_up(replay)
    algorithm.explore(newest, is_init)
    found = algorithm.memory.get_extra_state()[:, : SMALL["deter"] + SMALL["stoch"]]
    for env, start in ((0, 0), (1, 3), (2, 8)):
        observation = torch.cat([taken["observation"][env, start:], newest[env : env + 1]])
        action = torch.cat([torch.zeros(1, A), taken["action"][env, start:]])
        torch.testing.assert_close(found[env], filtered(algorithm, observation, action))
    if time_order != "blind_start":
        torch.testing.assert_close(found[3], filtered(algorithm, newest[3:], torch.zeros(1, A)))
    else:
        assert not found[3].any()
    remembered = algorithm.memory.get_extra_state().clone()
    algorithm.catch_up(replay)  # it has acted: there is nothing to catch up with
    assert torch.equal(algorithm.memory.get_extra_state(), remembered)


def make_run(
    env: str = "Pendulum-v1", num_envs: int = 1, limit: int = 40, workers: bool = False, **options: Any
) -> SequenceReplay:
    """A run whose warm-up of 24 steps ends inside an episode."""
    config = EnvConfig(env, max_episode_steps=limit, num_envs=num_envs, workers=workers)
    return SequenceReplay(config, **(RUN | options))


class Watched(Dreamer):
    """Writes down its memory after every step, and what its replay has of the running episodes before it."""

    def catch_up(self, replay: Any) -> None:
        self.before = replay.running_episodes()
        super().catch_up(replay)

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        action = super().explore(observation, is_init)
        if not hasattr(self, "seen"):
            self.seen: list[tuple[int, Tensor, Any, Tensor, Tensor]] = []
        if self.before is not None:
            sequence = self.before
            kept = self.memory.get_extra_state()[:, : self.deter + self.stoch].clone()
            expected = [
                filtered(self, frames["observation"][first:], frames["action"][first:])
                for frames in sequence
                for first in [int(frames["is_first"].sum()) - 1]
            ]
            self.seen.append((self.env_steps, is_init.clone(), sequence, kept, torch.stack(expected)))
        self.before = None  # of the first step of a collection
        return action


@pytest.mark.usefixtures("no_noise")
def test_a_warm_up_may_end_inside_an_episode() -> None:
    algorithm = Watched(horizon=3, **SMALL)
    fit(algorithm, make_run())
    at, is_init, sequence, kept, expected = algorithm.seen[0]
    assert at == 24 and sequence.shape == (1, 25) and not is_init.any()
    assert sequence["is_first"][0, :, 0].tolist() == [True] + 24 * [False]
    torch.testing.assert_close(kept, expected)
    assert kept.abs().sum() > 0.1


def test_a_warm_up_of_whole_episodes_leaves_nothing_to_catch_up_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes no random numbers."""
    states = []
    for catch_up in (LatentAgent.catch_up, lambda self, replay: None):
        monkeypatch.setattr(LatentAgent, "catch_up", catch_up)
        algorithm, data = Dreamer(horizon=3, **SMALL), make_run(limit=12)
        fit(algorithm, data)
        states.append(everything(algorithm, data))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("rounds", [3, 5, 8])  # while the policy has not acted yet, before its first step, and later
def test_resume_is_exact(rounds: int, tmp_path: Path) -> None:
    whole, whole_data = Dreamer(horizon=3, **SMALL), make_run(num_envs=2)
    fit(whole, whole_data)
    with pytest.raises(Stop):
        fit(Dreamer(horizon=3, **SMALL), make_run(num_envs=2), SaveAndStop(tmp_path / "run.ckpt", rounds))
    second, second_data = Dreamer(horizon=3, **SMALL), make_run(num_envs=2)
    fit(second, second_data, seed=12345, ckpt_path=tmp_path / "run.ckpt")
    expected, found = everything(whole, whole_data), everything(second, second_data)
    assert [key for key in expected if not torch.equal(expected[key].float(), found[key].float())] == []


@pytest.mark.usefixtures("no_noise")
@pytest.mark.parametrize("call", [17, 18])  # the first and the second step of a collection
def test_an_episode_that_began_out_of_turn_is_caught_up_with(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker dies: the step that it should have taken is the first of a new episode, which the policy never began."""
    kill_before(call, monkeypatch)
    algorithm = Watched(horizon=3, exploration_sigma=0.0, model_lr=1e-12, **SMALL)  # states of the present model
    with pytest.warns(RuntimeWarning, match="restart 1 of at most 3"):
        fit(algorithm, make_run(num_envs=2, limit=60, workers=True, epoch_frames=60))
    assert [at for at, *_ in algorithm.seen] == list(range(24, 60, 4))
    lengths = [(~sequence["is_first"]).sum(1).flatten().tolist() for _, _, sequence, _, _ in algorithm.seen]
    assert [first for first, _ in lengths] == list(range(12, 30, 2))
    assert [second for _, second in lengths] == [12, 14, 16, *range(19 - call, 31 - call, 2)]
    for _, is_init, _, kept, expected in algorithm.seen:
        assert not is_init.any()
        torch.testing.assert_close(kept, expected)


def test_overlapping_begins_with_the_policy_right_after_the_warm_up() -> None:
    acted = []

    class Counted(Dreamer):
        def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
            acted.append(self.trainer.datamodule.replay.written)
            return super().explore(observation, is_init)

    data = make_run(
        num_envs=2, workers=True, frames_per_batch=2, async_env_steps=True, total_frames=30, epoch_frames=30
    )
    fit(Counted(horizon=3, **SMALL), data)
    assert acted[:2] == [24 + 2, 26 + 2]  # frames in the replay, two of which begin episodes
