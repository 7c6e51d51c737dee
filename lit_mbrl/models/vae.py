"""The variational autoencoder of World Models (Ha and Schmidhuber 2018, arXiv 1803.10122, appendix A.1).

Four convolutions with kernels of 4 and strides of 2 (`d`, `2d`, `4d`, `8d` channels, ReLU) lead to mean and log
variance of `z`; a linear layer and four transposed convolutions (kernels 5, 5, 6, 6) with a sigmoid lead back. With
`d = 32`, `Z = 32` and three colours these are the 4,348,547 parameters of the paper's table.
"""

from __future__ import annotations

from torch import Tensor, nn


class VAE(nn.Module):
    """Images uint8 `[..., C, 64, 64]` to a Gaussian over `z`, and back.

    Args:
        channels: C.
        latent: Z, numbers of a code.
        depth: `d`, channels of the first convolution.
    """

    def __init__(self, channels: int = 3, latent: int = 32, depth: int = 32) -> None:
        super().__init__()
        self.latent, d = latent, depth
        self.encoder = nn.Sequential(
            *(nn.Conv2d(channels, d, 4, 2), nn.ReLU(), nn.Conv2d(d, 2 * d, 4, 2), nn.ReLU()),
            *(nn.Conv2d(2 * d, 4 * d, 4, 2), nn.ReLU(), nn.Conv2d(4 * d, 8 * d, 4, 2), nn.ReLU(), nn.Flatten()),
        )
        self.mean, self.log_var = nn.Linear(32 * d, latent), nn.Linear(32 * d, latent)
        self.decoder = nn.Sequential(
            *(nn.Linear(latent, 32 * d), nn.Unflatten(1, (32 * d, 1, 1))),
            *(nn.ConvTranspose2d(32 * d, 4 * d, 5, 2), nn.ReLU(), nn.ConvTranspose2d(4 * d, 2 * d, 5, 2), nn.ReLU()),
            *(nn.ConvTranspose2d(2 * d, d, 6, 2), nn.ReLU(), nn.ConvTranspose2d(d, channels, 6, 2), nn.Sigmoid()),
        )

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and std `[..., Z]` of the codes of images `[..., C, 64, 64]`, uint8 or in [0, 1]."""
        axes = image.shape[:-3]
        hidden = self.encoder(unit_image(image).reshape(-1, *image.shape[-3:]))
        mean, log_var = self.mean(hidden), self.log_var(hidden)
        return mean.unflatten(0, axes), (0.5 * log_var).exp().unflatten(0, axes)

    def decode(self, z: Tensor) -> Tensor:
        """Returns images `[..., C, 64, 64]` in [0, 1]."""
        return self.decoder(z.reshape(-1, self.latent)).unflatten(0, z.shape[:-1])


def unit_image(image: Tensor) -> Tensor:
    """Scales uint8 images to [0, 1]; others are there already."""
    return image if image.is_floating_point() else image.float() / 255.0
