"""Dictionaries and one of n as vectors: the order, the columns, what is refused, and runs on them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Text, Tuple, flatten

from lit_mbrl.algorithms import PPO, SAC
from lit_mbrl.app.cli import main
from lit_mbrl.envs import EnvConfig, VectorEnv, describe, make_gym
from lit_mbrl.envs.wrappers.flat import FlatObservation, what_differs
from lit_mbrl.utils.errors import OptionError
from tests.helpers.command_line import run_folders
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data, make_rollouts
from tests.helpers.toys import GOAL


class Of(gym.Env):
    """An environment of this observation space, whose observations are samples of it."""

    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, space):
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}


def test_a_dictionary_is_its_entries_one_after_the_other():
    spec = describe(EnvConfig(GOAL))
    assert (spec.observation_dim, spec.states) == (6, None)
    assert spec.parts == {
        "achieved_goal": slice(0, 1),
        "desired_goal": slice(1, 2),
        "observation/phase": slice(2, 5),
        "observation/speed": slice(5, 6),
    }
    env = make_gym(GOAL)
    first, _ = env.reset(seed=3)
    goal = env.unwrapped._goal
    np.testing.assert_array_equal(first, np.array([0.0, goal, 1, 0, 0, 0.0], np.float32))
    then = env.step(np.array([0.5], np.float32))[0]
    assert then.dtype == np.float32
    np.testing.assert_array_equal(then, np.array([0.5, goal, 0, 1, 0, 0.5], np.float32))


def test_entries_can_be_chosen_and_ordered():
    config = EnvConfig(GOAL, observation_keys=["desired_goal", "achieved_goal"], num_envs=2)
    assert describe(config).parts == {"desired_goal": slice(0, 1), "achieved_goal": slice(1, 2)}
    env = VectorEnv(config, seed=0)
    frame = env.rollout(2)
    assert frame["observation"].shape == (2, 2, 2)
    assert frame["observation"][:, 0, 0].ne(0).all()  # goals
    assert frame["observation"][:, 0, 1].eq(0).all()  # the points at the start
    env.close()


@pytest.mark.parametrize(("name", "states"), [("FrozenLake-v1", 16), ("Taxi-v4", 500)])
def test_one_of_n_is_its_one_hot(name, states):
    spec = describe(EnvConfig(name))
    assert (spec.observation_dim, spec.states, spec.parts) == (states, states, {})
    env = make_gym(name)
    first, _ = env.reset(seed=0)
    assert first.sum() == 1.0
    assert first.argmax() == env.unwrapped.s
    env.close()


def test_tuples_and_nested_spaces_are_gymnasiums_flatten():
    inner = Tuple([Discrete(2, start=-1), Box(0, 9, (2, 2), np.int64)])
    space = Dict([("z", Box(-1.0, 1.0, (3,))), ("a", inner)])
    env = FlatObservation(Of(space), "mine")
    space.seed(5)
    first, _ = env.reset()
    space.seed(5)
    np.testing.assert_array_equal(first, flatten(space, space.sample()).astype(np.float32))
    assert env.parts == {"z": slice(0, 3), "a/0": slice(3, 5), "a/1": slice(5, 9)}


@pytest.mark.parametrize(
    ("space", "keys", "line"),
    [
        (Dict(camera=Box(0, 255, (8, 8, 3), np.uint8)), None, "observation 'camera' is Box"),
        (Dict(inner=Dict(word=Text(4))), None, "observation 'inner/word' is Text"),
        (Text(4), None, "its observation is Text"),
        (Box(-1.0, 1.0, (2,), np.float32), ["a"], "expected null: the observation of mine is no dictionary"),
        (Dict(goal=Discrete(2)), ["gaol"], "expected some of goal (did you mean 'goal'?)"),
    ],
)
def test_what_is_no_vector_is_refused_in_one_line(space, keys, line):
    with pytest.raises(OptionError) as error:
        FlatObservation(Of(space), "mine", keys)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keys", [[], ["a", "a"]])
def test_keys_are_some_and_different(keys):
    with pytest.raises(OptionError, match=r"--data.env.observation_keys=\[.*\]: expected different keys"):
        EnvConfig(GOAL, observation_keys=keys)


GOOD = {"speed": np.zeros(1), "phase": 1}


@pytest.mark.parametrize(
    ("observation", "problem"),
    [
        ({**GOOD}, None),
        ({**GOOD, "more": 1}, None),  # left out
        ({"speed": np.zeros(1)}, "observation is ['speed'], not a dictionary of ['phase', 'speed']"),
        (np.zeros(2), "observation is ndarray, not a dictionary"),
        ({**GOOD, "phase": 9}, "observation 'phase' is 9, which is not in Discrete(3, start=1)"),
        ({**GOOD, "speed": np.zeros(2)}, "observation 'speed' has shape [2], not [1]"),
        ({**GOOD, "speed": None}, "observation 'speed' is of object, not numbers"),
    ],
)
def test_what_differs_from_the_space_is_named(observation, problem):
    space = Dict({"speed": Box(-1.0, 1.0, (1,), np.float64), "phase": Discrete(3, start=1)})
    found = what_differs(space, observation)
    assert found is None if problem is None else found.startswith(problem)


def test_a_wrong_dictionary_in_the_middle_of_a_run_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["fit", "--model=SAC", "--data=OffPolicy", f"--data.env.name={GOAL}", "--data.env.kwargs={wrong_after: 7}"]
    argv += ["--data.total_frames=60", "--data.learning_starts=30", "--data.batch_size=8", "--trainer.logger=false"]
    assert main([*argv, "--trainer.callbacks+=lit_mbrl.callbacks.SoftTargetUpdate"]) == 1
    error = capsys.readouterr().err
    assert "step 7 of an episode: its observation is ['achieved_goal', 'observation'], not a dictionary of" in error
    assert "Traceback" not in error
    assert run_folders(tmp_path)


def test_sac_trains_on_a_dictionary_and_resumes_exactly(tmp_path):
    def train(*callbacks, **options):
        algorithm, data = SAC(hidden_sizes=[8]), make_data(GOAL)
        try:
            fit(algorithm, data, *callbacks, **options)
        except Stop:
            return {}
        return everything(algorithm, data)

    whole = train()
    assert whole["replay.observation"].shape[-1] == 6
    train(SaveAndStop(tmp_path / "middle.ckpt", 17))
    resumed = train(seed=1, ckpt_path=tmp_path / "middle.ckpt")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_ppo_takes_one_of_n():
    algorithm, data = PPO(hidden_sizes=[8]), make_rollouts("FrozenLake-v1")
    fit(algorithm, data)
    assert algorithm.env_steps == data.total_frames
    assert data.rollout["observation"].sum(-1).eq(1).all()
