"""Shapes are enforced while testing only: the hook wraps the pure functions before anything imports them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook(["lit_mbrl.losses", "lit_mbrl.returns", "lit_mbrl.imagination"], "beartype.beartype")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Every test starts from the same torch seed."""
    torch.manual_seed(0)
    return 0


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that `conf/` is the package's and `runs/` is ours."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of SAC. Copy it before changing it."""
    from lit_mbrl.app.cli import main
    from tests.helpers.command_line import SAC

    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main([*SAC, f"--trainer.default_root_dir={folder}"]) == 0
    return folder
