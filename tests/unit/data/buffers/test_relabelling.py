"""Hindsight relabelling against a plain walk over the frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_mbrl.algorithms import DDPG, DQN, MBPO, PPO, SAC, SACSVG, TD3
from lit_mbrl.data import OffPolicy
from lit_mbrl.data.buffers.relabelling import GoalRule, Hindsight, HindsightReplay
from lit_mbrl.envs import EnvConfig, describe
from lit_mbrl.envs.tasks.goals import BitFlip
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data
from tests.helpers.toys import GOAL

BITS = 4
ENV = EnvConfig("goals/BitFlip", {"bits": BITS}, num_envs=2)


def make_run(strategy: str = "future", **options: Any) -> OffPolicy:
    """Several times around a ring of 40 frames; episodes end in their goal or after four steps."""
    sizes = {"total_frames": 130, "epoch_frames": 65, "learning_starts": 20, "batch_size": 8, "eval_episodes": 2}
    given = sizes | {"capacity": 40, "frames_per_batch": 2, "hindsight": Hindsight(strategy=strategy)} | options
    data = OffPolicy(ENV, **given)
    fit(DQN(hidden_sizes=[8]), data)
    return data


def walk(replay: HindsightReplay, number: int) -> tuple[int, int]:
    """First and last frame that is there of a frame's episode, by looking at one flag after the other."""
    following = replay.frames()["next"]
    ends = following["terminated"] | following["truncated"]
    first = last = number
    while not ends[int(replay.slots(last))] and last + 2 < replay.written:
        last += 2
    while first - 2 >= replay.oldest and not ends[int(replay.slots(first - 2))]:
        first -= 2
    return first, last


@pytest.mark.parametrize("capacity", [40, 130])
def test_episodes_are_known_around_the_end_of_the_ring_and_after_a_restore(capacity: int) -> None:
    data = make_run(capacity=capacity)
    replay = data.replay
    restored = data.make_replay(Path())
    restored.load_state_dict(replay.state_dict())
    slots = torch.arange(len(replay))
    for each in (replay, restored):
        first, last = each.episodes(slots)
        for slot in slots.tolist():
            expected = walk(replay, int(replay.numbers(torch.tensor(slot))))
            assert (int(first[slot]), int(last[slot])) == expected
    replay.truncate_running_episodes()
    first, last = replay.episodes(slots)
    for slot in slots.tolist():
        assert (int(first[slot]), int(last[slot])) == walk(replay, int(replay.numbers(torch.tensor(slot))))


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
def test_goals_are_of_the_same_episode_and_uniform(strategy: str) -> None:
    replay = make_run(strategy).replay
    for slot in range(len(replay)):
        number = int(replay.numbers(torch.tensor(slot)))
        first, last = walk(replay, number)
        drawn = replay.draw_goals(torch.full((400,), slot)).tolist()
        start = {"future": number, "final": last, "episode": first}[strategy]
        assert set(drawn) == set(range(start, last + 1, 2))  # at most four: each is missed with (3/4)^400


def test_relabelled_transitions_are_what_the_environment_would_have_paid() -> None:
    replay = make_run().replay
    torch.manual_seed(0)
    count = 4000
    slots = replay.sample_slots(count)
    kept, rows = replay._storage.get(slots), replay._storage.get(slots)
    before = replay.frames().clone()
    chosen = torch.rand(count) < 0.8
    replay.relabel(rows, slots, chosen)
    assert (before == replay.frames()).all()  # the replay keeps what happened
    assert (rows[~chosen] == kept[~chosen]).all()
    desired, achieved = replay.rule.desired, replay.rule.achieved
    env = BitFlip(BITS)
    env.reset()
    others = [part for name, part in describe(ENV).parts.items() if name != "desired_goal"]
    for row, old in zip(rows[chosen][:300], kept[chosen][:300], strict=True):
        env.set_extra_state(
            {"state": row["observation"][achieved].numpy(), "goal": row["observation"][desired].numpy()}
        )
        seen, reward, terminated, _, _ = env.step(int(row["action"]))
        assert reward == row["next", "reward"].item() and terminated == row["next", "terminated"].item()
        for name, part in describe(ENV).parts.items():
            assert np.array_equal(seen[name], row["next", "observation"][part].numpy())
        assert all(torch.equal(row["observation"][part], old["observation"][part]) for part in others)
    assert rows["next", "terminated"][chosen].float().mean() > kept["next", "terminated"].float().mean() + 0.1


@pytest.mark.parametrize("goals", [1, 4])
def test_share_of_relabelled_transitions(goals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = make_run(hindsight=Hindsight(goals=goals)).replay
    shares = []
    monkeypatch.setattr(replay, "relabel", lambda rows, slots, chosen: shares.append(chosen.float().mean()))
    replay.sample_transitions(20_000)
    assert float(shares[0]) == pytest.approx(goals / (goals + 1), abs=0.02)  # over five standard deviations


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    def run(*callbacks: Any, **options: Any) -> tuple[DQN, OffPolicy]:
        algorithm, data = DQN(hidden_sizes=[8]), make_data("goals/BitFlip", max_episode_steps=5, hindsight=Hindsight())
        fit(algorithm, data, *callbacks, **options)
        return algorithm, data

    expected = everything(*run())
    with pytest.raises(Stop):
        run(SaveAndStop(tmp_path / "model.ckpt", 13))
    got = everything(*run(ckpt_path=tmp_path / "model.ckpt", seed=1))
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name


@pytest.mark.parametrize("algorithm", [SAC, TD3, DDPG])
def test_continuous_algorithms_learn_from_relabelled_transitions(
    algorithm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pays(self: Any, achieved: Any, desired: Any, info: Any) -> Any:
        return -np.abs(achieved - desired).sum(-1)

    monkeypatch.setattr("tests.helpers.toys.Goal.compute_reward", pays, raising=False)
    data = make_data(GOAL, hindsight=Hindsight())
    fit(algorithm(hidden_sizes=[8]), data)
    rows = data.replay.sample_transitions(50)
    rule, following = data.replay.rule, rows["next"]
    far = (following["observation"][:, rule.achieved] - following["observation"][:, rule.desired]).abs()
    torch.testing.assert_close(following["reward"], -far)


def test_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(env: EnvConfig, match: str) -> None:
        with pytest.raises(OptionError, match=match):
            GoalRule(env, describe(env))

    refuses(EnvConfig("CartPole-v1"), "observes achieved_goal and desired_goal")
    refuses(EnvConfig("goals/BitFlip", observation_keys=("observation", "desired_goal")), "observes achieved_goal")
    refuses(EnvConfig("goals/BitFlip", action_repeat=2), r"data\.env\.action_repeat")
    refuses(EnvConfig(GOAL), "compute_reward")
    monkeypatch.setattr(BitFlip, "compute_reward", lambda self, *goals: np.float32(0.0))
    refuses(EnvConfig("goals/BitFlip"), "several goals at once")


@pytest.mark.parametrize("algorithm", [MBPO, SACSVG, lambda: DQN(n_step=2), lambda: DQN(priority_exponent=1.0)])
def test_algorithms_that_learn_from_more_than_transitions_are_refused(algorithm: Any) -> None:
    made = algorithm()
    env = "goals/BitFlip" if isinstance(made, DQN) else GOAL
    with pytest.raises(OptionError, match=r"data\.hindsight|compute_reward"):
        fit(made, make_data(env, hindsight=Hindsight()))


def test_ppo_has_no_replay_to_relabel() -> None:
    with pytest.raises(OptionError, match="rollouts"):
        fit(PPO(), make_data("goals/BitFlip", hindsight=Hindsight()))
