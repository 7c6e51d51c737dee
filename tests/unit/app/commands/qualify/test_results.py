"""Evaluations and statistics on curves made by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml

from lit_mbrl.app.commands.qualify.random_policy import random_returns
from lit_mbrl.app.commands.qualify.report import write_results
from lit_mbrl.app.commands.qualify.results import Evaluations, deep_fall_back, read_evaluations, summarize
from lit_mbrl.envs import EnvConfig
from lit_mbrl.reports.statistics import interval
from lit_mbrl.utils.errors import UsageError


def curve(*returns: float, threshold: float = -250.0, total: int | None = None, seconds: float = 1.0) -> Evaluations:
    steps = tuple(500 * i for i in range(1, len(returns) + 1))
    return Evaluations(steps, returns, threshold, seconds, steps[-1] if total is None else total)


def test_a_curve_that_falls_back_and_recovers() -> None:
    run = curve(-1500, -240, -700, -260, -180, -250)
    assert run.as_dict() == {
        "final": -250,
        "best": -180,
        "reached": True,  # at the threshold
        "first_reached_at": 1000,
        "fall_backs": 2,
        "worst_fall_back": -700,
        "seconds": 1.0,
        "env_steps": [500, 1000, 1500, 2000, 2500, 3000],
        "returns": [-1500, -240, -700, -260, -180, -250],
    }


def test_a_curve_that_never_gets_there() -> None:
    run = curve(-1500, -300, -251)
    assert not run.reached and run.first_reached_at is None and run.fall_backs == () and run.final == run.returns[-1]


def test_a_return_that_is_no_number_is_not_reached_and_is_a_fall_back() -> None:
    run = curve(-100, math.nan)
    assert not run.reached and len(run.fall_backs) == 1


def test_a_run_is_finished_with_the_evaluation_at_its_last_step() -> None:
    assert curve(-1, -2, total=1000).finished and curve(-1, -2, total=998).finished
    assert not curve(-1, -2, total=1001).finished


def test_deep_is_a_quarter_of_the_way_back_to_random() -> None:
    assert deep_fall_back(-250, -1250) == -500
    assert deep_fall_back(475, 75) == 375


def test_summary_of_seeds() -> None:
    finals = [-100, -110, -120, -130, -140, -150, -160, -170, -180, -600]
    runs = [curve(-1200, -90, value, seconds=60 + i) for i, value in enumerate(finals)]
    runs[0] = curve(-90, -501, -100, seconds=60)  # deep, and back
    runs[1] = curve(-90, -500, -110, seconds=61)  # not deeper than a quarter
    found = summarize(runs, 10, -250, -1250)
    assert (found["seeds"], found["failed"], found["reached"], found["share"]) == (10, 0, 9, 0.9)
    assert found["qualified"] and found["below_floor"] == 0
    assert found["deep_fall_backs"] == 2  # the first, and the last, which ends at -600
    assert found["mean"] == pytest.approx(np.mean(finals)) and found["worst"] == -600
    assert found["iqm"] == pytest.approx(np.mean(sorted(finals)[2:8]))
    for kind in ("mean", "iqm"):
        assert found[f"{kind}_interval_95"] == list(interval(np.array(finals), kind))
    assert found["median_seconds"] == 64.5


@pytest.mark.parametrize(
    ("reached", "planned", "qualified"),
    [(9, 10, True), (8, 10, False), (18, 20, True), (17, 20, False), (2, 2, True), (1, 2, False), (63, 70, True)],
)
def test_nine_of_ten(reached: int, planned: int, qualified: bool) -> None:
    runs = [curve(-1.0)] * reached + [curve(-900.0)] * (planned - reached)
    assert summarize(runs, planned, -250, -1250)["qualified"] is qualified


def test_failed_runs_and_those_below_the_floor() -> None:
    good = [curve(-100.0)] * 18
    assert summarize(good, 20, -250, -1250)["failed"] == 2 and summarize(good, 20, -250, -1250)["qualified"]
    found = summarize([*good, curve(-399.0), curve(-401.0)], 20, -250, -1250, floor=-400)
    assert (found["reached"], found["below_floor"], found["qualified"]) == (18, 1, False)
    nothing = summarize([], 3, -250, -1250)
    assert nothing["failed"] == 3 and not nothing["qualified"] and "mean" not in nothing


def test_evaluations_are_read_from_the_run_folder(tmp_path: Path) -> None:
    assert read_evaluations(tmp_path, 0.0) is None  # there is no run yet
    config = {
        "seed_everything": 3,
        "model": {"class_path": "lit_mbrl.algorithms.SAC", "init_args": {}},
        "data": {"class_path": "lit_mbrl.data.OffPolicy", "init_args": {"env": {"name": "A-v0"}, "total_frames": 300}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_evaluations(tmp_path, 0.0) is None
    (tmp_path / "metrics.csv").write_text("step,eval/return,time/seconds,loss/critic\n50,,0.5,1\n")
    assert read_evaluations(tmp_path, 0.0) is None
    rows = "150,-2,1.5,\n200,,2,1\n300,,3.0,1\n300,4,3.25,\n"
    (tmp_path / "metrics.csv").write_text("step,eval/return,time/seconds,loss/critic\n50,,0.5,1\n" + rows)
    assert read_evaluations(tmp_path, 1.0) == Evaluations((150, 300), (-2.0, 4.0), 1.0, 3.25, 300)
    (tmp_path / "config.yaml").write_text("data: 3\n")
    with pytest.raises(UsageError, match=r"config.yaml: expected the config.yaml of a run"):
        read_evaluations(tmp_path, 1.0)


class Square(gym.Env):
    """Ten steps with the square of the action in [-3, 1] as reward."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Box(-3.0, 1.0, (1,), np.float32)

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.left = 10
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.left -= 1
        return np.zeros(1, np.float32), self.scale * float(action[0]) ** 2, self.left == 0, False, {}


