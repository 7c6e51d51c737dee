"""Runs and evaluations from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lit_mbrl
from lit_mbrl.app import CONF
from lit_mbrl.utils.errors import UsageError
from tests.helpers.command_line import TINY

OPTIONS = dict(option.removeprefix("--").split("=", 1) for option in TINY)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lit_mbrl.Run:
    folder = tmp_path_factory.mktemp("runs") / "sac"
    return lit_mbrl.fit(
        "conf/sac.yaml",
        seed_everything=3,
        model={"gamma": 0.9},
        **OPTIONS,
        **{"trainer.logger": None, "trainer.default_root_dir": folder},
    )


def test_a_run_has_its_folder_its_metrics_and_its_agent(run: lit_mbrl.Run) -> None:
    assert (run.folder / "checkpoints" / "last.ckpt").is_file()
    assert run.metrics["eval/return"] < 0.0
    agent = run.agent()
    assert agent.algorithm.gamma == 0.9
    assert agent.act(np.zeros(3, np.float32)).shape == (1,)


def test_evaluation_is_the_command_s(run: lit_mbrl.Run) -> None:
    found = lit_mbrl.evaluate(run.folder, episodes=3)
    assert found["episodes"] == 3 and len(found["returns"]) == 3 and found["algorithm"] == "SAC"
    assert found["return"]["mean"] == pytest.approx(np.mean(found["returns"]))


def test_a_run_goes_on_from_its_checkpoint_alone(run: lit_mbrl.Run, tmp_path: Path) -> None:
    options = {"trainer.default_root_dir": tmp_path / "more", "data.total_frames": np.int64(80), "trainer.logger": None}
    more = lit_mbrl.fit(ckpt_path=run.folder / "checkpoints" / "last.ckpt", **options)
    assert more.folder == tmp_path / "more" and more.agent().algorithm.env_steps == 80


def test_a_script_s_checkpoint_is_evaluated_beside_a_config(tmp_path: Path) -> None:
    from lit_mbrl.algorithms import SAC
    from tests.helpers.runs import fit, make_data

    path = tmp_path / "sac.ckpt"
    fit(SAC(hidden_sizes=[8, 8]), make_data()).save_checkpoint(path)
    options = {"config": "conf/sac.yaml", "model.hidden_sizes": [8, 8], "data.env.max_episode_steps": 5}
    assert lit_mbrl.evaluate(path, episodes=2, **options)["episode_length"]["mean"] == 5


def test_a_mistake_is_an_exception_with_the_command_line_s_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--model.gamma=2.0: expected"):
        lit_mbrl.fit("conf/sac.yaml", model={"gamma": 2.0}, **{"trainer.default_root_dir": tmp_path / "x"})
    assert not (tmp_path / "x").exists()


def test_the_names_are_there_and_nothing_is_imported_for_them() -> None:
    code = (
        "import sys, lit_mbrl; names = dir(lit_mbrl); assert {'load', 'fit', 'evaluate', 'make_env'} <= set(names);"
        "assert 'SAC' in lit_mbrl.list_algorithms(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_the_script_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of the Lightning way, with fewer steps."""
    monkeypatch.chdir(tmp_path)
    page = (CONF.parent / "docs" / "python.md").read_text()
    script = page.partition("## The Lightning way")[2].partition("```python")[2].partition("```")[0]
    quiet = (
        "Trainer(max_epochs=-1, accelerator='cpu', logger=False, enable_progress_bar=False, enable_checkpointing=False"
    )
    for there, tiny in (
        ("5_000, epoch_frames=1_000, learning_starts=500", "60, epoch_frames=30, learning_starts=20, batch_size=8"),
        ("Trainer(max_epochs=-1", quiet),
        ("[64, 64]", "[8]"),
    ):
        assert there in script
        script = script.replace(there, tiny)
    names: dict[str, Any] = {}
    exec(compile(script, "docs/python.md", "exec"), names)
    assert names["sac"].hidden_sizes == (8,)
    assert lit_mbrl.load("sac.ckpt").act(np.zeros(3, np.float32)).shape == (1,)
