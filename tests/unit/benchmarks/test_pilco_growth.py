from __future__ import annotations

from pathlib import Path

import matplotlib.image

from benchmarks.studies.pilco_growth import draw, make, seconds


def test_the_model_has_the_points_and_the_horizon_that_are_asked_for() -> None:
    algorithm = make(30, 5)
    assert algorithm.kernels is not None and algorithm.kernels.points.shape == (4, 30, 6)
    assert algorithm.horizon == 5


def test_more_steps_take_longer() -> None:
    assert 0 < seconds(20, 2, 2) < seconds(20, 20, 2)


def test_the_curves_are_drawn(tmp_path: Path) -> None:
    draw({10: 0.1, 100: 1.0}, {5: 0.1, 50: 1.0}, 5, 10, tmp_path / "time.png")
    picture = matplotlib.image.imread(tmp_path / "time.png")[..., :3]
    assert ((picture[..., 2] > picture[..., 0] + 0.2).mean()) > 0.001
