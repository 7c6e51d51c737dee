"""The environment model of I2A: its blocks beside loops, its classes, and that it learns a small game."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mbrl.losses import class_loss, frame_loss
from lit_mbrl.models import Cells, CopyModel, FrameModel, to_planes
from lit_mbrl.models.frame_model import PoolAndInject, pool_and_inject

REWARDS = (-0.1, 0.9, -1.1, 10.9, 9.9)


def plain_pool_and_inject(x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    out = torch.zeros(n, 2 * channels, height, width, dtype=x.dtype)
    for row in range(n):
        for c in range(channels):
            most = max(x[row, c, i, j].item() for i in range(height) for j in range(width))
            for i in range(height):
                for j in range(width):
                    out[row, c, i, j] = x[row, c, i, j]
                    out[row, channels + c, i, j] = most
    return out


def plain_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Zeros around, so that the size stays."""
    n, _, height, width = x.shape
    half = weight.shape[-1] // 2
    out = torch.zeros(n, len(weight), height, width, dtype=x.dtype)
    for row in range(n):
        for o in range(len(weight)):
            for i in range(height):
                for j in range(width):
                    total = bias[o].clone()
                    for a in range(-half, half + 1):
                        for b in range(-half, half + 1):
                            if 0 <= i + a < height and 0 <= j + b < width:
                                total += weight[o, :, a + half, b + half] @ x[row, :, i + a, j + b]
                    out[row, o, i, j] = total
    return out


@torch.no_grad()
def test_a_block_is_the_plain_one() -> None:
    torch.manual_seed(0)
    block, x = PoolAndInject(3, 2, 4, kernel=5).double(), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(pool_and_inject(x), plain_pool_and_inject(x))
    paths = []
    for path in (block.wide, block.narrow):
        y = plain_pool_and_inject(x)
        for layer in (path[0], path[2]):
            y = plain_convolution(y, layer.weight, layer.bias).clamp(min=0)
        paths.append(y)
    expected = x + plain_convolution(torch.cat(paths, 1), block.merge.weight, block.merge.bias)
    torch.testing.assert_close(block(x), expected.clamp(min=0))


@torch.no_grad()
def test_actions_are_planes_of_ones_beside_the_frame() -> None:
    torch.manual_seed(0)
    model = FrameModel(3, 4, REWARDS, channels=5, wide=2, narrow=2, blocks=1, kernel=3)
    planes, action = to_planes(torch.randint(3, (6, 4, 5)), 3), torch.tensor([0, 1, 2, 3, 1, 0])
    whole = torch.cat([planes, F.one_hot(action, 4).float()[..., None, None].expand(-1, -1, 4, 5)], 1)
    x = model.blocks(F.relu(model.first(whole)))
    found = model(planes, action)
    torch.testing.assert_close(found.frame, model.frame(x))
    assert found.frame.shape == (6, 3, 4, 5) and found.reward.shape == (6, len(REWARDS))


@pytest.mark.parametrize("reward", REWARDS)
def test_rewards_find_their_class_however_they_are_rounded(reward: float) -> None:
    model = FrameModel(2, 2, REWARDS, channels=2, wide=1, narrow=1)
    noisy = torch.tensor([reward, reward + 1e-5, torch.tensor(reward).half().item()])
    assert model.reward_class(noisy).tolist() == [REWARDS.index(reward)] * 3


def test_copies_are_the_frames_themselves() -> None:
    cells = torch.randint(5, (3, 4, 4), dtype=torch.uint8)
    frame, reward = CopyModel().step(to_planes(cells, 5), torch.zeros(3, dtype=torch.long))
    assert torch.equal(frame, cells) and not reward.any()


def test_classes_of_planes_and_of_colours() -> None:
    cells = torch.randint(3, (2, 4, 5), dtype=torch.uint8)
    planes = (to_planes(cells, 3) * 255).to(torch.uint8)
    assert torch.equal(Cells()(planes), cells) and bool(Cells().known(planes).all())
    palette = [(0, 0, 0), (243, 248, 238), (243, 0, 238)]
    coloured = Cells(palette)
    image = torch.tensor(palette, dtype=torch.uint8)[cells.long()].movedim(-1, -3)
    assert torch.equal(coloured(image), cells) and bool(coloured.known(image).all())
    image[0, 1, 2, 3] = 7
    planes[1, :, 0, 0] = 0
    assert coloured.known(image).logical_not().nonzero().tolist() == [[0, 2, 3]]
    assert Cells().known(planes).logical_not().nonzero().tolist() == [[1, 0, 0]]


def test_learns_a_game_whose_reward_is_far_away() -> None:
    """A dot moves to the left or to the right between walls; a lamp in the corner says whether the last cell pays."""
    torch.manual_seed(0)
    model = FrameModel(3, 2, (0.0, 1.0), channels=16, wide=4, narrow=8, blocks=2, kernel=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def play(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        place, action, lamp = torch.randint(7, (count,)), torch.randint(2, (count,)), torch.randint(2, (count,))
        after = (place + 2 * action - 1).clamp(0, 6)
        cells = torch.zeros(2, count, 3, 7, dtype=torch.uint8)
        for frame, where in zip(cells, (place, after), strict=True):
            frame[torch.arange(count), 2, where] = 1
            frame[:, 0, 0] = 2 * lamp.to(torch.uint8)
        return cells[0], action, cells[1], ((after == 6) & (lamp == 1)).float()

    for _ in range(600):
        cells, action, following, reward = play(64)
        predicted = model(to_planes(cells, 3), action)
        losses = frame_loss(predicted.frame, following)
        losses = losses + class_loss(predicted.reward, model.reward_class(reward.unsqueeze(-1)))
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    cells, action, following, reward = play(500)
    frame, reward_class = model.step(to_planes(cells, 3), action)
    assert (frame == following).flatten(1).all(1).float().mean() > 0.99
    assert (model.rewards[reward_class.long()] == reward).float().mean() > 0.99
