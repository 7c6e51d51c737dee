"""Procgen's games: the pool's bookkeeping with an engine of our own, and envpool itself where it is installed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from lit_mbrl.envs import EnvConfig, VectorEnv, describe, make_gym
from lit_mbrl.envs.spec import PixelConfig
from lit_mbrl.envs.tasks.procgen_games import GAMES, ProcgenPool, names
from lit_mbrl.utils.errors import OptionError

FRUITBOT = "procgen/fruitbot-easy"


def installed() -> bool:
    """Whether Procgen runs here: the package and its system library."""
    try:
        make_gym(FRUITBOT).close()
    except OptionError:
        return False
    return True


needs_envpool = pytest.mark.skipif(not installed(), reason="Procgen is not installed: pip install '.[procgen]', Qt 5")


class CountingEngine:
    """envpool's rules for a game whose copy i ends its k-th episode after `3 + (seed + k) % 4` steps.

    Pixels tell copy, episode and step; the reward is the step's number. A step of a finished copy begins its next
    episode and ignores the action.
    """

    def __init__(self, env_seed: list[int]) -> None:
        self.seeds, count = np.array(env_seed), len(env_seed)
        self.episode, self.t = np.full(count, -1), np.zeros(count, int)
        self.over = np.ones(count, bool)

    def _observe(self, rows: np.ndarray) -> np.ndarray:
        pictures = np.zeros((len(rows), 3, 64, 64), np.uint8)
        for picture, row in zip(pictures, rows, strict=True):
            picture[:] = np.array([row, self.episode[row], self.t[row]])[:, None, None]
        return pictures

    def reset(self, rows: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        self.episode[rows] += 1
        self.t[rows], self.over[rows] = 0, False
        return self._observe(rows), {"env_id": rows, "level_seed": self.episode[rows]}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = np.arange(len(actions))
        assert not self.over.any(), "this step would have been lost to a reset"
        self.t += 1
        self.over = self.t >= 3 + (self.seeds + self.episode) % 4
        return self._observe(rows), self.t.astype(np.float32), self.over.copy(), np.zeros(len(rows), bool), {}

    def close(self) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An `envpool` whose games are `CountingEngine`s."""
    module = ModuleType("envpool")
    module.make = lambda task, **options: CountingEngine(options["env_seed"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "envpool", module)


def test_all_games_in_both_modes() -> None:
    assert len(GAMES) == 16 and len(names()) == 32
    assert {FRUITBOT, "procgen/coinrun-hard"} <= set(names())


@pytest.mark.usefixtures("engine")
def test_spec() -> None:
    spec = describe(EnvConfig(FRUITBOT))
    assert spec.observation_shape == (3, 64, 64) and spec.pixels
    assert spec.discrete and spec.action_dim == 15 and spec.max_episode_steps == 1000
    assert describe(EnvConfig("procgen/maze-hard", max_episode_steps=700)).max_episode_steps == 500


@pytest.mark.usefixtures("engine")
def test_every_step_is_a_step_of_the_game() -> None:
    """Over many episodes of different lengths: first and last observations, returns and lengths, none of them lost."""
    env = VectorEnv(EnvConfig(FRUITBOT, num_envs=5), seed=0)
    frames = env.rollout(60, break_when_any_done=False)
    for row in range(5):
        episode, t = 0, 0
        for frame in frames[row]:
            seen, following = frame["observation"][:, 0, 0], frame["next", "observation"][:, 0, 0]
            assert seen.tolist() == [row, episode, t]
            assert following.tolist() == [row, episode, t + 1]
            assert float(frame["next", "reward"]) == t + 1
            t += 1
            length = 3 + (row + episode) % 4
            assert bool(frame["next", "terminated"]) == (t == length)
            if t == length:
                episode, t = episode + 1, 0
        assert episode > 8


@pytest.mark.usefixtures("engine")
def test_a_shorter_limit_truncates() -> None:
    frames = VectorEnv(EnvConfig(FRUITBOT, max_episode_steps=4, num_envs=4), seed=0).rollout(
        40, break_when_any_done=False
    )
    done = frames["next", "done"].squeeze(-1)
    lengths = frames["next", "observation"][done][:, 2, 0, 0]
    truncated = frames["next", "truncated"].squeeze(-1)
    assert set(lengths.tolist()) == {3, 4}
    # An episode that ends by itself in its last allowed step is terminated.
    assert (frames["next", "observation"][truncated][:, 2, 0, 0] == 4).all() and truncated.any()
    assert not (truncated & frames["next", "terminated"].squeeze(-1)).any()


@pytest.mark.usefixtures("engine")
def test_seeds_are_given_to_all_or_to_none() -> None:
    pool = ProcgenPool(EnvConfig(FRUITBOT), 3)
    pool.reset(None, [7, 8, 9])
    assert pool._games.seeds.tolist() == [7, 8, 9]
    only = pool.reset(np.array([False, True, False]), [None] * 3)
    assert pool._games.seeds.tolist() == [7, 8, 9] and pool._games.episode.tolist() == [0, 1, 0]
    assert not only[[0, 2]].any() and only[1].any()
    pool.reset(None, [2**31 + 1, 2, 3])
    assert pool._games.seeds.tolist() == [1, 2, 3] and pool._games.episode.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="all of its copies at once"):
        pool.reset(np.array([True, False, False]), [4, 5, 6])


