"""The environment model of imagination-augmented agents: the next frame as classes of pixels, the reward as a class.

Weber et al. 2017 (arXiv 1707.06203v2), section 3.1 and appendix: the action's planes are put beside the frame's, a
stack of convolutions that keeps the frame's size looks at both, and two heads predict. The stack is of blocks that
*pool and inject*: the maximum of each channel over the whole frame is put beside that channel at every pixel, so that
what is far away counts, too, as a game that is over does.

    frame, action -> 1x1 convolution -> block -> block -> 1x1, 1x1: K logits of each pixel
                                                   +----> 1x1, ReLU, mean and maximum, linear: logits of each reward

A frame `[N, h, w]` of classes 0 ... K-1 (`cells`) is K `planes` `[N, K, h, w]` to networks, 1 where a pixel is of the
class, else 0. `N` rows, `K` classes, `A` actions, `R` rewards.

Departures: a block's wide kernel is as wide as the option says, where the paper's is as wide as the frame; its output
is added to its input, which the paper puts beside it. Both are smaller, for frames of a few pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import PositiveInt, Rule


@options(frozen=True, eq=True, repr=True)
class FrameModelConfig:
    """The sizes of a `FrameModel`, as a configuration says them; by default those of the paper's MiniPacman."""

    section: ClassVar[str] = "model.frame_model"

    channels: PositiveInt = 64
    """Channels of the stack, n3 of the paper."""
    wide: PositiveInt = 16
    """Channels of a block's path with a wide kernel, n1."""
    narrow: PositiveInt = 32
    """Channels of a block's path with a kernel of 3, n2."""
    blocks: PositiveInt = 2
    """Blocks."""
    kernel: Annotated[int, Rule("an odd integer > 0", lambda side: side > 0 and side % 2 == 1)] = 7
    """Side of the wide kernel."""

    def build(self, classes: int, actions: int, rewards: Sequence[float]) -> FrameModel:
        """The model of frames with so many classes."""
        sizes = self.channels, self.wide, self.narrow, self.blocks, self.kernel
        return FrameModel(classes, actions, rewards, *sizes)


class Prediction(NamedTuple):
    """Logits of the next frame's pixels `[N, K, h, w]` and of the reward `[N, R]`."""

    frame: Tensor
    reward: Tensor


def pool_and_inject(x: Tensor) -> Tensor:
    """Puts each channel's maximum over the frame beside it at every pixel, `[N, C, h, w]` to `[N, 2 C, h, w]`."""
    return torch.cat([x, x.amax((-2, -1), keepdim=True).expand_as(x)], 1)


class PoolAndInject(nn.Module):
    """A block of the environment model that keeps shapes: `x + f(pool_and_inject(x))`, `[N, C, h, w]`.

    Args:
        channels: C.
        wide: channels of the path with a wide kernel, n1 of the paper.
        narrow: channels of the path with a kernel of 3, n2.
        kernel: side of the wide kernel, odd.
    """

    def __init__(self, channels: int, wide: int, narrow: int, kernel: int = 7) -> None:
        super().__init__()
        self.wide = nn.Sequential(
            nn.Conv2d(2 * channels, wide, 1), nn.ReLU(), nn.Conv2d(wide, wide, kernel, padding=kernel // 2), nn.ReLU()
        )
        self.narrow = nn.Sequential(
            nn.Conv2d(2 * channels, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, narrow, 3, padding=1), nn.ReLU()
        )
        self.merge = nn.Conv2d(wide + narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        injected = pool_and_inject(x)
        return F.relu(x + self.merge(torch.cat([self.wide(injected), self.narrow(injected)], 1)))


class FrameModel(nn.Module):
    """Predicts the next frame and the reward of an action.

    Args:
        classes: K.
        actions: A.
        rewards: the rewards that there are, R of them.
        channels: of the stack, n3 of the paper.
        wide: see `PoolAndInject`.
        narrow: see `PoolAndInject`.
        blocks: in the stack.
        kernel: see `PoolAndInject`.

    Attributes:
        rewards: `[R]`.
    """

    rewards: Tensor

    def __init__(
        self,
        classes: int,
        actions: int,
        rewards: Sequence[float],
        channels: int = 64,
        wide: int = 16,
        narrow: int = 32,
        blocks: int = 2,
        kernel: int = 7,
    ) -> None:
        super().__init__()
        self.classes, self.actions = classes, actions
        self.register_buffer("rewards", torch.tensor(rewards), persistent=False)
        self.first = nn.Conv2d(classes + actions, channels, 1)
        self.blocks = nn.Sequential(*(PoolAndInject(channels, wide, narrow, kernel) for _ in range(blocks)))
        self.frame = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, classes, 1))
        self.reward_maps = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU())
        self.reward = nn.Linear(2 * channels, len(rewards))

    def forward(self, planes: Tensor, action: Tensor) -> Prediction:
        """Logits of what follows on frames `[N, K, h, w]` and actions `[N]`."""
        # A plane of ones for the action is a bias of its own: the same result without the planes.
        weight, bias = self.first.weight[:, :, 0, 0], self.first.bias
        x = F.conv2d(planes, self.first.weight[:, : self.classes], bias)
        x = F.relu(x + weight[:, self.classes :].t()[action][..., None, None])
        x = self.blocks(x)
        maps = self.reward_maps(x)
        return Prediction(self.frame(x), self.reward(torch.cat([maps.mean((-2, -1)), maps.amax((-2, -1))], -1)))

    def step(self, planes: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the most probable next frame `[N, h, w]` and the most probable reward `[N]`, classes, uint8."""
        frame, reward = self(planes, action)
        return frame.argmax(1).to(torch.uint8), reward.argmax(-1).to(torch.uint8)

    def reward_class(self, reward: Tensor) -> Tensor:
        """Returns the class of the nearest reward that there is, `[...]` int64."""
        return (reward.unsqueeze(-1) - self.rewards).abs().argmin(-1)


class CopyModel(nn.Module):
    """A model without prediction, of the paper's ablation: the next frame is this one, the reward that of class 0."""

    def step(self, planes: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `FrameModel.step`."""
        return planes.argmax(1).to(torch.uint8), torch.zeros(len(planes), dtype=torch.uint8, device=planes.device)


def to_planes(cells: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns the planes `[..., K, h, w]` of frames `[..., h, w]` of classes."""
    return (cells.unsqueeze(-3) == torch.arange(classes, device=cells.device)[:, None, None]).to(dtype)


class Cells(nn.Module):
    """Classes of the pixels of images `[..., C, h, w]` uint8: `[..., h, w]` uint8.

    Args:
        palette: colours `[K, C]` of the classes; None: a channel for each class, and the largest is a pixel's.
    """

    palette: Tensor | None

    def __init__(self, palette: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__()
        colours = None if palette is None else torch.tensor(palette, dtype=torch.uint8)
        self.register_buffer("palette", colours, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        if self.palette is None:
            return image.argmax(-3).to(torch.uint8)
        return self._matches(image, self.palette).to(torch.uint8).argmax(-3).to(torch.uint8)

    def known(self, image: Tensor) -> Tensor:
        """Returns of each pixel whether it is of exactly one class, bool `[..., h, w]`."""
        found = image > 0 if self.palette is None else self._matches(image, self.palette)
        return found.sum(-3) == 1

    def _matches(self, image: Tensor, palette: Tensor) -> Tensor:
        return (image.unsqueeze(-4) == palette[:, :, None, None]).all(-3)
