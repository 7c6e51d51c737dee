"""The recurrent state-space model: what each state has seen, and sequences against single steps."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from lit_mbrl.models import LatentWorldModel, Posterior, TimeOrder

ORDERS = get_args(TimeOrder)
B, T, A, S, D = 3, 5, 2, 4, 6


def make(time_order: TimeOrder, shape: tuple[int, ...] = (7,), stoch_only: bool = False) -> LatentWorldModel:
    return LatentWorldModel(shape, A, D, S, 8, 2, [8, 8], [8], time_order, stoch_only)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    action = torch.randn(B, T, A)
    action[:, 0] = 0.0  # nothing has led to the first observation of an episode
    return torch.randn(B, T, 7), action, torch.randn(B, T, S)


def filtered(model: LatentWorldModel, observation: Tensor, action: Tensor, noise: Tensor) -> Posterior:
    return model.rssm.observe(model.encode(observation), action, noise)


@pytest.mark.parametrize("time_order", ORDERS)
def test_observing_a_sequence_is_observing_step_by_step(time_order: TimeOrder) -> None:
    model = make(time_order)
    observation, action, noise = inputs()
    observed = filtered(model, observation, action, noise)
    embed = model.encode(observation)
    latent = model.rssm.initial(B)
    stale = type(latent)(latent.deter + 1.0, latent.stoch - 1.0)  # of the episode before, to be forgotten
    latent, features = stale, []
    for t in range(T):
        is_first = torch.full((B, 1), t == 0)
        last = action[:, t] + 5.0 * (t == 0)  # so is its last action
        latent = model.rssm.obs_step(latent, last, embed[:, t], is_first, noise[:, t])
        features.append(latent.feature)
    torch.testing.assert_close(observed.latent.feature, torch.stack(features, 1)[:, model.rssm.first :])


@pytest.mark.parametrize("time_order", ORDERS)
@pytest.mark.parametrize("t", [2, T - 1])
def test_what_a_state_has_seen(time_order: TimeOrder, t: int) -> None:
    """The prior at t knows the action that led there but not the observation; nothing knows the future."""
    model = make(time_order)
    observation, action, noise = inputs()
    before = filtered(model, observation, action, noise)
    i = t - model.rssm.first

    def changed(first: Tensor, second: Tensor) -> list[bool]:
        return [bool((first[:, k] != second[:, k]).any()) for k in range(first.shape[1])]

    other = observation.clone()
    other[:, t] += 1.0
    after = filtered(model, other, action, noise)
    steps = T - model.rssm.first
    assert changed(before.mean, after.mean) == [k >= i for k in range(steps)]
    assert changed(before.prior_mean, after.prior_mean) == [k > i for k in range(steps)]
    other = action.clone()
    other[:, t] += 1.0
    after = filtered(model, observation, other, noise)
    assert changed(before.prior_mean, after.prior_mean) == [k >= i for k in range(steps)]
    assert changed(before.latent.deter, after.latent.deter) == [k >= i for k in range(steps)]


def test_only_the_rearranged_order_starts_without_the_cell_and_only_the_blind_one_ignores_the_first_image() -> None:
    observation, action, noise = inputs()
    other = observation.clone()
    other[:, 0] += 1.0
    for time_order, deter_is_zero, sees in (
        ("act_first", False, True),
        ("observe_first", True, True),
        ("blind_start", False, False),
    ):
        model = make(time_order)
        observed, after = filtered(model, observation, action, noise), filtered(model, other, action, noise)
        assert bool((observed.latent.deter[:, 0] == 0).all()) == deter_is_zero
        assert bool((observed.mean != after.mean).any()) == sees
        assert observed.mean.shape == (B, T - (not sees), S)


def test_imagining_follows_the_prior() -> None:
    model = make("act_first")
    observation, action, noise = inputs()
    observed = filtered(model, observation, action, noise)
    latent = type(observed.latent)(*(value[:, 1] for value in observed.latent))
    imagined = model.rssm.img_step(latent, action[:, 2], torch.zeros(B, S))
    torch.testing.assert_close(imagined.deter, observed.latent.deter[:, 2])
    torch.testing.assert_close(imagined.stoch, observed.prior_mean[:, 2])


def test_the_decoder_may_see_the_stochastic_part_alone() -> None:
    for stoch_only in (False, True):
        model = make("observe_first", stoch_only=stoch_only)
        latent = filtered(model, *inputs()).latent
        deter = latent.deter.detach().requires_grad_()
        stoch = latent.stoch.detach().requires_grad_()
        decoded = model.decode(type(latent)(deter, stoch)).sum()
        to_deter, to_stoch = torch.autograd.grad(decoded, [deter, stoch], allow_unused=True)
        assert (to_deter is None) == stoch_only and to_stoch.abs().sum() > 0


@pytest.mark.parametrize("time_order", ORDERS)
def test_images_go_through_all_verbs(time_order: TimeOrder) -> None:
    model = make(time_order, (3, 64, 64))
    image = model.prepare(torch.randint(0, 256, (B, T, 3, 64, 64), dtype=torch.uint8))
    assert image.dtype == torch.float32 and image.min() >= -0.5 and image.max() <= 0.5
    observed = model.observe(model.encode(image), torch.randn(B, T, A))
    assert model.decode(observed.latent).shape == (B, T - model.rssm.first, 3, 64, 64)
    feature = observed.latent.feature
    assert model.reward(feature).shape == model.termination(feature).shape == (*feature.shape[:2], 1)