@pytest.mark.parametrize(
    ("name", "kwargs", "line"),
    [
        ("procgen/fruitbt-easy", {}, "--data.env.name=procgen/fruitbt-easy: .*did you mean 'procgen/fruitbot-easy'"),
        ("procgen/fruitbot", {}, "--data.env.name=procgen/fruitbot: expected one of Procgen's games"),
        (FRUITBOT, {"num_level": 50}, "--data.env.kwargs.num_level=50: .*did you mean 'num_levels'"),
        (FRUITBOT, {"num_levels": -1}, "--data.env.kwargs.num_levels=-1: expected an integer >= 0"),
        (FRUITBOT, {"num_levels": True}, "--data.env.kwargs.num_levels=True: expected an integer >= 0"),
        (FRUITBOT, {"use_backgrounds": 1}, "--data.env.kwargs.use_backgrounds=1: expected true or false"),
        (FRUITBOT, {"render_mode": "human"}, "--data.env.kwargs.render_mode=human: expected rgb_array"),
    ],
)
@pytest.mark.usefixtures("engine")
def test_a_wrong_option_is_one_line(name: str, kwargs: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        describe(EnvConfig(name, kwargs))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"action_repeat": 2}, "--data.env.action_repeat=2: expected 1 for procgen/fruitbot-easy"),
        ({"pixels": PixelConfig()}, "--data.env.pixels=.*: expected null for procgen/fruitbot-easy"),
    ],
)
def test_options_of_other_environments_are_refused(options: dict[str, Any], line: str) -> None:
    for make in (describe, lambda config: VectorEnv(config, seed=0)):
        with pytest.raises(OptionError, match=line):
            make(EnvConfig(FRUITBOT, **options))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(OptionError, match=r"pip install 'lit-mbrl\[procgen\]'.*apt install libqt5gui5"):
        describe(EnvConfig(FRUITBOT))


def test_without_the_system_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(task: str, **options: Any) -> None:
        raise ImportError("EnvPool Procgen requires the system Qt 5 runtime on Linux.")

    module = ModuleType("envpool")
    module.make = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "envpool", module)
    with pytest.raises(OptionError, match="its system library Qt 5 is missing .*apt install libqt5gui5") as error:
        describe(EnvConfig(FRUITBOT))
    assert "pip" not in str(error.value)


