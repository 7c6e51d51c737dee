"""The world model of Dreamer and PlaNet: an RSSM between an encoder and a decoder, with heads for what agents need."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbrl.models.rssm import RSSM, Latent, Posterior, TimeOrder
from lit_mbrl.networks.conv import ConvDecoder, ConvEncoder, normalize_image, quantize_image
from lit_mbrl.networks.mlp import MLP


class LatentWorldModel(nn.Module):
    """The verbs of a world model in latent space.

    | verb | in | out |
    |---|---|---|
    | `prepare` | observation, uint8 images or vectors | what encoder and decoder are about, float32 |
    | `encode` | prepared observation `[..., *O]` | embedding `[..., E]` |
    | `observe` | embeddings `[B, T, E]`, actions `[B, T, A]` | `Posterior`: posterior states and both distributions |
    | `img_step` | state `[N, ...]`, action `[N, A]` | the next state `[N, ...]`, from the prior |
    | `decode` | state | mean of the prepared observation `[..., *O]` |
    | `reward` | features `[..., F]` | `[..., 1]`, the reward of arriving in the state |
    | `termination` | features `[..., F]` | logit `[..., 1]` of the episode having ended in it; None without the head |

    Args:
        observation_shape: `[C, 64, 64]` for images, `[O]` for vectors.
        action_dim: A.
        deter: D of the `RSSM`.
        stoch: S of the `RSSM`.
        hidden: width of the `RSSM`'s layers.
        depth: of the convolutions; for vectors the encoder's and decoder's two layers are `heads[0]` wide.
        heads: hidden layers of the reward head.
        termination_heads: hidden layers of the termination head; None: there is no such head.
        time_order: of the `RSSM`.
        decode_from_stoch: show the decoder the stochastic part only (MaxEnt Dreamer, arXiv 2112.01195v1, section 4.2,
            minor modification 3).
        activation: of all layers but the convolutions, which have ReLU; Dreamer's is ELU, PlaNet's ReLU.
        bits: of the images' colours that are kept; PlaNet keeps 5.
    """

    def __init__(
        self,
        observation_shape: Sequence[int],
        action_dim: int,
        deter: int,
        stoch: int,
        hidden: int,
        depth: int,
        heads: Sequence[int],
        termination_heads: Sequence[int] | None = None,
        time_order: TimeOrder = "act_first",
        decode_from_stoch: bool = False,
        activation: type[nn.Module] = nn.ELU,
        bits: int = 8,
    ) -> None:
        super().__init__()
        self.pixels, self.event_dims = len(observation_shape) == 3, len(observation_shape)
        self.decode_from_stoch, self.bits = decode_from_stoch, bits
        self.feature_dim = feature_dim = stoch + deter
        decoded = stoch if decode_from_stoch else feature_dim
        if self.pixels:
            self.encoder: nn.Module = ConvEncoder(observation_shape[0], depth)
            self.decoder: nn.Module = ConvDecoder(decoded, observation_shape[0], depth)
            embed_dim = 32 * depth
        else:
            width, (size,) = heads[0], observation_shape
            self.encoder = MLP(size, [width, width], width, activation)
            self.decoder = MLP(decoded, [width, width], size, activation)
            embed_dim = width
        self.rssm = RSSM(action_dim, embed_dim, deter, stoch, hidden, time_order=time_order, activation=activation)
        self.reward_head = MLP(feature_dim, heads, 1, activation)
        self.termination_head = (
            None if termination_heads is None else MLP(feature_dim, termination_heads, 1, activation)
        )

    def prepare(self, observation: Tensor, dither: bool = True) -> Tensor:
        """uint8 images to [-0.5, 0.5]; vectors as they are.

        Args:
            dither: where colours have fewer bits, add noise as wide as a bin; otherwise take the middle of the bin.
        """
        if not self.pixels:
            return observation
        return normalize_image(observation) if self.bits == 8 else quantize_image(observation, self.bits, dither)

    def encode(self, observation: Tensor) -> Tensor:
        """All images in one pass, whatever axes are before theirs."""
        if not self.pixels:
            return self.encoder(observation)
        axes = observation.shape[: -self.event_dims]
        return self.encoder(observation.flatten(0, -self.event_dims - 1)).unflatten(0, axes)

    def observe(self, embed: Tensor, action: Tensor) -> Posterior:
        """Filters whole sequences, with fresh noise."""
        return self.rssm.observe(embed, action, self.rssm.noise(*embed.shape[:2]))

    def img_step(self, latent: Latent, action: Tensor) -> Latent:
        """One step of the prior, with fresh noise."""
        return self.rssm.img_step(latent, action, self.rssm.noise(len(action)))

    def decode(self, latent: Latent) -> Tensor:
        """The observation as the model sees it before it looks."""
        seen = latent.stoch if self.decode_from_stoch else latent.feature
        if not self.pixels:
            return self.decoder(seen)
        return self.decoder(seen.flatten(0, -2)).unflatten(0, seen.shape[:-1])

    def reward(self, feature: Tensor) -> Tensor:
        """Mean reward `[..., 1]`."""
        return self.reward_head(feature)

    def termination(self, feature: Tensor) -> Tensor | None:
        """Logit `[..., 1]`."""
        return None if self.termination_head is None else self.termination_head(feature)

    def termination_prob(self, feature: Tensor) -> Tensor:
        """`d(s) [..., 1]`; zeros without the head."""
        logit = self.termination(feature)
        return torch.zeros_like(feature[..., :1]) if logit is None else logit.sigmoid()
