"""The network of small images, and the convolutional LSTM beside loops."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_mbrl.algorithms import A2C
from lit_mbrl.app.cli import main
from lit_mbrl.envs import Spec
from lit_mbrl.networks import ConvLSTM, Grid, GridEncoder, ImpalaEncoder
from tests.helpers.command_line import NO_WANDB, tiny


def test_features_of_images_of_any_batch_shape() -> None:
    torch.manual_seed(0)
    net = GridEncoder(convolutions=[4, 6], units=8).build((3, 5, 4))
    image = torch.randint(256, (2, 3, 3, 5, 4), dtype=torch.uint8)
    features = net(image)
    assert features.shape == (2, 3, 8) and (features >= 0).all() and features.any()
    torch.testing.assert_close(features[1, 2], net(image[1, 2]))
    sizes = [tuple(p.shape) for p in net.parameters()]
    assert sizes == [(4, 3, 3, 3), (4,), (6, 4, 3, 3), (6,), (8, 6 * 20), (8,)]


@torch.no_grad()
def test_a_convolutional_lstm_is_the_plain_one() -> None:
    torch.manual_seed(0)
    net, maps = ConvLSTM(2, 3, numbers=2).double(), torch.randn(2, 4, 2, 5, 4, dtype=torch.float64)
    numbers = torch.randn(2, 4, 2, dtype=torch.float64)

    def at(weight: Tensor, x: Tensor, i: int, j: int) -> Tensor:
        total = torch.zeros(len(weight), dtype=torch.float64)
        for a in (-1, 0, 1):
            for b in (-1, 0, 1):
                if 0 <= i + a < x.shape[1] and 0 <= j + b < x.shape[2]:
                    total += weight[:, :, a + 1, b + 1] @ x[:, i + a, j + b]
        return total

    for row in range(2):
        h, c = torch.zeros(2, 3, 5, 4, dtype=torch.float64)
        for t in range(4):
            after = torch.zeros_like(h)
            for i in range(5):
                for j in range(4):
                    gates = at(net.input.weight, maps[row, t], i, j) + net.input.bias + at(net.state.weight, h, i, j)
                    gates += net.numbers.weight @ numbers[row, t]
                    write, keep, show, new = gates.split(3)
                    c[:, i, j] = keep.sigmoid() * c[:, i, j] + write.sigmoid() * new.tanh()
                    after[:, i, j] = show.sigmoid() * c[:, i, j].tanh()
            h = after
        torch.testing.assert_close(net(maps, numbers)[row], h)


@pytest.mark.parametrize(
    ("option", "kind"), [(None, "Impala"), (ImpalaEncoder(features=8), "Impala"), (GridEncoder(units=8), "Grid")]
)
def test_an_agent_takes_either_encoder(option: ImpalaEncoder | GridEncoder | None, kind: str) -> None:
    algorithm = A2C(encoder=option)
    algorithm.configure(Spec("made up", 3 * 8 * 8, 3, discrete=True, observation_shape=(3, 8, 8)))
    assert type(algorithm.encoder).__name__ == kind
    assert isinstance(algorithm.encoder, Grid) is (kind == "Grid")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("{convolutions: [4], unit: 3}", "--model.encoder.unit: GridEncoder has no such option"),
        ("{units: 4, features: 3}", "--model.encoder.features: GridEncoder has no such option"),
        ("{convolutions: [0]}", "--model.encoder"),
    ],
)
def test_a_wrong_encoder_is_told_in_one_line(
    given: str, line: str, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    run = ["fit", "--config", "conf/a2c.yaml", *tiny("a2c"), NO_WANDB, f"--trainer.default_root_dir={tmp_path}/run"]
    assert main([*run, f"--model.encoder={given}"]) == 2
    err = capfd.readouterr().err
    assert f"error: {line}" in err and err.count("\n") == 1