@pytest.fixture
def square() -> str:
    gym.register("Square-v0", Square)
    return "Square-v0"


def test_random_actions_are_uniform_in_the_environment_s_own_space(square: str) -> None:
    returns = random_returns(EnvConfig(square), 400)
    # E[a^2] = (1 + 27) / 12 = 7/3 and E[a^4] = (1 + 243) / 20 = 12.2 for a uniform in [-3, 1].
    std = math.sqrt(10 * (12.2 - (7 / 3) ** 2))
    assert returns.shape == (400,)
    assert returns.mean() == pytest.approx(70 / 3, abs=4 * std / 20)  # by chance outside once in 15 000 times
    assert returns.std() == pytest.approx(std, rel=0.15)
    np.testing.assert_array_equal(returns[:5], random_returns(EnvConfig(square), 5))
    evaluation = EnvConfig(square, eval_kwargs={"scale": 2.0}).eval_config()
    np.testing.assert_array_equal(random_returns(evaluation, 3), 2 * returns[:3])


def test_paths_of_an_earlier_command_stay_in_the_file(tmp_path: Path) -> None:
    common = {"config": "sac", "environment": "Pendulum-v1", "total_frames": 6000, "eval_episodes": 10}
    common |= {"threshold": -250.0, "floor": None}

    def results(path: str, reached: int, **other: object) -> dict:
        summary = {"reached": reached, "seeds": 10, "qualified": reached >= 9}
        verdict = {"reached": reached, "runs": 10, "qualified": reached >= 9}
        commands = {path: f"qualify sac --paths={path}"}
        return common | {"paths": {path: {"summary": summary}}, "commands": commands, "verdict": verdict} | other

    write_results(tmp_path, results("native", 10))
    write_results(tmp_path, results("compiled", 8))
    file = write_results(tmp_path, results("compiled", 9))
    both = json.loads(file.read_text())
    assert list(both["paths"]) == list(both["commands"]) == ["native", "compiled"]
    assert both["verdict"] == {"reached": 19, "runs": 20, "qualified": True}
    for other in ({"total_frames": 4000}, {"floor": -400.0}, {"threshold": -200.0}):
        write_results(tmp_path, results("native", 10))
        alone = json.loads(write_results(tmp_path, results("compiled", 9, **other)).read_text())
        assert list(alone["paths"]) == ["compiled"]
