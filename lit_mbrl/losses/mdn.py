"""Losses of World Models: of its autoencoder and of mixtures of Gaussians, one per number of the code."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def vae_loss(
    decoded: Float[Tensor, "*B C h w"],
    image: Float[Tensor, "*B C h w"],
    kl: Float[Tensor, "*B 1"],
    free_nats: float,
) -> Float[Tensor, "*B 1"]:
    """Squared error of the image, summed, plus the divergence, of which `free_nats` cost nothing (the public code)."""
    return (decoded - image).square().flatten(-3).sum(-1, keepdim=True) + kl.clamp(min=free_nats)


def mixture_nll(
    log_weight: Float[Tensor, "*B Z K"],
    mean: Float[Tensor, "*B Z K"],
    log_std: Float[Tensor, "*B Z K"],
    target: Float[Tensor, "*B Z"],
) -> Float[Tensor, "*B 1"]:
    """Minus the log likelihood of each number under its own mixture, the mean over the Z numbers.

    `-log sum_k w_k N(z; mean_k, std_k)` (Bishop 1994; arXiv 1803.10122, appendix A.2).
    """
    standard = (target.unsqueeze(-1) - mean) * (-log_std).exp()
    log_prob = log_weight - 0.5 * standard.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    return -torch.logsumexp(log_prob, -1).mean(-1, keepdim=True)
