"""PlaNet: its divergence, its plans, and that an evaluation repeats itself."""

from __future__ import annotations

from typing import Any

import torch

from lit_mbrl.algorithms import PlaNet
from lit_mbrl.losses import gaussian_kl
from lit_mbrl.planners import CEM
from tests.helpers.latents import build, sequences

SMALL_PLANNER = CEM(horizon=3, num_candidates=64, num_elites=8, iterations=4)


def test_free_nats_are_taken_off_every_step() -> None:
    algorithm, batch = build(PlaNet, free_nats=0.1), sequences()
    model = algorithm.world_model
    observed = model.observe(model.encode(batch["observation"]), batch["action"])
    kl = gaussian_kl(observed.mean, observed.std, observed.prior_mean, observed.prior_std)
    expected = sum(max(value - 0.1, 0.0) for value in kl.flatten().tolist()) / kl.numel()
    found = algorithm.kl_loss(observed, torch.mean).item()
    assert abs(found - expected) < 1e-6
    assert abs(found - max(kl.mean().item() - 0.1, 0.0)) > 1e-6  # Dreamer's


def test_only_the_model_is_trained() -> None:
    algorithm = build(PlaNet)
    (update,) = algorithm.update_list
    update.compute_loss(sequences(), {}).backward()
    assert update.name == "model" and update.lr == 1e-3 and update.max_grad_norm == 1000.0
    assert all(p.grad is not None for p in algorithm.parameters())
    assert algorithm.configure_optimizers()[0].param_groups[0]["eps"] == 1e-4


def test_plans_find_the_rewarded_action(monkeypatch: Any) -> None:
    """The state is the sum of the actions so far, and the reward its closeness to 0.9 in the first component."""
    algorithm = build(PlaNet, planner=SMALL_PLANNER)
    model, latent = algorithm.world_model, algorithm.world_model.rssm.initial(2)

    def img_step(state: Any, action: torch.Tensor) -> Any:
        return type(state)(state.deter, torch.nn.functional.pad(action, (0, 2)))

    monkeypatch.setattr(model, "img_step", img_step)
    monkeypatch.setattr(model, "reward", lambda feature: -(feature[..., :1] - 0.7).square())
    action = algorithm.plan(latent)
    assert action.shape == (2, 2) and (action[:, 0] - 0.7).abs().max() < 0.1


def test_an_evaluation_repeats_itself_and_takes_no_random_numbers() -> None:
    algorithm = build(PlaNet, planner=SMALL_PLANNER)
    observation, new = torch.randn(2, 3), torch.ones(2, 1, dtype=torch.bool)
    state = torch.random.get_rng_state()
    first = algorithm.act(observation)
    assert torch.equal(algorithm.act(observation), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert algorithm.explore(observation, new).abs().max() <= 1.0
    assert not torch.equal(algorithm.explore(observation, new), algorithm.explore(observation, new))