@pytest.mark.usefixtures("engine")
def test_pictures() -> None:
    env = make_gym(FRUITBOT, render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (384, 384, 3) and picture.dtype == np.uint8
    assert (picture[::6, ::6] == observation.transpose(1, 2, 0)).all()
    assert make_gym(FRUITBOT).render() is None


@pytest.mark.usefixtures("engine")
def test_a_single_game_is_a_copy_of_the_pool() -> None:
    env = make_gym(FRUITBOT)
    _, info = env.reset(seed=2)
    assert info == {"level_seed": 0}
    steps = [env.step(7) for _ in range(5)]
    assert [step[0][:, 0, 0].tolist() for step in steps] == [[0, 0, t] for t in range(1, 6)]
    assert [step[1:4] for step in steps] == [(float(t), t == 5, False) for t in range(1, 6)]
    assert all(type(step[1]) is float and type(step[2]) is type(step[3]) is bool for step in steps)
    assert env.reset()[0][:, 0, 0].tolist() == [0, 1, 0]


# ---------------------------------------------------------------------- envpool itself
def play(num_envs: int = 4, seed: int = 3, steps: int = 400, workers: bool = False, **kwargs: Any) -> Any:
    """Frames of random play `[num_envs, steps]` with actions of their own seed."""
    env = VectorEnv(EnvConfig(FRUITBOT, kwargs, num_envs=num_envs, workers=workers), seed=seed)
    generator = torch.Generator().manual_seed(0)
    frames = env.rollout(
        steps,
        lambda td: td.set("action", torch.randint(15, (num_envs,), generator=generator)),
        break_when_any_done=False,
    )
    env.close()
    return frames


@needs_envpool
def test_random_play_is_envpool_s_own_without_the_frames_that_ignore_their_action() -> None:
    import envpool

    frames, count, steps = play(num_levels=50), 4, 400
    games = envpool.make(
        "FruitbotEasy-v0", env_type="gymnasium", num_envs=count, num_threads=1, env_seed=[3, 4, 5, 6], num_levels=50
    )
    generator = torch.Generator().manual_seed(0)
    observation, _ = games.reset()
    ours = frames["next"]
    episodes = 0
    for t in range(steps):
        action = torch.randint(15, (count,), generator=generator).numpy().astype(np.int32)
        assert (frames["observation"][:, t].numpy() == observation).all()
        observation, reward, terminated, truncated, _ = games.step(action)
        assert (ours["observation"][:, t].numpy() == observation).all()
        assert (ours["reward"][:, t, 0].numpy() == reward).all()
        assert (ours["terminated"][:, t, 0].numpy() == terminated).all()
        assert (ours["truncated"][:, t, 0].numpy() == truncated).all()
        finished = np.flatnonzero(terminated | truncated).astype(np.int32)
        if len(finished):  # envpool's own reset, one step of the finished copies
            first, zero, *_, info = games.step(np.zeros(len(finished)), finished)
            assert (info["elapsed_step"] == 0).all() and (zero == 0).all()
            observation = observation.copy()
            observation[info["env_id"]] = first
            episodes += len(finished)
    assert episodes > 10


@needs_envpool
def test_levels_are_the_ones_asked_for() -> None:
    for start, count in ((0, 5), (500, 3)):
        pool = ProcgenPool(EnvConfig(FRUITBOT, {"start_level": start, "num_levels": count}), 16)
        pool.reset(None, list(range(16)))
        levels = set(pool.level_seeds)
        for _ in range(5):
            pool.reset(None, [None] * 16)
            levels |= set(pool.level_seeds)
        assert levels == set(range(start, start + count))  # missing one by chance: below 1e-7


@needs_envpool
def test_same_seed_same_play() -> None:
    frames = play(num_levels=50, steps=120)
    for again in (play(num_levels=50, steps=120), play(num_levels=50, steps=120, workers=True)):
        assert (frames["next", "observation"] == again["next", "observation"]).all()
    other = play(num_levels=50, steps=120, seed=11)
    assert (frames["observation"][:, 0] != other["observation"][:, 0]).any()


@needs_envpool
def test_a_copy_s_first_level_follows_from_its_own_seed() -> None:
    """So that evaluation with more episodes begins with the same ones."""
    few, many = (ProcgenPool(EnvConfig(FRUITBOT, {"num_levels": 500}), count) for count in (2, 6))
    assert (few.reset(None, [5, 6]) == many.reset(None, [5, 6, 7, 8, 9, 10])[:2]).all()


@needs_envpool
@pytest.mark.parametrize("name", ["procgen/maze-easy", "procgen/coinrun-hard"])
def test_procgen_s_own_time_limit_truncates(name: str) -> None:
    pool = ProcgenPool(EnvConfig(name), 1)
    pool.reset(None, [1])
    limit = pool.spec.max_episode_steps
    noop = np.array([4])
    for _ in range(limit - 1):
        step = pool.step(noop)
        assert not (step.terminated | step.truncated).any()
    step = pool.step(noop)
    assert bool(step.truncated) and not bool(step.terminated)
