"""Learning on small tasks (slow): several seeds, and a threshold that chance does not reach.

On Pendulum-v1 a uniformly random policy returns -1233 with a standard deviation of 290 over episodes (5000 episodes;
the best mean of ten was -994), and doing nothing -1204 with one of 350. A mean of ten above -250 takes a swing-up.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lit_mbrl.app.cli import main

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("config", ["sac", "td3", "ddpg", "naf", "sac_svg", "mve", "mve_svg", "ivg"])
def test_swing_up(config: str, seed: int, tmp_path: Path) -> None:
    options = [f"--seed_everything={seed}", f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false"]
    assert main(["fit", "--config", f"conf/{config}.yaml", *options]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        returns = [float(row["eval/return"]) for row in csv.DictReader(file) if row["eval/return"]]
    assert returns[0] < -500  # it was not there from the start
    assert max(returns[-3:]) > -250


@pytest.mark.parametrize("seed", [0, 1, 30])
def test_swing_up_with_imagination(seed: int, tmp_path: Path) -> None:
    """NAF swings up within 2 000 steps after the warm-up, and still does long after imagination was switched off."""
    options = [f"--seed_everything={seed}", f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false"]
    assert main(["fit", "--config", "conf/naf_imagination.yaml", *options]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        returns = [float(row["eval/return"]) for row in csv.DictReader(file) if row["eval/return"]]
    assert returns[1] > -250 and returns[-1] > -250


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("config", ["pets", "poplin_a", "poplin_p"])
def test_plan_within_ten_trials(config: str, seed: int, tmp_path: Path) -> None:
    """pets/CartPole pays at most 1 per step for 200 steps; a trial with random actions returns between -10 and 10."""
    options = [f"--seed_everything={seed}", f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false"]
    options += ["--data.epoch_frames=2000", "--trainer.log_every_n_steps=25"]  # the trials' own returns are looked at
    assert main(["fit", "--config", f"conf/{config}.yaml", *options]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        returns = [float(row["train/return"]) for row in csv.DictReader(file) if row["train/return"]]
    assert returns[0] < 50  # random actions
    assert max(returns[1:]) > 150


@pytest.mark.parametrize("seed", [1, 10])
def test_swing_up_within_eight_trials(seed: int, tmp_path: Path) -> None:
    """A pole that stands from the first step on has 75, one that swings through about 20, and random actions 0."""
    options = [f"--seed_everything={seed}", f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false"]
    assert main(["fit", "--config", "conf/pilco.yaml", *options]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float([row["eval/return"] for row in rows if row["eval/return"]][-1]) > 40
    assert float([row["policy/cost_gap"] for row in rows if row["policy/cost_gap"]][-1]) < 0.1


@pytest.mark.parametrize("config", ["mbpo", "memr"])
def test_balance(config: str, tmp_path: Path) -> None:
    """InvertedPendulum-v5 pays 1 per step, 1000 at most; random actions fall after about 6 steps."""
    options = ["--seed_everything=0", f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false"]
    assert main(["fit", "--config", f"conf/{config}.yaml", *options]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        returns = [float(row["eval/return"]) for row in csv.DictReader(file) if row["eval/return"]]
    assert returns[0] < 200  # it was not there from the start
    assert max(returns[-3:]) > 800


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_push_to_a_place(seed: int, tmp_path: Path) -> None:
    """goals/PointMass: random actions return -62 with a standard deviation of 27 over episodes, and rest -54."""
    options = [f"--seed_everything={seed}", f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false"]
    assert main(["fit", "--config", "conf/tdm.yaml", *options]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        evaluations = [row for row in csv.DictReader(file) if row["eval/return"]]
    assert max(float(row["eval/return"]) for row in evaluations[-3:]) > -10  # the mean of twenty
    assert min(float(row["eval/final_distance"]) for row in evaluations[-3:]) < 0.1
