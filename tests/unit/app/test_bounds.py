"""Bounds are options, and what they change is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_mbrl.algorithms import SAC
from lit_mbrl.app.cli import main
from lit_mbrl.utils.errors import OptionError
from tests.helpers.command_line import SAC as RUN


def test_a_clipped_observation_is_warned_of_once(work: Path, capfd: pytest.CaptureFixture) -> None:
    options = ["--trainer.default_root_dir=a", "--model.normalize_observations=[0.1,0.2]"]
    assert main([*RUN, *options]) == 0
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("warning"))
    assert "of 3 observations is outside of [0.1, 0.2] and is clipped, that of number 2 is " in line
    assert main([*RUN, "--trainer.default_root_dir=b", "--model.normalize_observations=[1e-6,1e6]"]) == 0
    assert "warning" not in capfd.readouterr().err


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_bounds_that_are_none(bounds: tuple[float, float]) -> None:
    with pytest.raises(OptionError, match="--model.normalize_observations=.*expected true, false or the lowest and"):
        SAC(normalize_observations=bounds)
