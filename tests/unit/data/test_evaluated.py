"""Evaluation in another environment than that of training (`data.env.eval_kwargs`)."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_mbrl.algorithms import SAC
from lit_mbrl.app.cli import main
from lit_mbrl.app.csv_logger import CsvLogger
from lit_mbrl.data import OffPolicy
from lit_mbrl.envs import EnvConfig
from lit_mbrl.utils.errors import OptionError
from tests.helpers.command_line import SAC as RUN
from tests.helpers.runs import SHORT, fit
from tests.helpers.toys import TOY


def make_data(**options: Any) -> OffPolicy:
    """Episodes of two steps in training and of up to 40 in evaluation."""
    return OffPolicy(EnvConfig(TOY, {"longest": 2}, eval_kwargs={"longest": 40}), **(SHORT | options))


def test_both_environments_are_evaluated(tmp_path: Path) -> None:
    data = make_data(eval_episodes=6)
    found: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    evaluate = data.evaluate

    def spy(name: str = "") -> Any:
        episodes = evaluate(name)
        found[name == "train_levels"].append(episodes)
        return episodes

    data.evaluate = spy  # type: ignore[method-assign]
    trainer = fit(SAC(hidden_sizes=[8, 8]), data, logger=CsvLogger(tmp_path))
    assert len(found[True]) == len(found[False]) == 2  # one of each per epoch
    assert all((episodes["mask"].sum(-1) == 2).all() for episodes in found[True])
    assert all((episodes["mask"].sum(-1) > 2).any() for episodes in found[False])
    # The log has each of them under its own name.
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for as_trained, name in ((False, "eval/return"), (True, "eval/train_levels_return")):
        logged = [float(row[name]) for row in rows if row[name]]
        sums = [(each["next", "reward"].squeeze(-1) * each["mask"]).sum(-1) for each in found[as_trained]]
        assert logged == pytest.approx([float(returns.mean()) for returns in sums], rel=1e-5)
    assert float(trainer.callback_metrics["eval/episode_length"]) > 2
    assert data._eval_envs == {}  # closed


def test_runs_of_neighbouring_seeds_are_evaluated_on_other_episodes() -> None:
    data, seeds = make_data(), []
    for run_seed in range(10, 30):
        torch.manual_seed(run_seed)
        for data.env_steps in (0, 500, 1000):
            seeds += [data.evaluation_seed + episode for episode in range(data.eval_episodes)]
            assert data.evaluation_seed == data.evaluation_seed  # a resumed run finds the same
    assert len(set(seeds)) == len(seeds) == 20 * 3 * data.eval_episodes


def test_there_is_one_evaluation_without_the_option() -> None:
    data = OffPolicy(EnvConfig(TOY, {"longest": 2}), **SHORT)
    trainer = fit(SAC(hidden_sizes=[8, 8]), data)
    assert "eval/return" in trainer.callback_metrics
    assert not [name for name in trainer.callback_metrics if "train_levels" in name]


def test_arguments_are_added_to_those_of_training() -> None:
    config = EnvConfig("x", {"a": 1, "b": 2}, max_episode_steps=7, num_envs=3, eval_kwargs={"b": 3})
    assert config.eval_config() == EnvConfig("x", {"a": 1, "b": 3}, max_episode_steps=7, num_envs=3)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (5, "--data.env.eval_kwargs=5: expected a mapping of constructor arguments or null"),
        ({}, "--data.env.eval_kwargs={}: expected a mapping of constructor arguments, or null"),
        ({"max_episode_steps": 3}, "--data.env.eval_kwargs=.*: expected max_episode_steps one level up"),
    ],
)
def test_wrong_options(value: Any, line: str) -> None:
    with pytest.raises(OptionError, match=line):
        EnvConfig(TOY, eval_kwargs=value)


def test_another_task_in_evaluation_is_told_before_the_run() -> None:
    data = OffPolicy(EnvConfig("Ant-v5", eval_kwargs={"include_cfrc_ext_in_observation": False}), **SHORT)
    with pytest.raises(OptionError, match=r"--data.env.eval_kwargs=.*: expected observations \[105\] .*, not \[27\]"):
        data.check()
    data = OffPolicy(EnvConfig(TOY, eval_kwargs={"longst": 3}), **SHORT)
    with pytest.raises(OptionError, match=r"--data.env.kwargs=.*longst.*: expected arguments that"):
        data.check()


def test_evaluate_plays_in_the_environment_of_evaluation(work: Path, capfd: pytest.CaptureFixture) -> None:
    """`python -m lit_mbrl evaluate`: as many episodes as asked for, none of training's."""
    env = [f"--data.env.name={TOY}", "--data.env.kwargs={longest: 2}", "--data.env.eval_kwargs={longest: 40}"]
    assert main([*RUN, *env]) == 0
    (checkpoint,) = work.rglob("last.ckpt")
    capfd.readouterr()
    assert main(["evaluate", f"--ckpt_path={checkpoint}", "--episodes=7", "--json"]) == 0
    lengths = json.loads(capfd.readouterr().out)["episode_lengths"]
    assert len(lengths) == 7 and max(lengths) > 2
