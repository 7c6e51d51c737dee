"""The line at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lit_mbrl.app.output import summary

METRICS = {"eval/return": torch.tensor(1.25), "eval/return_std": torch.tensor(0.5)}


@pytest.mark.parametrize(("window", "how"), [(True, "validate"), (False, "video")])
def test_the_best_checkpoint_is_watched_where_there_is_a_window_and_filmed_elsewhere(
    window: bool, how: str, work: Path
) -> None:
    folder = work / "runs" / "a run"
    (folder / "checkpoints").mkdir(parents=True)
    assert summary("Finished", METRICS, folder, window) == "Finished, eval return 1.2 +- 0.5."
    for name in ("last", "best"):
        (folder / "checkpoints" / f"{name}.ckpt").touch()
    line = summary("Finished", METRICS, folder, window)
    assert "checkpoints/{last,best}.ckpt" in line
    assert f"python -m lit_mbrl {how} --ckpt_path 'runs/a run/checkpoints/best.ckpt'" in line
    assert ("render_mode=human" in line) is window
