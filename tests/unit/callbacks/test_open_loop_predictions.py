"""Strips: which pictures are asked for, where they go, and that training does not notice."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.callbacks import OpenLoopPredictions
from lit_mbrl.callbacks.open_loop_predictions import save_strip
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import everything, fit
from tests.helpers.sequence_learner import LIGHT, Remembers, make_sequences


class Imagines(Remembers):
    """Reconstructs in full and imagines a grey world, with noise that nobody else shall notice."""

    def reconstruct(self, sequence: TensorDictBase, context: int) -> dict[str, Tensor]:
        torch.randn(3)
        seen = sequence["observation"]
        grey = torch.full_like(seen, 100)
        grey[:, :context] = seen[:, :context]
        assert sequence["is_first"][0, 0] and not grey.requires_grad
        return {"reconstruction": seen, "imagined": grey}


def test_a_strip_per_evaluation_and_no_other_difference(tmp_path: Path) -> None:
    found = []
    for callbacks in ([], [OpenLoopPredictions(context=2)]):
        algorithm, data = Imagines(), make_sequences(LIGHT)
        fit(algorithm, data, *callbacks, default_root_dir=tmp_path)
        found.append(everything(algorithm, data))
    assert sorted(path.name for path in (tmp_path / "strips").iterdir()) == ["40.png", "60.png"]
    assert all(torch.equal(found[0][key].float(), found[1][key].float()) for key in found[0])


def test_some_evaluations_only(tmp_path: Path) -> None:
    fit(Imagines(), make_sequences(LIGHT), OpenLoopPredictions(every=2, context=2), default_root_dir=tmp_path)
    assert [path.name for path in (tmp_path / "strips").iterdir()] == ["60.png"]


def test_an_episode_without_an_imagined_part_has_no_strip(tmp_path: Path) -> None:
    fit(Imagines(), make_sequences(LIGHT), OpenLoopPredictions(context=12, length=20), default_root_dir=tmp_path)
    assert not (tmp_path / "strips").exists()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_rows_of_a_strip(channels: int, tmp_path: Path) -> None:
    """Reality is bright, and what is imagined is as bright: the difference is grey everywhere."""
    reality = torch.full((1, 30, channels, 16, 16), 200, dtype=torch.uint8)
    black = torch.zeros_like(reality)
    save_strip(reality, {"reconstruction": black, "imagined": reality}, 5, tmp_path / "strip.png")
    picture = (255 * matplotlib.image.imread(tmp_path / "strip.png")[..., :3]).round().astype(int)
    colours, counts = zip(*_counts(picture), strict=True)
    shares = dict(zip(colours, counts, strict=True))
    # Two rows of reality, one of black and one of grey; ticks, labels and the line take some.
    assert shares[(200,) * 3] == pytest.approx(2 * shares[(0,) * 3], rel=0.1)
    assert shares[(128,) * 3] == pytest.approx(shares[(0,) * 3], rel=0.1)


def _counts(picture: object) -> list[tuple[tuple[int, ...], int]]:
    pixels = torch.as_tensor(picture).reshape(-1, 3)
    values, counts = pixels.unique(dim=0, return_counts=True)
    return [(tuple(value), count) for value, count in zip(values.tolist(), counts.tolist(), strict=True)]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--trainer.callbacks.length=3: expected more than context=5"):
        OpenLoopPredictions(length=3)
    with pytest.raises(
        OptionError, match="--trainer.callbacks=OpenLoopPredictions: expected an algorithm whose world model"
    ):
        fit(Remembers(), make_sequences(), OpenLoopPredictions(), default_root_dir=tmp_path)
    with pytest.raises(OptionError, match="--trainer.callbacks=OpenLoopPredictions: expected data.env.pixels; for"):
        fit(Imagines(), make_sequences("Pendulum-v1"), OpenLoopPredictions(), default_root_dir=tmp_path)
