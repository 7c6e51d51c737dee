"""What a run is measured by apart from environment steps, across a resume, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.frames import ALGORITHMS
from tests.helpers.runs import SaveAndStop, Stop, fit, make_data


# 36 rounds of batches of 8; TD3's actor takes part in every second round.
@pytest.mark.parametrize(
    ("name", "policy_updates", "model_rollouts"),
    [
        ("sac", 36, None),
        ("td3", 18, None),
        ("sac_svg", 36, 36 * 8),
        ("mve_svg", 36, 2 * 36 * 8),
        ("steve", 36, 2 * 36 * 8),
    ],
)
def test_policy_updates_and_model_rollouts(
    name: str, policy_updates: int, model_rollouts: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "run.ckpt"
    first = ALGORITHMS[name]()
    with pytest.raises(Stop):
        fit(first, make_data(), SaveAndStop(path, 9))
    resumed = ALGORITHMS[name]()
    fit(resumed, make_data(), ckpt_path=path)
    metrics = resumed.progress_metrics()
    assert metrics["time/train_steps"] == 36
    assert metrics["time/policy_updates"] == policy_updates
    assert metrics.get("time/model_rollouts") == model_rollouts


def test_seconds_go_on_from_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    first = ALGORITHMS["sac"]()
    with pytest.raises(Stop):
        fit(first, make_data(), SaveAndStop(path, 9))
    checkpoint = torch.load(path, weights_only=True)
    assert 0 < checkpoint["progress"]["wall_time"] < first.wall_time
    checkpoint["progress"]["wall_time"] = 1000.0
    torch.save(checkpoint, path)
    second = ALGORITHMS["sac"]()
    fit(second, make_data(), ckpt_path=path)
    assert 1000.0 < second.progress_metrics()["time/seconds"] < 1100.0
