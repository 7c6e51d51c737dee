"""A run that is interrupted and resumed gives the same numbers, bit for bit, as one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.frames import ALGORITHMS
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data


def compare(name: str, rounds: int, path: Path, **options: object) -> None:
    whole, whole_data = ALGORITHMS[name](), make_data(**options)
    whole.normalize_observations = True
    fit(whole, whole_data)

    first = ALGORITHMS[name]()
    first.normalize_observations = True
    with pytest.raises(Stop):
        fit(first, make_data(**options), SaveAndStop(path, rounds))
    second, second_data = ALGORITHMS[name](), make_data(**options)
    second.normalize_observations = True
    fit(second, second_data, seed=12345, ckpt_path=path)  # another seed: everything comes from the checkpoint

    expected, found = everything(whole, whole_data), everything(second, second_data)
    assert expected.keys() == found.keys()
    different = [key for key in expected if not torch.equal(expected[key].float(), found[key].float())]
    assert not different
    assert second.trainer.current_epoch == whole.trainer.current_epoch


@pytest.mark.parametrize(
    "name", ["sac", "td3", "ddpg", "naf", "sac_svg", "sac_svg_ensemble", "mve_svg", "steve_sac", "mve_ddpg"]
)
def test_resume_in_the_middle_of_an_epoch(name: str, tmp_path: Path) -> None:
    compare(name, 9, tmp_path / "run.ckpt")


@pytest.mark.parametrize("rounds", [1, 16, 35])  # the first round, an epoch's last, the run's last but one
def test_resume_at_borders(rounds: int, tmp_path: Path) -> None:
    compare("sac", rounds, tmp_path / "run.ckpt")


@pytest.mark.parametrize("env", ["HalfCheetah-v5", "poplin/Swimmer", "MountainCarContinuous-v0", "mbpo/Hopper"])
def test_resume_in_other_environments(env: str, tmp_path: Path) -> None:
    compare("sac", 9, tmp_path / "run.ckpt", env=env)


def test_resume_with_environments_side_by_side_and_a_full_replay(tmp_path: Path) -> None:
    compare("sac_svg", 20, tmp_path / "run.ckpt", num_envs=2, frames_per_batch=4, capacity=30, utd_ratio=0.75)


def test_resume_with_the_replay_on_disk(tmp_path: Path) -> None:
    options = {"storage": "memmap"}
    whole, whole_data = ALGORITHMS["sac"](), make_data(**options)
    fit(whole, whole_data, default_root_dir=tmp_path / "whole")
    assert list((tmp_path / "whole" / "replay").rglob("*.memmap"))
    run = {"default_root_dir": tmp_path / "run"}
    with pytest.raises(Stop):
        fit(ALGORITHMS["sac"](), make_data(**options), SaveAndStop(tmp_path / "run.ckpt", 9), **run)
    # In the folder of the run, whose files hold frames from after the checkpoint.
    second, second_data = ALGORITHMS["sac"](), make_data(**options)
    fit(second, second_data, ckpt_path=tmp_path / "run.ckpt", **run)
    expected, found = everything(whole, whole_data), everything(second, second_data)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
